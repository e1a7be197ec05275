"""NAT and DiNAT: published sizes, dilations, and grids smaller than a neighborhood."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from fovea.models.dinat import DiNAT
from fovea.models.dinat_config import VARIANTS, DiNATConfig

SMALL = DiNATConfig(
    embed_dim=8, depths=(2, 2), num_heads=(2, 4), kernel_size=3, dilations=((1, 2), (1, 2)), num_classes=5
)


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("NAT-Mini", 20),
        ("NAT-Tiny", 28),
        ("NAT-Small", 51),
        ("NAT-Base", 90),
        ("DiNAT-Mini", 20),
        ("DiNAT-Tiny", 28),
        ("DiNAT-Small", 51),
        ("DiNAT-Base", 90),
        ("DiNAT-Large", 200),
        ("DiNAT_s-Tiny", 28),
        ("DiNAT_s-Small", 50),
        ("DiNAT_s-Base", 88),
        ("DiNAT_s-Large", 197),
        ("NAT-Isotropic-Small", 22),
        ("DiNAT-Isotropic-Base", 86),
    ],
)
def test_parameters_as_published(name: str, millions: int) -> None:
    with torch.device("meta"):
        network = DiNAT(VARIANTS[name])
    count = sum(parameter.numel() for parameter in network.parameters())
    assert round(count / 1e6) == pytest.approx(millions, abs=1)


def test_dilations_as_published() -> None:
    assert VARIANTS["DiNAT-Mini"].dilations == ((1, 8, 1), (1, 4, 1, 4), (1, 2, 1, 2, 1, 2), (1, 1, 1, 1, 1))
    assert VARIANTS["DiNAT-Large-384"].dilations_of(0) == (1, 13, 1)
    assert VARIANTS["DiNAT_s-Tiny"].dilations == ((1, 8), (1, 4), (1, 2, 1, 2, 1, 2), (1, 1))
    assert VARIANTS["DiNAT-Isotropic-Small"].dilations == ((1, 2) * 6,)
    assert VARIANTS["NAT-Mini"].dilations_of(2) == (1,) * 6
    assert VARIANTS["NAT-Small"].layer_scale == 1e-5
    assert VARIANTS["DiNAT-Small"].layer_scale is None


@pytest.mark.parametrize("patch_size", [None, 4])
@pytest.mark.parametrize("size", [(1, 1), (3, 20), (17, 9), (33, 50)])
def test_any_size_is_classified(size: tuple[int, int], patch_size: int | None) -> None:
    out = DiNAT(replace(SMALL, patch_size=patch_size)).eval()(torch.rand(2, 3, *size))
    assert out.shape == (2, 5)
    assert out.isfinite().all()


def test_small_grids_see_zero_tokens_at_their_ends() -> None:
    layer = DiNAT(SMALL).levels[0].layers[1].eval()  # window 3, dilation 2: needs 6 tokens an axis
    tokens = torch.randn(1, 4, 7, 8)
    grown = torch.nn.functional.pad(tokens, (0, 0, 0, 0, 0, 2))
    torch.testing.assert_close(layer.attend(tokens), layer.attention(grown)[:, :4])


def test_merged_tokens_follow_column_by_column() -> None:
    merging = DiNAT(replace(SMALL, patch_size=4)).levels[0].downsampler
    tokens = torch.randn(1, 4, 6, 8)
    four = torch.cat([tokens[0, 2, 4], tokens[0, 3, 4], tokens[0, 2, 5], tokens[0, 3, 5]])
    torch.testing.assert_close(merging(tokens)[0, 1, 2], merging.reduction(merging.norm(four)))


def test_patches_at_the_border_are_filled_with_zeros() -> None:
    tokenizer = DiNAT(replace(SMALL, patch_size=4)).tokenizer
    image = torch.rand(1, 6, 8, 3)
    grown = torch.nn.functional.pad(image, (0, 0, 0, 0, 0, 2))
    torch.testing.assert_close(tokenizer(image), tokenizer(grown))


def test_without_classes_the_features() -> None:
    network = DiNAT(replace(SMALL, num_classes=0)).eval()
    x = torch.rand(1, 3, 32, 32)
    torch.testing.assert_close(network(x), network.features(x))
    assert network(x).shape == (1, 16)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"num_heads": (3, 4)}, "level 0 has 8 channels, which 3 heads do not divide"),
        ({"depths": (2, 2, 2)}, "must name the same levels|zip"),
        ({"dilations": ((1,), (1, 2))}, r"one number for each of the layers \(2, 2\)"),
        ({"attn_drop_rate": 0.1}, "it must be 0"),
    ],
)
def test_impossible_configurations(words: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(SMALL, **words)  # type: ignore[arg-type]
