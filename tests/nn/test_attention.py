"""Grid attention against its naive twins: windows cut by hand, neighbourhoods looked up key by key."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fovea.nn import GridAttention, NeighborhoodAttention
from fovea.patterns import Causal, Full, GridPattern, Halo, Neighborhood, Window


def by_hand(layer: GridAttention, x: Tensor) -> Tensor:
    """The definition, token by token: for every query its keys, its logits, its softmax. ``[B, *grid, C]``."""
    grid, heads = tuple(x.shape[1:-1]), layer.num_heads
    dim = x.shape[-1] // heads
    q, k, v = layer.qkv(x).unflatten(-1, (3, heads, dim)).flatten(1, -4).unbind(2)  # [B, N, heads, dim]
    spans = layer.pattern.spans(grid)
    places = torch.cartesian_prod(*(torch.arange(n) for n in grid)).reshape(-1, len(grid)).tolist()
    out = torch.zeros_like(q)
    for i, place in enumerate(places):
        logits, values = [], []
        axes = [range(int(s.start[p]), int(s.stop[p]), s.step) for s, p in zip(spans, place, strict=True)]
        for key in torch.cartesian_prod(*map(torch.tensor, map(list, axes))).reshape(-1, len(grid)).tolist():
            inside = all(0 <= c < n for c, n in zip(key, grid, strict=True))
            j = places.index(key) if inside else None
            score = (q[:, i] * k[:, j]).sum(-1) * dim**-0.5 if j is not None else q.new_zeros(len(x), heads)
            if layer.bias is not None:
                entry = [
                    (c - int(s.position[p])) // s.step - layer.pattern.offsets(axis, n, n)[0]
                    for axis, (c, p, s, n) in enumerate(zip(key, place, spans, grid, strict=True))
                ]
                score = score + layer.bias[(slice(None), *entry)]
            logits.append(score)
            values.append(v[:, j] if j is not None else torch.zeros_like(v[:, 0]))
        weights = torch.stack(logits, -1).softmax(-1)  # [B, heads, keys]
        out[:, i] = torch.einsum("bhk,bkhd->bhd", weights, torch.stack(values, 1))
    return layer.project(out.flatten(-2)).reshape(x.shape)


@pytest.mark.parametrize(
    ("pattern", "grid"),
    [
        (Window(3, shift=1), (7,)),
        (Window((2, 3), shift=(1, 0)), (5, 4)),
        (Window(2, shift=1), (3, 2, 3)),
        (Halo(2, 1, "zero"), (5, 4)),
        (Halo(2, 1), (5, 4)),
        (Neighborhood(3, dilation=2), (7,)),
        (Neighborhood((3, 2)), (4, 5)),
        (Causal(), (5,)),
        (Full(), (2, 3)),
    ],
    ids=str,
)
def test_equals_the_definition(pattern: GridPattern, grid: tuple[int, ...]) -> None:
    layer = GridAttention(8, 2, pattern, bias_grid=grid).double()
    torch.nn.init.normal_(layer.qkv.bias)
    assert layer.bias is not None
    torch.nn.init.normal_(layer.bias)
    x = torch.randn(2, *grid, 8, dtype=torch.float64)
    torch.testing.assert_close(layer(x), by_hand(layer, x))


def test_zero_keys_are_not_the_projection_of_zeros() -> None:
    """Beyond the border lie zeros after the projection: its bias must not reach them."""
    layer = GridAttention(1, 1, Halo(2, 1, "zero"), scale=0.0)
    torch.nn.init.constant_(layer.qkv.bias, 3.0)
    torch.nn.init.ones_(layer.project.weight)
    out = layer(torch.zeros(1, 4, 4, 1))
    assert out[0, 0, 0].item() == pytest.approx(3 * 9 / 16)  # 9 of the 16 keys of the corner block are in the image


def test_one_neighborhood_module_serves_every_rank() -> None:
    layer = NeighborhoodAttention(8, 2, 3)
    for grid in ((9,), (4, 5), (3, 4, 5)):
        assert layer(torch.randn(2, *grid, 8)).shape == (2, *grid, 8)


def test_neighborhood_with_bias_has_two_k_minus_one_entries_an_axis() -> None:
    layer = NeighborhoodAttention(8, 2, 7, rel_pos_bias=True, axes=2)
    assert layer.bias is not None
    assert layer.bias.shape == (2, 13, 13)
    with pytest.raises(ValueError, match=r"axes=None.*kernel_size=7"):
        NeighborhoodAttention(8, 2, 7, rel_pos_bias=True)


def test_scale_and_absent_biases() -> None:
    layer = GridAttention(8, 2, Window(2), qkv_bias=False, scale=0.0)
    assert layer.qkv.bias is None
    x = torch.randn(1, 2, 2, 8)
    values = layer.qkv(x)[..., 16:]
    mean = values.mean((1, 2), keepdim=True).expand(-1, 2, 2, -1)  # with equal logits every key counts the same
    torch.testing.assert_close(layer(x), layer.project(mean))


def test_heads_must_divide_channels() -> None:
    with pytest.raises(ValueError, match="num_heads=3; it must divide dim=8"):
        GridAttention(8, 3, Full())
