"""The commands that the README and the documentation name exist, with their options."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import typer.main

from fovea.cli.main import app

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
SHELL = re.compile(r"^```bash\n(.*?)^```", flags=re.DOTALL | re.MULTILINE)


def lines(program: str) -> list[list[str]]:
    """Every line of shell in the pages that calls the program, as words."""
    shell = [line for page in PAGES for block in SHELL.findall(page.read_text()) for line in block.splitlines()]
    return [words for line in shell if (words := shlex.split(line, comments=True)) and words[0] == program]


def test_fovea_has_the_commands_and_options_that_are_shown():
    commands = getattr(typer.main.get_command(app), "commands", {})
    shown = lines("fovea")
    assert len(shown) > 10
    for _, name, *words in shown:
        assert name in commands, f"fovea {name} is no command"
        parameters = commands[name].params
        known = {option for parameter in parameters for option in (*parameter.opts, *parameter.secondary_opts)}
        missing = {word for word in words if word.startswith("-")} - known
        assert not missing, f"fovea {name} has no {missing}"


def test_make_has_the_targets_that_are_shown():
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    shown = {words[1] for words in lines("make")}
    assert len(shown) > 4
    assert shown <= set(targets)
