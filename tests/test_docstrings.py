"""The examples in docstrings are a lesson that runs."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import fovea

MODULES = [
    module.name for module in pkgutil.walk_packages(fovea.__path__, "fovea.") if not module.name.endswith("__main__")
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name):
    found = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert found.failed == 0
