"""Timing the ways to compute one attention call on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from math import prod
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

import fovea
from fovea.kernels import registry
from fovea.patterns import Pattern, PerHead, parse

DENSE_PAIRS = 2**28
"""Largest number of pairs, over batch and heads, for which dense scores are held against the definition or masked."""


def compare(
    text: str,
    grid: tuple[int, ...],
    batch: int,
    heads: int,
    head_dim: int,
    dtype: torch.dtype,
    device: torch.device,
    *,
    grad: bool,
    seconds: float,
) -> dict[str, Any]:
    """Every backend and dense attention on random tensors of this shape.

    Returns:
        ``title``, ``pairs`` and ``all_pairs`` (a head and batch entry), and ``ways``: for each its name, the median
        seconds of a call (none and ``why_not`` where it cannot run), the largest absolute error against the
        definition in float64, and a note.
    """
    pattern = parse(text)
    generator = torch.Generator().manual_seed(0)
    made = [torch.randn(batch, *grid, heads, head_dim, generator=generator).to(device, dtype) for _ in range(3)]
    query, key, value = (tensor.requires_grad_(grad) for tensor in made)
    tokens, small = prod(grid), batch * heads * prod(grid) ** 2 <= DENSE_PAIRS
    truth = None
    if small:
        with torch.no_grad():
            q, k, v = (tensor.detach().double().cpu() for tensor in (query, key, value))
            truth = _attention(q, k, v, pattern, "reference")

    def time_it(call: Callable[[], Tensor], *, approximates: bool = True) -> dict[str, Any]:
        out = call()
        error = None
        if truth is not None and approximates:
            error = float((out.detach().double().cpu() - truth).abs().max())
        return {"seconds": _median(call, grad, seconds, device), "error": error, "why_not": None}

    ways = []
    for name, backend in registry.backends().items():
        ways.append({"name": name, "note": "the definition" if name == "reference" else "", **_none(backend.missing())})
        if name == "reference" and not small:
            ways[-1] |= _none("too large to be computed densely")
        if ways[-1]["why_not"] is None:
            try:
                call = _with_backend(query, key, value, pattern, name)
                ways[-1] |= time_it(call)
            except ValueError as error:
                ways[-1] |= _none(str(error))
    ways.append(
        {
            "name": "auto",
            "note": "what fovea.attention does",
            **time_it(_with_backend(query, key, value, pattern, "auto")),
        }
    )

    def dense(mask: Tensor | None) -> Callable[[], Tensor]:
        def call() -> Tensor:
            q, k, v = (tensor.flatten(1, -3).transpose(1, 2) for tensor in (query, key, value))
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
            return out.transpose(1, 2).unflatten(1, grid)

        return call

    masked = {"name": "dense, masked", "note": "scaled_dot_product_attention with a boolean mask"}
    if tokens**2 * (heads if isinstance(pattern, PerHead) else 1) > DENSE_PAIRS:
        ways.append(masked | _none("the mask would be too large"))
    else:
        mask = torch.from_numpy(pattern.mask(grid)).to(device)
        if mask.shape[-1] != tokens:
            ways.append(masked | _none("the pattern pads its keys with zeros"))
        else:
            ways.append(masked | time_it(dense(mask)))
    everything = {"name": "dense, every pair", "note": "scaled_dot_product_attention without a mask"}
    ways.append(everything | time_it(dense(None), approximates=False))
    shape = "x".join(map(str, grid))
    what = "forward and backward" if grad else "forward"
    name = str(dtype).removeprefix("torch.")
    title = f"{text} on {shape}, batch {batch}, {heads} heads of {head_dim}, {name}, {device}, {what}"
    return {"title": title, "pairs": _pairs(pattern, grid), "all_pairs": tokens**2, "ways": ways}


def _none(why: str | None) -> dict[str, Any]:
    return {"seconds": None, "error": None, "why_not": why}


def _with_backend(query: Tensor, key: Tensor, value: Tensor, pattern: Pattern, backend: str) -> Callable[[], Tensor]:
    return lambda: _attention(query, key, value, pattern, backend)


def _attention(query: Tensor, key: Tensor, value: Tensor, pattern: Pattern, backend: str) -> Tensor:
    out = fovea.attention(query, key, value, pattern, backend=backend)
    assert isinstance(out, Tensor)
    return out


def _pairs(pattern: Pattern, grid: tuple[int, ...]) -> int:
    """Pairs of one head: the mean over heads where they differ."""
    if isinstance(pattern, PerHead):
        return sum(_pairs(part, grid) for part in pattern.parts) // pattern.heads
    count = getattr(pattern, "pairs", None)
    return count(grid) if count is not None else int(pattern.mask(grid).sum())


def _median(call: Callable[[], Tensor], grad: bool, budget: float, device: torch.device) -> float:
    """Median seconds of a call, repeated at least three times and for about ``budget`` seconds."""
    times: list[float] = []
    while len(times) < 3 or sum(times) < budget:
        _wait(device)
        begun = time.perf_counter()
        out = call()
        if grad:
            out.sum().backward()
        _wait(device)
        times.append(time.perf_counter() - begun)
        if len(times) >= 1000 or (len(times) >= 2 and sum(times) > 10 * budget):
            break
    return median(times)


def _wait(device: torch.device) -> None:
    if device.type != "cpu":
        getattr(torch, device.type).synchronize()
