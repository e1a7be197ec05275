"""Swin UNETR: sizes, parameter counts, variants, recomputation, and the way up without its enlarged maps."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fovea.models.swin_unetr import SwinUNETR
from fovea.models.swin_unetr_config import BRATS, VARIANTS, SwinUNETRConfig
from fovea.nn.residual_convolution import ResidualConvBlock, ResidualUpBlock

SMALL = SwinUNETRConfig(
    in_channels=2, out_channels=3, feature_size=4, depths=(2, 1, 1, 1), num_heads=(1, 2, 2, 4), window_size=3
)


def count(config: SwinUNETRConfig) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in SwinUNETR(config).parameters())


@pytest.mark.parametrize(
    ("config", "millions"),
    [
        (BRATS, 62.19),
        (VARIANTS["btcv-base"], 62.19),
        (VARIANTS["btcv-small"], 15.70),
        (VARIANTS["btcv-tiny"], 4.08),
        (replace(BRATS, stage_convolutions=True), 72.77),
    ],
)
def test_parameters_of_the_published_variants(config: SwinUNETRConfig, millions: float) -> None:
    assert count(config) / 1e6 == pytest.approx(millions, abs=0.01)


@pytest.mark.parametrize("size", [(32, 32, 32), (33, 20, 47), (1, 40, 70)])
@pytest.mark.parametrize("stage_convolutions", [False, True])
def test_any_size_comes_back(size: tuple[int, ...], stage_convolutions: bool) -> None:
    network = SwinUNETR(replace(SMALL, stage_convolutions=stage_convolutions)).eval()
    with torch.no_grad():
        out = network(torch.randn(1, 2, *size))
    assert out.shape == (1, 3, *size) and out.isfinite().all()


@pytest.mark.parametrize("size", [(64, 64), (96, 32), (50, 131)])
def test_images(size: tuple[int, ...]) -> None:
    network = SwinUNETR(replace(SMALL, spatial_axes=2))
    out = network(torch.randn(2, 2, *size))
    assert out.shape == (2, 3, *size)
    out.square().sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_filling_is_zeros_at_the_end() -> None:
    network = SwinUNETR(SMALL).eval()
    x = torch.randn(1, 2, 30, 32, 25)
    with torch.no_grad():
        whole = network(F.pad(x, (0, 7, 0, 0, 0, 2)))
        torch.testing.assert_close(network(x), whole[:, :, :30, :, :25])


@pytest.mark.parametrize("training", [True, False])
def test_recomputation_changes_nothing(training: bool) -> None:
    plain = SwinUNETR(replace(SMALL, drop_path_rate=0.3)).train(training)
    saving = SwinUNETR(replace(plain.config, gradient_checkpointing=True)).train(training)
    saving.load_state_dict(plain.state_dict())
    x = torch.randn(2, 2, 32, 32, 32)
    gradients = []
    for network in (plain, saving):
        torch.manual_seed(1)
        network(x).square().mean().backward()
        gradients.append([parameter.grad for parameter in network.parameters()])
    for first, second in zip(*gradients, strict=True):
        torch.testing.assert_close(first, second)


def test_without_shift_no_window_is_moved() -> None:
    shifts = [m.shift for m in SwinUNETR(replace(SMALL, shifted=False)).modules() if hasattr(m, "shift")]
    assert shifts and not any(shifts)
    assert any(m.shift == (1, 1, 1) for m in SwinUNETR(SMALL).modules() if hasattr(m, "shift"))


@pytest.mark.parametrize("axes", [2, 3])
@pytest.mark.parametrize("batch", [1, 2])
def test_the_way_up_is_enlarging_and_concatenating(axes: int, batch: int) -> None:
    """Where the weights are convolved, output and gradients are those of the two steps."""
    step = ResidualUpBlock(6, 4, axes=axes).double()
    grid = (9, 6, 7)[:axes]
    x = torch.randn(batch, 6, *grid, dtype=torch.float64, requires_grad=True)
    skip = torch.randn(batch, 4, *(2 * n for n in grid), dtype=torch.float64, requires_grad=True)
    assert step.composes(x)
    ours, plain = step(x, skip), step.block(torch.cat([step.enlarge(x), skip], 1))
    torch.testing.assert_close(ours, plain)
    wanted, weights = [x, skip, *step.parameters()], torch.randn_like(plain)
    for first, second in zip(
        torch.autograd.grad(ours, wanted, weights), torch.autograd.grad(plain, wanted, weights), strict=True
    ):
        torch.testing.assert_close(first, second)


def test_small_grids_enlarge_and_concatenate() -> None:
    step = ResidualUpBlock(64, 32)
    assert not step.composes(torch.empty(1, 64, 2, 2, 2))
    assert step(torch.randn(1, 64, 2, 2, 2), torch.randn(1, 32, 4, 4, 4)).shape == (1, 32, 4, 4, 4)


def test_residual_block_is_its_formula() -> None:
    block = ResidualConvBlock(3, 5)
    x = torch.randn(2, 3, 6, 5, 4)
    first = F.leaky_relu(F.instance_norm(block.conv1(x)), 0.01)
    assert block.shortcut is not None
    expected = F.instance_norm(block.conv2(first)) + F.instance_norm(block.shortcut(x))
    torch.testing.assert_close(block(x), F.leaky_relu(expected, 0.01), atol=1e-6, rtol=1e-5)
    same = ResidualConvBlock(3, 3)
    kept = x.clone()
    same(x)
    torch.testing.assert_close(x, kept)  # what is written in place is the block's own


def test_linear_layers_start_as_the_published_code_does() -> None:
    weight = SwinUNETR(replace(SMALL, feature_size=24)).stages[0].blocks[0].mlp.expand.weight  # type: ignore[union-attr, index]
    assert isinstance(weight, nn.Parameter)
    assert weight.abs().max().item() == pytest.approx(24**-0.5, rel=0.01)  # uniform, not a narrow normal


def test_impossible_configurations_are_refused() -> None:
    for words, message in (
        ({"feature_size": 5}, "stage 0 has 5 channels, which 3 heads do not divide"),
        ({"merging": "row"}, "merging='row'; it must be one of legacy, merging, mergingv2"),
        ({"depths": (2, 2)}, "each has four numbers"),
        ({"window_size": (7, 7)}, "it must be one number from 1 on, or 3"),
        ({"spatial_axes": 4}, "spatial_axes=4; it must be 2 or 3"),
        ({"patch_size": 4}, "patch_size=4; it must be 2"),
    ):
        with pytest.raises(ValueError, match=message):
            SwinUNETRConfig(**words)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"x has shape \(1, 3, 32, 32, 32\); it must be \[batch, 2, depth"):
        SwinUNETR(SMALL)(torch.randn(1, 3, 32, 32, 32))
