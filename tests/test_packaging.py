"""What an installation promises: tested versions, a light import, types for those who use it."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

import fovea

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_every_dependency_has_a_tested_version_that_it_accepts():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    extras = PROJECT["optional-dependencies"].values()
    wanted = [*PROJECT["dependencies"], *(text for extra in extras for text in extra)]
    for requirement in map(Requirement, wanted):
        if requirement.name != "fovea":
            pin = pins.get(canonical(requirement.name))
            assert pin is not None, f"{requirement.name} is not in constraints.txt"
            assert requirement.specifier.contains(Version(pin)), f"{requirement} does not accept {pin}"


def test_import_is_light():
    code = "import sys, fovea; print(sorted({'torch', 'numpy', 'matplotlib', 'lightning'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_version_is_said_once():
    assert "version" in PROJECT["dynamic"]
    assert f"version: {fovea.__version__}" in (ROOT / "CITATION.cff").read_text()


def test_types_are_shipped():
    assert (Path(fovea.__file__).parent / "py.typed").is_file()
