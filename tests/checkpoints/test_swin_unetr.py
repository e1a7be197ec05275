"""Official Swin UNETR files: every way they are named and packed, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fovea.checkpoints import CheckpointMismatch, convert, load, load_official, to_official
from fovea.checkpoints.swin_unetr import load_encoder
from fovea.errors import UsageError, UserError
from fovea.models.swin_unetr import SwinUNETR
from fovea.models.swin_unetr_config import BRATS, VARIANTS, SwinUNETRConfig

SMALL = replace(BRATS, in_channels=2, feature_size=12, window_size=3, depths=(2, 1, 2, 1))


def official(config: SwinUNETRConfig, heads: bool = True) -> dict[str, Tensor]:
    """Names and shapes that the official code gives, written from its description alone."""
    f, axes = config.feature_size, config.spatial_axes
    shapes: dict[str, tuple[int, ...]] = {}
    entries, tokens = 1, 1
    for size in config.window:
        entries, tokens = entries * (2 * size - 1), tokens * size

    def linear(name: str, outputs: int, inputs: int) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (outputs, inputs), (outputs,)

    def norm(name: str, channels: int) -> None:
        shapes[f"{name}.weight"] = shapes[f"{name}.bias"] = (channels,)

    def residual(name: str, inputs: int, outputs: int) -> None:
        shapes[f"{name}.conv1.conv.weight"] = (outputs, inputs, *(3,) * axes)
        shapes[f"{name}.conv2.conv.weight"] = (outputs, outputs, *(3,) * axes)
        if inputs != outputs:
            shapes[f"{name}.conv3.conv.weight"] = (outputs, inputs, *(1,) * axes)

    shapes["swinViT.patch_embed.proj.weight"] = (f, config.in_channels, *(2,) * axes)
    shapes["swinViT.patch_embed.proj.bias"] = (f,)
    for i in range(4):
        dim, stage = f * 2**i, f"swinViT.layers{i + 1}.0"
        for j in range(config.depths[i]):
            block = f"{stage}.blocks.{j}"
            norm(f"{block}.norm1", dim)
            shapes[f"{block}.attn.relative_position_bias_table"] = (entries, config.num_heads[i])
            shapes[f"{block}.attn.relative_position_index"] = (tokens, tokens)
            linear(f"{block}.attn.qkv", 3 * dim, dim)
            linear(f"{block}.attn.proj", dim, dim)
            norm(f"{block}.norm2", dim)
            linear(f"{block}.mlp.linear1", int(dim * config.mlp_ratio), dim)
            linear(f"{block}.mlp.linear2", dim, int(dim * config.mlp_ratio))
        shapes[f"{stage}.downsample.reduction.weight"] = (2 * dim, 2**axes * dim)
        norm(f"{stage}.downsample.norm", 2**axes * dim)
        if config.stage_convolutions:
            residual(f"swinViT.layers{i + 1}c.0.layer", dim, dim)
    residual("encoder1.layer", config.in_channels, f)
    for number, width in ((2, f), (3, 2 * f), (4, 4 * f), (10, 16 * f)):
        residual(f"encoder{number}.layer", width, width)
    for number, inputs, outputs in ((5, 16, 8), (4, 8, 4), (3, 4, 2), (2, 2, 1), (1, 1, 1)):
        shapes[f"decoder{number}.transp_conv.conv.weight"] = (inputs * f, outputs * f, *(2,) * axes)
        residual(f"decoder{number}.conv_block", 2 * outputs * f, outputs * f)
    shapes["out.conv.conv.weight"] = (config.out_channels, f, *(1,) * axes)
    shapes["out.conv.conv.bias"] = (config.out_channels,)
    places = torch.stack(torch.meshgrid(*(torch.arange(size) for size in config.window), indexing="ij")).flatten(1)
    offset = places[:, :, None] - places[:, None] + torch.tensor(config.window)[:, None, None] - 1
    index = torch.zeros(tokens, tokens, dtype=torch.int64)
    for axis, size in enumerate(config.window):
        index = index * (2 * size - 1) + offset[axis]
    return {name: index if name.endswith("index") else torch.randn(shape) for name, shape in shapes.items()}


@pytest.mark.parametrize(
    "config",
    [
        SMALL,
        replace(SMALL, stage_convolutions=True),
        replace(SMALL, in_channels=1, out_channels=14, window_size=7),
        replace(SMALL, spatial_axes=2, mlp_ratio=2.0),
    ],
)
def test_round_trip_and_what_the_shapes_tell(config: SwinUNETRConfig) -> None:
    state = official(config)
    network = load_official("swin-unetr", state)
    assert isinstance(network, SwinUNETR)
    assert network.config == config
    back = to_official("swin-unetr", network, config)
    assert back.keys() == state.keys()
    for name, tensor in state.items():
        assert torch.equal(back[name], tensor), name


@pytest.mark.slow
@pytest.mark.parametrize("config", [BRATS, VARIANTS["btcv-base"], replace(BRATS, stage_convolutions=True)])
def test_published_sizes(config: SwinUNETRConfig) -> None:
    network = load_official("swin-unetr", {"state_dict": official(config), "epoch": 300, "best_acc": 0.9})
    assert isinstance(network, SwinUNETR)
    assert network.config == config


def test_every_name_that_training_codes_give() -> None:
    state = official(SMALL)
    expected = load_official("swin-unetr", state).state_dict()
    fc = {name.replace("mlp.linear", "mlp.fc"): tensor for name, tensor in state.items()}
    bare = {name.removeprefix("swinViT."): tensor for name, tensor in fc.items()}
    for named in (
        {f"module.{name}": tensor for name, tensor in state.items()},
        {f"backbone.{name}": tensor for name, tensor in state.items()},
        {f"module.backbone.{name}": tensor for name, tensor in state.items()},
        fc,
        {f"module.{name}": tensor for name, tensor in bare.items()},
        {name: tensor for name, tensor in state.items() if not name.endswith("index")},
    ):
        found = load_official("swin-unetr", {"state_dict": named}).state_dict()
        assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_orders_of_merging() -> None:
    """A file alone is one of the published ones; a whole constructor call means MONAI's own default."""
    state = official(SMALL)

    def order(config: object) -> str:
        return load_official("swin-unetr", state, config).config.merging  # type: ignore[union-attr]

    assert order(None) == "legacy"
    assert order({"feature_size": 12}) == "legacy"
    assert order({"in_channels": 2, "out_channels": 3}) == "merging"
    assert order({"in_channels": 2, "out_channels": 3, "downsample": "mergingv2"}) == "mergingv2"
    assert order({"downsample": "merging"}) == "merging"
    with pytest.raises(ValueError, match="merging='row'"):
        order({"downsample": "row"})


def test_constructor_words() -> None:
    state = official(SMALL)
    words = {"img_size": (96,) * 3, "norm_name": ("instance", {}), "use_checkpoint": True, "dropout_path_rate": 0.1}
    config = load_official("swin-unetr", state, words).config
    assert isinstance(config, SwinUNETRConfig)
    assert config.gradient_checkpointing and config.drop_path_rate == 0.1
    for word, value in (("norm_name", "batch"), ("patch_norm", True), ("attn_drop_rate", 0.1)):
        with pytest.raises(UsageError, match=f"{word}="):
            load_official("swin-unetr", state, {word: value})
    with pytest.raises(UsageError, match="unknown word"):
        load_official("swin-unetr", state, {"features": 3})


def test_other_weights_are_refused() -> None:
    state = official(SMALL)
    state["decoder1.transp_conv.conv.weight"] = torch.zeros(12, 11, 2, 2, 2)
    del state["encoder2.layer.conv1.conv.weight"]
    state["stranger"] = torch.zeros(3)
    with pytest.raises(CheckpointMismatch) as found:
        load_official("swin-unetr", state)
    assert {row[0] for row in found.value.rows} == {
        "decoder1.transp_conv.conv.weight",
        "encoder2.layer.conv1.conv.weight",
        "stranger",
    }
    with pytest.raises(UserError, match="not a checkpoint of Swin UNETR"):
        load_official("swin-unetr", {"conv.weight": torch.zeros(1)})


def test_self_supervised_encoder() -> None:
    """``model_swinvit.pt``: the way down alone, other names of the MLP, and the heads of the pre-training."""
    network, state = SwinUNETR(SMALL), official(SMALL)
    pretrained = {
        f"module.{name.removeprefix('swinViT.').replace('mlp.linear', 'mlp.fc')}": tensor
        for name, tensor in state.items()
        if name.startswith("swinViT.")
    }
    pretrained |= {"module.rotation_head.weight": torch.zeros(4, 8), "module.norm.weight": torch.ones(8)}
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    new = load_encoder(network, pretrained)
    assert new and all(name.startswith(("encoders.", "bottleneck.", "decoders.", "head.")) for name in new)
    after, wanted = network.state_dict(), load_official("swin-unetr", state).state_dict()
    for name, tensor in after.items():
        assert torch.equal(tensor, before[name] if name in new else wanted[name]), name
    with pytest.raises(CheckpointMismatch):
        load_encoder(SwinUNETR(replace(SMALL, in_channels=4)), pretrained)
    with pytest.raises(CheckpointMismatch, match="a way down"):
        load_encoder(network, {"conv.weight": torch.zeros(1)})


def test_convert(tmp_path: Path) -> None:
    state = official(SMALL)
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "model.pt")
    found = load(convert("swin-unetr", tmp_path / "model.pt", tmp_path / "out"))
    assert found.config == SMALL
    assert found.extra["converted_from"] == "model.pt"
