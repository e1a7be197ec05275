"""HBFormer's own mechanism: counts, sizes, the bridge, baselines, group norm."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from fovea.models.hbformer import FusionBlock, HBFormer, three_channels
from fovea.models.hbformer_config import HBFORMER, HBFormerConfig
from fovea.models.unet import UNet
from fovea.models.unet_config import UNetConfig

SMALL = HBFormerConfig(
    img_size=64, num_classes=3, embed_dim=16, depths=(2, 2, 1, 1), num_heads=(1, 2, 4, 4), mlp_ratio=2.0, feature_size=8
)


def test_parameters_as_measured_of_the_official_code() -> None:
    """36.71 million, 27.53 of them in the encoder; the official code builds a projection and a norm it never uses."""
    with torch.device("meta"):
        network = HBFormer(HBFORMER)
    unused_projection, unused_norm = 768 * 384 + 384, 2 * 768
    encoder = sum(p.numel() for p in network.encoder.parameters()) + unused_norm
    assert f"{encoder / 1e6:.2f}" == "27.53"
    total = sum(p.numel() for p in network.parameters()) + unused_norm + unused_projection
    assert f"{total / 1e6:.2f}" == "36.71"


@pytest.mark.parametrize(("size", "window"), [(256, 8), (224, 7), (512, 8), (96, 8), (80, 5), (72, 6), (52, 8)])
def test_the_window_is_the_first_that_fits(size: int, window: int) -> None:
    assert replace(SMALL, img_size=size).encoder.window_size == window


@pytest.mark.parametrize("norm", ["batch", "group"])
@pytest.mark.parametrize("size", [(32, 32), (33, 57), (100, 64), (64, 35), (129, 40)])
def test_any_size(size: tuple[int, int], norm: str) -> None:
    network = HBFormer(replace(SMALL, norm=norm)).eval()
    logits = network(torch.rand(2, 3, *size))
    assert logits.shape == (2, 3, *size)
    assert logits.isfinite().all()


def test_padding_is_zeros_at_the_right_and_bottom() -> None:
    network = HBFormer(SMALL).eval()
    x = torch.rand(1, 3, 50, 64)
    padded = F.pad(x, (0, 0, 0, 14))
    torch.testing.assert_close(network(x), network(padded)[..., :50, :])


def test_too_small_is_refused() -> None:
    with pytest.raises(ValueError, match="31 x 64 pixels; both must be at least 32"):
        HBFormer(SMALL)(torch.rand(1, 3, 31, 64))


def test_three_channels_is_raw_bright_and_blurred() -> None:
    slices = torch.rand(2, 5, 6)
    found = three_channels(slices)
    assert found.shape == (2, 3, 5, 6)
    assert torch.equal(found[:, 0], slices)
    assert float(found[:, 1].max()) <= 1
    torch.testing.assert_close(found[:, 1], (1.2 * slices).clamp(max=1))
    torch.testing.assert_close(found[:, 2, 2, 2], slices[:, 1:4, 1:4].mean((1, 2)))
    torch.testing.assert_close(found[:, 2, 0, 0], slices[:, :2, :2].sum((1, 2)) / 9)
    assert torch.equal(three_channels(slices[0]), found[0])


def test_relu_comes_before_the_last_norm() -> None:
    block = FusionBlock(8, SMALL).eval()
    block.norm.bias.data.fill_(-1.0)
    out = block(torch.randn(1, 16, 2, 2), torch.randn(1, 8, 4, 4))
    assert float(out.detach().min()) == pytest.approx(-1.0)  # what ReLU cut off, shifted: no ReLU after


def test_skips_join_one_level_finer() -> None:
    """What a change of one stage's features changes."""
    network = HBFormer(SMALL).eval()
    shapes = [(16, 16, 16), (32, 8, 8), (64, 4, 4), (128, 2, 2)]
    features = [torch.randn(1, *shape) for shape in shapes]
    decoded = network.decoder(features)
    assert [tuple(d.shape[1:]) for d in decoded] == [(8, 32, 32), (16, 16, 16), (32, 8, 8), (64, 4, 4)]
    reach = []
    for stage in range(4):
        changed = [f + (i == stage) for i, f in enumerate(features)]
        other = network.decoder(changed)
        reach.append([not torch.equal(a, b) for a, b in zip(decoded, other, strict=True)])
    assert reach == [  # c1 to d1; c2 to d2 on; c3 and c4 to d4 on
        [True, False, False, False],
        [True, True, False, False],
        [True, True, True, True],
        [True, True, True, True],
    ]
    natural = HBFormer(replace(SMALL, skips="natural")).eval()
    decoded = natural.decoder(features)
    other = natural.decoder([features[0], features[1] + 1, *features[2:]])
    assert [not torch.equal(a, b) for a, b in zip(decoded, other, strict=True)] == [True, True, True, False]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"feature_size": 16}, "feature_size=16; it must be half of embed_dim=16"),
        ({"depths": (2, 2), "num_heads": (1, 2)}, "the encoder has four stages"),
        ({"num_classes": 1}, "num_classes=1; it must be at least 2"),
        ({"experts": 0}, "experts=0; all must be at least 1"),
        ({"norm": "layer"}, "norm='layer'; it must be 'batch' or 'group'"),
        ({"skips": "none"}, "skips='none'; it must be 'finer' or 'natural'"),
        ({"decoder": "fpn"}, "decoder='fpn'; it must be 'mff' or 'unet'"),
        ({"embed_dim": 8, "feature_size": 4}, "feature_size=4; it must be at least 8"),
        ({"img_size": 16}, "each side must be at least 32"),
    ],
)
def test_impossible_configurations(words: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(SMALL, **words)  # type: ignore[arg-type]


def test_group_norm_trains_with_one_image_as_with_many() -> None:
    network = HBFormer(replace(SMALL, norm="group", drop_path_rate=0.0)).train()
    x = torch.rand(3, 3, 32, 32)
    torch.testing.assert_close(network(x)[:1], network(x[:1]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [(1, 1), (17, 30), (64, 48)])
def test_the_plain_unet_takes_any_size(size: tuple[int, int]) -> None:
    network = UNet(UNetConfig(in_chans=1, num_classes=2, width=4, levels=4)).eval()
    assert network(torch.rand(1, 1, *size)).shape == (1, 2, *size)
    with pytest.raises(ValueError, match="levels=1; it must be at least 2"):
        UNetConfig(levels=1)
