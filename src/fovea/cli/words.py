"""Arguments that commands share, and how their words are read."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fovea.errors import UsageError, UserError, unknown

if TYPE_CHECKING:
    from fovea.patterns import Pattern
    from fovea.systems.system import System


def _complete_system(incomplete: str) -> list[str]:
    from fovea.systems.catalogue import slugs

    return [slug for slug in slugs() if slug.startswith(incomplete)]


SystemName = Annotated[
    str, typer.Argument(metavar="SYSTEM", help="Its name in 'fovea list'.", autocompletion=_complete_system)
]
PatternText = Annotated[
    str,
    typer.Argument(
        metavar="PATTERN",
        help="A pattern, e.g. 'neighborhood:window=7x7,stride=4', 'sliding:left=255', 'window:size=8,shift=4'.",
    ),
]
GridText = Annotated[str, typer.Option("--grid", help="Shape of the tokens: 8192, 64x64 or 16x24x24.")]
Settings = Annotated[
    list[str] | None,
    typer.Argument(metavar="KEY=VALUE", help="Settings to change; 'fovea show SYSTEM --preset P' lists them."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@contextmanager
def usage() -> Iterator[None]:
    """What is wrong with a word on the command line is a mistake of usage."""
    try:
        yield
    except UserError:
        raise
    except (ValueError, TypeError) as error:
        raise UsageError(str(error)) from error


def grid(text: str, option: str = "--grid") -> tuple[int, ...]:
    """``"64x64" -> (64, 64)``."""
    if re.fullmatch(r"\d+(\s*[x,]\s*\d+){0,2}", text.strip()) is None:
        raise UsageError(
            f"{option} {text!r} is no grid; write the number of tokens of 1 to 3 axes: 8192, 64x64, 16x24x24"
        )
    sizes = tuple(int(size) for size in re.split(r"[x,]", text))
    if 0 in sizes:
        raise UsageError(f"{option} {text!r}: every axis needs at least one token")
    return sizes


def pattern(text: str, *grids: tuple[int, ...]) -> Pattern:
    """The pattern that the text describes; refused where it has no meaning on the grid."""
    from fovea.patterns import GridPattern, parse

    with usage():
        found = parse(text)
        for shape in grids:
            found.check(shape, shape)
            if isinstance(found, GridPattern):
                found.spans(shape)
    return found


def system(slug: str) -> System:
    """The system of that name."""
    from fovea.systems.catalogue import get

    return get(slug)


def split(words: Sequence[str]) -> tuple[list[Path], list[str]]:
    """Separates files from settings: a word like ``tile=256`` is a setting unless a file has that name."""
    files, settings = [], []
    for word in words:
        if re.match(r"[A-Za-z_][\w.]*=", word) and not Path(word).exists():
            settings.append(word)
        else:
            files.append(Path(word))
    return files, settings


def preset(found: System, name: str) -> Any:
    """The preset of a system by its name."""
    if name not in found.presets:
        raise unknown(f"preset of {found.card.slug}", name, found.presets)
    return found.presets[name]


def existing(path: Path, what: str) -> Path:
    """The path, which must exist."""
    if not path.exists():
        raise UsageError(f"{what} {str(path)!r} does not exist")
    return path


def writable(path: Path, *, suffixes: Sequence[str] = ()) -> Path:
    """The file to write: refused where it is a folder, its folder is missing, or its ending is none of ``suffixes``."""
    if path.is_dir():
        raise UsageError(
            f"-o {str(path)!r} is a folder; name a file in it, e.g. {str(path / ('out' + (suffixes or ['.png'])[0]))!r}"
        )
    if suffixes and path.suffix.lower() not in suffixes:
        raise UsageError(f"-o {str(path)!r}: the file must end in {' or '.join(suffixes)}")
    if not path.parent.is_dir():
        raise UsageError(f"-o {str(path)!r}: there is no folder {str(path.parent)!r}")
    return path
