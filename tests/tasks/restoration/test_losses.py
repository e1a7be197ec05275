"""The perceptual loss: which features it compares, what it counts them, and whose weights it takes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from fovea.errors import UserError
from fovea.tasks.restoration.losses import LAYERS, VGG19, Perceptual, perceptual


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return VGG19().state_dict() | {"classifier.0.weight": torch.zeros(2, 2)}


def test_names_and_shapes_are_those_of_torchvision() -> None:
    shapes = {name: tuple(value.shape) for name, value in VGG19().state_dict().items()}
    indices = (0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34)
    assert list(shapes) == [f"features.{index}.{part}" for index in indices for part in ("weight", "bias")]
    assert shapes["features.0.weight"] == (64, 3, 3, 3)
    assert shapes["features.19.weight"] == (512, 256, 3, 3)
    assert sum(value.numel() for value in VGG19().parameters()) == 20_024_384


def test_distance_is_that_of_features_before_relu(state: dict[str, torch.Tensor]) -> None:
    loss = Perceptual(state)
    network = nn.Sequential(*VGG19().features)
    network.load_state_dict({name.removeprefix("features."): state[name] for name in state if "features" in name})
    images = torch.rand(2, 1, 3, 32, 32)
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    first, second = (images - mean.view(3, 1, 1)) / deviation.view(3, 1, 1)
    expected = 0.0
    for end, weight in ((2, 0.1), (7, 0.1), (16, 1.0), (25, 1.0), (34, 1.0)):
        part = network[: end + 1]
        expected += weight * (part(first) - part(second)).abs().mean()
    torch.testing.assert_close(loss(*images), expected)
    assert loss(images[0], images[0]) == 0


def test_gradient_reaches_the_restored_image_alone(state: dict[str, torch.Tensor]) -> None:
    loss = Perceptual(state)
    restored, truth = torch.rand(2, 1, 3, 16, 16)
    restored, truth = restored.detach().requires_grad_(), truth.detach().requires_grad_()
    loss(restored, truth).backward()
    assert restored.grad is not None
    assert restored.grad.abs().sum() > 0
    assert truth.grad is None
    assert not any(parameter.requires_grad for parameter in loss.parameters())


def test_grey_is_three_equal_colours(state: dict[str, torch.Tensor]) -> None:
    loss = Perceptual(state, {"conv1_2": 1.0})
    images = torch.rand(2, 1, 1, 16, 16)
    torch.testing.assert_close(loss(*images), loss(*images.expand(2, 1, 3, 16, 16)))


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_weights_from_a_file(suffix: str, state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    path = tmp_path / f"vgg19{suffix}"
    if suffix == ".pth":
        torch.save(state, path)
    else:
        from safetensors.torch import save_file

        save_file(state, path)
    loss = perceptual(path)
    assert isinstance(loss, Perceptual)
    assert torch.equal(loss.network.state_dict()["features.34.bias"], state["features.34.bias"])
    assert loss.layers == LAYERS


def test_without_weights(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    assert perceptual("none") is None
    assert perceptual(Path("none")) is None
    with pytest.raises(UserError, match="adversary.perceptual=none"):
        perceptual(None)
    with pytest.raises(UserError, match="no such file"):
        perceptual(tmp_path / "vgg.pth")
    torch.save({name: value for name, value in state.items() if name != "features.7.bias"}, tmp_path / "part.pth")
    with pytest.raises(UserError, match=r"features\.7\.bias is missing"):
        perceptual(tmp_path / "part.pth")
    with pytest.raises(ValueError, match="conv1_3"):
        Perceptual(state, {"conv1_3": 1.0})
