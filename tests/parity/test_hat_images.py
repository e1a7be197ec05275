"""Resizing, PSNR and SSIM against the official code's values (vectors ``hat*``)."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fovea.data.resize import imresize
from fovea.tasks.restoration.metrics import psnr, ssim

pytestmark = pytest.mark.parity

FOLDER = Path(os.environ.get("FOVEA_GOLDEN", Path(__file__).parents[1] / "golden"))
VECTORS = sorted(path.stem for path in FOLDER.glob("hat*.json") if not path.stem.startswith("hat-real"))
Golden = Callable[[str], tuple[dict[str, Any], dict[str, Tensor]]]


@pytest.mark.parametrize("vector", VECTORS)
def test_resizing(vector: str, golden: Golden) -> None:
    _, tensors = golden(vector)
    found = [name for name in tensors if name.startswith("output.imresize_x")]
    assert found
    for name in found:
        numerator, _, denominator = name.removeprefix("output.imresize_x").partition("_")
        result = imresize(tensors["input.resize"].double(), float(numerator) / float(denominator or 1))
        torch.testing.assert_close(result, tensors[name].double(), atol=1e-5, rtol=1e-5)
        single = imresize(tensors["input.resize"], float(numerator) / float(denominator or 1))
        torch.testing.assert_close(single, tensors[name], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("vector", VECTORS)
def test_metrics(vector: str, golden: Golden) -> None:
    _, tensors = golden(vector)
    estimate, truth = tensors["input.img_a_rgb_u8"].numpy(), tensors["input.img_b_rgb_u8"].numpy()
    found = [match for name in tensors if (match := re.fullmatch(r"output\.(psnr|ssim)_(y|rgb)_cb(\d+)", name))]
    assert found
    for match in found:
        metric, space, border = match.groups()
        value = {"psnr": psnr, "ssim": ssim}[metric](estimate, truth, border=int(border), y=space == "y")
        assert value == pytest.approx(float(tensors[match.group()]), abs=1e-6), match.group()
