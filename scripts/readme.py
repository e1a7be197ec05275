"""Draws the README's picture and writes its generated tables anew, between their markers.

    python scripts/readme.py [--check]

With ``--check`` nothing is written, and the exit status is 1 when the catalogue is out of date. What was measured is
written by ``make bench``, at the end of a long run, and is not checked.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable

import picture
import speed
import tables

README = tables.ROOT / "README.md"
SECTIONS: dict[str, Callable[[], str]] = {"catalogue": tables.catalogue_table, "speed": speed.summary}


def written(text: str, names: Iterable[str] = SECTIONS) -> str:
    """The README with these sections, each between ``<!-- name -->`` and ``<!-- /name -->``, as they should be."""
    for name in names:
        make = SECTIONS[name]
        section = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", flags=re.DOTALL)
        if section.search(text) is None:
            raise ValueError(f"{README.name} has no section between <!-- {name} --> and <!-- /{name} -->")
        text = section.sub(lambda found, make=make: f"{found[1]}{make()}\n{found[2]}", text)
    return text


def main(arguments: list[str]) -> int:
    before = README.read_text()
    if arguments == ["--check"]:
        stale = before != written(before, ["catalogue"])
        if stale:
            print("README.md is out of date: make readme", file=sys.stderr)
        return int(stale)
    README.write_text(written(before))
    picture.save(tables.ROOT / "docs" / "images" / "patterns.png")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
