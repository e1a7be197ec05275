"""Attention over tokens in the order of their tiles is attention on the grid."""

from __future__ import annotations

import pytest
import torch

import fovea
from fovea.kernels.tile_order import TileOrder
from fovea.patterns import GridPattern, Halo, Neighborhood, Pattern, Window


@pytest.mark.parametrize(
    ("pattern", "grid", "tile"),
    [
        (Neighborhood((6, 6, 12), (2, 2, 4)), (8, 6, 16), (2, 2, 4)),
        (Neighborhood(6, 2, 2), (16, 12), (2, 2)),
        (Window(4), (8, 12), (2, 4)),
        (Neighborhood(12, 4), (32,), (4,)),
    ],
    ids=str,
)
@pytest.mark.parametrize("backend", ["tiled", "reference"])
def test_sequence_of_tiles_is_the_grid(
    pattern: GridPattern, grid: tuple[int, ...], tile: tuple[int, ...], backend: str
) -> None:
    order = TileOrder.of(pattern, grid, tile)
    leaves = [torch.randn(2, *grid, 2, 8, requires_grad=True) for _ in range(3)]
    out = fovea.attention(*map(order.sequence, leaves), pattern=order.pattern, backend=backend)
    wanted = fovea.attention(*leaves, pattern=pattern, backend="reference")
    torch.testing.assert_close(order.grid(out), wanted)
    weights = torch.randn_like(wanted)
    found = torch.autograd.grad((order.grid(out) * weights).sum(), leaves)
    for mine, theirs in zip(found, torch.autograd.grad((wanted * weights).sum(), leaves), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_video_of_the_paper_falls_on_whole_tiles() -> None:
    order = TileOrder.of(Neighborhood((18, 24, 24), (16, 8, 8)), (30, 48, 80), (2, 8, 8))
    assert order.pattern.size == 128
    assert {len(row) for row in order.pattern.rows} == {81}


@pytest.mark.parametrize(
    ("pattern", "grid", "tile", "told"),
    [
        (Neighborhood(7), (56, 56), (8, 8), "sees only a part of"),
        (Neighborhood(8, 4), (30,), (4,), "must fill the grid"),
        (Halo(4, 2, "zero"), (8, 8), (4, 4), "adds zero keys"),
        ("blocks:size=4,terms=sink(1)", (8,), (4,), "must be a grid pattern"),
    ],
)
def test_what_does_not_fall_on_whole_tiles_is_refused(
    pattern: Pattern | str, grid: tuple[int, ...], tile: tuple[int, ...], told: str
) -> None:
    with pytest.raises(ValueError, match=told):
        TileOrder.of(pattern, grid, tile)


def test_shapes_that_do_not_fit_are_named() -> None:
    order = TileOrder.of(Window(4), (8, 8), (4, 4))
    with pytest.raises(ValueError, match=r"tokens has shape \(1, 8, 7\)"):
        order.sequence(torch.empty(1, 8, 7))
    with pytest.raises(ValueError, match=r"sequence has shape \(1, 63\)"):
        order.grid(torch.empty(1, 63))
