"""The examples in docstrings are a lesson that runs."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

import fovea

SOURCE = Path(fovea.__file__).parent
MODULES = [
    ".".join(("fovea", *path.relative_to(SOURCE).with_suffix("").parts)).removesuffix(".__init__")
    for path in sorted(SOURCE.rglob("*.py"))
    if path.name != "__main__.py"
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name):
    found = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert found.failed == 0
