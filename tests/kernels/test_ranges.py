"""Attention to a query's own ranges: as masked scores of all pairs give it, forward and backward."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fovea.kernels import ranges
from fovea.kernels.ranges import range_attention, range_attention_naive


def problem(keys: int = 50, width: int = 12, dtype: torch.dtype = torch.float64) -> tuple[list[Tensor], Tensor, Tensor]:
    """Ranges of all kinds: beyond both ends, empty, of one key, overlapping, of all queries at the same place."""
    query = torch.randn(2, 37, 4, 8, dtype=dtype, requires_grad=True)
    key, value = (torch.randn(2, keys, 2, n, dtype=dtype, requires_grad=True) for n in (8, 5))
    start = torch.randint(-3, keys, (2, 37, 4, 3))
    stop = start + torch.randint(-1, width, start.shape)
    start[:, :, 1, 0], stop[:, :, 1, 0] = 4, 9
    start[0, 5], stop[0, 5] = 7, 7
    return [query, key, value], start, stop.clamp(max=keys)


@pytest.mark.parametrize(("keys", "width"), [(50, 12), (1, 3), (700, 300), (700, 4)])
@pytest.mark.parametrize(("rows", "sparse"), [(1024, 16), (7, 16), (1024, 10**6)], ids=["tiles", "cut", "gathered"])
def test_it_is_masked_attention(keys: int, width: int, rows: int, sparse: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranges, "_ROWS", rows)
    monkeypatch.setattr(ranges, "_SPARSE", sparse)
    inputs, start, stop = problem(keys, width)
    results = [attend(*inputs, start, stop, 0.3) for attend in (range_attention, range_attention_naive)]
    weight, slope = torch.randn_like(results[0][0]), torch.randn_like(results[0][1])
    gradients = []
    for out, lse in results:
        loss = (out * weight).sum() + (torch.where(lse == -torch.inf, 0, lse) * slope).sum()
        gradients.append(torch.autograd.grad(loss, inputs))
    for ours, naive in zip((*results[0], *gradients[0]), (*results[1], *gradients[1]), strict=True):
        torch.testing.assert_close(ours, naive)
    assert (results[0][1][0, 5] == -torch.inf).all() and (results[0][0][0, 5] == 0).all()


def test_a_single_result_may_be_used() -> None:
    inputs, start, stop = problem()
    for which in (0, 1):
        ours, naive = (
            torch.autograd.grad(torch.where(attend(*inputs, start, stop)[which].isfinite(), 1.0, 0.0).sum() * 0
                                + attend(*inputs, start, stop)[which].clamp(min=-50).sum(), inputs[:2])
            for attend in (range_attention, range_attention_naive)
        )  # fmt: skip
        for one, other in zip(ours, naive, strict=True):
            torch.testing.assert_close(one, other)


def test_a_handful_is_read_where_it_lies() -> None:
    (query, key, value), start, stop = problem(dtype=torch.float32)
    few = [tensor[:, :1].detach() for tensor in (query, start, stop)]
    with torch.no_grad():
        ours = range_attention(few[0], key, value, *few[1:])
    naive = range_attention_naive(few[0], key, value, *few[1:])
    for one, other in zip(ours, naive, strict=True):
        torch.testing.assert_close(one, other.detach())


def test_keys_out_of_all_ranges_are_not_touched() -> None:
    (query, key, value), start, stop = problem(keys=200)
    start, stop = start.clamp(50, 90), stop.clamp(50, 90)
    outside = [tensor.detach().clone() for tensor in (key, value)]
    for tensor in outside:
        tensor[:, :50] = tensor[:, 90:] = torch.nan
    without, whole = (range_attention(query, *each, start, stop) for each in (outside, (key, value)))
    for one, other in zip(without, whole, strict=True):
        assert torch.equal(one, other)


def test_tiles_waste_little() -> None:
    """Random spans of a causal search: dense products hold at most three times the pairs that are seen."""
    tokens = torch.arange(4096)[None, :, None, None].expand(1, -1, 2, 2)
    back = (torch.rand(tokens.shape) * (tokens + 1).sqrt()).floor().long() ** 2
    stop = tokens - back + 1
    start = (stop - 1 - 2 * (tokens + 1).double().sqrt().ceil().long()).clamp(min=0)
    tiles = ranges._tile(start, stop, 2, 4096)
    dense = sum((last - first) * (high - low) for first, last, low, high, *_ in tiles.tiles)
    assert dense <= 3 * int((stop - start).sum())


def test_half_precision_is_computed_in_single() -> None:
    inputs, start, stop = problem(dtype=torch.float32)
    half = [tensor.detach().bfloat16() for tensor in inputs]
    out, lse = range_attention(*half, start, stop)
    wanted, total = range_attention(*(tensor.float() for tensor in half), start, stop)
    assert out.dtype == torch.bfloat16 and lse.dtype == torch.float32
    torch.testing.assert_close(out, wanted.bfloat16())
    torch.testing.assert_close(lse, total)
