"""What is counted agrees with what networks hold; ratios at 128k lie where the paper has them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from fovea.models import allmem_costs as costs
from fovea.models.allmem_config import VARIANTS, AllMemConfig
from fovea.models.language import LanguageModel

SMALL = AllMemConfig(64, 24, 2, 4, 2, 8, 32, window=6, sinks=2, chunk=5, memory_hidden=7)
BASE = replace(SMALL, window=None, memory=None)


@pytest.mark.parametrize("config", [SMALL, BASE, replace(SMALL, share_out=True), replace(SMALL, bias=True, tied=False)])
def test_parameters_are_those_of_the_network(config: AllMemConfig) -> None:
    found = costs.parameters(config)
    assert sum(found.values()) == sum(p.numel() for p in LanguageModel(config.language()).parameters())
    assert found["base"] == costs.parameters(replace(config, window=None, memory=None))["base"]


def test_pairs_are_those_of_the_mask() -> None:
    place = torch.arange(23)
    for config in (BASE, SMALL):
        window = config.window or 99
        seen = (place <= place[:, None]) & ((place > place[:, None] - window) | (place < config.sinks))
        assert costs.pairs(config, 23) == int(seen.sum())
    assert costs.pairs(BASE, 23, causal=False) == 23 * 23


def test_the_cache_is_the_state_of_the_network() -> None:
    for length in (3, 6, 8, 50, 1000):
        assert costs.cache(SMALL, length)["total"] == LanguageModel(SMALL.language()).state_size(length)
    assert costs.cache(SMALL, 10**6)["total"] == costs.cache(SMALL, 8)["total"]
    assert costs.cache(BASE, 1000)["total"] == 1000 * 2 * 2 * 2 * 8


def test_reading_takes_operations_in_proportion() -> None:
    first, second = (costs.flops(VARIANTS["Qwen3-0.6B"], n) for n in (65_536, 131_072))
    assert 1.9 < second["total"] / first["total"] < 2.1
    full = replace(VARIANTS["Qwen3-0.6B"], window=None, memory=None)
    assert costs.flops(full, 131_072)["attention"] / costs.flops(full, 65_536)["attention"] > 3.9


def test_the_shapes_of_the_paper() -> None:
    sizes = {name: costs.parameters(config) for name, config in VARIANTS.items()}
    assert sizes["Qwen3-0.6B"]["base"] == pytest.approx(0.596e9, rel=0.01)
    assert sizes["Qwen3-1.7B"]["base"] == pytest.approx(1.72e9, rel=0.01)
    assert sizes["Qwen3-0.6B"]["memories"] == pytest.approx(81e6, rel=0.02)
    assert sizes["Qwen3-1.7B"]["memories"] == pytest.approx(140e6, rel=0.02)
    wide = replace(VARIANTS["Qwen3-0.6B"], window=8192)
    # The paper's factor of about 9 lies between what is exact and what masks dense products.
    exact, dense = (costs.against_full(wide, 131_072, causal=causal) for causal in (True, False))
    assert 5 < exact < 9 < dense < 11


@pytest.mark.parametrize(
    ("words", "message"),
    [({"kv_heads": 3}, "kv_heads=3; it must divide heads=4"), ({"window": None}, "a memory stands beside a window"),
     ({"dim": 0}, "dim=0; it must be at least 1")],
)  # fmt: skip
def test_refusals(words: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(SMALL, **words)
