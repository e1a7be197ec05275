"""The decoder with every mixer that it knows: reading, documents, saving, and what it refuses."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from fovea.checkpoints import load, save
from fovea.checkpoints.language_state import load_state, save_state
from fovea.errors import UserError
from fovea.models.language import LanguageModel
from fovea.models.language_config import LanguageConfig, Layer, block_layers, hybrid, power_attention
from fovea.patterns import Blocks

LAYERS = {
    "full": (Layer("full", {"heads": 2, "head_norm": True}),) * 2,
    "window": (Layer("window", {"heads": 2, "kv_heads": 1, "window": 7, "sinks": 2}),) * 2,
    "power": power_attention("power", 2, size=4, blocks=16, window=2, heads=2),
    "one power": power_attention("one-power", 3, size=4, blocks=16, window=2, heads=2),
    "searched": power_attention("searched", 2, size=4, blocks=16, window=2, depth=2, heads=2),
    "narrow": power_attention("searched-narrow", 2, size=4, blocks=16, window=3, depth=2, heads=2),
    "hybrid": hybrid(
        power_attention("power", 3, size=4, blocks=16, window=2, heads=2), Layer("full", {"heads": 2}), every=3
    ),
}


def made(name: str, **changes: object) -> LanguageModel:
    words = {"vocabulary": 11, "dim": 16, "layers": LAYERS[name], "hidden": 24, **changes}
    return LanguageModel(LanguageConfig(**words)).eval()  # type: ignore[arg-type]


@pytest.mark.parametrize("name", LAYERS)
def test_reading_in_pieces_is_the_forward_pass(name: str) -> None:
    model = made(name)
    tokens = torch.randint(11, (2, 61))
    whole = model(tokens).detach()
    state = model.start(2)
    pieces = [model.logits(model.read(part, state)) for part in tokens.split([30, 1, 1, 9, 20], 1)]
    torch.testing.assert_close(torch.cat(pieces, 1).detach(), whole, rtol=1e-5, atol=1e-5)
    assert sum(t[0].numel() for layer in state.layers for t in layer.tensors.values()) == model.state_size(61)


@pytest.mark.parametrize("name", LAYERS)
def test_every_parameter_learns_and_documents_do_not_mix(name: str) -> None:
    model = made(name, tied=False, positions=64)
    tokens = torch.randint(11, (1, 50))
    documents = torch.tensor([[4] * 21 + [6] * 29])
    packed = model(tokens, documents)
    packed.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in model.parameters())
    apart = torch.cat([model(tokens[:, :21]), model(tokens[:, 21:])], 1)
    torch.testing.assert_close(packed, apart, rtol=1e-5, atol=1e-5)


def test_a_folder_brings_back_model_and_patterns(tmp_path: Path) -> None:
    model = made("one power")
    save(tmp_path, model, model.config)
    again = load(tmp_path)
    assert again.config == model.config
    assert asdict(again.config) == asdict(model.config)
    tokens = torch.randint(11, (1, 70))
    assert torch.equal(again.network(tokens), model(tokens))


@pytest.mark.parametrize("name", LAYERS)
def test_a_state_goes_through_a_file_and_back(name: str, tmp_path: Path) -> None:
    model = made(name)
    tokens = torch.randint(11, (2, 40))
    state = model.start(2)
    model.read(tokens[:, :33], state, torch.tensor([33, 20]))
    save_state(tmp_path / "state.safetensors", model, state)
    restored = load_state(tmp_path / "state.safetensors", model)
    assert restored.position.tolist() == [33, 20]
    assert torch.equal(model.read(tokens[:, 33:34], restored), model.read(tokens[:, 33:34], state))
    assert [path.name for path in tmp_path.iterdir()] == ["state.safetensors"]


def test_a_state_is_refused_by_another_model(tmp_path: Path) -> None:
    model, file = made("full"), tmp_path / "state.safetensors"
    save_state(file, model, model.start(1))
    other = made("full")
    for stranger in (other, made("window")):
        with pytest.raises(UserError, match="was read by another model"):
            load_state(file, stranger)
    other.load_state_dict(model.state_dict())
    load_state(file, other)
    with pytest.raises(UserError, match="another configuration"):
        made("window").read(torch.zeros(1, 1, dtype=torch.int64), model.start(1))
    with pytest.raises(UserError, match="does not exist"):
        load_state(tmp_path / "none", model)
    file.write_bytes(file.read_bytes()[:50])
    with pytest.raises(UserError, match="damaged"):
        load_state(file, model)
    save(tmp_path, model, model.config)
    with pytest.raises(UserError, match="holds no state"):
        load_state(tmp_path / "model.safetensors", model)


def test_more_tokens_than_learned_positions() -> None:
    model = made("full", positions=8)
    model(torch.zeros(1, 8, dtype=torch.int64))
    with pytest.raises(UserError, match="9 tokens; the model has learned 8 positions"):
        model(torch.zeros(1, 9, dtype=torch.int64))
    state = model.start(1)
    model.read(torch.zeros(1, 8, dtype=torch.int64), state)
    with pytest.raises(UserError, match="9 tokens"):
        model.read(torch.zeros(1, 1, dtype=torch.int64), state)


def test_configurations() -> None:
    assert LanguageConfig(**asdict(LanguageConfig(5, 4, LAYERS["hybrid"]))) == LanguageConfig(5, 4, LAYERS["hybrid"])
    assert [layer.mixer for layer in hybrid([Layer("blocks")] * 14, Layer("full"))] == (
        ["blocks"] * 5 + ["full"] * 2
    ) * 2
    assert (
        block_layers([Blocks.sliding(8, 3)], heads=2)[0].options["pattern"] == "blocks:size=8,terms=local(3,1)+sink(1)"
    )
    for words, message in (
        ({"dim": 0}, "dim=0"),
        ({"layers": ()}, "layers is empty"),
    ):
        with pytest.raises(ValueError, match=message):
            LanguageConfig(**{"vocabulary": 5, "dim": 4, "layers": LAYERS["full"], **words})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="unknown mixer 'ful'; did you mean full"):
        Layer("ful")
    with pytest.raises(ValueError, match="unknown variant 'D'"):
        power_attention("D", 2, size=4, blocks=16)
