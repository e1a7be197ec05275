"""HBFormer against the official network: stages, logits, losses, gradients, weights back and forth."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from fovea.checkpoints import layout_of, load_official, to_official
from fovea.models.hbformer import HBFormer, three_channels
from fovea.tasks.slices.losses import losses

pytestmark = pytest.mark.parity

Golden = tuple[dict[str, Any], dict[str, Tensor]]


@pytest.fixture(scope="module")
def vector(golden) -> Golden:
    return golden("hbformer")


@pytest.fixture(scope="module")
def state(vector: Golden) -> dict[str, Tensor]:
    return {name.removeprefix("state."): t for name, t in vector[1].items() if name.startswith("state.")}


@pytest.fixture
def network(vector: Golden, state: dict[str, Tensor]) -> HBFormer:
    network = load_official("hbformer", state, vector[0]["config"])
    assert isinstance(network, HBFormer)
    return network


def assert_close(actual: Tensor, expected: Tensor, tolerance: float = 1e-5) -> None:
    """Within ``tolerance`` of the largest expected magnitude."""
    assert actual.shape == expected.shape
    error = (actual - expected).abs().max() / expected.abs().max()
    assert error <= tolerance, f"relative error {error:.2e}"


def measured(network: HBFormer, vector: Golden, x: Tensor) -> dict[str, Tensor]:
    ce, dice, focal = map(float, vector[0]["config"]["loss_weight"])
    return losses(network(x), vector[1]["input.label"].long(), (ce, dice, focal))


def test_three_channels(vector: Golden) -> None:
    assert_close(three_channels(vector[1]["input.raw_slice"])[None], vector[1]["input.x"], 1e-6)


def test_logits(network: HBFormer, vector: Golden) -> None:
    assert_close(network(x=vector[1]["input.x"]), vector[1]["output.logits"])


def test_stages(network: HBFormer, vector: Golden) -> None:
    encoded = network.encoder(network.project(vector[1]["input.x"]))
    decoded = network.decoder(encoded)
    for number, (feature, fused) in enumerate(zip(encoded, decoded, strict=True), start=1):
        assert_close(feature, vector[1][f"output.c{number}"])
        if f"output.dec{number}" in vector[1]:
            assert_close(fused, vector[1][f"output.dec{number}"])


def test_losses(network: HBFormer, vector: Golden) -> None:
    found = measured(network, vector, vector[1]["input.x"])
    for ours, theirs in {"loss": "ce_dice_focal", "ce": "ce", "dice": "dice", "focal": "focal"}.items():
        assert_close(found[ours], vector[1][f"output.loss_{theirs}"])


def test_gradients_under_official_names(network: HBFormer, vector: Golden) -> None:
    x = vector[1]["input.x"].clone().requires_grad_()
    measured(network, vector, x)["loss"].backward()
    assert x.grad is not None
    assert_close(x.grad, vector[1]["grad.x"], 1e-4)
    ours = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
    official = layout_of("hbformer", network.config).to_official(ours)
    expected = {name.removeprefix("grad."): t for name, t in vector[1].items() if name.startswith("grad.")}
    del expected["x"]
    assert expected
    for name, gradient in expected.items():
        assert_close(official[name], gradient, 1e-4)


def test_the_shapes_alone_tell_the_variant(network: HBFormer, state: dict[str, Tensor]) -> None:
    found = load_official("hbformer", state)
    assert isinstance(found, HBFormer)
    for name in ("embed_dim", "depths", "num_heads", "mlp_ratio", "feature_size", "num_classes"):
        assert getattr(found.config, name) == getattr(network.config, name), name
    stages = range(len(network.config.depths))
    assert [found.config.encoder.window(s) for s in stages] == [network.config.encoder.window(s) for s in stages]


def test_weights_go_back_as_they_came(network: HBFormer, state: dict[str, Tensor]) -> None:
    back = to_official("hbformer", network, network.config)
    assert back.keys() == state.keys()
    unused = layout_of("hbformer", network.config).unused
    for name, tensor in state.items():
        assert name in unused or torch.equal(back[name], tensor), name
