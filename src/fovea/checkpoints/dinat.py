"""The official layout of NAT and DiNAT (SHI-Labs/Neighborhood-Attention-Transformer) and what its shapes tell."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from fovea.checkpoints.layout import Layout, Rule, require
from fovea.models.dinat_config import DiNATConfig


def layout(config: DiNATConfig) -> Layout:
    """The rules for a DiNAT of this configuration."""
    block, ours = "levels.{l}.blocks.{b}", "levels.{l}.layers.{b}"
    rules = (
        Rule("patch_embed.proj.0.*", "tokenizer.first.conv.*"),
        Rule("patch_embed.proj.1.*", "tokenizer.second.conv.*"),
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
        Rule("levels.{l}.downsample.reduction.weight", "levels.{l}.downsampler.reduction.conv.weight"),
        Rule("levels.{l}.downsample.norm.*", "levels.{l}.downsampler.norm.*"),
        Rule("norm.*", "norm.*"),
        Rule("head.*", "head.*"),
    )
    return Layout(f"DiNAT with {config.embed_dim} channels, depths {config.depths}", rules)


def infer(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """What the shapes tell of the configuration, in the words of :class:`DiNATConfig`; dilations are not among it."""
    first = "levels.{}.blocks.0"
    needed = ("patch_embed.proj.1.weight", "levels.0.blocks.0.attn.rpb", "levels.0.blocks.0.mlp.fc1.weight")
    require(state, needed, "NAT or DiNAT")
    dim = len(state["patch_embed.proj.1.weight"])
    last: dict[int, int] = {}
    for name in state:
        if match := re.match(r"levels\.(\d+)\.blocks\.(\d+)\.", name):
            last[int(match[1])] = max(last.get(int(match[1]), 0), int(match[2]))
    levels = range(max(last) + 1)
    tables = [state[f"{first.format(level)}.attn.rpb"] for level in levels]
    return {
        "embed_dim": dim,
        "mlp_ratio": len(state["levels.0.blocks.0.mlp.fc1.weight"]) / dim,
        "depths": tuple(last.get(level, 0) + 1 for level in levels),
        "num_heads": tuple(len(table) for table in tables),
        "kernel_size": (tables[0].shape[1] + 1) // 2,
        "num_classes": len(state["head.weight"]) if "head.weight" in state else 0,
        "in_chans": state["patch_embed.proj.0.weight"].shape[1],
        "qkv_bias": "levels.0.blocks.0.attn.qkv.bias" in state,
        "layer_scale": 1e-5 if "levels.0.blocks.0.gamma1" in state else None,
    }
