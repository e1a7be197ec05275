"""Patch merging: which neighbours stand where, odd grids, refusals."""

from __future__ import annotations

import pytest
import torch

from fovea.nn.patch_merging import CORNERS, PatchMerging


def laid_out(layer: PatchMerging, x: torch.Tensor) -> torch.Tensor:
    """The tokens side by side, as the normalisation finds them."""
    seen: list[torch.Tensor] = []
    layer.norm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    layer(x)
    return seen[0]


@pytest.mark.parametrize(
    ("order", "corners"),
    [
        ("legacy", "000 100 010 001 101 010 001 111"),
        ("merging", "000 100 010 001 110 101 011 111"),
        ("mergingv2", "000 001 010 011 100 101 110 111"),
    ],
)
def test_orders_in_three_dimensions(order: str, corners: str) -> None:
    cell = torch.arange(8.0).reshape(1, 2, 2, 2, 1)  # token abc (binary) holds its number
    found = laid_out(PatchMerging(1, axes=3, order=order), cell)  # type: ignore[arg-type]
    assert found.flatten().tolist() == [float(int(corner, 2)) for corner in corners.split()]


@pytest.mark.parametrize("order", list(CORNERS))
def test_one_order_in_two_dimensions(order: str) -> None:
    cell = torch.tensor([[0.0, 1.0], [2.0, 3.0]]).reshape(1, 2, 2, 1)
    assert laid_out(PatchMerging(1, axes=2, order=order), cell).flatten().tolist() == [0, 2, 1, 3]  # type: ignore[arg-type]


def test_odd_axes_end_in_zeros() -> None:
    layer = PatchMerging(2, axes=3)
    found = laid_out(layer, torch.ones(1, 3, 4, 1, 2))
    assert found.shape == (1, 2, 2, 1, 16)
    assert found[0, 0, 0, 0].unflatten(0, (8, 2))[:, 0].tolist() == [1, 1, 1, 0, 1, 0, 0, 0]  # axis 2 has one token
    assert layer(torch.ones(1, 3, 4, 1, 2)).shape == (1, 2, 2, 1, 4)


def test_width_and_refusals() -> None:
    assert PatchMerging(4, out_dim=5)(torch.randn(2, 4, 6, 4)).shape == (2, 2, 3, 5)
    with pytest.raises(ValueError, match="axes=1; it must be 2 or 3"):
        PatchMerging(4, axes=1)
    with pytest.raises(ValueError, match="order='row'; it must be one of legacy, merging, mergingv2"):
        PatchMerging(4, order="row")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="x has 2 grid axes; this layer is made for 3"):
        PatchMerging(4, axes=3)(torch.randn(1, 4, 4, 4))
