from __future__ import annotations

from typing import Any

import pytest
import torch

import fovea
from fovea.nn import natten
from fovea.patterns import Neighborhood

GRIDS = {1: (9,), 2: (6, 7), 3: (4, 5, 6)}


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_functions_are_the_operator(axes: int) -> None:
    query, key, value = torch.randn(3, 2, *GRIDS[axes], 4, 8).unbind()
    extra = torch.randn(2, 3, 4, 8)
    function = (natten.na1d, natten.na2d, natten.na3d)[axes - 1]
    out, lse = function(
        query, key, value, 3, stride=2, is_causal=True, additional_keys=extra, additional_values=extra, return_lse=True
    )
    expected = fovea.attention(query, key, value, Neighborhood(3, 2, 1, True), extra_key=extra, extra_value=extra)
    torch.testing.assert_close(out, expected)
    assert lse.shape == (2, *GRIDS[axes], 4)
    with pytest.raises(ValueError, match=f"with {axes} grid axes it must have {axes + 3} dimensions"):
        function(query[0], key[0], value[0], 3)


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_modules_take_the_official_words_in_order(axes: int) -> None:
    module: Any = getattr(natten, f"NeighborhoodAttention{axes}D")
    layer = module(8, 2, 3, 1, 2, False, True, 0.3, 0.1, rel_pos_bias=True)
    assert layer.pattern == Neighborhood((3,) * axes, 1, 2, False)
    assert (layer.scale, layer.dropout.p) == (0.3, 0.1)
    assert layer.bias.shape == (2, *(5,) * axes)
    x = torch.randn(1, *(6,) * axes, 8)
    assert layer(x).shape == x.shape
    with pytest.raises(ValueError, match=f"{axes} axes"):
        layer(torch.randn(1, *(6,) * (axes % 3 + 1), 8))


def test_modules_of_another_rank_are_refused() -> None:
    with pytest.raises(ValueError, match=r"kernel_size=\(3, 3\); NeighborhoodAttention3D needs 3"):
        natten.NeighborhoodAttention3D(8, 2, (3, 3))
