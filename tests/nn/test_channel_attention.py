from __future__ import annotations

import pytest
import torch

from fovea.nn import ChannelAttention, ChannelAttentionBlock


def test_channel_attention_is_its_formula() -> None:
    layer = ChannelAttention(6, 2)
    u = torch.randn(2, 3, 4, 6)
    hidden = (u.mean((1, 2)) @ layer.reduce.weight.T + layer.reduce.bias).relu()
    weight = (hidden @ layer.restore.weight.T + layer.restore.bias).sigmoid()
    torch.testing.assert_close(layer(u), u * weight[:, None, None])


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_block_works_on_every_rank(axes: int) -> None:
    x = torch.randn(2, *(5, 4, 3)[:axes], 6)
    assert ChannelAttentionBlock(6, 3, 2, axes=axes)(x).shape == x.shape


def test_compress_and_squeeze_are_different_divisors() -> None:
    block = ChannelAttentionBlock(12, 3, 6)
    assert block.compress.conv.weight.shape == (4, 12, 3, 3)
    assert block.attention.reduce.weight.shape == (2, 12)


@pytest.mark.parametrize(("compress", "squeeze"), [(0, 1), (7, 1), (1, 7)])
def test_impossible_divisors(compress: int, squeeze: int) -> None:
    with pytest.raises(ValueError, match="must be 1 to 6, the channels"):
        ChannelAttentionBlock(6, compress, squeeze)
