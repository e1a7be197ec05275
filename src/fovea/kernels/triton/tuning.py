"""Tiles by measurement: the few that should be fastest are timed once for a device and a class of problems, and the
fastest is remembered in fovea's cache folder. What is too small to gain from it, or cannot be timed now (a CUDA graph
is being captured), gets the predicted tiles."""

from __future__ import annotations

import gc
import json
import os
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

import fovea
from fovea.kernels.cache import folder
from fovea.kernels.problem import Problem
from fovea.kernels.triton.call import Launch, kept
from fovea.kernels.triton.interpreter import interpreted
from fovea.kernels.triton.tiling import Tile, predicted, ranked
from fovea.patterns import GridPattern

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
    known, name = _entry(problem)
    if name not in known:
        if torch.cuda.is_current_stream_capturing() or torch.compiler.is_compiling():
            return predicted(problem)
        trial = Trial(problem)
        tile, seconds = search(problem, trial)
        known[name] = Known(tile, seconds / (trial.problem.batch * problem.heads))
        _remember(_path(problem.device), _machine(problem.device), known)
    return known[name].tile


def remembered(problem: Problem) -> float | None:
    """Seconds that a measurement on this device promises for the problem, or none where there was none."""
    known, name = _entry(problem)
    found = known.get(name)
    return None if found is None else found.row_seconds * problem.batch * problem.heads


@dataclass(frozen=True)
class Known:
    """The fastest tile of a class of problems, and its seconds for one head of one batch entry."""

    tile: Tile
    row_seconds: float


def search(problem: Problem, trial: Trial) -> tuple[Tile, float]:
    """The fastest of the candidates and its seconds: of the passes over queries first, then, backwards, of that over
    keys."""
    queries, keys = candidates(problem)
    trial.prepare([*queries, *keys])
    best, seconds = _fastest(trial, queries)
    if not problem.grad:
        return best, seconds
    return _fastest(
        trial,
        [
            best.but(
                grad_query_tile=tile.grad_query_tile, grad_key_tile=tile.grad_key_tile, grad_warps=tile.grad_warps,
                grad_stages=tile.grad_stages,
            )
            for tile in keys
        ],
    )  # fmt: skip


def candidates(problem: Problem) -> tuple[list[Tile], list[Tile]]:
    """Predicted tiles with other boxes in the passes over queries, and, backwards, in that over keys."""
    best = predicted(problem)
    queries = [
        best.but(query_tile=rows, key_tile=columns, warps=size.warps, stages=size.stages)
        for rows, columns, size in ranked(problem, False, CANDIDATES)
    ]
    keys = [
        best.but(grad_query_tile=columns, grad_key_tile=rows, grad_warps=size.warps, grad_stages=size.stages)
        for rows, columns, size in (ranked(problem, True, CANDIDATES) if problem.grad else ())
    ]
    return queries, keys


def _fastest(trial: Trial, tiles: list[Tile]) -> tuple[Tile, float]:
    seconds, place = min((trial.seconds(tile), place) for place, tile in enumerate(tiles))
    return tiles[place], seconds


class Trial:
    """A problem with drawn inputs, at most ``BATCH`` of its batch entries, to run with one tile after the other."""

    def __init__(self, problem: Problem) -> None:
        p = self.problem = problem.but(batch=min(problem.batch, BATCH))

        def draw(*shape: int) -> torch.Tensor:
            return torch.randn(shape, device=p.device).to(p.dtype)

        query = draw(p.batch, *p.query_grid, p.heads, p.head_dim)
        key, value = (draw(p.batch, *p.key_grid, p.kv_heads, width) for width in (p.head_dim, p.value_dim))
        extras = [draw(p.batch, p.extra, p.kv_heads, w) if p.extra else None for w in (p.head_dim, p.value_dim)]
        bias = None
        if p.bias:
            assert isinstance(p.pattern, GridPattern)
            bias = draw(p.heads, *p.pattern.bias_shape(p.query_grid, p.key_grid))
        self.inputs = query, key, value
        self.others = bias, *extras
        # Times do not depend on what the backward pass is given.
        self.results = draw(*query.shape[:-1], p.value_dim), draw(*query.shape[:-1]).float()

    def run(self, tile: Tile) -> None:
        """The pass that is meant, once."""
        from fovea.kernels.triton.backend import Triton

        backend, (out, lse) = Triton(tile), self.results
        if self.problem.grad:
            backend.backward(self.problem, out, None, *self.inputs, out, lse, *self.others)
        else:
            backend.forward(self.problem, *self.inputs, *self.others)

    def prepare(self, tiles: list[Tile]) -> None:
        """Compile the kernels of all tiles at once, on all processors; interpreted ones need none of it."""
        if interpreted():
            return
        with kept() as launches:
            for tile in tiles:
                self.run(tile)
        compile_together(launches)

    def seconds(self, tile: Tile, times: int = 5) -> float:
        """Shortest of a few runs; infinity where the kernels do not fit the device."""
        from triton.runtime.errors import OutOfResources

        shortest = float("inf")
        try:
            for run in range(times + 1):
                _wait(self.problem.device)
                began = time.perf_counter()
                self.run(tile)
                _wait(self.problem.device)
                if run:  # the first one loads the kernels
                    shortest = min(shortest, time.perf_counter() - began)
        except OutOfResources:
            return float("inf")
        return shortest


def compile_together(launches: list[Launch]) -> None:
    """Compile the kernels of calls that differ in what is compiled in alone, each once, several at a time."""
    different = {}
    for each in launches:
        compiled_in = [item for item in each.options.items() if item[0].isupper() or item[0].startswith("num_")]
        different[each.kernel, str(sorted(compiled_in))] = each

    def compile_one(launch: Launch) -> None:
        first = launch.arguments[0]
        with torch.cuda.device(first.device) if first.is_cuda else nullcontext():
            launch.compile()

    collecting = gc.isenabled()
    gc.disable()  # a collection amid ast.parse may let in another thread, which CPython 3.11 does not stand
    try:
        with ThreadPoolExecutor(os.cpu_count()) as threads:
            list(threads.map(compile_one, different.values()))
    finally:
        if collecting:
            gc.enable()


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
    _entry.cache_clear()


def _worth(problem: Problem) -> bool:
    pairs = problem.batch * problem.heads * problem.pairs
    return problem.device.type == "cuda" and pairs * problem.head_dim >= WORTH


def _machine(device: torch.device) -> str:
    import triton

    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "interpreter"
    return f"fovea {fovea.__version__}, triton {triton.__version__}, {name}"


def _path(device: torch.device) -> Path:
    return folder() / f"tiles-triton-{device.type}.json"


@lru_cache(maxsize=4096)
def _entry(problem: Problem) -> tuple[dict[str, Known], str]:
    """What is known of the problem's device, and the problem's name there."""
    return _known(str(_path(problem.device)), _machine(problem.device)), shape_class(problem)


@lru_cache(maxsize=16)
def _known(path: str, machine: str) -> dict[str, Known]:
    try:
        content = json.loads(Path(path).read_text())
        if content["machine"] != machine:
            return {}
        return {
            name: Known(_tile(found["tile"]), float(found["row_seconds"])) for name, found in content["tiles"].items()
        }
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}


def _tile(fields: dict[str, Any]) -> Tile:
    known: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in fields.items()}
    return Tile(**known)


def _remember(path: Path, machine: str, known: dict[str, Known]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, suffix=".part", delete=False) as file:
            json.dump({"machine": machine, "tiles": {name: asdict(found) for name, found in known.items()}}, file)
        os.replace(file.name, path)
    except OSError:
        return
