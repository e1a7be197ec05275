"""HAT against the official network: outputs, stages, gradients, padding, tiles, attribution maps."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fovea.checkpoints import layout_of, load_official, to_official
from fovea.checkpoints.hat import overlap_index, window_index
from fovea.inspect import BlurPath, Region, capture, gradient_magnitude, lam
from fovea.models.hat import HAT
from fovea.patterns import Window
from fovea.tasks.restoration.inference import Tiles, restore

pytestmark = pytest.mark.parity

Golden = tuple[dict[str, Any], dict[str, Tensor]]


@pytest.fixture(scope="module")
def vector(golden) -> Golden:
    return golden("hat")


@pytest.fixture(scope="module")
def state(vector: Golden) -> dict[str, Tensor]:
    return {name.removeprefix("state."): t for name, t in vector[1].items() if name.startswith("state.")}


@pytest.fixture
def network(vector: Golden, state: dict[str, Tensor]) -> HAT:
    network = load_official("hat", state, vector[0]["config"])
    assert isinstance(network, HAT)
    return network


def numbers(vector: Golden, key: str, pattern: str) -> list[float]:
    """What the description says in words: the numbers in the first match of a pattern."""
    match = re.search(pattern, vector[0]["meaning"][key])
    assert match, f"{key} in the vector's description does not say {pattern}"
    return [float(text) for text in match.groups()]


def assert_close(actual: Tensor, expected: Tensor, tolerance: float = 1e-5) -> None:
    """Within ``tolerance`` of the largest expected magnitude."""
    assert actual.shape == expected.shape
    error = (actual - expected).abs().max() / expected.abs().max()
    assert error <= tolerance, f"relative error {error:.2e}"


def test_output(network: HAT, vector: Golden) -> None:
    assert_close(network(x=vector[1]["input.x"]), vector[1]["output.y"])


def test_stages(network: HAT, vector: Golden) -> None:
    stages = {
        "groups.0.blocks.0": "hab0",
        "groups.0.blocks.1": "hab1",
        "groups.0.overlap": "ocab",
        "groups.0": "rhag0",
    }
    with capture(network, *stages) as seen, torch.no_grad():
        network(vector[1]["input.x"])
    for module, name in stages.items():
        assert_close(seen[module][0].flatten(1, 2), vector[1][f"output.{name}"])


def test_gradients_under_official_names(network: HAT, vector: Golden) -> None:
    """Those of ``sum(y * cotangent)``. In some vectors the parameters' gradients were saved after the backward passes
    of the attribution map had added theirs; a vector is held to one of the two readings as a whole."""
    tensors = vector[1]
    x = tensors["input.x"].clone().requires_grad_()
    (network(x) * tensors["input.cotangent"]).sum().backward()
    assert x.grad is not None
    assert_close(x.grad, tensors["grad.x"])
    alone = official_gradients(network)
    path, region = attribution(vector)
    for image in path(tensors["input.lam_img"])[0]:
        gradient_magnitude(network(image[None]), region).backward()
    added = official_gradients(network)
    names = [name.removeprefix("grad.") for name in tensors if name.startswith("grad.") and name != "grad.x"]
    name = names[0]
    error = {id(g): (g[name] - tensors[f"grad.{name}"]).abs().max() for g in (alone, added)}
    reading = min((alone, added), key=lambda gradients: error[id(gradients)])
    for name in names:
        assert_close(reading[name], tensors[f"grad.{name}"])


def official_gradients(network: HAT) -> dict[str, Tensor]:
    ours = {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}
    return layout_of("hat", network.config).to_official(ours)


def attribution(vector: Golden) -> tuple[BlurPath, Region]:
    """How the vector's attribution map was made."""
    sigma, fold, size = numbers(vector, "output.lam_*", r"sigma=([\d.]+), fold=(\d+), l=(\d+)")
    place = numbers(vector, "output.lam_*", r"(\d+)x(\d+) window at \(h=(\d+),w=(\d+)\)")
    height, width, top, left = map(int, place)
    return BlurPath(sigma, int(fold), int(size)), Region(top, left, height, width)


def test_weights_go_back_as_they_came(network: HAT, state: dict[str, Tensor]) -> None:
    back = to_official("hat", network, network.config)
    assert back.keys() == state.keys()
    for name, tensor in state.items():
        assert torch.equal(back[name], tensor), name


def test_indices_of_the_bias_tables(network: HAT, state: dict[str, Tensor]) -> None:
    config = network.config
    assert torch.equal(window_index(config.window_size), state["relative_position_index_SA"])
    assert torch.equal(overlap_index(config.window_size, config.overlap), state["relative_position_index_OCA"])


def test_official_mask_is_the_shifted_window_pattern(network: HAT, vector: Golden) -> None:
    size = network.config.window_size
    shift = size // 2
    height, width = vector[1]["input.x"].shape[-2:]
    sees = torch.from_numpy(Window(size, shift).mask((height, width)))
    tokens = torch.arange(height * width).reshape(height, width).roll((-shift, -shift), (0, 1))
    windows = tokens.unfold(0, size, size).unfold(1, size, size).flatten(2).flatten(0, 1)  # [windows, size * size]
    allowed = sees[windows[:, :, None], windows[:, None, :]]
    assert torch.equal(allowed, vector[1]["output.attn_mask"] == 0)


def test_padded_forward(network: HAT, vector: Golden) -> None:
    raw = vector[1]["input.raw"]
    restored = restore(network, raw[0], scale=network.scale, multiple=network.multiple).image
    assert_close(restored[None], vector[1]["output.raw_padded_forward"])


def test_tiled_forward(network: HAT, vector: Golden) -> None:
    size, overlap = numbers(vector, "output.raw_tiled", r"tile_size=(\d+), tile_pad=(\d+)")
    tiles = Tiles(int(size), int(overlap), mode="official")
    raw = vector[1]["input.raw"]
    restored = restore(network, raw[0], scale=network.scale, multiple=network.multiple, tiles=tiles).image
    assert_close(restored[None], vector[1]["output.raw_tiled"])


def test_local_attribution_map(network: nn.Module, vector: Golden) -> None:
    tensors = vector[1]
    path, region = attribution(vector)
    for name, kernel in tensors.items():
        if name.startswith("output.lam_kernel_"):
            assert_close(path.kernel(0), kernel, 1e-12)
    found = lam(network, tensors["input.lam_img"], region, path=path, batch=4)
    assert_close(found.signed, tensors["output.lam_signed"])
    assert_close(found.map, tensors["output.lam_abs_norm"])
    assert found.gini == pytest.approx(tensors["output.lam_gini"].item(), abs=1e-6)
    assert found.diffusion_index == pytest.approx(tensors["output.lam_DI"].item(), abs=1e-4)


def test_discriminator_of_real_hat(golden) -> None:
    description, tensors = golden("hat-real")
    state = {name.removeprefix("state."): t for name, t in tensors.items() if name.startswith("state.disc.")}
    network = load_official("hat-real", state, description["config"])
    x = tensors["input.disc_x"].clone().requires_grad_()
    logits = network(x)
    assert_close(logits, tensors["output.disc"])
    logits.sum().backward()
    assert x.grad is not None
    assert_close(x.grad, tensors["grad.disc_x"])
    back = to_official("hat-real", network, description["config"])
    assert {f"disc.{name}" for name in back} == state.keys()
    for name, tensor in back.items():
        assert torch.equal(tensor, state[f"disc.{name}"]), name
