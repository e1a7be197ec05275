"""The official layout of NAT and DiNAT (SHI-Labs/Neighborhood-Attention-Transformer) and what its shapes tell."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from fovea.checkpoints.layout import Layout, Rule, require
from fovea.models.dinat_config import DiNATConfig


def layout(config: DiNATConfig) -> Layout:
    """The rules for a DiNAT of this configuration: NAT and DiNAT, DiNAT_s, or an isotropic network."""
    if config.patch_size is None:
        level, block, ours = "levels.{l}", "levels.{l}.blocks.{b}", "levels.{l}.layers.{b}"
        tokens = (
            Rule("patch_embed.proj.0.*", "tokenizer.first.conv.*"),
            Rule("patch_embed.proj.1.*", "tokenizer.second.conv.*"),
        )
        reduction = "reduction.conv.weight"
    else:
        level, block, ours = "layers.{l}", "layers.{l}.blocks.{b}", "levels.{l}.layers.{b}"
        if len(config.depths) == 1:
            block, ours = "layers.{b}", "levels.0.layers.{b}"
        tokens = (Rule("patch_embed.proj.*", "tokenizer.projection.*"),)
        reduction = "reduction.weight"
    rules = (
        *tokens,
        Rule("patch_embed.norm.*", "tokenizer.norm.*"),
        Rule(f"{block}.norm1.*", f"{ours}.norm1.*"),
        Rule(f"{block}.attn.qkv.*", f"{ours}.attention.qkv.*"),
        Rule(f"{block}.attn.rpb", f"{ours}.attention.bias"),
        Rule(f"{block}.attn.proj.*", f"{ours}.attention.project.*"),
        Rule(f"{block}.norm2.*", f"{ours}.norm2.*"),
        Rule(f"{block}.mlp.fc1.*", f"{ours}.mlp.expand.*"),
        Rule(f"{block}.mlp.fc2.*", f"{ours}.mlp.contract.*"),
        Rule(f"{block}.gamma1", f"{ours}.scale1"),
        Rule(f"{block}.gamma2", f"{ours}.scale2"),
        Rule(f"{level}.downsample.reduction.weight", "levels.{l}.downsampler." + reduction),
        Rule(f"{level}.downsample.norm.*", "levels.{l}.downsampler.norm.*"),
        Rule("norm.*", "norm.*"),
        Rule("head.*", "head.*"),
    )
    return Layout(f"DiNAT with {config.embed_dim} channels, depths {config.depths}", rules)


def infer(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """What the shapes tell of the configuration, in the words of :class:`DiNATConfig`; dilations are not among it."""
    patches = "patch_embed.proj.weight" in state
    isotropic = "layers.0.attn.rpb" in state
    level = "layers.{}" if patches else "levels.{}"
    first = "layers.0" if isotropic else f"{level}.blocks.0"
    projection = "patch_embed.proj.weight" if patches else "patch_embed.proj.1.weight"
    table, hidden = f"{first.format(0)}.attn.rpb", f"{first.format(0)}.mlp.fc1.weight"
    require(state, (projection, table, hidden), "NAT or DiNAT")
    dim = len(state[projection])
    if isotropic:
        depths = (1 + max(int(match[1]) for name in state if (match := re.match(r"layers\.(\d+)\.", name))),)
    else:
        last: dict[int, int] = {}
        for name in state:
            if match := re.match(r"(?:levels|layers)\.(\d+)\.blocks\.(\d+)\.", name):
                last[int(match[1])] = max(last.get(int(match[1]), 0), int(match[2]))
        depths = tuple(last.get(index, 0) + 1 for index in range(max(last) + 1))
    return {
        "embed_dim": dim,
        "mlp_ratio": len(state[hidden]) / dim,
        "depths": depths,
        "num_heads": tuple(len(state[f"{first.format(index)}.attn.rpb"]) for index in range(len(depths))),
        "kernel_size": (state[table].shape[1] + 1) // 2,
        "num_classes": len(state["head.weight"]) if "head.weight" in state else 0,
        "in_chans": state[projection if patches else "patch_embed.proj.0.weight"].shape[1],
        "qkv_bias": f"{first.format(0)}.attn.qkv.bias" in state,
        "layer_scale": 1e-5 if f"{first.format(0)}.gamma1" in state else None,
        "patch_size": state[projection].shape[-1] if patches else None,
    }
