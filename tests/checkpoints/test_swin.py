"""ImageNet Swin files for the encoder: nothing is dropped, and what was done is told."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from fovea.checkpoints import CheckpointMismatch
from fovea.checkpoints.layout import Layout
from fovea.checkpoints.swin import load_encoder, rules
from fovea.errors import UserError
from fovea.models.swin import SwinEncoder
from fovea.models.swin_config import SwinConfig

CONFIG = SwinConfig(
    img_size=256, embed_dim=8, depths=(2, 2, 1, 1), num_heads=(1, 2, 4, 4), mlp_ratio=2.0, window_size=8
)


def timm(config: SwinConfig) -> dict[str, Tensor]:
    """A random encoder under timm's names."""
    return Layout("", rules(config)).to_official(SwinEncoder(config).state_dict())


def microsoft(window: int) -> dict[str, Tensor]:
    """The same as Microsoft's files have it: merging ends a stage, a classifier follows, computed tensors are kept."""
    size = 32 * window
    state = timm(SwinConfig(**{**CONFIG.__dict__, "window_size": window, "img_size": size}))
    moved = {}
    for name, tensor in state.items():
        if ".downsample." in name:
            stage = int(name.split(".")[1])
            name = name.replace(f"layers.{stage}.", f"layers.{stage - 1}.")
        moved[name] = tensor
    extra = {
        "norm.weight": torch.ones(64),
        "norm.bias": torch.zeros(64),
        "head.weight": torch.zeros(10, 64),
        "head.bias": torch.zeros(10),
        "layers.0.blocks.0.attn.relative_position_index": torch.zeros(window**2, window**2),
        "layers.0.blocks.1.attn_mask": torch.zeros(4, window**2, window**2),
    }
    return {**moved, **extra}


def test_microsofts_merging_moves_one_stage_on() -> None:
    state, encoder = microsoft(8), SwinEncoder(CONFIG)
    loaded = load_encoder(encoder, {"model": state})
    for stage in (1, 2, 3):
        merging = encoder.stages[stage].merging
        assert torch.equal(merging.reduce.weight, state[f"layers.{stage - 1}.downsample.reduction.weight"])
        assert torch.equal(merging.norm.weight, state[f"layers.{stage - 1}.downsample.norm.weight"])
    assert len(loaded.moved) == 9
    assert not loaded.resized
    assert len(loaded.ignored) == 6
    assert len(loaded.exact) + 9 == len(encoder.state_dict())
    assert "9 of merging layers moved" in str(loaded)
    assert torch.equal(encoder.stages[0].blocks[1].attention.qkv.weight, state["layers.0.blocks.1.attn.qkv.weight"])


def test_timms_stay_where_they_are_also_behind_a_prefix() -> None:
    state, encoder = timm(CONFIG), SwinEncoder(CONFIG)
    loaded = load_encoder(encoder, {f"backbone.{name}": tensor for name, tensor in state.items()})
    assert not loaded.moved
    back = Layout("", rules(CONFIG)).to_official(encoder.state_dict())
    assert all(torch.equal(back[name], tensor) for name, tensor in state.items())


def test_bias_tables_of_another_window_are_resized() -> None:
    state, encoder = microsoft(7), SwinEncoder(CONFIG)
    loaded = load_encoder(encoder, state)
    assert len(loaded.resized) == sum(CONFIG.depths)
    assert set(loaded.resized.values()) == {(7, 8)}
    assert "6 bias tables resized (window 7 -> 8)" in str(loaded)
    name = "layers.1.blocks.1.attn.relative_position_bias_table"
    square = state[name].T.reshape(1, 2, 13, 13)
    wanted = F.interpolate(square, size=(15, 15), mode="bicubic")[0]
    found = encoder.stages[1].blocks[1].attention.bias
    torch.testing.assert_close(found, wanted.flip(1, 2))  # ours counts key minus query
    torch.testing.assert_close(found[:, 7, 7], wanted[:, 7, 7])


def test_what_does_not_fit_is_told() -> None:
    state = microsoft(8)
    del state["layers.1.downsample.reduction.weight"]
    state["layers.2.blocks.0.mlp.fc1.weight"] = torch.zeros(3, 3)
    state["surprise"] = torch.zeros(1)
    encoder = SwinEncoder(CONFIG)
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    with pytest.raises(CheckpointMismatch, match="this file: 4 stages, 8 channels") as caught:
        load_encoder(encoder, state)
    assert {row[0] for row in caught.value.rows} == {
        "layers.2.downsample.reduction.weight",
        "layers.2.blocks.0.mlp.fc1.weight",
        "surprise",
    }
    assert all(torch.equal(before[name], tensor) for name, tensor in encoder.state_dict().items())
    with pytest.raises(UserError, match="no Swin encoder"):
        load_encoder(encoder, {"conv.weight": torch.zeros(1)})
