"""Shifted windows against their naive twin: tokens filled up, rolled, cut into windows, masked, and put back."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from fovea.nn.shifted_windows import ShiftedWindowAttention, ShiftedWindowBlock, window_in_use
from fovea.patterns.pattern import at_axis


def naive(layer: ShiftedWindowAttention, x: Tensor) -> Tensor:
    """The published procedure: zero tokens beyond the grid are projected, and seen; a mask of -100 between regions."""
    grid, heads = tuple(x.shape[1:-1]), layer.num_heads
    axes = range(len(grid))
    window, shift = layer.window, tuple(at_axis(layer.shift, a) for a in axes)
    if layer.shrink:
        window, shift = window_in_use(grid, window, shift)
    padded = tuple(-(-n // w) * w for n, w in zip(grid, window, strict=True))
    padding = [side for n, p in zip(reversed(grid), reversed(padded), strict=True) for side in (0, p - n)]
    along, back = list(range(1, len(grid) + 1)), [-s for s in shift]
    if layer.order == "pad-roll":
        x = F.pad(x, [0, 0, *padding]).roll(back, along)
    else:
        x = F.pad(x.roll(back, along), [0, 0, *padding])
    regions = torch.zeros(padded)
    bands = [[slice(0, -w), slice(-w, -s), slice(-s, None)] for w, s in zip(window, shift, strict=True)]
    for number, place in enumerate(product(*bands)):
        regions[place] = number

    def cut(t: Tensor) -> Tensor:
        """``[B, *padded, C] -> [B, windows, tokens, C]``."""
        t = t.reshape(t.shape[0], *(f for p, w in zip(padded, window, strict=True) for f in (p // w, w)), t.shape[-1])
        return (
            t.permute(0, *(1 + 2 * a for a in axes), *(2 + 2 * a for a in axes), t.ndim - 1)
            .flatten(len(grid) + 1, -2)
            .flatten(1, len(grid))
        )

    tokens = cut(x)
    q, k, v = layer.qkv(tokens).unflatten(-1, (3, heads, -1)).permute(3, 0, 1, 4, 2, 5)
    logits = q @ k.mT * layer.scale
    number = cut(regions[None, ..., None])[0, ..., 0]
    logits = logits + torch.where(number[:, :, None] == number[:, None], 0.0, -100.0)[:, None]
    if layer.bias is not None:
        nominal = layer.window if layer.shrunk_bias == "official" else window
        places = torch.cartesian_prod(*(torch.arange(n) for n in nominal))[: tokens.shape[2]]
        offset = places[None] - places[:, None] + torch.tensor(layer.window) - 1
        logits = logits + layer.bias[(slice(None), *offset.unbind(-1))]
    out = layer.project((logits.softmax(-1) @ v).transpose(2, 3).flatten(-2))
    out = out.unflatten(2, window).unflatten(1, tuple(p // w for p, w in zip(padded, window, strict=True)))
    out = out.permute(0, *(i for a in axes for i in (1 + a, 1 + len(grid) + a)), out.ndim - 1)
    out = out.reshape(x.shape[0], *padded, -1)
    keep = (slice(None), *(slice(0, n) for n in grid))
    return out.roll(list(shift), along)[keep] if layer.order == "pad-roll" else out[keep].roll(list(shift), along)


def layer_of(window: tuple[int, ...], shift: int, **words: object) -> ShiftedWindowAttention:
    layer = ShiftedWindowAttention(8, 2, window, shift, **words).double()  # type: ignore[arg-type]
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return layer


CASES = [
    ((3, 3), 1, (6, 9)),
    ((3, 3), 1, (7, 5)),
    ((4, 3), 1, (3, 8)),  # one axis fits in the window
    ((4, 4), 2, (3, 2)),
    ((3, 3, 3), 1, (4, 6, 5)),
    ((3, 3, 3), 0, (4, 3, 5)),
    ((3, 4, 3), 1, (2, 6, 3)),
    ((4, 4, 4), 2, (3, 2, 3)),
]


@pytest.mark.parametrize(("window", "shift", "grid"), CASES, ids=str)
@pytest.mark.parametrize("shrunk_bias", ["geometric", "official"])
def test_equals_padding_rolling_and_masking(
    window: tuple[int, ...], shift: int, grid: tuple[int, ...], shrunk_bias: str
) -> None:
    layer = layer_of(window, shift, shrunk_bias=shrunk_bias)
    x = torch.randn(2, *grid, 8, dtype=torch.float64, requires_grad=True)
    ours, theirs = layer(x), naive(layer, x)
    torch.testing.assert_close(ours, theirs)
    wanted = [x, *layer.parameters()]
    weights = torch.randn_like(ours)
    for mine, other in zip(
        torch.autograd.grad(ours, wanted, weights), torch.autograd.grad(theirs, wanted, weights), strict=True
    ):
        torch.testing.assert_close(mine, other, atol=1e-10, rtol=1e-7)


@pytest.mark.parametrize(("window", "shift", "grid"), CASES[:4], ids=str)
def test_rolling_before_padding(window: tuple[int, ...], shift: int, grid: tuple[int, ...]) -> None:
    layer = layer_of(window, shift, order="roll-pad")
    x = torch.randn(1, *grid, 8, dtype=torch.float64)
    torch.testing.assert_close(layer(x), naive(layer, x))


def test_the_orders_differ_only_where_something_is_filled() -> None:
    first, second = layer_of((3, 3), 1), layer_of((3, 3), 1, order="roll-pad")
    second.load_state_dict(first.state_dict())
    whole, odd = torch.randn(1, 6, 6, 8).double(), torch.randn(1, 5, 7, 8).double()
    torch.testing.assert_close(first(whole), second(whole))
    assert (first(odd) - second(odd)).abs().max() > 1e-3


def test_windows_that_do_not_shrink_are_filled() -> None:
    layer = layer_of((7, 7), 0, shrink=False)
    x = torch.randn(2, 4, 2, 8, dtype=torch.float64)
    torch.testing.assert_close(layer(x), naive(layer, x))


def test_the_rules_for_small_grids_differ_and_agree_on_large_ones() -> None:
    geometric, official = layer_of((4, 4, 4), 0), layer_of((4, 4, 4), 0, shrunk_bias="official")
    official.load_state_dict(geometric.state_dict())
    small, large = torch.randn(1, 3, 3, 3, 8).double(), torch.randn(1, 4, 4, 5, 8).double()
    assert (geometric(small) - official(small)).abs().max() > 1e-3
    torch.testing.assert_close(geometric(large), official(large))


def test_without_biases() -> None:
    layer = layer_of((3, 3), 1, relative_bias=False, qkv_bias=False)
    assert layer.bias is None and layer.qkv.bias is None
    x = torch.randn(1, 4, 7, 8, dtype=torch.float64)
    torch.testing.assert_close(layer(x), naive(layer, x))


def test_block_is_its_formula() -> None:
    block = ShiftedWindowBlock(8, 2, (3, 3, 3), 1, mlp_ratio=2).eval()
    assert block.mlp.expand.out_features == 16
    x = torch.randn(1, 4, 3, 5, 8)
    middle = x + block.attention(block.norm1(x))
    torch.testing.assert_close(block(x), middle + block.mlp(block.norm2(middle)))


def test_refusals() -> None:
    for words, message in (
        ({"num_heads": 3}, "num_heads=3; it must divide dim=8"),
        ({"order": "roll"}, "order='roll'; it must be 'pad-roll' or 'roll-pad'"),
        ({"shrunk_bias": "wrong"}, "shrunk_bias='wrong'; it must be"),
        ({"shift": 3}, "shift must be 0 to 2"),
    ):
        with pytest.raises(ValueError, match=message):
            ShiftedWindowAttention(**{"dim": 8, "num_heads": 2, "window": (3, 3)} | words)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="x has 3 grid axes"):
        ShiftedWindowAttention(8, 2, (3, 3))(torch.randn(1, 3, 3, 3, 8))
