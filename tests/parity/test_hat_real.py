"""Kernels, filtering, sharpening and JPEG of the real-world degradation against the official code's values."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fovea.tasks.restoration.degradations import filtered, sharpened
from fovea.tasks.restoration.jpeg import compress, round_softly
from fovea.tasks.restoration.kernels import bell, sinc

pytestmark = pytest.mark.parity

FOLDER = Path(os.environ.get("FOVEA_GOLDEN", Path(__file__).parents[1] / "golden"))
VECTORS = sorted(path.stem for path in FOLDER.glob("hat-real*.json"))
Golden = Callable[[str], tuple[dict[str, Any], dict[str, Tensor]]]


@pytest.mark.parametrize("vector", VECTORS)
def test_kernels(vector: str, golden: Golden) -> None:
    description, tensors = golden(vector)
    config = description["config"]
    size, sigmas, theta = config["kernel_size"], (config["sigma_x"], config["sigma_y"]), config["theta"]
    generalised, plateau = config["beta_generalized"], config["beta_plateau"]
    kernels = {
        "iso": bell(size, (sigmas[0], sigmas[0])),
        "aniso": bell(size, sigmas, theta),
        "generalized_aniso": bell(size, sigmas, theta, form="generalised", beta=generalised),
        "plateau_aniso": bell(size, sigmas, theta, form="plateau", beta=plateau),
        "sinc": sinc(size, config["sinc_cutoff"], config["sinc_pad_to"]),
    }
    for name, kernel in kernels.items():
        torch.testing.assert_close(kernel, tensors[f"output.kernel_{name}"], atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("vector", VECTORS)
def test_filter(vector: str, golden: Golden) -> None:
    _, tensors = golden(vector)
    kernels = torch.stack([tensors["output.kernel_aniso"], tensors["output.kernel_plateau_aniso"]]).float()
    found = filtered(tensors["input.img"], kernels)
    torch.testing.assert_close(found, tensors["output.filter2d"], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("vector", VECTORS)
def test_sharpening(vector: str, golden: Golden) -> None:
    description, tensors = golden(vector)
    config = description["config"]
    found = sharpened(
        tensors["input.img"],
        radius=config["usm_radius"],
        weight=config["usm_weight"],
        threshold=config["usm_threshold"],
    )
    torch.testing.assert_close(found, tensors["output.usm"], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("vector", VECTORS)
@pytest.mark.parametrize(("name", "rounding"), [("jpeg", torch.round), ("jpeg_diff", round_softly)])
def test_jpeg(vector: str, name: str, rounding: Callable[[Tensor], Tensor], golden: Golden) -> None:
    description, tensors = golden(vector)
    quality = torch.tensor(description["config"]["jpeg_quality"], dtype=torch.float32)
    images = tensors["input.img"].clone()
    found = compress(images, quality, rounding)
    assert torch.equal(images, tensors["input.img"])
    assert quality.tolist() == description["config"]["jpeg_quality"]
    torch.testing.assert_close(found, tensors[f"output.{name}"], atol=1e-4, rtol=1e-4)
