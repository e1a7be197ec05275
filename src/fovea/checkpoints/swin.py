"""Layouts of two-dimensional Swin encoders: timm's (0.8 and later) and Microsoft's, whose files everybody starts from.

The two differ in where patch merging is counted: Microsoft's ``layers.0.downsample`` ends the first stage, timm's
``layers.1.downsample`` begins the second. Copying by name alone drops all merging layers; here they are moved.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from fovea.checkpoints.layout import CheckpointMismatch, Layout, Rule, Transform, gathered
from fovea.checkpoints.reading import weights
from fovea.errors import UserError
from fovea.models.swin import SwinEncoder
from fovea.models.swin_config import SwinConfig

COMPUTED = r".*\.(attn_mask|relative_position_index)"
"""What old files hold and networks compute."""
TABLE = "attn.relative_position_bias_table"


def bias_table(window: tuple[int, int]) -> Transform:
    """``[entries, heads]`` counted by query minus key, to ``[heads, rows, columns]`` counted by key minus query."""
    rows, columns = (2 * side - 1 for side in window)
    return gathered(torch.arange(rows * columns).flip(0), (rows, columns))


def rules(config: SwinConfig, official: str = "", ours: str = "") -> tuple[Rule, ...]:
    """Rules between timm's names and ours; ``official`` and ``ours`` are what stands before every name."""
    found = [
        Rule(f"{official}patch_embed.proj.*", f"{ours}embed.*"),
        Rule(f"{official}patch_embed.norm.*", f"{ours}embed_norm.*"),
        Rule(f"{official}layers.{{s}}.downsample.norm.*", f"{ours}stages.{{s}}.merging.norm.*"),
        Rule(f"{official}layers.{{s}}.downsample.reduction.*", f"{ours}stages.{{s}}.merging.reduce.*"),
    ]
    for stage in range(len(config.depths)):
        block, our_block = f"{official}layers.{stage}.blocks.{{b}}", f"{ours}stages.{stage}.blocks.{{b}}"
        found += [
            Rule(f"{block}.norm1.*", f"{our_block}.norm1.*"),
            Rule(f"{block}.{TABLE}", f"{our_block}.attention.bias", bias_table(config.window(stage))),
            Rule(f"{block}.attn.qkv.*", f"{our_block}.attention.qkv.*"),
            Rule(f"{block}.attn.proj.*", f"{our_block}.attention.project.*"),
            Rule(f"{block}.norm2.*", f"{our_block}.norm2.*"),
            Rule(f"{block}.mlp.fc1.*", f"{our_block}.mlp.expand.*"),
            Rule(f"{block}.mlp.fc2.*", f"{our_block}.mlp.contract.*"),
        ]
    return tuple(found)


@dataclass
class Loaded:
    """What became of the tensors of a file, in the file's names.

    Attributes:
        exact: taken as they are.
        moved: merging layers, taken for the stage after the one that the file counts them to.
        resized: bias tables of another window, ``{name: (from, to)}`` windows.
        ignored: of no use to an encoder: the classifier, the last norm, computed tensors.
    """

    exact: list[str] = field(default_factory=list)
    moved: list[str] = field(default_factory=list)
    resized: dict[str, tuple[int, int]] = field(default_factory=dict)
    ignored: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        windows = sorted({f"{before} -> {after}" for before, after in self.resized.values()})
        resized = f", {len(self.resized)} bias tables resized (window {', '.join(windows)})" if windows else ""
        return (
            f"{len(self.exact)} tensors taken as they are, {len(self.moved)} of merging layers moved one stage on"
            f"{resized}, {len(self.ignored)} not needed"
        )


def load_encoder(encoder: SwinEncoder, content: Mapping[str, Tensor]) -> Loaded:
    """Give the encoder the weights of an ImageNet Swin file, Microsoft's or timm's; returns what was done with each.

    Bias tables of square windows of another size are resized by bicubic interpolation. Everything else must fit, and
    nothing that the encoder has may be missing.

    Raises:
        CheckpointMismatch: with a table of all that differs.
        UserError: when the file is no Swin of two dimensions.
    """
    state = weights(content)
    merging = [name for name in state if ".downsample.reduction." in name]
    if not any(name.endswith("patch_embed.proj.weight") for name in state) or not merging:
        raise UserError(f"no Swin encoder: patch_embed.proj.weight or merging layers are missing among {len(state)}")
    (before,) = {name.removesuffix("patch_embed.proj.weight") for name in state if name.endswith("embed.proj.weight")}
    early = f"{before}layers.0.downsample.reduction.weight" in merging  # Microsoft's way of counting
    loaded, renamed = Loaded(), {}
    for name, tensor in state.items():
        known = name.removeprefix(before)
        if not name.startswith(before) or re.fullmatch(rf"{COMPUTED}|norm\..*|head\..*", known):
            loaded.ignored.append(name)
            continue
        if early and (found := re.match(r"layers\.(\d+)\.downsample\.", known)):
            known = f"layers.{int(found[1]) + 1}.{known[found.end(1) + 1 :]}"
            loaded.moved.append(name)
        elif known.endswith(TABLE) and (sides := _windows(encoder.config, known, tensor)):
            tensor, loaded.resized[name] = _resized(tensor, sides[1]), sides
        else:
            loaded.exact.append(name)
        renamed[known] = tensor
    layout = Layout("the Swin encoder", rules(encoder.config))
    try:
        layout.check(renamed, encoder.state_dict())
    except CheckpointMismatch as error:
        stages = len({name for name in renamed if re.fullmatch(r"layers\.\d+\.blocks\.0\.norm1\.weight", name)})
        what = f"the Swin encoder (this file: {stages} stages, {_width(renamed)} channels)"
        raise CheckpointMismatch(what, error.rows) from error
    with torch.no_grad():
        encoder.load_state_dict(layout.to_ours(renamed))
    return loaded


def _width(state: Mapping[str, Tensor]) -> int:
    return len(state["patch_embed.proj.weight"])


def _windows(config: SwinConfig, name: str, table: Tensor) -> tuple[int, int] | None:
    """Sides of the window that a table is for and of the one it is wanted for, where they differ."""
    stage = int(name.split(".")[1])
    if stage >= len(config.depths):
        return None
    rows, columns = config.window(stage)
    side = (round(len(table) ** 0.5) + 1) // 2
    if rows != columns or side == rows or (2 * side - 1) ** 2 != len(table):
        return None
    return side, rows


def _resized(table: Tensor, window: int) -> Tensor:
    side, wanted = round(len(table) ** 0.5), 2 * window - 1
    square = table.T.reshape(1, -1, side, side).float()
    return F.interpolate(square, size=(wanted, wanted), mode="bicubic").flatten(2)[0].T.to(table.dtype).contiguous()
