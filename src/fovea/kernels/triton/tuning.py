"""Tiles by measurement: the few that should be fastest are timed once for a device and a class of problems, and the
fastest is remembered in fovea's cache folder. What is too small to gain from it, or cannot be timed now (a CUDA graph
is being captured), gets the predicted tiles."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

import fovea
from fovea.kernels.cache import folder
from fovea.kernels.problem import Problem
from fovea.kernels.triton.tiling import Tile, predicted, ranked
from fovea.patterns import GridPattern

Timer = Callable[[Problem, Tile], float]

WORTH = 2e9
"""Multiplications of queries with keys below which a problem is not timed."""

CANDIDATES = 4
"""Tiles that are timed, for each pass."""

BATCH = 4
"""Batch entries that are timed at most."""


def chosen(problem: Problem) -> Tile:
    """The tiles to compute a problem with."""
    if not _worth(problem):
        return predicted(problem)
    name = shape_class(problem)
    known = _known(str(_path(problem.device)), _machine(problem.device))
    if name not in known:
        if torch.cuda.is_current_stream_capturing() or torch.compiler.is_compiling():
            return predicted(problem)
        known[name] = search(problem, measure)
        _remember(_path(problem.device), _machine(problem.device), known)
    return known[name]


def search(problem: Problem, seconds: Timer) -> Tile:
    """The fastest of the candidates: of the passes over queries first, then, backwards, of that over keys."""
    best = predicted(problem)
    found = []
    for rows, columns, size in ranked(problem, False, CANDIDATES):
        tile = best.but(query_tile=rows, key_tile=columns, warps=size.warps, stages=size.stages)
        found.append((seconds(problem, tile), len(found), tile))
    best = min(found)[2]
    if problem.grad:
        found = []
        for rows, columns, size in ranked(problem, True, CANDIDATES):
            tile = best.but(grad_query_tile=columns, grad_key_tile=rows, grad_warps=size.warps, grad_stages=size.stages)
            found.append((seconds(problem, tile), len(found), tile))
        best = min(found)[2]
    return best


def measure(problem: Problem, tile: Tile, times: int = 5) -> float:
    """Shortest of a few runs in seconds; infinity where the kernels do not fit the device."""
    from triton.runtime.errors import OutOfResources

    from fovea.kernels.triton.backend import Triton

    p = problem.but(batch=min(problem.batch, BATCH))
    backend = Triton(tile)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, device=p.device).to(p.dtype)

    query = draw(p.batch, *p.query_grid, p.heads, p.head_dim)
    key, value = (draw(p.batch, *p.key_grid, p.kv_heads, width) for width in (p.head_dim, p.value_dim))
    extras = [draw(p.batch, p.extra, p.kv_heads, w) if p.extra else None for w in (p.head_dim, p.value_dim)]
    bias = None
    if p.bias:
        assert isinstance(p.pattern, GridPattern)
        bias = draw(p.heads, *p.pattern.bias_shape(p.query_grid, p.key_grid))
    try:
        out, lse = backend.forward(p.but(grad=False), query, key, value, bias, *extras)
        shortest = float("inf")
        for run in range(times + 1):
            _wait(p.device)
            began = time.perf_counter()
            if p.grad:
                backend.backward(p, out, None, query, key, value, out, lse, bias, *extras)
            else:
                backend.forward(p, query, key, value, bias, *extras)
            _wait(p.device)
            if run:  # the first compiles
                shortest = min(shortest, time.perf_counter() - began)
    except OutOfResources:
        return float("inf")
    return shortest


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def shape_class(problem: Problem) -> str:
    """What problems that share their tiles have in common: all but the scale, batch and heads within a power of two."""
    p = problem
    rows = (p.batch * p.heads - 1).bit_length()
    grids = "x".join(map(str, p.query_grid)), "x".join(map(str, p.key_grid))
    return (
        f"{p.pattern} {grids[0]} {grids[1]} rows {rows} group {p.group} dims {p.head_dim} {p.value_dim} "
        f"extra {p.extra > 0} bias {p.bias} {str(p.dtype).removeprefix('torch.')} {'backward' if p.grad else 'forward'}"
    )


def forget() -> None:
    """Read the cache folder anew."""
    _known.cache_clear()


def _worth(problem: Problem) -> bool:
    pairs = problem.batch * problem.heads * problem.pairs
    return problem.device.type == "cuda" and pairs * problem.head_dim >= WORTH


def _machine(device: torch.device) -> str:
    import triton

    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "interpreter"
    return f"fovea {fovea.__version__}, triton {triton.__version__}, {name}"


def _path(device: torch.device) -> Path:
    return folder() / f"tiles-triton-{device.type}.json"


@lru_cache(maxsize=16)
def _known(path: str, machine: str) -> dict[str, Tile]:
    try:
        content = json.loads(Path(path).read_text())
        if content["machine"] != machine:
            return {}
        return {name: _tile(fields) for name, fields in content["tiles"].items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}


def _tile(fields: dict[str, Any]) -> Tile:
    known: dict[str, Any] = {n: tuple(value) if isinstance(value, list) else int(value) for n, value in fields.items()}
    return Tile(**known)


def _remember(path: Path, machine: str, known: dict[str, Tile]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, suffix=".part", delete=False) as file:
            json.dump({"machine": machine, "tiles": {name: asdict(tile) for name, tile in known.items()}}, file)
        os.replace(file.name, path)
    except OSError:
        return
