"""Based as published: sizes, state, beginning; what cannot be is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from fovea.checkpoints import CheckpointMismatch, load, load_official, save, to_official
from fovea.checkpoints.based import EMBEDDING
from fovea.errors import UsageError
from fovea.models.based import based
from fovea.models.based_config import BASED_360M, VARIANTS, BasedConfig
from fovea.models.language import LanguageModel

SMALL = BasedConfig(
    vocab_size=41,
    n_embd=16,
    n_layer=4,
    n_head=2,
    n_inner=20,
    alt_mixer_layers=(1,),
    alt_mixer_2_layers=(2,),
    feature_dim=4,
    window_size=10,
)


@pytest.mark.parametrize(("name", "millions"), [("based-360m", 363), ("based-1b", 1400)])
def test_parameters_of_what_was_published(name: str, millions: int) -> None:
    with torch.device("meta"):
        network = LanguageModel(VARIANTS[name].language())
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(millions, rel=0.04)


def test_state_is_the_sum_of_the_formulas() -> None:
    with torch.device("meta"):
        network = LanguageModel(BASED_360M.language())
    linear, window, convolution = 16 * 153 * 65, 2 * 1024 * 129, 3 * 2048
    assert network.state_size(10**6) == 5 * linear + 5 * window + 17 * convolution


def test_state_holds_as_many_bytes_after_64_thousand_tokens_as_after_one() -> None:
    network = based(SMALL).eval()
    state, read, held = network.start(1), 0, {}
    for length in (1024, 4096, 16384, 65536):
        network.read(torch.randint(41, (1, length - read - 2)), state)
        for _ in range(2):
            network.read(torch.randint(41, (1, 1)), state)
        assert state.position.tolist() == [length]
        held[length], read = state.bytes, length
    positions = 8 * len(state.layers)
    assert set(held.values()) == {4 * network.state_size(read) + positions}


def test_begins_as_published() -> None:
    network = based(replace(SMALL, n_embd=128, n_inner=256, n_layer=8))
    deviations = {name: float(p.detach().std()) for name, p in network.named_parameters() if p.ndim == 2}
    ends = [name for name in deviations if name.endswith(("project.weight", "output.weight"))]
    assert len(ends) == 16
    for name, deviation in deviations.items():
        assert deviation == pytest.approx(0.02 / 4 if name in ends else 0.02, rel=0.2), name
    assert not any(p.any() for name, p in network.named_parameters() if name.endswith("bias"))


def test_a_window_is_half_of_what_its_word_says() -> None:
    layers = SMALL.language().layers
    assert layers[2].options["window"] == 6
    assert [layer.mixer for layer in layers] == ["gated-convolution", "taylor", "window", "gated-convolution"]
    network = based(SMALL).eval()
    mixer = network.blocks[2].mixer
    x = torch.randn(1, 20, 16)
    other = x.clone()
    other[:, 9] += 1
    changed = (mixer(x) != mixer(other)).any(-1)[0]  # type: ignore[operator]
    assert changed.nonzero()[:, 0].tolist() == [9, 10, 11, 12, 13, 14]


def test_vocabulary_and_hidden_channels_are_rounded_up() -> None:
    config = SMALL.language()
    assert config.vocabulary == 48
    assert config.hidden == 256


def test_shapes_tell_the_variant(tmp_path: Path) -> None:
    config = replace(SMALL, n_embd=64, feature_dim=16, conv_bias=True, n_inner=512)
    state = to_official("based", based(config), config.language())
    found = load_official("based", {f"model.{name}": t for name, t in state.items()} | {"metrics.loss": torch.ones(1)})
    assert found.config == replace(config, window_size=256).language()
    save(tmp_path, found, found.config)
    assert load(tmp_path).config == found.config


def test_refusals() -> None:
    state = to_official("based", based(SMALL), SMALL.language())
    words: dict[str, Any] = {"feature_dim": 4, "window_size": 10}
    assert load_official("based", state, words).config == replace(SMALL, vocab_size=48, n_inner=256).language()
    del state["lm_head.weight"]
    load_official("based", state, words)
    with pytest.raises(CheckpointMismatch, match="equal to transformer.embeddings.word_embeddings.weight"):
        load_official("based", {**state, "lm_head.weight": state[EMBEDDING] + 1}, words)
    with pytest.raises(UsageError, match="rms_norm=False; what was published has True"):
        load_official("based", state, {"rms_norm": False})
    with pytest.raises(UsageError, match="softmax_scale=1.0; what was published has head_dim"):
        load_official("based", state, {"n_embd": 16, "n_head": 2, "alt_mixer_2": {"softmax_scale": 1.0}})
    with pytest.raises(UsageError, match=r"num_heads \[2, 4\]"):
        load_official("based", state, {"n_head": 2, "alt_mixer": {"num_heads": 4}})


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"n_head": 3}, "n_head=3; it must divide n_embd=16"),
        ({"alt_mixer_layers": (4,)}, "layers are numbered 0 to 3"),
        ({"alt_mixer_2_layers": (1,)}, r"layers \[1\] are in alt_mixer_layers and in alt_mixer_2_layers"),
        ({"window_size": 0}, "window_size=0; it must be at least 1"),
    ],
)
def test_shapes_that_cannot_be(words: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(SMALL, **words)


def test_residuals_stay_single_precision_under_autocast() -> None:
    network = based(SMALL)
    tokens = torch.randint(41, (2, 30))
    seen: list[torch.dtype] = []
    for block in network.blocks:
        block.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].dtype))
    with torch.autocast("cpu", torch.bfloat16):
        logits = network(tokens)
    assert logits.dtype == torch.bfloat16
    assert set(seen) == {torch.float32}
    torch.testing.assert_close(logits.float(), network(tokens), rtol=0, atol=0.02)


def test_is_captured_as_one_graph() -> None:
    network = based(replace(SMALL, n_layer=3)).eval()
    tokens = torch.randint(41, (2, 20))
    compiled = torch.compile(network, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(tokens), network(tokens))
