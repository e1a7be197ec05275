"""LoLA-SpecViT against the official network: outputs, stages, gradients, one adapter alone, the schedule."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from fovea.checkpoints import CheckpointMismatch, layout_of, load_official, to_official
from fovea.data.hyperspectral.features import standardised_patches
from fovea.inspect import capture
from fovea.models.lola_specvit import LoLASpecViT, freeze_all_but_adapters
from fovea.nn.lora import GatedLoRALinear
from fovea.tasks.spectral.schedule import CyclicalSchedule

pytestmark = pytest.mark.parity

Golden = tuple[dict[str, Any], dict[str, Tensor]]


@pytest.fixture(scope="module")
def vector(golden) -> Golden:
    return golden("lola-specvit")


@pytest.fixture(scope="module")
def state(vector: Golden) -> dict[str, Tensor]:
    return {name.removeprefix("state."): t for name, t in vector[1].items() if name.startswith("state.")}


@pytest.fixture
def network(vector: Golden, state: dict[str, Tensor]) -> LoLASpecViT:
    network = load_official("lola-specvit", state, vector[0]["config"])
    assert isinstance(network, LoLASpecViT)
    return network


def assert_close(actual: Tensor, expected: Tensor, tolerance: float = 1e-4) -> None:
    """Within ``tolerance`` of the largest expected magnitude."""
    assert actual.shape == expected.shape
    error = (actual - expected).abs().max() / expected.abs().max()
    assert error <= tolerance, f"relative error {error:.2e}"


def test_output(network: LoLASpecViT, vector: Golden) -> None:
    assert_close(network(x=vector[1]["input.x"]), vector[1]["output.logits"])


def test_standardisation_of_patches(vector: Golden) -> None:
    assert_close(standardised_patches(vector[1]["input.patch"]), vector[1]["input.x"])


def test_stages(network: LoLASpecViT, vector: Golden) -> None:
    with capture(network, "embedding", "levels.0.blocks.0", "norm") as seen, torch.no_grad():
        network(vector[1]["input.x"])
    assert_close(seen["embedding"][0].movedim(-1, 1), vector[1]["output.patch_embed"])
    assert_close(seen["levels.0.blocks.0"][0], vector[1]["output.block0"])
    assert_close(seen["norm"][0].flatten(1, 2), vector[1]["output.features"])


def test_one_adapter_alone_and_the_head(network: LoLASpecViT, vector: Golden) -> None:
    tensors = vector[1]
    adapter = network.levels[0].blocks[0].attention.attention.qkv
    assert isinstance(adapter, GatedLoRALinear)
    assert_close(adapter(tensors["input.lora_z"]), tensors["output.lora_qkv"])
    assert_close(network.head(tensors["input.head_z"]), tensors["output.head_before_merge"])
    adapter.merge()
    network.head.merge()
    assert_close(adapter(tensors["input.lora_z"]), tensors["output.lora_qkv"])
    assert_close(network.head(tensors["input.head_z"]), tensors["output.head_before_merge"])
    assert not adapter.residual.any()
    assert not network.head.up.any()


def test_loss_and_gradients_under_official_names(network: LoLASpecViT, vector: Golden) -> None:
    tensors = vector[1]
    x = tensors["input.x"].clone().requires_grad_()
    loss = F.cross_entropy(network(x), tensors["input.label"], label_smoothing=0.1)
    assert_close(loss, tensors["output.loss"])
    loss.backward()
    assert x.grad is not None
    assert_close(x.grad, tensors["grad.x"])
    ours = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
    official = layout_of("lola-specvit", network.config).to_official(ours)
    names = [name.removeprefix("grad.") for name in tensors if name.startswith("grad.") and name != "grad.x"]
    assert names
    for name in names:
        assert_close(official[name], tensors[f"grad.{name}"])


def test_schedule(vector: Golden) -> None:
    words = dict(part.split("=") for part in vector[0]["meaning"]["output.lora_clr_lrs"].split(", ") if "=" in part)
    schedule = CyclicalSchedule(
        first=int(words["T_0"]), growth=int(words["T_mult"]), floor=float(words["eta_min"]), adapter_factor=2.0
    )
    rates = [[schedule.rate(1e-3, step, adapter=True), schedule.rate(1e-4, step)] for step in range(40)]
    torch.testing.assert_close(
        torch.tensor(rates, dtype=torch.float64), vector[1]["output.lora_clr_lrs"], rtol=0, atol=1e-12
    )


def test_counts_of_the_vector(network: LoLASpecViT, vector: Golden) -> None:
    assert sum(p.numel() for p in network.parameters()) == vector[0]["total_params"]
    freeze_all_but_adapters(network)
    assert sum(p.numel() for p in network.parameters() if p.requires_grad) == vector[0]["lora_trainable_params"]


def test_weights_go_back_as_they_came(network: LoLASpecViT, state: dict[str, Tensor]) -> None:
    back = to_official("lola-specvit", network, network.config)
    assert back.keys() == state.keys()
    for name, tensor in state.items():
        assert torch.equal(back[name], tensor), name


def test_checkpoints_as_training_wrote_them(vector: Golden, state: dict[str, Tensor], network: LoLASpecViT) -> None:
    packed = {"epoch": 3, "state_dict": {f"module.{name}": tensor for name, tensor in state.items()}, "config": {}}
    said = {name: vector[0]["config"][name] for name in ("in_channels", "lora_alpha")}
    again = load_official("lola-specvit", packed, said)
    assert again.config == network.config
    x = vector[1]["input.x"]
    assert torch.equal(again(x), network(x))


def test_other_networks_are_refused(vector: Golden, state: dict[str, Tensor]) -> None:
    with pytest.raises(CheckpointMismatch, match="norm.weight"):
        load_official("lola-specvit", {n: t for n, t in state.items() if n != "norm.weight"}, vector[0]["config"])
    with pytest.raises(CheckpointMismatch, match="head.linear.weight"):
        load_official("lola-specvit", state, vector[0]["config"] | {"num_classes": 9})
    with pytest.raises(CheckpointMismatch, match="more"):
        load_official("lola-specvit", {**state, "more": torch.ones(1)}, vector[0]["config"])
