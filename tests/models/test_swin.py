"""The Swin encoder: published sizes, windows and shifts, both orders of padding, any size."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from fovea.models.swin import SwinEncoder
from fovea.models.swin_config import VARIANTS, SwinConfig

SMALL = SwinConfig(img_size=64, embed_dim=8, depths=(2, 2), num_heads=(1, 2), mlp_ratio=2.0, drop_path_rate=0.0)


@pytest.mark.parametrize(("name", "millions"), [("Swin-T", 28.29), ("Swin-S", 49.61), ("Swin-B", 87.77)])
def test_parameters_as_published(name: str, millions: float) -> None:
    """With the last norm and the classifier of a thousand classes, which an encoder has none of."""
    config = VARIANTS[name]
    with torch.device("meta"):
        encoder = SwinEncoder(config)
    last = config.channels(3)
    count = sum(p.numel() for p in encoder.parameters()) + 2 * last + 1000 * last + 1000
    assert f"{count / 1e6:.2f}" == f"{millions:.2f}"


def test_windows_and_shifts_of_the_stages() -> None:
    stages = SwinEncoder(replace(SMALL, img_size=256, depths=(2,) * 4, num_heads=(1,) * 4, window_size=8)).stages
    assert [block.attention.window for stage in stages for block in stage.blocks] == [(8, 8)] * 8
    assert [block.attention.shift for block in stages[0].blocks] == [0, (4, 4)]
    small = SwinEncoder(replace(SMALL, img_size=(32, 64), window_size=7))
    assert [block.attention.window for block in small.stages[1].blocks] == [(4, 7)] * 2


@pytest.mark.parametrize("size", [(32, 32), (33, 64), (71, 40), (8, 9)])
def test_any_size(size: tuple[int, int]) -> None:
    encoder = SwinEncoder(SMALL).eval()
    features = encoder(torch.rand(2, 3, *size))
    grids = [tuple(-(-length // 4) for length in size), tuple(-(-length // 8) for length in size)]
    assert [tuple(feature.shape) for feature in features] == [(2, 8, *grids[0]), (2, 16, *grids[1])]
    assert all(feature.isfinite().all() for feature in features)


def as_published(attention, x: Tensor, shift: int) -> Tensor:
    """Roll, then pad, cut into windows, mask by regions of the padded grid, attend, and all of it back."""
    (window, _), heads = attention.window, attention.num_heads
    batch, height, width, dim = x.shape
    rolled = x.roll((-shift, -shift), (1, 2))
    padded = F.pad(rolled, (0, 0, 0, -width % window, 0, -height % window))
    rows, columns = padded.shape[1:3]

    def cut(tensor: Tensor) -> Tensor:
        parts = tensor.unflatten(2, (-1, window)).unflatten(1, (-1, window)).transpose(2, 3)
        return parts.flatten(3, 4).flatten(0, 2)  # [windows, window * window, channels]

    region = torch.zeros(1, rows, columns, 1)
    if shift:
        r, c = (
            torch.bucketize(torch.arange(n), torch.tensor([n - window, n - shift]), right=True) for n in (rows, columns)
        )
        region = (3 * r[:, None] + c).float()[None, ..., None]
    labels = cut(region)[..., 0]
    mask = -100.0 * (labels[:, None] != labels[:, :, None]).float()
    q, k, v = attention.qkv(cut(padded)).unflatten(-1, (3, heads, -1)).unbind(2)
    place = torch.stack(torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij"), -1).reshape(-1, 2)
    offset = place[None] - place[:, None] + window - 1  # key minus query
    bias = attention.bias[:, offset[..., 0], offset[..., 1]]
    logits = torch.einsum("wqhd,wkhd->whqk", q, k) * q.shape[-1] ** -0.5 + bias
    logits = logits + mask.repeat(batch, 1, 1)[:, None]
    out = torch.einsum("whqk,wkhd->wqhd", logits.softmax(-1), v).flatten(2)
    grid = (batch, rows // window, columns // window, window, window, dim)
    back = out.reshape(grid).transpose(2, 3).reshape(batch, rows, columns, dim)[:, :height, :width]
    return attention.project(back.roll((shift, shift), (1, 2)))


@pytest.mark.parametrize("grid", [(12, 12), (16, 24), (9, 17), (23, 10)])
@pytest.mark.parametrize("block", [0, 1])
def test_rolling_before_padding_is_as_published(grid: tuple[int, int], block: int) -> None:
    encoder = SwinEncoder(replace(SMALL, window_size=8, order="roll-pad"))
    attention = encoder.stages[0].blocks[block].attention
    torch.nn.init.normal_(attention.bias)
    torch.nn.init.normal_(attention.qkv.bias)
    x = torch.randn(2, *grid, 8)
    torch.testing.assert_close(attention(x), as_published(attention, x, 4 * block), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"num_heads": (3, 2)}, r"num_heads=\(3, 2\); each must divide its stage's channels, \(8, 16\)"),
        ({"depths": (2,)}, "must name the same stages"),
        ({"window_size": 0}, "window_size=0"),
        ({"order": "none"}, "'pad-roll' or 'roll-pad'"),
        ({"img_size": 4}, "img_size=4; each side must be at least 8"),
    ],
)
def test_impossible_configurations(words: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(SMALL, **words)  # type: ignore[arg-type]
