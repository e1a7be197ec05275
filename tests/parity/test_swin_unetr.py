"""Swin UNETR against MONAI's network and its sliding windows, metrics and losses as the vectors hold them."""

from __future__ import annotations

from math import inf
from typing import Any

import pytest
import torch
from torch import Tensor

from fovea.checkpoints import load_official, to_official
from fovea.models.swin_unetr import SwinUNETR
from fovea.tasks.segmentation import metrics
from fovea.tasks.segmentation.coding import coded
from fovea.tasks.segmentation.config import Loss
from fovea.tasks.segmentation.inference import slide, windows
from fovea.tasks.segmentation.losses import loss
from fovea.tasks.segmentation.preparation import normalised

pytestmark = pytest.mark.parity

Golden = tuple[dict[str, Any], dict[str, Tensor]]


@pytest.fixture(scope="module")
def vector(golden) -> Golden:
    return golden("swin-unetr")


@pytest.fixture(scope="module")
def state(vector: Golden) -> dict[str, Tensor]:
    return {name.removeprefix("state."): t for name, t in vector[1].items() if name.startswith("state.")}


def network(vector: Golden, state: dict[str, Tensor], **words: Any) -> SwinUNETR:
    found = load_official("swin-unetr", state, {**vector[0]["config"], **words})
    assert isinstance(found, SwinUNETR)
    return found


def assert_close(actual: Tensor, expected: Tensor, tolerance: float = 1e-5) -> None:
    """Within ``tolerance`` of the largest expected magnitude."""
    assert actual.shape == expected.shape
    error = (actual - expected).abs().max() / expected.abs().max()
    assert error <= tolerance, f"relative error {error:.2e}"


def test_logits(vector: Golden, state: dict[str, Tensor]) -> None:
    """To a thousandth: on the coarsest grid, of few voxels, instance norms magnify rounding."""
    with torch.no_grad():
        found = network(vector, state)(x=vector[1]["input.x"])
    assert_close(found, vector[1]["output.logits"], 1e-3)


@pytest.mark.parametrize("order", ["merging", "legacy", "mergingv2"])
def test_hidden_states_with_each_order_of_merging(vector: Golden, state: dict[str, Tensor], order: str) -> None:
    with torch.no_grad():
        found = network(vector, state, downsample=order).hidden_states(vector[1]["input.x"])
    prefix = "output.hidden" if order == "merging" else f"output.{order}.hidden"
    names = [name for name in vector[1] if name.startswith(prefix)]
    assert names
    for name in names:
        assert_close(found[int(name.removeprefix(prefix))], vector[1][name])


def test_other_orders_differ(vector: Golden, state: dict[str, Tensor]) -> None:
    with torch.no_grad():
        found = network(vector, state, downsample="legacy").hidden_states(vector[1]["input.x"])
    expected = vector[1]["output.hidden1"]
    assert (found[1] - expected).abs().max() > 0.01 * expected.abs().max()


def test_gradients_under_official_names(vector: Golden, state: dict[str, Tensor]) -> None:
    """Those of ``sum(net(x) ** 2)``; they pass the coarsest grids twice."""
    tensors = vector[1]
    net = network(vector, state)
    x = tensors["input.x"].clone().requires_grad_()
    net(x).square().sum().backward()
    assert x.grad is not None
    slab = tensors["grad.x_slab"]
    assert_close(x.grad[:, :, : slab.shape[2]], slab, 1e-3)
    for parameter in net.parameters():
        assert parameter.grad is not None
        parameter.data.copy_(parameter.grad)  # layouts rearrange gradients as they rearrange weights
    official = to_official("swin-unetr", net, net.config)
    names = [name for name in tensors if name.startswith("grad.") and not name.startswith("grad.x")]
    assert names
    for name in names:
        assert_close(official[name.removeprefix("grad.")], tensors[name], 1e-3)


def test_sliding_windows(vector: Golden) -> None:
    tensors = vector[1]
    weight = tensors["input.sw_weight"]

    def predictor(patch: Tensor) -> Tensor:
        return torch.cat([patch * weight + weight, patch.flip(2)], 1)

    names = [name for name in tensors if name.startswith("output.sw_")]
    assert len(names) > 1
    for name in names:
        *small, blend, overlap = name.removeprefix("output.sw_").split("_")
        volume = tensors["input.sw_small" if small else "input.sw_volume"]
        windows_seen: list[int] = []
        found = slide(
            predictor,
            volume,
            weight.shape[-3:],
            overlap=float(overlap),
            blend=blend,  # type: ignore[arg-type]
            progress=lambda: windows_seen.append(1),  # noqa: B023 - used at once
        )
        assert_close(found, tensors[name])
        assert len(windows_seen) == windows(volume.shape[2:], weight.shape[-3:], float(overlap))


def test_dice_and_hausdorff(vector: Golden) -> None:
    tensors = vector[1]
    prediction, truth = tensors["input.metric_pred"], tensors["input.metric_true"]
    found = metrics.dice(prediction, truth)
    torch.testing.assert_close(found, tensors["output.dice_none"], equal_nan=True)
    kept = metrics.dice(prediction, truth, ignore_empty=False)
    torch.testing.assert_close(kept, tensors["output.dice_none_keep_empty"], equal_nan=True)
    mean = torch.nan_to_num(found).sum(0) / (~found.isnan()).sum(0)
    torch.testing.assert_close(mean, tensors["output.dice_mean_batch"])
    for name in (name for name in tensors if name.startswith("output.hd")):
        words = name.removeprefix("output.hd").split("_")
        spacing = [float(word) for word in words[2:]] or None
        distances = metrics.hausdorff(prediction, truth, percentile=float(words[0]), spacing=spacing)
        # Versions of MONAI differ in whether a missing structure is infinitely far or NaN; nothing here depends on it.
        ours, theirs = (torch.nan_to_num(d.float(), nan=inf, posinf=inf) for d in (distances, tensors[name]))
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("squared", [False, True])
def test_losses(vector: Golden, squared: bool) -> None:
    tensors = vector[1]
    call = loss(Loss("dice", squared=squared), regions=True)
    found = call(tensors["input.loss_logits"], tensors["input.loss_target"])
    torch.testing.assert_close(found, tensors[f"output.dice_loss_{'squared' if squared else 'default'}"])


def test_preparation(vector: Golden) -> None:
    tensors = vector[1]
    found = normalised(tensors["input.norm_img"].numpy())
    assert_close(torch.from_numpy(found), tensors["output.norm_nonzero_channelwise"])
    regions = coded("brats", 3).target(tensors["input.brats_label"].numpy(), "vector")
    assert (regions == tensors["output.brats_channels_TC_WT_ET"].numpy()).all()
