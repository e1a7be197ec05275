"""Mixing kernels is the same as mixing what every expert makes."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from fovea.nn.dilated_mixture import DilatedMixture, EfficientChannelAttention
from fovea.nn.norm import channel_norm


def both(layer: DilatedMixture, z: Tensor) -> list[tuple[Tensor, dict[str, Tensor]]]:
    """Output and gradients (of the input too) of the fast way and of the definition."""
    found = []
    for way in ("forward", "expert_by_expert"):
        twin, x = copy.deepcopy(layer), z.clone().requires_grad_()
        out = getattr(twin, way)(x)
        torch.manual_seed(1)
        (out * torch.randn_like(out)).sum().backward()
        gradients = {name: p.grad for name, p in twin.named_parameters() if p.grad is not None}
        assert x.grad is not None
        found.append((out, {"z": x.grad, **gradients}))
    return found


@settings(max_examples=15)
@given(
    batch=st.integers(1, 4),
    dim=st.sampled_from([8, 9, 17, 24]),
    grid=st.tuples(st.integers(1, 21), st.integers(2, 21)),
    experts=st.integers(1, 5),
    norm=st.sampled_from(["batch", "group"]),
    training=st.booleans(),
)
def test_mixed_kernels_are_mixed_experts(batch, dim, grid, experts, norm, training) -> None:
    torch.manual_seed(0)
    layer = DilatedMixture(dim, experts=experts, norm=norm).train(training)
    for gate in (layer.branch_gate, layer.expert_gate):
        if gate is not None:
            torch.nn.init.normal_(gate.choose.weight, std=3.0)
            torch.nn.init.ones_(gate.reduce.bias)
    (ours, gradients), (expected, expected_gradients) = both(layer.double(), torch.randn(batch, dim, *grid).double())
    torch.testing.assert_close(ours, expected, rtol=1e-8, atol=1e-10)
    assert gradients.keys() == expected_gradients.keys()
    for name, gradient in expected_gradients.items():
        torch.testing.assert_close(gradients[name], gradient, rtol=1e-7, atol=1e-9)


def test_in_single_precision_they_agree_to_a_hundred_thousandth() -> None:
    layer = DilatedMixture(48).eval()
    z = torch.randn(3, 48, 33, 20)
    with torch.no_grad():
        ours, expected = layer(z), layer.expert_by_expert(z)
    assert float((ours - expected).abs().max() / expected.abs().max()) < 1e-5


def test_every_image_has_kernels_of_its_own() -> None:
    layer = DilatedMixture(8).eval()
    assert layer.expert_gate is not None
    torch.nn.init.normal_(layer.expert_gate.choose.weight)
    torch.nn.init.ones_(layer.expert_gate.reduce.bias)
    z = torch.stack([torch.rand(8, 9, 9), 5 * torch.rand(8, 9, 9)])
    torch.testing.assert_close(layer(z), torch.cat([layer(z[:1]), layer(z[1:])]))
    gates = layer.expert_gate(z).detach()
    assert float((gates[0] - gates[1]).abs().max()) > 0.05
    torch.testing.assert_close(gates.sum(1), torch.ones(2))


def test_dilation_is_how_far_it_reads() -> None:
    layer = DilatedMixture(8, dilations=(3,), experts=1).eval()
    z = torch.zeros(1, 8, 15, 15)
    z[..., 7, 7] = 1
    mixed = layer._mixed(0, z, torch.ones(1, 1))[0].abs().sum(0)
    rows, columns = torch.nonzero(mixed, as_tuple=True)
    assert set(rows.tolist()) == set(columns.tolist()) == {4, 7, 10}


def test_efficient_channel_attention_reads_neighbouring_channels() -> None:
    layer = EfficientChannelAttention()
    u = torch.randn(2, 6, 4, 5)
    padded = F.pad(u.mean((2, 3)), (1, 1))
    weight = layer.conv.weight.flatten()
    logits = torch.stack([(padded[:, c : c + 3] * weight).sum(1) for c in range(6)], 1)
    torch.testing.assert_close(layer(u), u * logits.sigmoid()[..., None, None])


def test_impossible_layers() -> None:
    with pytest.raises(ValueError, match="dim=7; it must be at least 8"):
        DilatedMixture(7)
    with pytest.raises(ValueError, match="experts=0"):
        DilatedMixture(8, experts=0)
    with pytest.raises(ValueError, match="norm='layer'; it must be 'batch' or 'group'"):
        channel_norm("layer", 8)  # type: ignore[arg-type]


@pytest.mark.parametrize(("channels", "groups"), [(16, 8), (12, 6), (7, 7), (11, 1)])
def test_groups_divide_the_channels(channels: int, groups: int) -> None:
    norm = channel_norm("group", channels)
    assert isinstance(norm, torch.nn.GroupNorm)
    assert norm.num_groups == groups
