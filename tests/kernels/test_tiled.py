"""The tiled backend's memory: linear in the tokens, never a table of all pairs."""

from __future__ import annotations

from math import prod

import pytest
import torch

import fovea
from fovea.kernels.tiled import CHUNK_BYTES
from fovea.patterns import Blocks, GridPattern, Neighborhood, Pattern, SlidingWindow, Window

MIB = 1 << 20


def peak(pattern: Pattern, grid: tuple[int, ...], *, biased: bool = False) -> int:
    """The most bytes that PyTorch holds at a time in forward and backward pass of 4 heads of 16."""
    tokens = torch.randn(1, *grid, 4, 16)
    inputs = [tokens.clone().requires_grad_() for _ in range(3)]
    bias = None
    if biased:
        assert isinstance(pattern, GridPattern)
        bias = torch.zeros(4, *pattern.bias_shape(grid, grid), requires_grad=True)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as prof:
        fovea.attention(*inputs, pattern, bias=bias, backend="tiled").sum().backward()
    total = most = 0
    assert prof.profiler is not None
    assert prof.profiler.kineto_results is not None
    for event in sorted(prof.profiler.kineto_results.events(), key=lambda event: event.start_ns()):
        if event.name() == "[memory]":
            total += event.nbytes()
            most = max(most, total)
    return most


CASES = [
    (Neighborhood(13), (128, 128), False),
    (Neighborhood(13, 4), (96, 128), False),
    (Neighborhood(7), (96, 96), True),
    (Window(8, 4), (112, 112), True),
    (SlidingWindow(255), (8192,), False),
    (Blocks.sliding(64, 4), (8192,), False),
]


@pytest.mark.parametrize(("pattern", "grid", "biased"), CASES, ids=str)
def test_peak_is_linear_in_the_tokens(pattern: Pattern, grid: tuple[int, ...], biased: bool) -> None:
    """A few tensors and a few chunks; a byte for every pair of one head would be more by itself."""
    tensor = prod(grid) * 4 * 16 * 4
    bound = 12 * tensor + 4 * CHUNK_BYTES
    assert prod(grid) ** 2 > bound
    assert peak(pattern, grid, biased=biased) < bound


def test_peak_of_a_large_grid() -> None:
    """128 x 128 tokens under a window of 13: a table of the logits of all pairs would be 4 GiB."""
    assert peak(Neighborhood(13), (128, 128)) < 64 * MIB
