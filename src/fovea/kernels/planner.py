from __future__ import annotations

from fovea.kernels.backend import Backend
from fovea.kernels.problem import Problem
from fovea.kernels.registry import backend as named
from fovea.kernels.registry import backends


def choose(problem: Problem, backend: str) -> Backend:
    """The backend that computes the problem; ``ValueError`` when the one that was named cannot."""
    if backend != "auto":
        chosen = named(backend)
        reason = chosen.missing() or chosen.refuses(problem)
        if reason is not None:
            raise ValueError(f"backend={backend!r} cannot compute this: {reason}; backend='auto' finds one that can")
        return chosen
    able = [
        b for name in ("tiled", "reference") if (b := backends().get(name)) and not (b.missing() or b.refuses(problem))
    ]
    return able[0]
