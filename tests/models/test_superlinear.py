"""Language models of Superlinear attention: published settings, layers that learn, reading in pieces, checkpoints."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fovea.checkpoints import load, save
from fovea.models.language import LanguageModel
from fovea.models.superlinear import superlinear
from fovea.models.superlinear_config import SETTINGS, VARIANTS, SearchConfig, SuperlinearConfig
from fovea.nn.span_search import SuperlinearAttention

SMALL = SuperlinearConfig(vocabulary=31, dim=16, hidden=24, search=SearchConfig(sw_index=1))


def test_settings_of_the_released_model() -> None:
    released = SETTINGS["superlinear-exp-v0.1"]
    layer = SuperlinearAttention(64, **{**released.options(), "head_dim": 2})
    assert layer.search.window == 2032
    assert (layer.search.num_spans, layer.heads, layer.kv_heads, released.head_dim) == (3, 32, 2, 128)


@pytest.mark.parametrize("name", VARIANTS)
def test_variants_are_pairs_of_layers(name: str) -> None:
    config = VARIANTS[name]
    with torch.device("meta"):
        network = LanguageModel(config.language())
    kinds = [layer.mixer for layer in network.config.layers]
    assert kinds == [*config.below, "superlinear"] * config.depth


def test_reading_in_pieces_gives_the_logits_of_the_whole() -> None:
    network = superlinear(SMALL).eval()
    tokens = torch.randint(31, (2, 90))
    whole = network(tokens).detach()
    state, parts = network.start(2), []
    for piece in tokens.split([40, 1, 1, 48], 1):
        parts.append(network.logits(network.read(piece, state)))
    torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=1e-5, atol=1e-5)


def test_every_parameter_learns() -> None:
    network = superlinear(SMALL)
    tokens = torch.randint(31, (2, 150))
    torch.nn.functional.cross_entropy(network(tokens).flatten(0, 1), tokens.flatten()).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


def test_a_checkpoint_comes_back(tmp_path: Path) -> None:
    network = superlinear(SMALL).eval()
    save(tmp_path / "model", network, SMALL.language())
    back = load(tmp_path / "model").network.eval()
    tokens = torch.randint(31, (1, 50))
    assert torch.equal(back(tokens), network(tokens))


def test_what_it_refuses() -> None:
    with pytest.raises(ValueError, match="below="):
        SuperlinearConfig(below=("mamba",))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="depth=0"):
        SuperlinearConfig(depth=0)
