"""The official layout of LoLA-SpecViT (FadiZidiDz/LoLA-SpecViT-Model) and what a checkpoint's shapes tell."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from fovea.checkpoints.hat import window_index, window_table
from fovea.checkpoints.layout import Layout, Rule, require
from fovea.models.lola_specvit_config import LoLASpecViTConfig

BATCH_NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
ADAPTER = {"lora_down": "down", "lora_up": "up", "lora_gate": "gate", "lora_residual": "residual"}
TABLE = "relative_position_bias_table"


def layout(config: LoLASpecViTConfig) -> Layout:
    """The rules for a network of this configuration."""
    rules = [Rule("pos_embed", "position")]
    for place in range(3):
        rules.append(Rule(f"spectral_conv.{3 * place}.*", f"front.convs.{place}.0.*"))
        rules += _batch_norm(f"spectral_conv.{3 * place + 1}", f"front.convs.{place}.1")
    rules += _channel_attention("spectral_attention", "front.attention")
    rules += [Rule("patch_embed.0.*", "embedding.conv.*"), *_batch_norm("patch_embed.1", "embedding.norm")]
    for level, window in enumerate(config.window_size):
        block, ours = f"levels.{level}.{{b}}", f"levels.{level}.blocks.{{b}}"
        table = window_table(window)
        rules.append(Rule(f"{block}.attn.{TABLE}", f"{ours}.attention.attention.bias", table))
    block, ours = "levels.{i}.{b}", "levels.{i}.blocks.{b}"
    rules += [Rule(f"{block}.norm1.*", f"{ours}.norm1.*"), Rule(f"{block}.norm2.*", f"{ours}.norm2.*")]
    rules += _adapted(f"{block}.attn.qkv", f"{ours}.attention.attention.qkv")
    rules += _adapted(f"{block}.attn.proj", f"{ours}.attention.attention.project")
    rules += _adapted(f"{block}.mlp.0", f"{ours}.mlp.expand")
    for theirs, name in (("w1", "opened"), ("w2", "value"), ("w3", "project")):
        rules.append(Rule(f"{block}.mlp.1.{theirs}.*", f"{ours}.mlp.gated.{name}.*"))
    rules += _adapted(f"{block}.mlp.3", f"{ours}.mlp.contract")
    for level, depth in enumerate(config.depths[:-1]):
        last, ours = f"levels.{level}.{depth}", f"levels.{level}.reduction"
        rules.append(Rule(f"{last}.conv.0.*", f"{ours}.depthwise.*"))
        rules += _channel_attention(f"{last}.conv.2", f"{ours}.attention")
        rules += [Rule(f"{last}.conv.3.*", f"{ours}.widen.*"), *_batch_norm(f"{last}.norm", f"{ours}.norm")]
        rules.append(Rule(f"{last}.reduction.*", f"{ours}.reduce.*"))
    rules += [Rule("norm.*", "norm.*"), *_adapted("head", "head")]
    constants = {
        f"levels.{level}.{block}.attn.relative_position_index": window_index(window)
        for level, (window, depth) in enumerate(zip(config.window_size, config.depths, strict=True))
        for block in range(depth)
    }
    what = f"LoLA-SpecViT with {config.dim} channels and depths {config.depths}"
    return Layout(what, tuple(rules), constants)


def _batch_norm(official: str, ours: str) -> Iterator[Rule]:
    return (Rule(f"{official}.{leaf}", f"{ours}.{leaf}") for leaf in BATCH_NORM)


def _channel_attention(official: str, ours: str) -> tuple[Rule, Rule]:
    return Rule(f"{official}.fc.0.*", f"{ours}.reduce.*"), Rule(f"{official}.fc.2.*", f"{ours}.restore.*")


def _adapted(official: str, ours: str) -> Iterator[Rule]:
    yield Rule(f"{official}.linear.*", f"{ours}.*")
    for theirs, name in ADAPTER.items():
        yield Rule(f"{official}.{theirs}.weight", f"{ours}.{name}")


def infer(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """What the shapes tell of the configuration, in the words of :class:`LoLASpecViTConfig`.

    Not in the shapes: ``in_channels`` (the convolutions slide along the spectrum), ``lora_alpha`` and whether the patch
    side is odd; these are left at 15, twice the rank, and odd, as published.
    """
    first = "levels.0.0"
    needed = ("pos_embed", "head.linear.weight", f"{first}.attn.{TABLE}", f"{first}.mlp.0.linear.weight")
    require(state, (*needed, "head.lora_down.weight", "spectral_conv.3.weight"), "LoLA-SpecViT")
    dim, depths = state["pos_embed"].shape[-1], _depths(state)
    tables = [state[f"levels.{level}.0.attn.{TABLE}"] for level in range(len(depths))]
    rank = len(state["head.lora_down.weight"])
    return {
        "variant": "official",
        "num_classes": len(state["head.linear.weight"]),
        "dim": dim,
        "depths": depths,
        "num_heads": tuple(table.shape[1] for table in tables),
        "window_size": tuple((math.isqrt(len(table)) + 1) // 2 for table in tables),
        "mlp_ratio": len(state[f"{first}.mlp.0.linear.weight"]) / dim,
        "spatial_size": 2 * state["pos_embed"].shape[1] + 1,
        "r": rank,
        "lora_alpha": 2.0 * rank,
        "front": tuple(state["spectral_conv.3.weight"].shape[1::-1]),
    }


def _depths(state: Mapping[str, Tensor]) -> tuple[int, ...]:
    last: dict[int, int] = {}
    for name in state:
        if match := re.match(r"levels\.(\d+)\.(\d+)\.norm1\.", name):
            level, block = int(match[1]), int(match[2])
            last[level] = max(last.get(level, 0), block)
    return tuple(last[level] + 1 for level in sorted(last))
