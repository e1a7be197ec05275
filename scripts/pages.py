"""The pages of the documentation that are generated while it is built: patterns, command line, systems, benchmarks."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from typing import Any

import click
import picture
import speed
import tables
import typer.main
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

import fovea.cli
from fovea.systems.catalogue import catalogue
from fovea.systems.system import AREAS, System

PATTERNS = {
    # class: (an example in its text form, grid, query)
    "Full": ("full", (16, 16), (5, 4)),
    "Causal": ("causal", (16, 16), (9, 8)),
    "SlidingWindow": ("sliding:left=4x6,right=2x0", (16, 16), (8, 9)),
    "Window": ("window:size=6,shift=2", (16, 16), (9, 6)),
    "Halo": ("halo:block=6,halo=2", (18, 18), (8, 7)),
    "Neighborhood": ("neighborhood:window=7,stride=3", (18, 18), (9, 4)),
    "Product": ("product(causal; neighborhood:window=7)", (16, 16), (9, 8)),
    "Union": ("union(window:size=4; sliding:left=0x15,right=0x15)", (16, 16), (9, 6)),
    "PerHead": ("perhead(window:size=4*2; neighborhood:window=9*2)", (16, 16), (9, 6)),
}
BLOCK_PATTERNS = {
    "sliding, with a sink": "blocks:size=1,terms=local(5)+sink(1)",
    "powers of two": "blocks:size=1,terms=local(5)+sink(1)+powers",
}
"""Block patterns, drawn as masks of 48 tokens."""


def png(figure: Any) -> bytes:
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()


def pattern_pages() -> Iterator[tuple[str, str | bytes]]:
    page = [
        "# Patterns",
        "",
        "A pattern says which keys each query may see. Parameters are one number for all axes, or one an axis. In the pictures",
        "the query is orange and what it sees is blue.",
    ]
    for name, (text, grid, query) in PATTERNS.items():
        image = f"generated/images/{name.lower()}.png"
        yield image, png(picture.of_query(text, grid, query))
        page += [
            "",
            f"## {name}",
            "",
            f"`{text}`",
            "",
            f"![{text}](images/{name.lower()}.png)",
            "",
            f"::: fovea.patterns.{name}",
        ]
    page += ["", "## Blocks", ""]
    for number, (name, text) in enumerate(BLOCK_PATTERNS.items()):
        image = f"generated/images/blocks-{number}.png"
        yield image, png(picture.of_mask(text, 48))
        page += [
            f"{name}: `{text}`; a row is a query, a column a key",
            "",
            f"![{text}](images/blocks-{number}.png)",
            "",
        ]
    page += ["::: fovea.patterns.Blocks", "", "## Reading and writing", "", "::: fovea.patterns.parse", ""]
    page += ["::: fovea.patterns.Pattern", "", "::: fovea.patterns.GridPattern", "", "::: fovea.patterns.Spans"]
    yield "generated/patterns.md", "\n".join(page)


def command_page() -> str:
    """Every command with its arguments and options, as the command line itself describes them."""
    program = typer.main.get_command(fovea.cli.app)
    assert isinstance(program, click.Group)
    page = ["# Command line", "", program.help or ""]
    for name, command in program.commands.items():
        context = click.Context(command, info_name=f"fovea {name}")
        rows = [record for p in command.get_params(context) if (record := p.get_help_record(context))]
        page += [
            "",
            f"## fovea {name}",
            "",
            (command.help or "").strip(),
            "",
            "```text",
            command.get_usage(context),
            "```",
            "",
        ]
        page += [
            tables.table(("option", "meaning"), [(f"`{a}`", b.replace("|", "\\|").replace("\n", " ")) for a, b in rows])
        ]
    return "\n".join(page)


def system_section(slug: str, system: System) -> str:
    card = system.card
    facts = [
        f"{card.year}, {card.authors} author{'s' if card.authors > 1 else ''}",
        f"[paper]({card.paper_address})" if card.paper_address else None,
        f"[official code]({card.code_address})" + (f" ({card.licence})" if card.licence else "")
        if card.code_address
        else None,
        f"carried by `{'`, `'.join(card.carried_by)}`",
        card.status,
    ]
    lines = [f"### {slug}", "", f"**{card.title}**", "", card.idea, "", " · ".join(filter(None, facts))]
    if system.views:
        rows = [(view.name, f"`{view.pattern}`", "x".join(map(str, view.grid))) for view in system.views]
        lines += ["", tables.table(("looks with", "pattern", "drawn on"), rows)]
    if system.presets:
        lines += ["", f"Presets: {', '.join(f'`{name}`' for name in system.presets)}."]
    if system.claims:
        rows = [(claim.sentence, claim.paper_number or "no number") for claim in system.claims]
        lines += ["", tables.table(("claim", "the paper"), rows)]
    return "\n".join(lines)


def systems_page() -> str:
    found = catalogue()
    ready = sum(system.card.status == "ready" for system in found.values())
    page = [
        "# Systems",
        "",
        f"{len(found)} published systems; {ready} ready, the others planned.",
        "",
        tables.catalogue_table(),
    ]
    for area in AREAS:
        sections = [system_section(slug, system) for slug, system in found.items() if system.card.area == area]
        if sections:
            page += ["", f"## {area.capitalize()}", "", "\n\n".join(sections)]
    return "\n".join(page)


def benchmark_page() -> str:
    page = [
        "# Benchmarks",
        "",
        "Each figure was written by a run. The files are in `benchmarks/results`, the code beside them.",
        "",
    ]
    page += [speed.summary()]
    return "\n".join(page)


def pages() -> Iterator[tuple[str, str | bytes]]:
    yield from pattern_pages()
    yield "generated/command-line.md", command_page()
    yield "generated/systems.md", systems_page()
    yield "generated/benchmarks.md", benchmark_page()


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Called by MkDocs with the pages on disk; adds those that are generated."""
    for path, content in pages():
        files.append(File.generated(config, path, content=content))
    return files
