"""The small layers: linear map, feed-forward, convolution of grids."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from fovea.nn import MLP, GridConv, Linear


def test_linear_starts_small_and_without_bias() -> None:
    layer = Linear(200, 300)
    assert layer.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert not layer.bias.any()
    assert Linear(2, 3, bias=False).bias is None


def test_mlp_is_its_formula() -> None:
    mlp = MLP(4, 8)
    x = torch.randn(2, 3, 4)
    torch.testing.assert_close(mlp(x), mlp.contract(F.gelu(mlp.expand(x))))


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("stride", [1, 2])
def test_convolution_keeps_or_halves_the_grid(axes: int, stride: int) -> None:
    grid = (5, 4, 3)[:axes]
    out = GridConv(2, 6, 3, axes=axes, stride=stride)(torch.randn(1, *grid, 2))
    assert out.shape == (1, *(-(-n // stride) for n in grid), 6)


def test_convolution_of_four_axes_is_refused() -> None:
    with pytest.raises(ValueError, match="axes=4; it must be 1, 2 or 3"):
        GridConv(2, 2, 3, axes=4)
