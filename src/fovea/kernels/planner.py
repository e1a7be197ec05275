"""Which backend computes a problem: the one whose work, at this machine's prices, should take least time."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch

from fovea.kernels import calibration
from fovea.kernels.backend import Backend, Work, tensor_bytes
from fovea.kernels.problem import DTYPES, Problem, bias_shape, padding
from fovea.kernels.registry import backend as named
from fovea.kernels.registry import backends
from fovea.patterns import Pattern, PerHead, parse
from fovea.patterns.pattern import Grid, as_grids

SCRATCH = 512 << 20
"""Temporary memory beyond which a backend is taken only when no other can compute the problem."""

DOMINATED = 4
"""A backend that does nothing less than another, and so many times its flops, bytes or launches, is not measured."""


@dataclass(frozen=True)
class Candidate:
    """A backend as the planner saw it.

    Attributes:
        backend: its name.
        work: what it would do; none where it cannot.
        seconds: what that should take on this machine; none where nothing was measured.
        refused: why it is not taken, or none.
        measured: what such a problem took on this machine, where the backend measured one and remembers it.
    """

    backend: str
    work: Work | None
    seconds: float | None
    refused: str | None
    measured: float | None = None


@dataclass(frozen=True)
class Plan:
    """How a problem would be computed, and what else was considered.

    Attributes:
        problem: what is asked.
        backend: name of the backend that computes it.
        candidates: all backends, those that can compute it first, by predicted time.
        also: plans of the other head groups, where heads have patterns of their own.
    """

    problem: Problem
    backend: str
    candidates: tuple[Candidate, ...]
    also: tuple[Plan, ...] = ()

    @property
    def chosen(self) -> Candidate:
        """The candidate that computes the problem."""
        return next(candidate for candidate in self.candidates if candidate.backend == self.backend)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        problem = self.problem
        exact = problem.batch * problem.heads * problem.pairs
        rows = []
        for candidate in self.candidates:
            work = candidate.work
            rows.append(
                {
                    "backend": candidate.backend,
                    "seconds": candidate.seconds,
                    "measured_seconds": candidate.measured,
                    "refused": candidate.refused,
                    "pairs": work and work.pairs,
                    "flops": work and work.flops,
                    "bytes": work and work.bytes,
                    "launches": work and work.launches,
                    "tile": work and work.tile,
                }
            )
        dense = problem.batch * problem.heads * problem.queries * (problem.keys + problem.extra)
        return {
            "pattern": str(problem.pattern),
            "query_grid": list(problem.query_grid),
            "key_grid": list(problem.key_grid),
            "batch": problem.batch,
            "heads": problem.heads,
            "head_dim": problem.head_dim,
            "dtype": str(problem.dtype).removeprefix("torch."),
            "device": str(problem.device),
            "backward": problem.grad,
            "pairs": exact,
            "dense_pairs": dense,
            "bound": dense / exact if exact else None,
            "backend": self.backend,
            "candidates": rows,
            "also": [plan.to_dict() for plan in self.also],
        }

    def explain(self) -> str:
        """A page of text: the work, its bound, what each backend would do, and why some are not taken."""
        facts = self.to_dict()
        kind = "backward" if facts["backward"] else "forward"
        grid = "x".join(map(str, facts["query_grid"]))
        keys = "x".join(map(str, facts["key_grid"]))
        of_keys = "" if keys == grid else f" of keys {keys}"
        lines = [
            f"{facts['pattern']} on {grid}{of_keys}: batch {facts['batch']}, {facts['heads']} heads of "
            f"{facts['head_dim']}, {facts['dtype']} on {facts['device']}, {kind}",
            f"exact work  {facts['pairs']:,} of {facts['dense_pairs']:,} pairs"
            + (f"; skipping the rest bounds the gain at {facts['bound']:.2f}x" if facts["bound"] else ""),
            "",
            f"{'backend':<11}{'predicted':>11}{'pairs':>16}{'padding':>9}{'moved':>11}{'launches':>10}  tile",
        ]
        for candidate, row in zip(self.candidates, facts["candidates"], strict=True):
            mark = "* " if candidate.backend == self.backend else "  "
            if candidate.work is None:
                lines.append(f"{mark}{candidate.backend:<9}not taken: {candidate.refused}")
                continue
            padded = f"{row['pairs'] / facts['pairs']:.2f}x" if facts["pairs"] else "-"
            tile = "x".join(map(str, row["tile"])) if row["tile"] else "-"
            lines.append(
                f"{mark}{candidate.backend:<9}{_seconds(candidate.seconds):>11}{row['pairs']:>16,}{padded:>9}"
                f"{row['bytes'] / 2**20:>7.1f} MiB{row['launches']:>10}  {tile}"
                + (f"  measured {_seconds(candidate.measured)}" if candidate.measured is not None else "")
                + (f"  not taken: {candidate.refused}" if candidate.refused else "")
            )
        return "\n\n".join(["\n".join(lines), *(plan.explain() for plan in self.also)])


def _seconds(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value * 1e3:.3g} ms" if value < 1 else f"{value:.3g} s"


def choose(problem: Problem, backend: str) -> Backend:
    """The backend that computes the problem; ``ValueError`` when the one that was named cannot."""
    return _choose(problem, backend, torch.get_num_threads())


@lru_cache(maxsize=4096)
def _choose(problem: Problem, backend: str, threads: int) -> Backend:
    if backend != "auto":
        chosen = named(backend)
        reason = chosen.missing() or chosen.refuses(problem)
        if reason is not None:
            raise ValueError(f"backend={backend!r} cannot compute this: {reason}; backend='auto' finds one that can")
        return chosen
    return backends()[rank(problem)[0].backend]


def rank(problem: Problem) -> tuple[Candidate, ...]:
    """All backends; those that can compute the problem first, by predicted time."""
    able: list[Candidate] = []
    unable: list[Candidate] = []
    for name, backend in backends().items():
        reason = backend.missing() or backend.refuses(problem)
        if reason is None:
            able.append(Candidate(name, backend.work(problem), None, None))
        else:
            unable.append(Candidate(name, None, None, reason))
    if not able:
        raise ValueError(
            f"no backend can compute {problem.pattern}: {'; '.join(f'{c.backend}: {c.refused}' for c in unable)}"
        )
    able, heavy = _lean(problem, able)
    able, idle = _undominated(able)
    if len(able) > 1:
        able = sorted((_priced(problem, candidate) for candidate in able), key=_predicted)
    return (*able, *idle, *heavy, *unable)


def _lean(problem: Problem, able: list[Candidate]) -> tuple[list[Candidate], list[Candidate]]:
    """Candidates whose temporary memory is bounded, and the others; all are lean where none is."""
    limit = max(SCRATCH, 4 * tensor_bytes(problem))
    heavy = [candidate for candidate in able if _scratch(candidate) > limit]
    if len(heavy) == len(able):
        return able, []
    refused = [replace(c, refused=f"needs {_scratch(c) / 2**30:.1f} GiB of temporary memory") for c in heavy]
    return [candidate for candidate in able if candidate not in heavy], refused


def _undominated(able: list[Candidate]) -> tuple[list[Candidate], list[Candidate]]:
    """Candidates worth measuring, and those that do nothing less than another and much of something more."""
    refused = []
    for candidate in able:
        for other in able:
            mine, theirs = _account(candidate), _account(other)
            if all(a >= b for a, b in zip(mine, theirs, strict=True)) and any(
                a >= DOMINATED * b > 0 for a, b in zip(mine, theirs, strict=True)
            ):
                reason = f"does in no respect less than {other.backend}, in one at least {DOMINATED} times as much"
                refused.append(replace(candidate, refused=reason))
                break
    names = {candidate.backend for candidate in refused}
    return [candidate for candidate in able if candidate.backend not in names], refused


def _account(candidate: Candidate) -> tuple[float, float, float]:
    work = candidate.work
    assert work is not None
    return work.flops, work.bytes, float(work.launches)


def _scratch(candidate: Candidate) -> float:
    return candidate.work.scratch if candidate.work else 0.0


def _priced(problem: Problem, candidate: Candidate) -> Candidate:
    found = calibration.prices(backends()[candidate.backend], problem.device, problem.dtype, problem.grad)
    assert candidate.work is not None
    seconds = found and found.seconds(candidate.work)
    return replace(candidate, seconds=seconds, measured=backends()[candidate.backend].measured(problem))


def _predicted(candidate: Candidate) -> float:
    return float("inf") if candidate.seconds is None else candidate.seconds


def plan(
    pattern: Pattern | str,
    grid: int | Grid | list[int],
    *,
    key_grid: int | Grid | list[int] | None = None,
    batch: int = 1,
    heads: int = 1,
    kv_heads: int | None = None,
    head_dim: int = 64,
    value_dim: int | None = None,
    extra: int = 0,
    bias: bool = False,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    grad: bool = False,
) -> Plan:
    """How :func:`fovea.attention` would compute such a call, and why.

    Args:
        pattern: a pattern or its text.
        grid, key_grid: shapes of the queries and (by default the same) of the keys.
        batch, heads, kv_heads, head_dim, value_dim, extra, bias, dtype, device: as the call's tensors would have.
        grad: plan the backward pass instead of the forward pass.

    A problem that was planned before is looked up.

    Raises ``ValueError`` where the pattern does not fit the grids, or where a number or the device makes no sense.

    >>> plan("window:size=8", (64, 64), heads=4).problem.pairs
    262144
    """
    if not isinstance(pattern, Pattern | str):
        raise ValueError(f"pattern={pattern!r}; it must be a pattern or its text, e.g. 'neighborhood:window=7'")
    grids = (tuple(size) if isinstance(size, list) else size for size in (grid, key_grid))
    return _plan(
        pattern, *grids, batch, heads, heads if kv_heads is None else kv_heads, head_dim,
        head_dim if value_dim is None else value_dim, extra, bias, dtype, device, grad, torch.get_num_threads(),
    )  # fmt: skip


def forget_plans() -> None:
    """Plan what was planned before anew."""
    _plan.cache_clear()
    _choose.cache_clear()


def forget() -> int:
    """Forget all plans and the prices they were made with; returns how many files of the cache folder were deleted."""
    forget_plans()
    return calibration.forget()


@lru_cache(maxsize=1024)
def _plan(
    pattern: Pattern | str,
    grid: int | Grid,
    key_grid: int | Grid | None,
    batch: int,
    heads: int,
    kv_heads: int,
    head_dim: int,
    value_dim: int,
    extra: int,
    bias: bool,
    dtype: torch.dtype,
    device: torch.device | str,
    grad: bool,
    threads: int,
) -> Plan:
    pattern = parse(pattern) if isinstance(pattern, str) else pattern
    grids = as_grids(grid, key_grid)
    for name, number, least in (
        ("batch", batch, 0), ("heads", heads, 1), ("kv_heads", kv_heads, 1), ("head_dim", head_dim, 1),
        ("value_dim", value_dim, 1), ("extra", extra, 0),
    ):  # fmt: skip
        if not isinstance(number, int) or number < least:
            raise ValueError(f"{name}={number!r}; it must be an integer of at least {least}")
    if heads % kv_heads:
        raise ValueError(f"heads={heads}, kv_heads={kv_heads}; kv_heads must divide heads")
    if dtype not in DTYPES:
        raise ValueError(f"dtype={dtype}; it may be {', '.join(map(str, DTYPES))}")
    pattern.check(*grids)
    padding(pattern, *grids)
    if bias:
        bias_shape(pattern, *grids)
    problem = Problem(
        pattern, *grids, batch, heads, kv_heads, head_dim, value_dim, extra, bias, head_dim**-0.5, dtype,
        _device(device), grad,
    )  # fmt: skip
    if isinstance(pattern, PerHead):
        if pattern.heads != heads:
            raise ValueError(f"heads={heads}; {pattern} is made for {pattern.heads}")
        from fovea.kernels.per_head import groups

        first, *rest = (_planned(smaller) for smaller, _, _, _ in groups(problem, "auto"))
        return Plan(first.problem, first.backend, first.candidates, tuple(rest))
    return _planned(problem)


def _device(device: torch.device | str) -> torch.device:
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError) as error:  # an AssertionError is how PyTorch tells that it lacks CUDA
        reason = str(error).partition("\n")[0]
        raise ValueError(f"device={str(device)!r}; it must be a device that PyTorch can use here ({reason})") from error
    return found


def _planned(problem: Problem) -> Plan:
    candidates = tuple(
        _priced(problem, candidate)
        if candidate.seconds is None and candidate.work and not candidate.refused
        else candidate
        for candidate in rank(problem)
    )
    return Plan(problem, candidates[0].backend, candidates)
