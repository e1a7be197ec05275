"""Docstrings as the documentation shows them: examples become code, and roles become plain names."""

from __future__ import annotations

import re
from typing import Any

import griffe

EXAMPLE = re.compile(r"(?:^|(?<=\n\n))( *)>>> .*?(?=\n\s*\n|\Z)", flags=re.DOTALL)
ROLE = re.compile(r":(?:class|func|meth|attr|mod|data|exc):`~?(?:[\w.]*\.)?(\w+)`")


def readable(text: str) -> str:
    """The docstring with ``>>>`` examples fenced and Sphinx roles reduced to the name."""
    fenced = EXAMPLE.sub(lambda found: f"{found[1]}```pycon\n{found[0]}\n{found[1]}```", text)
    return ROLE.sub(r"`\1`", fenced)


class ReadableDocstrings(griffe.Extension):
    """Applied by mkdocstrings to everything that it shows."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = readable(obj.docstring.value)
