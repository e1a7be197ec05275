"""The pages of the documentation that are generated while it is built: patterns, command line, systems, benchmarks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import picture
import speed
import typer.main
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from tables import catalogue_table, table
from typer.core import TyperCommand

from fovea.cli.main import app
from fovea.cli.output import number
from fovea.patterns import parse
from fovea.systems import ledger
from fovea.systems.catalogue import catalogue
from fovea.systems.system import AREAS, System

LEDGER = Path(__file__).resolve().parents[1] / "benchmarks" / "ledger"

PATTERNS = {
    # class: (an example in its text form, grid, query, tiles of queries and keys)
    "Full": ("full", (16, 16), (5, 4), None),
    "Causal": ("causal", (24,), None, (4, 4)),
    "SlidingWindow": ("sliding:left=6,right=2", (24,), None, (4, 4)),
    "Window": ("window:size=6,shift=2", (18, 18), (9, 6), None),
    "Halo": ("halo:block=6,halo=2,border=zero", (18, 18), (8, 4), None),
    "Neighborhood": ("neighborhood:window=7,stride=3", (18, 18), (9, 4), ((3, 3), (3, 3))),
    "Product": ("product(causal; neighborhood:window=5; neighborhood:window=5)", (4, 12, 12), (2, 5, 6), None),
    "Union": ("union(window:size=4; sliding:left=0x15,right=0x15)", (16, 16), (9, 6), None),
    "PerHead": ("perhead(window:size=4*2; neighborhood:window=9*2)", (16, 16), (9, 6), None),
    "Blocks": ("blocks:size=2,terms=local(3)+sink(1)+powers", (48,), None, (8, 8)),
}


PATTERN = """
## {name}

![{text}]({image}){{ width=420 }}

::: fovea.patterns.{name}
    options:
      show_root_heading: false
      show_root_toc_entry: false
"""

PATTERNS_PAGE = """
# Patterns

A pattern says which keys each query may see. Parameters are one number for all axes, or one an axis.

The pictures are those of `fovea draw`: on a grid one query and its keys; on a sequence the whole mask, in
tiles that need a mask or none.

{sections}

## Reading and writing

::: fovea.patterns.parse

## What every pattern has

::: fovea.patterns.Pattern

::: fovea.patterns.GridPattern

::: fovea.patterns.Spans
"""


def patterns() -> Iterator[tuple[str, str | bytes]]:
    sections = []
    for name, (text, grid, query, tiles) in PATTERNS.items():
        image = f"images/{name.lower()}.png"
        yield image, picture.png(parse(text).draw(grid, query, tiles))
        sections += [PATTERN.format(name=name, text=text, image=image)]
    yield "patterns.md", PATTERNS_PAGE.format(sections="\n".join(sections))


COMMAND = """
## fovea {name}

{text}

```text
{usage}
```
{examples}

{options}
"""


def command(name: str, found: TyperCommand) -> str:
    """One command with its arguments and options, as it describes them itself."""
    context = found.make_context(f"fovea {name}", [], resilient_parsing=True)
    records = [record for parameter in found.get_params(context) if (record := parameter.get_help_record(context))]
    cells = [(f"`{option}`", " ".join(meaning.replace("|", "\\|").split())) for option, meaning in records]
    options = table(("option", "meaning"), cells)
    text, *examples = re.split(r"\x08\nExamples?:\n", found.help or "")
    shown = "".join(f"\n```bash\n{dedent(lines).strip()}\n```\n" for lines in examples)
    return COMMAND.format(name=name, text=text.strip(), examples=shown, usage=found.get_usage(context), options=options)


def commands(group: Any, before: str = "") -> Iterator[str]:
    """The sections of all commands of a group, groups inside of it included."""
    for name, found in group.commands.items():
        if hasattr(found, "commands"):
            yield from commands(found, f"{before}{name} ")
        elif not found.hidden:
            yield command(before + name, found)


def command_line() -> str:
    return f"# Command line\n\n{app.info.help}\n" + "\n".join(commands(typer.main.get_command(app)))


SYSTEM = """
### {card.slug}

**{card.title}**

{card.idea}

{facts}
"""


def system(found: System) -> str:
    card = found.card
    licence = f" ({card.licence})" if card.licence else ""
    facts = [
        card.status,
        f"{card.year}, {card.authors} author{'s' if card.authors > 1 else ''}",
        f"[paper]({card.paper_address})" if card.paper_address else None,
        f"[official code]({card.code_address}){licence}" if card.code_address else None,
        f"carried by `{'`, `'.join(card.carried_by)}`",
    ]
    parts = [SYSTEM.format(card=card, facts=" · ".join(filter(None, facts)))]
    if found.views:
        rows = [(view.name, f"`{view.pattern}`", "x".join(map(str, view.grid))) for view in found.views]
        parts += [table(("looks with", "pattern", "drawn on"), rows)]
    if found.presets:
        parts += [f"Presets: {', '.join(f'`{name}`' for name in found.presets)}."]
    if found.claims:
        rows = [(claim.sentence, claim.paper_number or "no number") for claim in found.claims]
        parts += [table(("claim", "the paper"), rows)]
        entries = ledger.read(LEDGER, card.slug)
        parts += [measured(claim.sentence, entries[claim.name]) for claim in found.claims if claim.name in entries]
    return "\n\n".join(parts)


def measured(sentence: str, entry: dict[str, Any]) -> str:
    """What our own runs measured of one claim, as ``fovea claims`` wrote it."""
    values = entry["measured"]
    facts = [f"{name} {number(value)}" for name, value in values.items() if not isinstance(value, dict)]
    ways = {name: value for name, value in values.items() if isinstance(value, dict)}
    columns = list(dict.fromkeys(key for way in ways.values() for key in way))
    rows = [(name, *(number(way.get(key, "")) for key in columns)) for name, way in ways.items()]
    commit = entry["versions"].get("commit", "unknown")
    lead = f"Measured {entry['date']} at commit {commit} ({', '.join(facts)}): *{sentence}*"
    return f"{lead}\n\n{table(('', *columns), rows)}" if rows else lead


def systems() -> str:
    found = catalogue().values()
    ready = sum(one.card.status == "ready" for one in found)
    page = [f"# Systems\n\n{len(found)} published systems; {ready} ready, the others planned.\n\n{catalogue_table()}"]
    for area in AREAS:
        sections = [system(one) for one in found if one.card.area == area]
        page += [f"## {area.capitalize()}", *sections] if sections else []
    return "\n\n".join(page)


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Called by MkDocs with the pages on disk; adds those that are generated."""
    pages = [
        *patterns(),
        ("command-line.md", command_line()),
        ("systems.md", systems()),
        ("benchmarks.md", speed.page()),
    ]
    for path, content in pages:
        files.append(File.generated(config, f"generated/{path}", content=content))
    return files
