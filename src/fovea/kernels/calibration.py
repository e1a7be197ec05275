"""How fast this machine is with each backend: measured once, in about a second each, and remembered.

A backend's account of a problem (``Work``) says how many operations, bytes and launches it takes; here a few small
problems of different kinds are timed and the price of each is fitted. The prices are kept in the user's cache folder
(``FOVEA_CACHE``, else the platform's), one file for each backend, device, dtype, pass and number of threads, and are
measured anew when the machine, torch or fovea changes. A cache that cannot be read or written costs only that second.
"""

from __future__ import annotations

import json
import os
import platform
import tempfile
import time
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

import fovea
from fovea.kernels.backend import Backend, Work
from fovea.kernels.cache import folder
from fovea.kernels.problem import Problem
from fovea.patterns import Full, Neighborhood, Pattern, SlidingWindow, Window
from fovea.patterns.pattern import Grid

PROBLEMS: tuple[tuple[Pattern, Grid, int], ...] = (
    (Neighborhood(3), (10, 10), 1),
    (Neighborhood(7), (40, 40), 4),
    (SlidingWindow(31), (512,), 4),
    (Window(8), (64, 64), 4),
    (SlidingWindow(127), (2048,), 4),
    (Full(), (768,), 4),
)
"""Pattern, grid and heads of what is timed: from overheads alone to long rows."""

HEAD_DIM = 32
MOST_PAIRS = 4 << 20
"""A backend that would compute more pairs than these is not timed; smaller problems price what is dense."""

MOST_LAUNCHES = 5000
"""Nor one that would launch more than these: Triton's interpreter, in which every step over a tile counts as many."""


@dataclass(frozen=True)
class Prices:
    """Seconds of a floating-point operation, of a byte moved, of a launch."""

    flop: float
    byte: float
    launch: float

    def seconds(self, work: Work) -> float:
        """What the work should take."""
        return self.flop * work.flops + self.byte * work.bytes + self.launch * work.launches


def forget() -> int:
    """Delete what was remembered, here and in the cache folder; returns the number of files deleted."""
    _prices.cache_clear()
    files = list(folder().glob("prices-*.json"))
    for file in files:
        file.unlink(missing_ok=True)
    return len(files)


def prices(backend: Backend, device: torch.device, dtype: torch.dtype, grad: bool) -> Prices | None:
    """The backend's prices here and with as many threads, measured if they are not remembered; none where it takes no
    such problem."""
    return _prices(backend, device, dtype, grad, torch.get_num_threads() if device.type == "cpu" else 0)


@lru_cache(maxsize=256)
def _prices(backend: Backend, device: torch.device, dtype: torch.dtype, grad: bool, threads: int) -> Prices | None:
    path = folder() / _file_name(backend, device, dtype, grad, threads)
    machine = _machine(device)
    if (known := _remembered(path, machine)) is not None:
        return known
    timed = [item for problem in _problems(device, dtype, grad) if (item := _time(backend, problem)) is not None]
    if not timed:
        return None
    fitted = _fit(timed)
    _remember(path, machine, fitted)
    return fitted


def _file_name(backend: Backend, device: torch.device, dtype: torch.dtype, grad: bool, threads: int) -> str:
    kind = "backward" if grad else "forward"
    return f"prices-{backend.name}-{device.type}-{str(dtype).removeprefix('torch.')}-{kind}-{threads}.json"


def _machine(device: torch.device) -> str:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{platform.machine()} {_processor()}"
    return f"fovea {fovea.__version__}, torch {torch.__version__}, {platform.node()}, {name}"


@lru_cache(maxsize=1)
def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def _remembered(path: Path, machine: str) -> Prices | None:
    try:
        content = json.loads(path.read_text())
        if content.pop("machine") != machine:
            return None
        found = Prices(**{name: float(value) for name, value in content.items()})
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    return found if all(np.isfinite(value) and value >= 0 for value in asdict(found).values()) else None


def _remember(path: Path, machine: str, found: Prices) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, suffix=".part", delete=False) as file:
            json.dump({"machine": machine, **asdict(found)}, file)
        os.replace(file.name, path)
    except OSError:
        return


def _problems(device: torch.device, dtype: torch.dtype, grad: bool) -> list[Problem]:
    return [
        Problem(pattern, grid, grid, 1, heads, heads, HEAD_DIM, HEAD_DIM, 0, False, HEAD_DIM**-0.5, dtype, device, grad)
        for pattern, grid, heads in PROBLEMS
    ]


def _time(backend: Backend, problem: Problem) -> tuple[Work, float] | None:
    """What the problem is to the backend, and the shortest of a few runs in seconds."""
    if backend.refuses(problem) is not None:
        return None
    work = backend.work(problem)
    if work.pairs > MOST_PAIRS or work.launches > MOST_LAUNCHES:
        return None
    shape = (1, *problem.query_grid, problem.heads, HEAD_DIM)
    source = torch.Generator().manual_seed(0)
    q, k, v, do = (torch.randn(shape, generator=source).to(problem.device, problem.dtype) for _ in range(4))
    out, lse = backend.forward(problem.but(grad=False), q, k, v, None, None, None)

    def once() -> None:
        if problem.grad:
            backend.backward(problem, do, None, q, k, v, out, lse, None, None, None)
        else:
            backend.forward(problem, q, k, v, None, None, None)

    shortest = float("inf")
    for _ in range(4):
        _wait(problem.device)
        began = time.perf_counter()
        once()
        _wait(problem.device)
        shortest = min(shortest, time.perf_counter() - began)
    return work, shortest


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _fit(timed: list[tuple[Work, float]]) -> Prices:
    """Prices that are not negative and make the relative errors small (least squares, one coordinate at a time)."""
    rows = np.array([[work.flops, work.bytes, work.launches] for work, _ in timed], dtype=np.float64)
    rows /= np.array([seconds for _, seconds in timed])[:, None]
    scale = rows.max(0)
    scale[scale == 0] = 1
    rows /= scale
    found = np.zeros(3)
    for _ in range(2000):
        for column in range(3):
            square = rows[:, column] @ rows[:, column]
            if square:
                rest = 1 - rows @ found + rows[:, column] * found[column]
                found[column] = max(0.0, rows[:, column] @ rest / square)
    return Prices(*(found / scale).tolist())
