"""The catalogue: every file of this folder that holds a ``SYSTEM``."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from types import MappingProxyType

from fovea import systems
from fovea.errors import unknown
from fovea.systems.system import AREAS, System

_NOT_SYSTEMS = {"catalogue", "ledger", "system"}


@cache
def slugs() -> tuple[str, ...]:
    """The names of all systems, in alphabetical order; reads file names only."""
    names = {module.name for module in iter_modules(systems.__path__)} - _NOT_SYSTEMS
    return tuple(sorted(name.replace("_", "-") for name in names))


@cache
def get(slug: str) -> System:
    """The system of that name; names are forgiven their case and underscores.

    Raises:
        UsageError: no system has that name; the message names the nearest.
    """
    name = slug.strip().lower().replace("_", "-").replace(" ", "-")
    if name not in slugs():
        raise unknown("system", slug, slugs(), hint="'fovea list' shows all")
    return import_module(f"fovea.systems.{name.replace('-', '_')}").SYSTEM


@cache
def catalogue() -> Mapping[str, System]:
    """All systems by their names, ordered by area and then by year."""
    found = sorted(map(get, slugs()), key=lambda s: (AREAS.index(s.card.area), s.card.year, s.card.slug))
    return MappingProxyType({system.card.slug: system for system in found})
