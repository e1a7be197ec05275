"""Linear attention with a Taylor map as a layer."""

from __future__ import annotations

import pytest
import torch

from fovea.kernels import taylor
from fovea.nn.taylor_attention import TaylorAttention
from nn.mixer_contract import check_mixer


@pytest.mark.parametrize(("heads", "feature_dim", "head_dim", "chunk"), [(3, 4, None, 8), (1, 2, 5, 64), (2, 7, 3, 1)])
def test_contract(heads: int, feature_dim: int, head_dim: int | None, chunk: int) -> None:
    layer = TaylorAttention(12, heads, feature_dim=feature_dim, head_dim=head_dim, chunk=chunk)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    check_mixer(layer, 12, 37)


def test_state_is_the_published_formula_and_does_not_grow() -> None:
    layer = TaylorAttention(1024, 16)
    assert layer.state_size(1000) == layer.state_size(0) == 16 * 153 * 65


def test_state_is_single_precision_under_half_precision_weights() -> None:
    layer = TaylorAttention(8, 2, feature_dim=3).bfloat16()
    x = torch.randn(1, 40, 8).bfloat16()
    state = layer.start(1, x)
    assert state.tensors["memory"].dtype == torch.float32
    assert layer.prefill(x, state).dtype == torch.bfloat16


def test_share_of_logits_out_of_range() -> None:
    layer = TaylorAttention(6, 2, feature_dim=4)
    torch.nn.init.normal_(layer.query.weight, std=1.5)
    torch.nn.init.normal_(layer.key.weight, std=1.5)
    x = torch.randn(2, 300, 6)
    query, key = (layer_(x).unflatten(-1, (2, 4)).transpose(1, 2) for layer_ in (layer.query, layer.key))
    logits = query @ key.transpose(-2, -1) / 2
    seen = torch.ones(300, 300).tril().bool()
    assert layer.beyond(x) == pytest.approx(float((logits[..., seen].abs() > 3).float().mean()), abs=1e-6)
    assert layer.beyond(torch.zeros(1, 2, 6)) == 0


def test_heads_that_do_not_divide() -> None:
    with pytest.raises(ValueError, match="heads=3; it must divide dim=8, or head_dim must be given"):
        TaylorAttention(8, 3)


def test_is_the_kernel_between_projections() -> None:
    layer = TaylorAttention(6, 3, feature_dim=2)
    x = torch.randn(2, 9, 6)
    query, key = (each(x).unflatten(-1, (3, 2)) for each in (layer.query, layer.key))
    expected = layer.project(taylor.quadratic(query, key, layer.value(x).unflatten(-1, (3, 2))).flatten(2))
    torch.testing.assert_close(layer(x), expected)
