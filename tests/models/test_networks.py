"""What every network must do: a new one is tested by being listed here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fovea.checkpoints import load, save
from fovea.models.dinat import DiNAT
from fovea.models.dinat_config import DiNATConfig
from fovea.models.hat import HAT
from fovea.models.hat_config import HATConfig
from fovea.models.hbformer import HBFormer
from fovea.models.hbformer_config import HBFormerConfig
from fovea.models.swin_unetr import SwinUNETR
from fovea.models.swin_unetr_config import SwinUNETRConfig
from fovea.models.unet import UNet
from fovea.models.unet_config import UNetConfig
from fovea.models.unet_discriminator import UNetDiscriminator
from fovea.nn.dilated_mixture import Gate

HAT_SMALL = HATConfig(
    upscale=2,
    embed_dim=12,
    depths=(2, 2),
    num_heads=(2, 3),
    window_size=4,
    squeeze_factor=3,
    img_size=16,
    drop_path_rate=0.0,
)
DINAT_SMALL = DiNATConfig(
    embed_dim=8,
    depths=(2, 2),
    num_heads=(2, 4),
    kernel_size=3,
    dilations=((1, 2), (1, 2)),
    num_classes=5,
    drop_path_rate=0.0,
)
HBFORMER_SMALL = HBFormerConfig(
    img_size=64,
    num_classes=3,
    embed_dim=32,
    depths=(2, 2, 1, 1),
    num_heads=(1, 2, 4, 4),
    mlp_ratio=2.0,
    feature_size=16,
    drop_path_rate=0.0,
)
SWIN_UNETR_SMALL = SwinUNETRConfig(
    in_channels=2, feature_size=4, depths=(2, 1, 1, 1), num_heads=(1, 2, 2, 4), window_size=3, mlp_ratio=2.0
)
UNET_SMALL = UNetConfig(num_classes=3, width=4, levels=3)


def awake(config: HBFormerConfig) -> HBFormer:
    """Gates whose few hidden units all sleep at first have no gradient; here none does."""
    network = HBFormer(config)
    for module in network.modules():
        if isinstance(module, Gate):
            torch.nn.init.ones_(module.reduce.bias)
    return network


Made = tuple[Callable[[], nn.Module], Any, tuple[int, ...]]

NETWORKS: dict[str, Made] = {
    "HAT": (lambda: HAT(HAT_SMALL), HAT_SMALL, (1, 3, 8, 12)),
    "HAT x3": (lambda: HAT(replace(HAT_SMALL, upscale=3)), replace(HAT_SMALL, upscale=3), (1, 3, 8, 8)),
    "HAT x1": (lambda: HAT(replace(HAT_SMALL, upscale=1)), replace(HAT_SMALL, upscale=1), (1, 3, 8, 8)),
    "HAT grey": (lambda: HAT(replace(HAT_SMALL, in_chans=1)), replace(HAT_SMALL, in_chans=1), (2, 1, 8, 8)),
    "SwinIR": (
        lambda: HAT(replace(HAT_SMALL, cab=False, ocab=False)),
        replace(HAT_SMALL, cab=False, ocab=False),
        (1, 3, 8, 8),
    ),
    "HAT with positions": (
        lambda: HAT(replace(HAT_SMALL, ape=True, img_size=8)),
        replace(HAT_SMALL, ape=True, img_size=8),
        (1, 3, 8, 8),
    ),
    "DiNAT": (lambda: DiNAT(DINAT_SMALL), DINAT_SMALL, (2, 3, 37, 45)),
    "DiNAT scaled": (
        lambda: DiNAT(replace(DINAT_SMALL, layer_scale=1e-5)),
        replace(DINAT_SMALL, layer_scale=1e-5),
        (2, 3, 32, 32),
    ),
    "DiNAT_s": (lambda: DiNAT(replace(DINAT_SMALL, patch_size=4)), replace(DINAT_SMALL, patch_size=4), (2, 3, 37, 45)),
    "HBFormer": (lambda: awake(HBFORMER_SMALL), HBFORMER_SMALL, (2, 3, 64, 64)),
    "HBFormer odd": (
        lambda: awake(replace(HBFORMER_SMALL, norm="group", order="roll-pad")),
        replace(HBFORMER_SMALL, norm="group", order="roll-pad"),
        (2, 3, 71, 99),
    ),
    "HBFormer without experts": (
        lambda: awake(replace(HBFORMER_SMALL, experts=1, skips="natural")),
        replace(HBFORMER_SMALL, experts=1, skips="natural"),
        (2, 3, 64, 64),
    ),
    "Swin U-Net": (
        lambda: awake(replace(HBFORMER_SMALL, decoder="unet")),
        replace(HBFORMER_SMALL, decoder="unet"),
        (2, 3, 64, 64),
    ),
    "Swin UNETR": (lambda: SwinUNETR(SWIN_UNETR_SMALL), SWIN_UNETR_SMALL, (1, 2, 64, 33, 40)),
    "Swin UNETR with stage convolutions": (
        lambda: SwinUNETR(replace(SWIN_UNETR_SMALL, stage_convolutions=True, spatial_axes=2)),
        replace(SWIN_UNETR_SMALL, stage_convolutions=True, spatial_axes=2),
        (2, 2, 64, 96),
    ),
    "U-Net": (lambda: UNet(UNET_SMALL), UNET_SMALL, (2, 3, 33, 40)),
    "discriminator": (lambda: UNetDiscriminator(3, 4), {"in_chans": 3, "num_feat": 4}, (1, 3, 16, 24)),
}


@pytest.fixture(params=NETWORKS)
def made(request: pytest.FixtureRequest) -> tuple[nn.Module, Any, Tensor]:
    make, config, shape = NETWORKS[request.param]
    return make(), config, torch.rand(shape)


def test_every_parameter_gets_a_gradient_and_nothing_is_nan(made: tuple[nn.Module, Any, Tensor]) -> None:
    network, _, x = made
    out = network(x)
    assert out.isfinite().all()
    out.square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, f"{name} has no gradient"
        assert parameter.grad.isfinite().all(), f"{name} has a gradient that is not finite"
        assert parameter.grad.any(), f"{name} has a gradient of zeros"


def test_saves_and_loads(made: tuple[nn.Module, Any, Tensor], tmp_path: Path) -> None:
    network, config, x = made
    save(tmp_path, network.eval(), config, {"step": 3})
    found = load(tmp_path)
    assert type(found.config) is type(config)
    assert found.extra == {"step": 3}
    assert not found.network.training
    torch.testing.assert_close(found.network(x), network(x), rtol=0, atol=0)


@pytest.mark.parametrize("name", ["HAT", "DiNAT", "Swin UNETR", "discriminator"])
def test_is_captured_as_one_graph(name: str) -> None:
    make, _, shape = NETWORKS[name]
    network, x = make().eval(), torch.rand(shape)
    compiled = torch.compile(network, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), network(x))


def test_samples_of_a_batch_do_not_meet(made: tuple[nn.Module, Any, Tensor]) -> None:
    network, _, x = made
    network.eval()
    pair = torch.cat([x[:1], torch.rand_like(x[:1])])
    torch.testing.assert_close(network(pair)[:1], network(x[:1]), rtol=1e-4, atol=1e-5)
