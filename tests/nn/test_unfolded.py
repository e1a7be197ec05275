from __future__ import annotations

import pytest
import torch

from fovea.nn import GridAttention
from fovea.nn.unfolded import unfolded
from fovea.patterns import Halo, Window


@pytest.mark.parametrize("bias_grid", [None, (2, 2)])
@pytest.mark.parametrize("scale", [None, 0.7])
def test_twins_agree(bias_grid: tuple[int, ...] | None, scale: float | None) -> None:
    layer = GridAttention(8, 2, Halo(2, 1, "zero"), bias_grid=bias_grid, scale=scale).double()
    x = torch.randn(2, 4, 6, 8, dtype=torch.float64)
    torch.testing.assert_close(layer(x), unfolded(layer, x))


@pytest.mark.parametrize("pattern", [Window(2), Halo(2, 1), Halo(2, 1, "shift")])
def test_other_patterns_are_refused(pattern: Window | Halo) -> None:
    with pytest.raises(ValueError, match="must be a halo with border=zero"):
        unfolded(GridAttention(8, 2, pattern), torch.randn(1, 4, 4, 8))
