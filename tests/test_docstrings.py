"""The examples in docstrings are a lesson that runs."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import fovea


@pytest.mark.parametrize("name", [module.name for module in pkgutil.walk_packages(fovea.__path__, "fovea.")])
def test_examples_run(name):
    if name.endswith("__main__"):
        pytest.skip("a program")
    found = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert found.failed == 0
