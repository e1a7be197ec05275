"""DiNAT against the official classifier over its official kernels: logits, feature maps, gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from fovea.checkpoints import layout_of, load_official, to_official
from fovea.inspect import capture
from fovea.models.dinat import DiNAT

pytestmark = pytest.mark.parity

Golden = tuple[dict[str, Any], dict[str, Tensor]]


@pytest.fixture(scope="module")
def vector(golden) -> Golden:
    return golden("fna-dinat")


@pytest.fixture(scope="module")
def state(vector: Golden) -> dict[str, Tensor]:
    return {name.removeprefix("state."): t for name, t in vector[1].items() if name.startswith("state.")}


@pytest.fixture
def network(vector: Golden, state: dict[str, Tensor]) -> DiNAT:
    network = load_official("fna", state, vector[0]["config"])
    assert isinstance(network, DiNAT)
    return network


def assert_close(actual: Tensor, expected: Tensor, tolerance: float = 1e-5) -> None:
    assert actual.shape == expected.shape
    error = (actual - expected).abs().max() / expected.abs().max()
    assert error <= tolerance, f"relative error {error:.2e}"


def test_logits_and_feature_maps(network: DiNAT, vector: Golden) -> None:
    levels = {f"levels.{level}": f"output.level{level}" for level in range(len(network.levels))}
    with capture(network, "tokenizer", *levels) as seen, torch.no_grad():
        logits = network(x=vector[1]["input.x"])
    assert_close(seen["tokenizer"][0], vector[1]["output.patch_embed"])
    for module, name in levels.items():
        assert_close(seen[module][0], vector[1][name])
    assert_close(logits, vector[1]["output.logits"])


def test_gradients_under_official_names(network: DiNAT, vector: Golden) -> None:
    tensors = vector[1]
    x = tensors["input.x"].clone().requires_grad_()
    (network(x) * tensors["input.grad_out"]).sum().backward()
    ours = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
    official = {"x": x.grad, **layout_of("fna", network.config).to_official(ours)}
    for name, expected in tensors.items():
        if name.startswith("grad."):
            assert_close(official[name.removeprefix("grad.")], expected)


def test_weights_go_back_as_they_came(network: DiNAT, state: dict[str, Tensor]) -> None:
    back = to_official("fna", network, network.config)
    assert back.keys() == state.keys()
    for name, tensor in state.items():
        assert torch.equal(back[name], tensor), name
