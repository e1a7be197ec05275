"""Attention of language models: the contract of mixers for each, and what each sees."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from fovea.nn.language_attention import BlockAttention, FullAttention, LanguageAttention, SlidingWindowAttention
from fovea.patterns import Blocks, Every, Local, Offsets, Powers, Sink
from nn.mixer_contract import check_mixer

PATTERNS = {
    "power": Blocks.power(4, 2),
    "one power": Blocks(4, (Local(2), Sink(1), Offsets((4,)))),
    "offsets, two sinks": Blocks(4, (Local(2), Sink(2), Offsets((3, 5)))),
    "sliding": Blocks.sliding(4, 3),
    "strided": Blocks.strided(4, 2, 4),
    "dilated": Blocks.dilated(4, 6),
    "longnet": Blocks.longnet(4, ((2, 1), (4, 2), (8, 4))),
    "without its own block": Blocks(4, (Offsets((1, 2)),)),
    "single tokens": Blocks(1, (Local(3), Sink(2), Powers())),
}


@pytest.mark.parametrize(
    "options", [{}, {"heads": 4, "kv_heads": 2, "head_norm": True}, {"rotary_base": None}], ids=str
)
def test_full(options: dict[str, Any]) -> None:
    check_mixer(FullAttention(16, **{"heads": 2, **options}), 16, 37)


def test_full_beyond_a_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FullAttention, "PAGE", 4)
    check_mixer(FullAttention(16, 2, head_dim=6, bias=True), 16, 41)


@pytest.mark.parametrize(("window", "sinks"), [(5, 0), (5, 3), (1, 1), (2, 7), (40, 4)])
def test_window(window: int, sinks: int) -> None:
    check_mixer(SlidingWindowAttention(16, 4, kv_heads=2, window=window, sinks=sinks), 16, 37)


@pytest.mark.parametrize("pattern", PATTERNS.values(), ids=PATTERNS.keys())
def test_blocks(pattern: Blocks) -> None:
    check_mixer(BlockAttention(16, 4, kv_heads=2, pattern=pattern), 16, 59)
