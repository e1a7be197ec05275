"""The official layout of HBFormer, strictly."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fovea.checkpoints import CheckpointMismatch, convert, load, load_official, to_official
from fovea.models.hbformer import HBFormer
from fovea.models.hbformer_config import HBFormerConfig

CONFIG = HBFormerConfig(
    img_size=224,
    num_classes=4,
    embed_dim=16,
    depths=(2, 2, 1, 1),
    num_heads=(1, 2, 4, 4),
    mlp_ratio=2.0,
    window=7,
    feature_size=8,
    order="roll-pad",
)


@pytest.fixture
def state() -> dict[str, Tensor]:
    network = HBFormer(CONFIG)
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point():
            tensor.uniform_(0.1, 1) if "running_var" in name else tensor.normal_()
    return to_official("hbformer", network, CONFIG)


def test_names_are_the_official_ones(state: dict[str, Tensor]) -> None:
    assert len(state) == 402
    assert state["MFF_decoder4.Med_DSPP.pw_experts.2.3.weight"].shape == (64, 64, 1, 1)
    assert state["MFF_decoder1.Med_DSPP.branch_attention.3.weight"].shape == (3, 1, 1, 1)
    assert state["MWAencoder.backbone.layers.1.downsample.reduction.weight"].shape == (32, 64)
    assert {"proj_enc4.weight", "MWAencoder.backbone.norm.bias"} <= state.keys()


def test_latest_pth_of_a_parallel_training_with_computed_tensors(tmp_path: Path, state: dict[str, Tensor]) -> None:
    block = "MWAencoder.backbone.layers.0.blocks.1"
    held = {
        f"{block}.attn.relative_position_index": torch.zeros(49, 49).long(),
        f"{block}.attn_mask": torch.zeros(64, 49, 49),
    }
    wrapped = {f"module.{name}": tensor for name, tensor in {**state, **held}.items()}
    torch.save({"epoch": 7, "model_state_dict": wrapped, "optimizer_state_dict": {}}, tmp_path / "latest.pth")
    folder = convert("hbformer", tmp_path / "latest.pth", tmp_path / "ours")
    found = load(folder)
    assert isinstance(found.network, HBFormer)
    expected = load_official("hbformer", state, CONFIG)
    x = torch.rand(1, 3, 224, 224)
    with torch.no_grad():
        torch.testing.assert_close(found.network(x), expected(x), rtol=0, atol=0)


def test_nothing_may_be_missing_left_over_or_of_another_shape(state: dict[str, Tensor]) -> None:
    state["MFF_decoder2.LRD_block.conv1.weight"] = torch.zeros(1)
    state["proj_enc4.weight"] = torch.zeros(2)
    state["geometry_aligner.weight"] = torch.zeros(1)
    del state["MFF_decoder1.BN.running_mean"], state["MWAencoder.backbone.layers.2.downsample.norm.bias"]
    with pytest.raises(CheckpointMismatch) as caught:
        load_official("hbformer", state, CONFIG)
    assert {row[0] for row in caught.value.rows} == {
        "MFF_decoder2.LRD_block.conv1.weight",
        "proj_enc4.weight",
        "geometry_aligner.weight",
        "MFF_decoder1.BN.running_mean",
        "MWAencoder.backbone.layers.2.downsample.norm.bias",
    }


def test_what_is_never_used_may_be_missing(state: dict[str, Tensor]) -> None:
    for name in ("proj_enc4.weight", "proj_enc4.bias", "MWAencoder.backbone.norm.weight"):
        del state[name]
    load_official("hbformer", state, CONFIG)


@pytest.mark.parametrize(("size", "window"), [(224, 7), (256, 8), (64, 8), (96, 8)])
def test_the_shapes_tell_windows_and_heads(size: int, window: int) -> None:
    config = replace(CONFIG, img_size=size, window=window)
    found = load_official("hbformer", to_official("hbformer", HBFormer(config), config))
    assert isinstance(found, HBFormer)
    assert found.config == config
