"""HAT's own mechanism: counts, sizes, the overlapping cross-attention, ablations, tiles."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fovea.models.hat import HAT, OverlappingCrossAttentionBlock
from fovea.models.hat_config import VARIANTS, HATConfig
from fovea.nn.unfolded import unfolded
from fovea.patterns import Window
from fovea.tasks.restoration.inference import Tiles, restore

SMALL = HATConfig(
    upscale=2, embed_dim=12, depths=(2, 2), num_heads=(2, 3), window_size=4, squeeze_factor=3, img_size=16
)


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("HAT-S", (9.47, 9.66, 9.62)),
        ("HAT", (20.62, 20.81, 20.77)),
        ("HAT-L", (40.70, 40.88, 40.85)),
        ("Real-HAT", (20.62, 20.81, 20.77)),
        ("SwinIR", (11.75, 11.94, 11.90)),
    ],
)
def test_parameters_as_published(name: str, millions: tuple[float, ...]) -> None:
    for scale, expected in zip((2, 3, 4), millions, strict=True):
        with torch.device("meta"):
            network = HAT(replace(VARIANTS[name], upscale=scale))
        count = sum(parameter.numel() for parameter in network.parameters())
        assert f"{count / 1e6:.2f}" == f"{expected:.2f}"


@settings(max_examples=10)
@given(st.integers(1, 3), st.integers(1, 3), st.sampled_from([(2, 2), (4, 2), (4, 4), (3, 2), (4, 0)]))
def test_overlapping_attention_is_the_unfolded_one(rows: int, columns: int, sizes: tuple[int, int]) -> None:
    window, overlap = sizes
    config = replace(SMALL, window_size=window, overlap_ratio=overlap / window)
    assert config.overlap == overlap
    block = OverlappingCrossAttentionBlock(config, 2)
    assert block.attention.bias is not None
    torch.nn.init.normal_(block.attention.bias)
    torch.nn.init.normal_(block.attention.qkv.bias)
    tokens = torch.randn(2, rows * window, columns * window, 12, requires_grad=True)
    cotangent = torch.randn_like(tokens)
    ours = block.attention(block.norm1(tokens))
    theirs = unfolded(block.attention, block.norm1(tokens))
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    weights = [tokens, block.attention.bias, block.attention.qkv.weight]
    for a, b in zip(
        torch.autograd.grad(ours, weights, cotangent), torch.autograd.grad(theirs, weights, cotangent), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("scale", [1, 2, 3, 4])
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (3, 2), (5, 4), (13, 9), (33, 10)])
def test_any_size_gives_exactly_scale_times_it(scale: int, size: tuple[int, int]) -> None:
    network = HAT(replace(SMALL, upscale=scale)).eval()
    out = restore(network, torch.rand(3, *size), scale=scale, multiple=network.multiple).image
    assert out.shape == (3, size[0] * scale, size[1] * scale)
    assert out.isfinite().all()


def test_the_largest_odd_size() -> None:
    network = HAT(SMALL).eval()
    assert restore(network, torch.rand(3, 65, 70), scale=2, multiple=4).image.shape == (3, 130, 140)


def test_sizes_that_windows_do_not_divide_are_refused() -> None:
    with pytest.raises(ValueError, match=r"8 x 10 pixels.*multiples of the window, 4"):
        HAT(SMALL)(torch.rand(1, 3, 8, 10))


def strong(network: HAT) -> HAT:
    """Weights large enough for every part to matter."""
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return network.eval()


def test_one_tile_is_the_whole_image_and_more_overlap_comes_closer_to_it() -> None:
    network = strong(HAT(replace(SMALL, cab=False)))
    image = torch.rand(3, 32, 24)

    def result(tiles: Tiles | None) -> Tensor:
        return restore(network, image, scale=2, multiple=4, tiles=tiles).image

    whole = result(None)
    for mode in ("official", "blend"):
        torch.testing.assert_close(result(Tiles(32, 4, mode)), whole)
        errors = [(result(Tiles(8, overlap, mode)) - whole).square().mean().sqrt() for overlap in (0, 8, 16)]
        assert errors[0] > errors[1] > errors[2]


def test_shift_alternates_and_vanishes_on_small_images() -> None:
    patterns = [block.attention.pattern for block in HAT(SMALL).groups[0].blocks]
    assert patterns == [Window(4), Window(4, shift=2)]
    patterns = [block.attention.pattern for block in HAT(replace(SMALL, img_size=4)).groups[0].blocks]
    assert patterns == [Window(4), Window(4)]


def test_channel_attention_block_reads_normed_tokens_and_is_never_dropped() -> None:
    config = replace(SMALL, drop_path_rate=0.999999, conv_scale=0.5)
    block = HAT(config).groups[1].blocks[1].train()
    tokens = torch.randn(1, 4, 4, 12)
    expected = tokens + 0.5 * block.cab(block.norm1(tokens))  # attention and MLP are dropped
    torch.testing.assert_close(block(tokens), expected)


def test_ablations_leave_their_parts_out() -> None:
    names = {name for name, _ in HAT(replace(SMALL, cab=False, ocab=False)).named_parameters()}
    assert not any("cab" in name or "overlap" in name for name in names)
    assert any(".conv." in name for name in names if name.startswith("groups.0.conv"))
    names = {name for name, _ in HAT(replace(SMALL, resi_connection="identity")).named_parameters()}
    assert not any(name.startswith("groups.0.conv.") for name in names)


def test_scale_one_adds_the_image_unless_told_not_to() -> None:
    with_image, without = (HAT(replace(SMALL, upscale=1, image_residual=flag)) for flag in (True, False))
    without.load_state_dict(with_image.state_dict())
    x = torch.rand(1, 3, 8, 8)
    torch.testing.assert_close(with_image.eval()(x), without.eval()(x) + x - without.mean)


def test_recomputing_activations_changes_nothing() -> None:
    plain = HAT(replace(SMALL, drop_path_rate=0.5))
    lean = HAT(replace(SMALL, drop_path_rate=0.5, use_checkpoint=True))
    lean.load_state_dict(plain.state_dict())
    x = torch.rand(4, 3, 8, 8)
    gradients = []
    for network in (plain, lean):
        torch.manual_seed(1)
        network(x).square().sum().backward()
        gradients.append({name: parameter.grad for name, parameter in network.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient)


def test_bfloat16_and_autocast() -> None:
    network = HAT(SMALL).eval()
    x = torch.rand(1, 3, 8, 8)
    exact = network(x)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(network(x).float(), exact, rtol=0.05, atol=0.05)
    assert network.bfloat16()(x.bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"upscale": 5}, "upscale=5; it must be 1, 3 or a power of two"),
        ({"num_heads": (5, 2)}, r"num_heads=\(5, 2\); each must divide embed_dim=12"),
        ({"depths": (2,)}, "must name the same groups"),
        ({"overlap_ratio": 0.25}, "widens windows by 1, which must be an even number"),
        ({"resi_connection": "3conv"}, "'1conv' or 'identity'"),
        ({"upsampler": ""}, "it must be 'pixelshuffle'"),
        ({"attn_drop_rate": 0.1}, "attn_drop_rate=0.1; it must be 0"),
        ({"patch_size": 2}, "patch_size=2; it must be 1"),
        ({"window_size": 0}, "window_size=0"),
    ],
)
def test_impossible_configurations(words: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(SMALL, **words)  # type: ignore[arg-type]


@pytest.mark.slow
def test_compiles_with_inductor(compiler: str) -> None:
    network = HAT(replace(SMALL, depths=(1,), num_heads=(2,))).eval()
    x = torch.rand(1, 3, 8, 8)
    torch.testing.assert_close(torch.compile(network)(x), network(x), rtol=1e-4, atol=1e-5)
