"""Adapters start as nothing, merge into what they are beside, and are told apart from what they adapt."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fovea.nn import Linear
from fovea.nn.lora import GatedLoRALinear, LoRALinear, adapters, merge
from fovea.nn.swiglu import SwiGLU

KINDS = pytest.mark.parametrize("kind", [LoRALinear, GatedLoRALinear])


def learned(kind: type[LoRALinear]) -> LoRALinear:
    layer = kind(6, 10, rank=3, alpha=5.0)
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    return layer


@KINDS
def test_a_new_adapter_changes_nothing(kind: type[LoRALinear]) -> None:
    layer, plain = kind(6, 10, rank=3, alpha=5.0), Linear(6, 10)
    plain.load_state_dict({name: tensor for name, tensor in layer.state_dict().items() if name in ("weight", "bias")})
    x = torch.randn(4, 7, 6)
    torch.testing.assert_close(layer(x), plain(x))


@KINDS
def test_the_formula_in_words(kind: type[LoRALinear]) -> None:
    layer, x = learned(kind).double(), torch.randn(4, 6, dtype=torch.float64)
    low = 5 / 3 * (x @ layer.down.T) @ layer.up.T
    expected = x @ layer.weight.T + layer.bias
    if isinstance(layer, GatedLoRALinear):
        expected = expected + torch.sigmoid(x @ layer.gate.T) * low + x @ layer.residual.T
    else:
        expected = expected + low
    torch.testing.assert_close(layer(x), expected)


@KINDS
def test_merging_changes_no_output_however_often(kind: type[LoRALinear]) -> None:
    layer, x = learned(kind).double(), torch.randn(4, 6, dtype=torch.float64)
    before, weight = layer(x), layer.weight.clone()
    merge(nn.Sequential(layer))
    torch.testing.assert_close(layer(x), before)
    assert not torch.equal(layer.weight, weight)
    layer.merge()
    torch.testing.assert_close(layer(x), before)
    if kind is LoRALinear:
        torch.testing.assert_close(nn.functional.linear(x, layer.weight, layer.bias), before)


def test_adapters_are_found_by_name_and_nothing_else_is() -> None:
    module = nn.ModuleDict({"a": LoRALinear(2, 3, rank=1, alpha=1), "b": GatedLoRALinear(2, 3, rank=1, alpha=1)})
    module["c"] = nn.Linear(2, 2)
    assert set(adapters(module)) == {"a.down", "a.up", "b.down", "b.up", "b.gate", "b.residual"}
    assert set(adapters(LoRALinear(2, 3, rank=1, alpha=1))) == {"down", "up"}


def test_rank_is_at_least_one() -> None:
    with pytest.raises(ValueError, match="rank=0; it must be at least 1"):
        LoRALinear(2, 2, rank=0, alpha=1)


def test_swiglu() -> None:
    layer, u = SwiGLU(4, 6).double(), torch.randn(3, 4, dtype=torch.float64)
    opened, value = layer.opened(u), layer.value(u)
    torch.testing.assert_close(layer(u), layer.project(opened * opened.sigmoid() * value))
    assert layer(u).shape == u.shape
