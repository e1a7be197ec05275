"""The official layout of HBFormer (lzeeorno/HBFormer, ``HBFormer.py``) and what its shapes tell of the variant."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from fovea.checkpoints import swin
from fovea.checkpoints.layout import POINTWISE, Layout, Rule, require
from fovea.models.hbformer_config import HBFormerConfig

BACKBONE = "MWAencoder.backbone."
NORM_STATE = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def layout(config: HBFormerConfig) -> Layout:
    """The rules for the published network with this configuration (bridge decoder, batch norm)."""
    rules = [Rule("input_proj.*", "project.*"), *swin.rules(config.encoder, BACKBONE, "encoder.")]
    for i in range(3):
        rules.append(Rule(f"proj_enc{i + 1}.*", f"decoder.project.{i}.*"))
    for level in range(4):
        theirs, ours = f"MFF_decoder{level + 1}", f"decoder.fuse.{level}"
        mixture, our_mixture = f"{theirs}.Med_DSPP", f"{ours}.mixture"
        rules += [
            Rule(f"{theirs}.transp_conv.*", f"{ours}.enlarge.*"),
            Rule(f"{theirs}.LRD_block.conv1.weight", f"{ours}.residual.conv1.weight"),
            Rule(f"{theirs}.LRD_block.conv2.weight", f"{ours}.residual.conv2.weight"),
            Rule(f"{theirs}.LRD_block.conv_skip.weight", f"{ours}.residual.skip.weight"),
            *_norm(f"{theirs}.LRD_block.bn1", f"{ours}.residual.norm1"),
            *_norm(f"{theirs}.LRD_block.bn2", f"{ours}.residual.norm2"),
            Rule(f"{mixture}.dw_experts.{{r}}.{{e}}.weight", f"{our_mixture}.depthwise.{{r}}.{{e}}"),
            Rule(f"{mixture}.pw_experts.{{r}}.{{e}}.weight", f"{our_mixture}.pointwise.{{r}}.{{e}}", POINTWISE),
            *_norm(f"{mixture}.bns.{{r}}", f"{our_mixture}.norms.{{r}}"),
            Rule(f"{mixture}.eca.conv.weight", f"{our_mixture}.eca.conv.weight"),
            Rule(f"{mixture}.fuse.weight", f"{our_mixture}.fuse.weight"),
            *_norm(f"{mixture}.fuse_bn", f"{our_mixture}.fuse_norm"),
            *_norm(f"{theirs}.BN", f"{ours}.norm"),
        ]
        for gate in ("branch", "expert"):
            for place, name in ((1, "reduce"), (3, "choose")):
                official, our = f"{mixture}.{gate}_attention.{place}", f"{our_mixture}.{gate}_gate.{name}"
                rules += [
                    Rule(f"{official}.weight", f"{our}.weight", POINTWISE),
                    Rule(f"{official}.bias", f"{our}.bias"),
                ]
    rules += [Rule("out.0.weight", "enlarge.weight"), Rule("out.1.*", "head.*")]
    n, last = config.feature_size, 8 * config.embed_dim
    unused = {
        f"{BACKBONE}norm.weight": torch.ones(last),
        f"{BACKBONE}norm.bias": torch.zeros(last),
        "proj_enc4.weight": torch.zeros(8 * n, last, 1, 1),
        "proj_enc4.bias": torch.zeros(8 * n),
    }
    return Layout(
        f"HBFormer for {config.num_classes} classes with {config.embed_dim} channels",
        tuple(rules),
        unused=unused,
        ignored=swin.COMPUTED,
    )


def words(said: Mapping[str, Any]) -> dict[str, Any]:
    """The official code's words as ours: lists may be text (``"2,2,6,2"``); the data set's name and the loss's weights
    are no part of the network."""
    found = {name: value for name, value in said.items() if name not in ("dataset", "loss_weight")}
    for name in ("depths", "num_heads"):
        if isinstance(found.get(name), str):
            found[name] = tuple(int(word) for word in found[name].split(","))
    return found


def infer(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """What the shapes tell of the configuration, in the words of :class:`HBFormerConfig`.

    The image's size is no shape of any tensor. The bias tables tell the window and, where the last stages have smaller
    ones, the grid; else it is taken to be the one of 256 and 224 that the window divides.
    """
    table = BACKBONE + "layers.{}.blocks.0." + swin.TABLE
    require(
        state, (f"{BACKBONE}patch_embed.proj.weight", table.format(0), "out.1.weight", "input_proj.weight"), "HBFormer"
    )
    depths: dict[int, int] = {}
    for name in state:
        if match := re.match(re.escape(BACKBONE) + r"layers\.(\d+)\.blocks\.(\d+)\.", name):
            depths[int(match[1])] = max(depths.get(int(match[1]), 0), int(match[2]) + 1)
    windows = [(math.isqrt(len(state[table.format(s)])) + 1) // 2 for s in sorted(depths)]
    smaller = next((stage for stage, side in enumerate(windows) if side < windows[0]), None)
    size = windows[smaller] * 4 * 2**smaller if smaller is not None else {7: 224}.get(windows[0], 256)
    dim = len(state[f"{BACKBONE}patch_embed.proj.weight"])
    return {
        "img_size": size,
        "in_chans": len(state["input_proj.weight"]),
        "num_classes": len(state["out.1.weight"]),
        "embed_dim": dim,
        "feature_size": dim // 2,
        "depths": tuple(depths[stage] for stage in sorted(depths)),
        "num_heads": tuple(state[table.format(stage)].shape[1] for stage in sorted(depths)),
        "mlp_ratio": len(state[f"{BACKBONE}layers.0.blocks.0.mlp.fc1.weight"]) / dim,
        "window": windows[0],
        "order": "roll-pad",
    }


def _norm(official: str, ours: str) -> list[Rule]:
    return [Rule(f"{official}.{name}", f"{ours}.{name}") for name in NORM_STATE]
