"""The tiled backend: any tile gives the same numbers; memory linear in the tokens, never a table of all pairs."""

from __future__ import annotations

from math import prod
from typing import Any

import pytest
import torch

import fovea
from fovea.kernels.problem import describe
from fovea.kernels.tiled import CHUNK_BYTES, Tiled
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
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True, acc_events=True
    ) as prof:
        fovea.attention(*inputs, pattern=pattern, bias=bias, backend="tiled").sum().backward()
    total = most = 0
    assert prof.profiler is not None
    assert prof.profiler.kineto_results is not None
    events: list[Any] = sorted(prof.profiler.kineto_results.events(), key=lambda event: event.start_ns())
    for event in events:
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


@pytest.mark.parametrize("tile", [(1, 1), (3, 5), (8, 8), (21, 4)])
@pytest.mark.parametrize(
    "pattern", [Neighborhood(5), Neighborhood(5, 2), Neighborhood((3, 4), 1, (2, 3)), Window(8, 4)]
)
def test_any_tile_gives_the_same_numbers(pattern: GridPattern, tile: tuple[int, int]) -> None:
    query, key, value = torch.randn(3, 1, 19, 14, 2, 8).unbind(0)
    problem = describe(pattern, query, key, value, None, None, None, None)
    out, lse = Tiled(tile).forward(problem, query, key, value, None, None, None)
    wanted, exact = fovea.attention(query, key, value, pattern, backend="reference", return_lse=True)
    torch.testing.assert_close(out, wanted, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(lse, exact, rtol=1e-5, atol=1e-5)
    assert Tiled(tile).work(problem).tile == tile
