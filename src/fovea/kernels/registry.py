"""The backends there are, by name; a module is imported when somebody asks."""

from __future__ import annotations

from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec

from fovea.kernels.backend import Backend

HOMES = {
    "reference": ("fovea.kernels.reference", "Reference"),
    "tiled": ("fovea.kernels.tiled", "Tiled"),
    "native": ("fovea.kernels.native", "Native"),
    "flex": ("fovea.kernels.flex", "Flex"),
    "triton": ("fovea.kernels.triton.backend", "Triton"),
}


@lru_cache(maxsize=1)
def backends() -> dict[str, Backend]:
    """All backends by name, those that are missing on this machine included (ask ``missing()``)."""
    return {
        name: getattr(home, cls)()
        for name, (module, cls) in HOMES.items()
        if find_spec(module) is not None and hasattr(home := import_module(module), cls)
    }


def backend(name: str) -> Backend:
    """The backend of that name; ``ValueError`` when there is none."""
    known = backends()
    if name not in known:
        raise ValueError(f"backend={name!r}; it may be 'auto', {', '.join(map(repr, known))}")
    return known[name]
