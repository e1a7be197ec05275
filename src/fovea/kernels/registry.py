"""The backends there are, by name; each is made when first asked for."""

from __future__ import annotations

from functools import cache

from fovea.kernels.backend import Backend


@cache
def backends() -> dict[str, Backend]:
    """All backends that fovea has, whether or not they can run here (see :meth:`Backend.missing`)."""
    from fovea.kernels.reference import Reference

    return {backend.name: backend for backend in (Reference(),)}


def get(name: str) -> Backend:
    """The backend of that name; ``ValueError`` when there is none or it cannot run here."""
    known = backends()
    if name not in known:
        raise ValueError(f"backend={name!r}; it may be 'auto', {', '.join(map(repr, known))}")
    if (reason := known[name].missing()) is not None:
        raise ValueError(f"backend={name!r} cannot run here: {reason}")
    return known[name]
