"""Official checkpoints: every published variant, every way they are packed, and every way they can be wrong."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from fovea.checkpoints import CheckpointMismatch, convert, load, load_official, to_official
from fovea.checkpoints.hat import infer, overlap_index, window_index
from fovea.errors import UserError
from fovea.models.dinat import DiNAT
from fovea.models.dinat_config import DiNATConfig
from fovea.models.hat import HAT
from fovea.models.hat_config import VARIANTS, HATConfig

SMALL = HATConfig(
    upscale=2, embed_dim=12, depths=(2, 1), num_heads=(2, 3), window_size=4, compress_ratio=3, squeeze_factor=6
)


def official_hat(config: HATConfig) -> dict[str, Tensor]:
    """A state dict with the names and shapes that the official code gives, written from its description alone."""
    dim, window, heads = config.embed_dim, config.window_size, config.num_heads
    wide, hidden = window + config.overlap, int(dim * config.mlp_ratio)
    shapes: dict[str, tuple[int, ...]] = {}

    def linear(name: str, outputs: int, inputs: int, *kernel: int) -> None:
        shapes[f"{name}.weight"] = (outputs, inputs, *kernel)
        shapes[f"{name}.bias"] = (outputs,)

    def norm(name: str) -> None:
        shapes[f"{name}.weight"] = shapes[f"{name}.bias"] = (dim,)

    linear("conv_first", dim, config.in_chans, 3, 3)
    norm("patch_embed.norm")
    for g, depth in enumerate(config.depths):
        group = f"layers.{g}.residual_group"
        for b in range(depth):
            block = f"{group}.blocks.{b}"
            norm(f"{block}.norm1")
            shapes[f"{block}.attn.relative_position_bias_table"] = ((2 * window - 1) ** 2, heads[g])
            linear(f"{block}.attn.qkv", 3 * dim, dim)
            linear(f"{block}.attn.proj", dim, dim)
            linear(f"{block}.conv_block.cab.0", dim // config.compress_ratio, dim, 3, 3)
            linear(f"{block}.conv_block.cab.2", dim, dim // config.compress_ratio, 3, 3)
            linear(f"{block}.conv_block.cab.3.attention.1", dim // config.squeeze_factor, dim, 1, 1)
            linear(f"{block}.conv_block.cab.3.attention.3", dim, dim // config.squeeze_factor, 1, 1)
            norm(f"{block}.norm2")
            linear(f"{block}.mlp.fc1", hidden, dim)
            linear(f"{block}.mlp.fc2", dim, hidden)
        overlap = f"{group}.overlap_attn"
        shapes[f"{overlap}.relative_position_bias_table"] = ((window + wide - 1) ** 2, heads[g])
        norm(f"{overlap}.norm1")
        linear(f"{overlap}.qkv", 3 * dim, dim)
        linear(f"{overlap}.proj", dim, dim)
        norm(f"{overlap}.norm2")
        linear(f"{overlap}.mlp.fc1", hidden, dim)
        linear(f"{overlap}.mlp.fc2", dim, hidden)
        linear(f"layers.{g}.conv", dim, dim, 3, 3)
    norm("norm")
    linear("conv_after_body", dim, dim, 3, 3)
    linear("conv_before_upsample.0", 64, dim, 3, 3)
    if config.upscale == 3:
        linear("upsample.0", 576, 64, 3, 3)
    for step in range(0 if config.upscale == 3 else config.upscale.bit_length() - 1):
        linear(f"upsample.{2 * step}", 256, 64, 3, 3)
    linear("conv_last", config.in_chans, 64, 3, 3)
    state = {name: torch.zeros(1).expand(shape) for name, shape in shapes.items()}
    state["relative_position_index_SA"] = window_index(window)
    state["relative_position_index_OCA"] = overlap_index(window, config.overlap)
    return state


def random_state(config: HATConfig = SMALL) -> dict[str, Tensor]:
    return {
        name: tensor if name.startswith("relative") else torch.randn(tensor.shape)
        for name, tensor in official_hat(config).items()
    }


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("name", ["HAT-S", "HAT", "HAT-L"])
def test_published_variants_are_told_from_their_shapes(name: str, scale: int) -> None:
    config = replace(VARIANTS[name], upscale=scale)
    state = official_hat(config)
    network = load_official("hat", state)
    assert isinstance(network, HAT)
    assert network.config == config
    back = to_official("hat", network, config)
    assert {name: tensor.shape for name, tensor in back.items()} == {n: t.shape for n, t in state.items()}


@pytest.mark.parametrize(
    "config",
    [
        SMALL,
        replace(SMALL, upscale=1, image_residual=False),
        replace(SMALL, upscale=8, in_chans=1),
        replace(SMALL, window_size=6, overlap_ratio=1 / 3, mlp_ratio=4.0),
        replace(SMALL, embed_dim=18, num_heads=(3, 1), compress_ratio=2, squeeze_factor=9, depths=(1, 3)),
    ],
)
def test_unpublished_variants_too(config: HATConfig) -> None:
    found = HATConfig(**infer(official_hat(config)))
    assert (found.overlap, int(found.mlp_ratio * 1000)) == (config.overlap, int(config.mlp_ratio * 1000))
    assert replace(found, overlap_ratio=config.overlap_ratio) == config


def test_there_and_back() -> None:
    state = random_state()
    back = to_official("hat", load_official("hat", state, SMALL), SMALL)
    assert back.keys() == state.keys()
    for name, tensor in state.items():
        assert torch.equal(back[name], tensor), name


@pytest.mark.parametrize("window", [1, 2, 3, 16])
@pytest.mark.parametrize("overlap", [0, 2, 8])
def test_overlap_index_reaches_every_entry_once_modulo_the_table(window: int, overlap: int) -> None:
    index = overlap_index(window, overlap)
    entries = (2 * window + overlap - 1) ** 2
    assert index.shape == (window**2, (window + overlap) ** 2)
    assert sorted((index % entries).unique().tolist()) == list(range(entries))


def test_published_overlap_index_is_negative_for_many_pairs() -> None:
    index = overlap_index(16, 8)
    assert (index.min(), index.max()) == (-880, 640)


def packed(how: str, state: dict[str, Tensor]) -> dict[str, object]:
    poor = {name: torch.zeros_like(tensor) for name, tensor in state.items()}
    return {
        "bare": dict(state),
        "params_ema before params": {"params": poor, "params_ema": state},
        "params": {"params": state},
        "data parallel": {f"module.{name}": tensor for name, tensor in state.items()},
        "half precision": {name: t.half() if t.is_floating_point() else t for name, t in state.items()},
    }[how]


@pytest.mark.parametrize("how", ["bare", "params_ema before params", "params", "data parallel", "half precision"])
def test_however_they_are_packed(how: str) -> None:
    state = {name: t.half().to(t) if t.is_floating_point() else t for name, t in random_state().items()}
    expected = load_official("hat", state, SMALL).state_dict()
    found = load_official("hat", packed(how, state), SMALL).state_dict()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


def test_indices_may_be_missing() -> None:
    state = {name: tensor for name, tensor in random_state().items() if not name.startswith("relative")}
    assert not load_official("hat", state, SMALL).training


def test_another_variant_gives_one_table_of_what_differs() -> None:
    state = random_state(replace(SMALL, window_size=8))
    with pytest.raises(CheckpointMismatch) as raised:
        load_official("hat", state, SMALL)
    rows = {name: (expected, found) for name, expected, found in raised.value.rows}
    assert rows["layers.0.residual_group.blocks.1.attn.relative_position_bias_table"] == ("(49, 2)", "(225, 2)")
    assert rows["relative_position_index_SA"] == ("(16, 16)", "(64, 64)")
    assert "conv_first.weight" not in rows
    lines = str(raised.value).splitlines()
    assert lines[0] == f"the checkpoint is not one of HAT x2 with 12 channels, 2 groups: {len(rows)} tensors differ"
    assert lines[1].split() == ["tensor", "expected", "found"]


def test_missing_and_unexpected_tensors_are_named() -> None:
    state = random_state()
    state["surplus"] = torch.zeros(3)
    del state["norm.weight"]
    with pytest.raises(CheckpointMismatch) as raised:
        load_official("hat", state, SMALL)
    assert set(raised.value.rows) == {("norm.weight", "(12,)", "-"), ("surplus", "-", "(3,)")}


def test_long_tables_are_cut() -> None:
    with pytest.raises(CheckpointMismatch, match=r"and \d+ more$"):
        load_official("hat", random_state(replace(SMALL, embed_dim=24)), SMALL)


def test_other_index_values_are_noticed() -> None:
    state = random_state()
    state["relative_position_index_SA"] = state["relative_position_index_SA"].T.contiguous()
    with pytest.raises(CheckpointMismatch, match=r"relative_position_index_SA.*other values"):
        load_official("hat", state, SMALL)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_broken_weights_are_refused_by_name(value: float) -> None:
    state = random_state()
    state["conv_last.bias"][1] = value
    with pytest.raises(UserError, match=r"conv_last\.bias holds values that are not finite"):
        load_official("hat", state, SMALL)


@pytest.mark.parametrize(
    ("attempt", "message"),
    [
        (lambda: load_official("haat", {}, None), "unknown system with official checkpoints 'haat'; did you mean hat"),
        (lambda: load_official("hat", {}, None), "no state dict.*it has nothing"),
        (lambda: load_official("hat", {"epoch": 3}, None), "it has epoch"),
        (lambda: load_official("hat", {"a.weight": torch.ones(1)}), r"not a checkpoint of HAT: it has no conv_first"),
        (lambda: load_official("hat", random_state(), {"windowsize": 4}), "did you mean window_size"),
        (lambda: load_official("hat", random_state(), "HAT-XL"), "unknown variant 'HAT-XL'; did you mean HAT-L"),
        (lambda: load_official("fna", {"a.weight": torch.ones(1)}), "dilations leave no trace.*DiNAT-Tiny"),
        (lambda: load_official("hat-real", {"a.weight": torch.ones(1)}), "it has no conv0.weight"),
    ],
)
def test_mistakes_are_told(attempt: Callable[[], object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        attempt()


def test_words_left_out_are_told_from_the_shapes() -> None:
    network = load_official("hat", random_state(), {"type": "HAT", "conv_scale": 0.5, "depths": [2, 1]})
    assert isinstance(network, HAT)
    assert network.config == replace(SMALL, conv_scale=0.5)


def test_dinat_by_the_name_of_its_variant() -> None:
    small = DiNATConfig(embed_dim=8, depths=(2, 1), num_heads=(2, 4), num_classes=3, layer_scale=0.5)
    state = to_official("fna", DiNAT(small), small)
    network = load_official("fna", state, {"dilations": [[1, 2], [1]]})
    assert isinstance(network, DiNAT)
    assert network.config == replace(small, layer_scale=1e-5, dilations=((1, 2), (1,)))
    with pytest.raises(CheckpointMismatch, match=r"patch_embed\.proj\.0\.weight"):
        load_official("fna", state, "NAT-Mini")
    words = {"embed_dim": 8, "depths": (2, 1), "num_heads": (2, 4), "num_classes": 3, "mlp_ratio": 3, "layer_scale": 1}
    assert load_official("fna", state, {"variant": "NAT-Mini", **words})


@pytest.mark.parametrize(
    ("config", "name", "shape"),
    [
        (
            DiNATConfig(embed_dim=8, depths=(2, 1), num_heads=(2, 4)),
            "levels.0.downsample.reduction.weight",
            (16, 8, 3, 3),
        ),
        (
            DiNATConfig(embed_dim=8, depths=(2, 1), num_heads=(2, 4), patch_size=4),
            "layers.0.downsample.reduction.weight",
            (16, 32),
        ),
        (
            DiNATConfig(embed_dim=8, depths=(3,), num_heads=(2,), patch_size=16),
            "patch_embed.proj.weight",
            (8, 3, 16, 16),
        ),
    ],
)
def test_families_of_dinat(config: DiNATConfig, name: str, shape: tuple[int, ...]) -> None:
    state = to_official("fna", DiNAT(config), config)
    assert state[name].shape == shape
    assert f"layers.{config.depths[0] - 1}.attn.rpb" in state or len(config.depths) > 1
    network = load_official("fna", state, {})
    assert isinstance(network, DiNAT)
    assert network.config == config


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_files_convert_to_folders(suffix: str, tmp_path: Path) -> None:
    state, file = random_state(), tmp_path / f"HAT.{suffix}"
    if suffix == "pth":
        torch.save({"params_ema": state}, file)
    else:
        save_file(state, file)
    assert convert("hat", file, tmp_path / "ours") == tmp_path / "ours"
    found = load(tmp_path / "ours")
    assert found.config == SMALL
    assert found.extra == {"converted_from": f"HAT.{suffix}", "system": "hat"}
    x = torch.rand(1, 3, 8, 8)
    torch.testing.assert_close(found.network(x), load_official("hat", state)(x), rtol=0, atol=0)


def test_discriminator_converts_too(tmp_path: Path) -> None:
    from fovea.models.unet_discriminator import UNetDiscriminator

    network = UNetDiscriminator(3, 4)
    torch.save({"params": to_official("hat-real", network, None)}, tmp_path / "net_d.pth")
    convert("hat-real", tmp_path / "net_d.pth", tmp_path / "ours")
    x = torch.rand(1, 3, 8, 8)
    torch.testing.assert_close(load(tmp_path / "ours").network(x), network.eval()(x), rtol=0, atol=0)


class Surprise:
    def __reduce__(self) -> tuple[object, ...]:
        return (print, ("executed",))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("objects.pth", pickle.dumps(Surprise(), protocol=2), "objects other than tensors, which fovea never runs"),
        ("noise.pth", b"no checkpoint at all", "cannot be read as weights"),
        ("empty.pth", b"", "cannot be read as weights"),
        ("noise.safetensors", b"no checkpoint at all", "not a safetensors file, or is cut short"),
        ("empty.safetensors", b"", "not a safetensors file, or is cut short"),
    ],
)
def test_files_that_are_none(
    name: str, content: bytes, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        convert("hat", tmp_path / name, tmp_path / "ours")
    assert "executed" not in capsys.readouterr().out
    assert not (tmp_path / "ours").exists()


def test_truncated_files(tmp_path: Path) -> None:
    file = tmp_path / "HAT.pth"
    torch.save(random_state(), file)
    file.write_bytes(file.read_bytes()[:-5000])
    with pytest.raises(UserError, match="cannot be read as weights"):
        convert("hat", file, tmp_path / "ours")
    torch.save(torch.zeros(3), file)
    with pytest.raises(UserError, match="holds a Tensor; it must hold a dictionary"):
        convert("hat", file, tmp_path / "ours")
