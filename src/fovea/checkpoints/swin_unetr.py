"""The official layout of Swin UNETR (Project-MONAI/MONAI, ``swin_unetr.py``) and what shapes tell of the variant."""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import prod
from typing import Any

import torch
from torch import Tensor

from fovea.checkpoints.layout import CheckpointMismatch, Layout, Rule, gathered, require
from fovea.errors import UsageError, UserError
from fovea.models.swin_unetr import SwinUNETR
from fovea.models.swin_unetr_config import SwinUNETRConfig

PREFIXES = ("module.", "backbone.")
"""What training codes put before every name, in any order."""
BODY = "swinViT."
"""Before the names of the way down in a whole network; self-supervised files hold that part alone, without it."""
WORDS = {
    "use_v2": "stage_convolutions",
    "spatial_dims": "spatial_axes",
    "downsample": "merging",
    "use_checkpoint": "gradient_checkpointing",
    "dropout_path_rate": "drop_path_rate",
}
"""The constructor's words that are others here."""
IMPOSSIBLE = {
    "norm_name": ("instance", "it must be 'instance'"),
    "patch_norm": (False, "no published network normalises its patches"),
    "attn_drop_rate": (0.0, "it must be 0, attention weights are never stored"),
}


def renamed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The names of the supervised files, whichever training code wrote them."""
    found = dict(state)
    while prefix := next((p for p in PREFIXES if found and all(name.startswith(p) for name in found)), None):
        found = {name.removeprefix(prefix): tensor for name, tensor in found.items()}
    if not any(name.startswith(BODY) for name in found):
        inner = re.compile(r"(patch_embed|layers\d)")
        found = {BODY + name if inner.match(name) else name: tensor for name, tensor in found.items()}
    for theirs, ours in ((".mlp.fc1.", ".mlp.linear1."), (".mlp.fc2.", ".mlp.linear2.")):
        found = {name.replace(theirs, ours): tensor for name, tensor in found.items()}
    return found


def layout(config: SwinUNETRConfig) -> Layout:
    """The rules for a network of this configuration."""
    table = tuple(2 * size - 1 for size in config.window)
    flipped = gathered(torch.arange(prod(table)).flip(0), table)  # official entries go by query minus key
    rules: list[Rule] = [Rule(f"{BODY}patch_embed.proj.*", "patch_embedding.*")]
    for index in range(4):
        block, ours = f"{BODY}layers{index + 1}.0.blocks.{{b}}", f"stages.{index}.blocks.{{b}}"
        stage = f"{BODY}layers{index + 1}.0.downsample"
        rules += [
            Rule(f"{block}.norm1.*", f"{ours}.norm1.*"),
            Rule(f"{block}.attn.relative_position_bias_table", f"{ours}.attention.bias", flipped),
            Rule(f"{block}.attn.qkv.*", f"{ours}.attention.qkv.*"),
            Rule(f"{block}.attn.proj.*", f"{ours}.attention.project.*"),
            Rule(f"{block}.norm2.*", f"{ours}.norm2.*"),
            Rule(f"{block}.mlp.linear1.*", f"{ours}.mlp.expand.*"),
            Rule(f"{block}.mlp.linear2.*", f"{ours}.mlp.contract.*"),
            Rule(f"{stage}.norm.*", f"stages.{index}.merging.norm.*"),
            Rule(f"{stage}.reduction.weight", f"stages.{index}.merging.reduce.weight"),
            *_residual(f"{BODY}layers{index + 1}c.0.layer", f"stages.{index}.convolution"),
        ]
    for number, ours in (
        (1, "encoders.0"),
        (2, "encoders.1"),
        (3, "encoders.2"),
        (4, "encoders.3"),
        (10, "bottleneck"),
    ):
        rules += _residual(f"encoder{number}.layer", ours)
    for number in range(1, 6):
        ours = f"decoders.{5 - number}"
        rules.append(Rule(f"decoder{number}.transp_conv.conv.weight", f"{ours}.enlarge.weight"))
        rules += _residual(f"decoder{number}.conv_block", f"{ours}.block")
    rules.append(Rule("out.conv.conv.*", "head.*"))
    index_of_pairs = relative_index(config.window)
    constants = {
        f"{BODY}layers{n + 1}.0.blocks.{b}.attn.relative_position_index": index_of_pairs
        for n, depth in enumerate(config.depths)
        for b in range(depth)
    }
    return Layout(
        f"Swin UNETR with {config.feature_size} features, {config.in_channels} channels in and "
        f"{config.out_channels} out",
        tuple(rules),
        constants,
    )


def relative_index(window: tuple[int, ...]) -> Tensor:
    """The official ``relative_position_index``: ``[tokens, tokens]``, the table's entry for query and key."""
    places = torch.cartesian_prod(*(torch.arange(size) for size in window)).view(prod(window), -1)
    index = torch.zeros(len(places), len(places), dtype=torch.int64)
    for axis, size in enumerate(window):
        index = index * (2 * size - 1) + places[:, None, axis] - places[None, :, axis] + size - 1
    return index


def words(config: Mapping[str, Any]) -> dict[str, Any]:
    """The constructor's words as ours.

    Words that make a whole constructor call (both ``in_channels`` and ``out_channels`` are there) mean what MONAI's
    constructor makes of those left out, also of ``downsample``: ``merging``, as it is from MONAI 1.5 on.

    Raises:
        UsageError: for what no network of ours does.
    """
    found = {WORDS.get(name, name): value for name, value in config.items() if name != "img_size"}
    for name, (only, reason) in IMPOSSIBLE.items():
        value = found.pop(name, only)
        value = value[0] if isinstance(value, tuple | list) else value
        if value != only:
            raise UsageError(f"{name}={value!r}; {reason}")
    if "in_channels" in found and "out_channels" in found and "variant" not in found:
        found.setdefault("merging", "merging")
    return found


def infer(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """What the shapes tell of the configuration, in the words of :class:`SwinUNETRConfig`.

    Not in the shapes: the order of merging, ``legacy`` unless said, as in all published files; and the biases of small
    windows, ``official``.
    """
    first = f"{BODY}layers1.0.blocks.0"
    table = f"{first}.attn.relative_position_bias_table"
    needed = (f"{BODY}patch_embed.proj.weight", table, f"{first}.mlp.linear1.weight", "out.conv.conv.weight")
    require(state, needed, "Swin UNETR")
    patch = state[f"{BODY}patch_embed.proj.weight"]
    axes, features = patch.ndim - 2, patch.shape[0]
    width = round(len(state[table]) ** (1 / axes))
    if width**axes != len(state[table]) or width % 2 == 0:
        raise UserError(
            f"{table} has {len(state[table])} entries, which is no window with equal sides: say window_size=..."
        )
    depths = tuple(
        1 + max((int(m[1]) for name in state if (m := _block(n).match(name))), default=0) for n in range(1, 5)
    )
    tables = [f"{BODY}layers{n}.0.blocks.0.attn.relative_position_bias_table" for n in range(1, 5)]
    return {
        "in_channels": patch.shape[1],
        "out_channels": len(state["out.conv.conv.weight"]),
        "feature_size": features,
        "depths": depths,
        "num_heads": tuple(state[name].shape[1] for name in tables),
        "window_size": (width + 1) // 2,
        "patch_size": patch.shape[-1],
        "qkv_bias": f"{first}.attn.qkv.bias" in state,
        "mlp_ratio": len(state[f"{first}.mlp.linear1.weight"]) / features,
        "spatial_axes": axes,
        "stage_convolutions": f"{BODY}layers1c.0.layer.conv1.conv.weight" in state,
        "merging": "legacy",
        "shrunk_bias": "official",
    }


def load_encoder(network: SwinUNETR, state: Mapping[str, Tensor]) -> list[str]:
    """Give ``network`` the way down of a self-supervised file (``model_swinvit.pt``); returns the names left as they
    were: all of the way up.

    What the pre-training put on top (heads for rotation, contrast, inpainting) is left out.

    Raises:
        CheckpointMismatch: when the file's way down is not that of the network.
    """
    rules = layout(network.config)
    found = {name: tensor for name, tensor in renamed(state).items() if name.startswith(BODY)}
    ours = {
        name: tensor
        for name, tensor in network.state_dict().items()
        if name.startswith(("patch_embedding.", "stages."))
    }
    if not found:
        begins = ", ".join(list(state)[:3])
        raise CheckpointMismatch(rules.what, [("a way down", "swinViT.* or patch_embed.*", f"it begins with {begins}")])
    known = {name: tensor for name, tensor in found.items() if name in rules.constants or rules.to_ours({name: tensor})}
    rules.check(known, ours)
    network.load_state_dict(rules.to_ours(known), strict=False)
    return [name for name in network.state_dict() if name not in ours]


def _residual(theirs: str, ours: str) -> list[Rule]:
    names = (("conv1", "conv1"), ("conv2", "conv2"), ("conv3", "shortcut"))
    return [Rule(f"{theirs}.{official}.conv.weight", f"{ours}.{name}.weight") for official, name in names]


def _block(stage: int) -> re.Pattern[str]:
    return re.compile(rf"{re.escape(BODY)}layers{stage}\.0\.blocks\.(\d+)\.")
