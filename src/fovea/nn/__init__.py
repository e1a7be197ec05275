"""Layers: projections around one pattern or mixer. Tokens stand on a grid with channels last, ``[B, *grid, C]``."""

from fovea.nn.attention import GridAttention, NeighborhoodAttention
from fovea.nn.channel_attention import ChannelAttention, ChannelAttentionBlock
from fovea.nn.convolution import GridConv
from fovea.nn.drop_path import DropPath, rising_rates
from fovea.nn.linear import Linear
from fovea.nn.mlp import MLP
from fovea.nn.patch_merging import PatchMerging
from fovea.nn.shifted_windows import ShiftedWindowAttention, ShiftedWindowBlock

__all__ = [
    "MLP",
    "ChannelAttention",
    "ChannelAttentionBlock",
    "DropPath",
    "GridAttention",
    "GridConv",
    "Linear",
    "NeighborhoodAttention",
    "PatchMerging",
    "ShiftedWindowAttention",
    "ShiftedWindowBlock",
    "rising_rates",
]
