"""The official layout of HAT (XPixelGroup/HAT, ``hat_arch.py``) and what a checkpoint's shapes tell of its variant."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from fovea.checkpoints.layout import POINTWISE, Layout, Rule, Transform, gathered, require
from fovea.models.hat_config import HATConfig


def window_table(window: int) -> Transform:
    """The table of window attention. The official index counts query minus key, ours key minus query."""
    width = 2 * window - 1
    return gathered(torch.arange(width * width).flip(0), (width, width))


def overlap_table(window: int, overlap: int) -> Transform:
    """The table of overlapping cross-attention, of side ``M + Mo - 1``.

    The official index is ``(dr + M - Mo + 1) (M + Mo - 1) + dc + M - Mo + 1`` with ``dr, dc`` the places of the key in
    its window minus those of the query in its own; it is negative for many pairs and then counts from the end.
    """
    width = 2 * window + overlap - 1
    offset = torch.arange(width) - (window + overlap // 2 - 1)  # key - query, in pixels of the image
    place = offset + overlap // 2 + 1 - overlap
    index = place[:, None] * width + place[None, :]
    return gathered(index.flatten() % (width * width), (width, width))


def window_index(window: int) -> Tensor:
    """The official ``relative_position_index_SA``: ``[window**2, window**2]``, entry of the table for query and key."""
    rows, columns = _places(window)
    return (rows[:, None] - rows[None] + window - 1) * (2 * window - 1) + columns[:, None] - columns[None] + window - 1


def overlap_index(window: int, overlap: int) -> Tensor:
    """The official ``relative_position_index_OCA``: ``[window**2, (window + overlap)**2]``, negative for many pairs."""
    rows, columns = _places(window)
    key_rows, key_columns = _places(window + overlap)
    first, width = 1 - overlap, 2 * window + overlap - 1
    return (key_rows[None] - rows[:, None] + first) * width + key_columns[None] - columns[:, None] + first


def _places(side: int) -> tuple[Tensor, Tensor]:
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    return rows.flatten(), columns.flatten()


def layout(config: HATConfig) -> Layout:
    """The rules for a HAT of this configuration."""
    window = min(config.window_size, *config.grid)
    grid = config.grid
    position = Transform(lambda table: table.unflatten(1, grid), lambda table: table.flatten(1, 2))
    block, ours = "layers.{g}.residual_group.blocks.{b}", "groups.{g}.blocks.{b}"
    overlap, our_overlap = "layers.{g}.residual_group.overlap_attn", "groups.{g}.overlap"
    table = "relative_position_bias_table"
    rules = (
        Rule("conv_first.*", "conv_first.conv.*"),
        Rule("patch_embed.norm.*", "norm_first.*"),
        Rule("absolute_pos_embed", "position", position),
        Rule(f"{block}.norm1.*", f"{ours}.norm1.*"),
        Rule(f"{block}.attn.{table}", f"{ours}.attention.bias", window_table(window)),
        Rule(f"{block}.attn.qkv.*", f"{ours}.attention.qkv.*"),
        Rule(f"{block}.attn.proj.*", f"{ours}.attention.project.*"),
        Rule(f"{block}.conv_block.cab.0.*", f"{ours}.cab.compress.conv.*"),
        Rule(f"{block}.conv_block.cab.2.*", f"{ours}.cab.expand.conv.*"),
        Rule(f"{block}.conv_block.cab.3.attention.1.weight", f"{ours}.cab.attention.reduce.weight", POINTWISE),
        Rule(f"{block}.conv_block.cab.3.attention.1.bias", f"{ours}.cab.attention.reduce.bias"),
        Rule(f"{block}.conv_block.cab.3.attention.3.weight", f"{ours}.cab.attention.restore.weight", POINTWISE),
        Rule(f"{block}.conv_block.cab.3.attention.3.bias", f"{ours}.cab.attention.restore.bias"),
        Rule(f"{block}.norm2.*", f"{ours}.norm2.*"),
        Rule(f"{block}.mlp.fc1.*", f"{ours}.mlp.expand.*"),
        Rule(f"{block}.mlp.fc2.*", f"{ours}.mlp.contract.*"),
        Rule(f"{overlap}.norm1.*", f"{our_overlap}.norm1.*"),
        Rule(f"{overlap}.{table}", f"{our_overlap}.attention.bias", overlap_table(config.window_size, config.overlap)),
        Rule(f"{overlap}.qkv.*", f"{our_overlap}.attention.qkv.*"),
        Rule(f"{overlap}.proj.*", f"{our_overlap}.attention.project.*"),
        Rule(f"{overlap}.norm2.*", f"{our_overlap}.norm2.*"),
        Rule(f"{overlap}.mlp.fc1.*", f"{our_overlap}.mlp.expand.*"),
        Rule(f"{overlap}.mlp.fc2.*", f"{our_overlap}.mlp.contract.*"),
        Rule("layers.{g}.conv.*", "groups.{g}.conv.conv.*"),
        Rule("norm.*", "norm_last.*"),
        Rule("conv_after_body.*", "conv_after_groups.conv.*"),
        Rule("conv_before_upsample.0.*", "conv_before_upsampler.conv.*"),
        *(Rule(f"upsample.{2 * step}.*", f"upsampler.convs.{step}.conv.*") for step in range(config.upscale)),
        Rule("conv_last.*", "conv_last.conv.*"),
    )
    constants = {
        "relative_position_index_SA": window_index(config.window_size),
        "relative_position_index_OCA": overlap_index(config.window_size, config.overlap),
    }
    return Layout(
        f"HAT x{config.upscale} with {config.embed_dim} channels, {len(config.depths)} groups", rules, constants
    )


def infer(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """What the shapes tell of the configuration, in the words of :class:`HATConfig`.

    Not in the shapes, so left at the defaults that all published checkpoints share: ``img_size``, ``conv_scale``,
    ``img_range``, ``qk_scale``.
    """
    group, block = "layers.{}.residual_group", "layers.{}.residual_group.blocks.{}"
    first = block.format(0, 0)
    needed = ("conv_first.weight", f"{first}.attn.relative_position_bias_table", f"{first}.mlp.fc1.weight")
    require(state, needed, "HAT")
    dim, channels = state["conv_first.weight"].shape[:2]
    depths = _depths(state)
    table = f"{group}.blocks.0.attn.relative_position_bias_table"
    window = (math.isqrt(len(state[table.format(0)])) + 1) // 2
    found: dict[str, Any] = {
        "upscale": _upscale(state),
        "in_chans": channels,
        "embed_dim": dim,
        "depths": depths,
        "num_heads": tuple(state[table.format(g)].shape[1] for g in range(len(depths))),
        "window_size": window,
        "mlp_ratio": _ratio(dim, len(state[f"{first}.mlp.fc1.weight"])),
        "qkv_bias": f"{first}.attn.qkv.bias" in state,
        "patch_norm": "patch_embed.norm.weight" in state,
        "ape": "absolute_pos_embed" in state,
        "resi_connection": "1conv" if "layers.0.conv.weight" in state else "identity",
        "cab": f"{first}.conv_block.cab.0.weight" in state,
        "ocab": f"{group.format(0)}.overlap_attn.qkv.weight" in state,
    }
    if found["ape"]:
        found["img_size"] = math.isqrt(state["absolute_pos_embed"].shape[1])
    if found["cab"]:
        found["compress_ratio"] = dim // len(state[f"{first}.conv_block.cab.0.weight"])
        found["squeeze_factor"] = dim // len(state[f"{first}.conv_block.cab.3.attention.1.weight"])
    overlap_name = f"{group.format(0)}.overlap_attn.relative_position_bias_table"
    if overlap_name in state:
        found["overlap_ratio"] = _ratio(window, math.isqrt(len(state[overlap_name])) + 1 - 2 * window)
    if found["upscale"] == 1:
        found["image_residual"] = False
    return found


def _depths(state: Mapping[str, Tensor]) -> tuple[int, ...]:
    last: dict[int, int] = {}
    for name in state:
        if match := re.match(r"layers\.(\d+)\.residual_group\.blocks\.(\d+)\.", name):
            g, b = int(match[1]), int(match[2])
            last[g] = max(last.get(g, 0), b)
    return tuple(last.get(g, 0) + 1 for g in range(max(last) + 1))


def _upscale(state: Mapping[str, Tensor]) -> int:
    convs = [weight for name, weight in state.items() if re.fullmatch(r"upsample\.\d+\.weight", name)]
    return 3 if len(convs) == 1 and len(convs[0]) == 9 * convs[0].shape[1] else 2 ** len(convs)


def _ratio(whole: int, part: int) -> float:
    """The ratio ``r`` with ``int(whole * r) == part``."""
    ratio = part / whole
    return ratio if int(whole * ratio) == part else math.nextafter(ratio, math.inf)
