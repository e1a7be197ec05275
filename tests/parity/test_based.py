"""Based against the official language model, its layers alone, and the plain forms of flash-linear-attention."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from fovea.checkpoints import layout_of, load_official, to_official
from fovea.kernels import taylor
from fovea.models.language import LanguageModel
from fovea.nn.gated_convolution import GatedConvolution
from fovea.nn.mixer import Mixer
from fovea.nn.taylor_attention import TaylorAttention

pytestmark = pytest.mark.parity

Golden = tuple[dict[str, Any], dict[str, Tensor]]


@pytest.fixture(scope="module")
def vector(golden) -> Golden:
    return golden("based")


@pytest.fixture(scope="module")
def state(vector: Golden) -> dict[str, Tensor]:
    return {
        name.removeprefix("state."): tensor
        for name, tensor in vector[1].items()
        if name.startswith(("state.transformer.", "state.lm_head."))
    }


@pytest.fixture
def network(vector: Golden, state: dict[str, Tensor]) -> LanguageModel:
    network = load_official("based", state, vector[0]["config"])
    assert isinstance(network, LanguageModel)
    return network


def assert_close(actual: Tensor, expected: Tensor, tolerance: float = 1e-5) -> None:
    """Within ``tolerance`` of the largest expected magnitude."""
    assert actual.shape == expected.shape
    error = (actual - expected).abs().max() / expected.abs().max()
    assert error <= tolerance, f"relative error {error:.2e}"


def part(layer: Mixer, vector: Golden, name: str, place: int) -> Mixer:
    """The layer with the vector's weights of a module that stands alone: names are those inside the block ``place``."""
    weights = {
        key.removeprefix(f"state.{name}."): t for key, t in vector[1].items() if key.startswith(f"state.{name}.")
    }
    state = {key.removeprefix("state."): t for key, t in vector[1].items() if key.startswith("state.transformer.")}
    config: Any = load_official("based", state, vector[0]["config"]).config
    ours = layout_of("based", config).to_ours(
        {f"transformer.layers.{place}.mixer.{key}": tensor for key, tensor in weights.items()}
    )
    layer.load_state_dict({key.removeprefix(f"blocks.{place}.mixer."): tensor for key, tensor in ours.items()})
    return layer.eval()


def test_logits(network: LanguageModel, vector: Golden) -> None:
    assert_close(network(tokens=vector[1]["input.tokens"]), vector[1]["output.logits"], 1e-4)


def test_reading_in_pieces_gives_the_same_logits(network: LanguageModel, vector: Golden) -> None:
    tokens = vector[1]["input.tokens"]
    half, memory = tokens.shape[1] // 2, network.start(len(tokens))
    features = [network.read(tokens[:, :half], memory)]
    features += [network.read(tokens[:, at : at + 1], memory) for at in range(half, tokens.shape[1])]
    assert_close(network.logits(torch.cat(features, 1)), vector[1]["output.logits"], 1e-4)


def test_gradients_under_official_names(network: LanguageModel, vector: Golden) -> None:
    (network(vector[1]["input.tokens"]) * vector[1]["input.loss_weights"]).sum().backward()
    ours = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
    official = layout_of("based", network.config).to_official(ours)
    expected = {name.removeprefix("grad."): t for name, t in vector[1].items() if name.startswith("grad.")}
    assert expected
    for name, gradient in expected.items():
        assert_close(official[name], gradient, 1e-4)


def test_weights_go_back_as_they_came(network: LanguageModel, state: dict[str, Tensor]) -> None:
    back = to_official("based", network, network.config)
    assert back.keys() == state.keys()
    for name, tensor in state.items():
        assert torch.equal(back[name], tensor), name


def test_linear_attention(vector: Golden) -> None:
    description, tensors = vector
    x, said = tensors["input.lin.x"], description["config"]["alt_mixer"]
    layer = part(
        TaylorAttention(x.shape[-1], said["num_heads"], feature_dim=said["feature_dim"], chunk=8),
        vector,
        "lin",
        description["config"]["alt_mixer_layers"][0],
    )
    assert isinstance(layer, TaylorAttention)
    query = layer.query(x).unflatten(-1, (layer.heads, layer.feature_dim)).transpose(1, 2)
    assert_close(query, tensors["output.lin.q"])
    assert_close(taylor.feature_map(query, "full"), tensors["output.lin.phi_q"])
    assert_close(layer(x), tensors["output.lin.y"])

    memory, half = layer.start(len(x), x), x.shape[1] // 2
    out = [layer.prefill(x[:, :half], memory)]
    for at in range(half, x.shape[1] + 1):
        stage = {half: "prefill", x.shape[1]: "final"}.get(at)
        if stage is not None:
            full = taylor.full_memory(memory.tensors["memory"], layer.feature_dim).transpose(-2, -1)
            assert_close(full[:, :, None, :-1], tensors[f"output.lin.{stage}_kv_state"])
            assert_close(full[:, :, None, -1:], tensors[f"output.lin.{stage}_k_state"])
        if at < x.shape[1]:
            out.append(layer.step(x[:, at : at + 1], memory))
    assert_close(torch.cat(out, 1), tensors["output.lin.y_prefill_then_steps"])


def test_gated_convolution(vector: Golden) -> None:
    description, tensors = vector
    x, said = tensors["input.conv.x"], description["config"]["mixer"]
    listed = {*description["config"]["alt_mixer_layers"], *description["config"]["alt_mixer_2_layers"]}
    biased = "state.conv.conv.conv.bias" in tensors
    layer = part(
        GatedConvolution(
            x.shape[-1],
            kernel=said["kernel_sizes"],
            expand=said["expand_proj"],
            bias=said["use_bias"],
            conv_bias=biased,
        ),
        vector,
        "conv",
        next(place for place in range(description["config"]["n_layer"]) if place not in listed),
    )
    assert_close(layer(x), tensors["output.conv.y"])
    memory = layer.start(len(x), x)
    assert_close(torch.cat([layer.step(token, memory) for token in x.split(1, 1)], 1), tensors["output.conv.y"])


@pytest.mark.parametrize("form", [taylor.quadratic, taylor.scan, taylor.chunked])
def test_flash_linear_attention(vector: Golden, form) -> None:
    query, key, value = (vector[1][f"input.fla.{name}"].transpose(1, 2) for name in "qkv")
    for expected, normalise in (("parallel_norm", True), ("parallel_nonorm", False), ("chunk8_norm", True)):
        found = form(query, key, value, epsilon=1e-6, normalise=normalise).transpose(1, 2)
        assert_close(found, vector[1][f"output.fla.{expected}"])


def test_both_paths_of_the_convolution(vector: Golden, state: dict[str, Tensor]) -> None:
    """The official CUDA path has a bias in each convolution; with zeros there it is the plain path."""
    name = "mixer.conv.conv.weight"
    biases = {
        key.replace("weight", "bias"): torch.zeros(len(tensor)) for key, tensor in state.items() if key.endswith(name)
    }
    assert biases
    biased = load_official("based", {**state, **biases}, vector[0]["config"])
    assert_close(biased(vector[1]["input.tokens"]), vector[1]["output.logits"], 1e-4)
    back = to_official("based", biased, biased.config)
    assert back.keys() == state.keys() | biases.keys()
    first = next(iter(biases))
    moved = load_official("based", {**state, **biases, first: torch.ones(len(biases[first]))}, vector[0]["config"])
    assert (moved(vector[1]["input.tokens"]) - vector[1]["output.logits"]).abs().max() > 1e-3
