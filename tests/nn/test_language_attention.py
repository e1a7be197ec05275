"""Attention of language models: the contract of mixers for each, and what each sees."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional

import fovea
from fovea.nn.key_cache import KeyCache
from fovea.nn.language_attention import BlockAttention, FullAttention, LanguageAttention, SlidingWindowAttention
from fovea.nn.rotary import rotate, turns
from fovea.patterns import Blocks, Local, Offsets, Powers, Sink
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


def awake(layer: LanguageAttention) -> LanguageAttention:
    """The layer with weights so large that what it hears wrongly shows."""
    for parameter in layer.parameters():
        if parameter.ndim == 2:
            torch.nn.init.normal_(parameter, std=parameter.shape[1] ** -0.5)
    return layer


@pytest.mark.parametrize(
    "options", [{}, {"heads": 4, "kv_heads": 2, "head_norm": True}, {"rotary_base": None}], ids=str
)
def test_full(options: dict[str, Any]) -> None:
    check_mixer(awake(FullAttention(16, **{"heads": 2, **options})), 16, 37)


def test_full_beyond_a_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FullAttention, "PAGE", 4)
    check_mixer(awake(FullAttention(16, 2, head_dim=6, bias=True)), 16, 41)


@pytest.mark.parametrize(("window", "sinks"), [(5, 0), (5, 3), (1, 1), (2, 7), (40, 4)])
def test_window(window: int, sinks: int) -> None:
    check_mixer(awake(SlidingWindowAttention(16, 4, kv_heads=2, window=window, sinks=sinks)), 16, 37)


@pytest.mark.parametrize("pattern", PATTERNS.values(), ids=PATTERNS.keys())
def test_blocks(pattern: Blocks) -> None:
    check_mixer(awake(BlockAttention(16, 4, kv_heads=2, pattern=pattern)), 16, 59)


LAYERS = {
    "full": lambda: FullAttention(16, 4, kv_heads=2, head_norm=True),
    "window": lambda: SlidingWindowAttention(16, 4, kv_heads=2, window=6, sinks=3),
    **{
        name: lambda pattern=pattern: BlockAttention(16, 4, kv_heads=2, pattern=pattern)
        for name, pattern in PATTERNS.items()
    },
}


def mask_of(layer: LanguageAttention, tokens: int) -> torch.Tensor:
    query, key = torch.arange(tokens)[:, None], torch.arange(tokens)
    causal = key <= query
    if isinstance(layer, SlidingWindowAttention):
        return causal & ((query - key < layer.window) | (key < layer.sinks))
    if isinstance(layer, BlockAttention):
        return torch.from_numpy(layer.pattern.mask(tokens))
    return causal


@pytest.mark.parametrize("name", LAYERS)
def test_it_is_masked_dense_attention_forward_and_backward(name: str) -> None:
    layer = awake(LAYERS[name]())
    x = torch.randn(2, 45, 16, requires_grad=True)
    query, key, value = layer._projected(x, torch.arange(45)[None])
    mask = mask_of(layer, 45)
    dense = functional.scaled_dot_product_attention(
        *(each.transpose(1, 2) for each in (query, key, value)), attn_mask=mask, enable_gqa=True
    )
    dense = torch.where(mask.any(1)[:, None], dense, 0).transpose(1, 2)
    weights = torch.randn(2, 45, 16)
    over = [x, *(parameter for parameter in layer.parameters())]
    wanted = torch.autograd.grad((layer.project(dense.flatten(-2)) * weights).sum(), over)
    out = layer(x)
    torch.testing.assert_close(out, layer.project(dense.flatten(-2)), rtol=1e-5, atol=1e-5)
    for mine, theirs in zip(torch.autograd.grad((out * weights).sum(), over), wanted, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", LAYERS)
def test_documents_send_their_gradients(name: str) -> None:
    layer = awake(LAYERS[name]())
    x = torch.randn(1, 50, 16, requires_grad=True)
    documents = torch.tensor([[0] * 13 + [1] * 37])
    weights = torch.randn(1, 50, 16)
    (packed,) = torch.autograd.grad((layer(x, documents) * weights).sum(), x)
    apart = torch.cat([layer(x[:, :13]), layer(x[:, 13:])], 1)
    (wanted,) = torch.autograd.grad((apart * weights).sum(), x)
    torch.testing.assert_close(packed, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("pattern", "bound"),
    [
        (Blocks(4, (Local(2), Sink(1), Offsets((8,)))), (1 + 9) * 4),
        (Blocks.sliding(4, 3), (1 + 3) * 4),
        (Blocks.dilated(4, 6), 6 * 4),
        (Blocks.longnet(4, ((2, 1), (8, 4))), 8 * 4),
        (Blocks.power(4, 2), None),
        (Blocks.strided(4, 2, 4), None),
    ],
    ids=str,
)
def test_a_cache_is_bounded_where_no_block_comes_back(pattern: Blocks, bound: int | None) -> None:
    layer = BlockAttention(8, 1, pattern=pattern)
    assert layer.cache.bound == bound
    assert layer.state_size(10_000) == 2 * 8 * (bound or layer.cache.slots(10_000))
    assert 10_000 <= KeyCache(4).slots(10_000) <= 10_000 * 9 // 8 + 4


@pytest.mark.parametrize("name", ["power", "one power", "offsets, two sinks", "sliding", "strided"])
def test_a_step_reads_the_blocks_it_sees_and_no_other(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything else in the cache may be anything; and the operator is given just so many pairs to compute."""
    layer = BlockAttention(8, 1, pattern=PATTERNS[name])
    x = torch.randn(1, 90, 8)
    state = layer.start(1, x)
    layer.prefill(x[:, :-1], state)
    size, row = layer.pattern.size, layer.pattern.row(89 // layer.pattern.size)
    tokens = torch.cat([torch.arange(block * size, min(block * size + size, 90)) for block in row])
    kept = torch.zeros(state.tensors["key"].shape[2], dtype=torch.bool)
    kept[layer.cache.slot(tokens)] = True
    for tensor in state.tensors.values():
        tensor[:, :, ~kept] = torch.nan
    pairs = []
    operator = fovea.attention

    def counting(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, pattern: Any, **options: Any) -> Any:
        pairs.append(fovea.plan(pattern, query.shape[1], key_grid=key.shape[1]).problem.pairs)
        return operator(query, key, value, pattern, **options)

    monkeypatch.setattr(fovea, "attention", counting)
    out = layer.step(x[:, -1:], state)
    assert sum(pairs) == len(tokens)
    monkeypatch.undo()
    torch.testing.assert_close(out, layer(x)[:, -1:], rtol=1e-5, atol=1e-5)


def test_positions_are_relative() -> None:
    query, key = torch.randn(1, 5, 2, 8), torch.randn(1, 5, 2, 8)
    for interleaved in (False, True):
        scores = []
        for shift in (0, 300):
            angles = turns(torch.arange(5)[None] + shift, 8)
            turned = [rotate(each, *angles, interleaved=interleaved) for each in (query, key)]
            scores.append(torch.einsum("bqhd,bkhd->bhqk", *turned))
        torch.testing.assert_close(scores[0], scores[1], rtol=1e-4, atol=1e-4)
    angles = turns(torch.arange(5)[None], 8)
    paired = rotate(query, *angles, interleaved=True)
    halves = rotate(torch.cat([query[..., ::2], query[..., 1::2]], -1), *angles)
    torch.testing.assert_close(torch.stack(halves.chunk(2, -1), -1).flatten(-2), paired)
    whole = torch.view_as_complex(query.unflatten(-1, (4, 2)).contiguous())
    rates = torch.arange(5)[:, None] * 10000.0 ** (-torch.arange(4) / 4)
    wanted = torch.view_as_real(whole * torch.polar(torch.ones(5, 4), rates)[:, None]).flatten(-2)
    torch.testing.assert_close(paired, wanted)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: FullAttention(16, 3), "heads=3; without head_dim it must divide dim=16"),
        (lambda: FullAttention(16, 4, kv_heads=3), "kv_heads=3; kv_heads must divide heads"),
        (lambda: FullAttention(15, 3), "head_dim=5; with rotary positions it must be even"),
        (lambda: SlidingWindowAttention(16, 2, window=0), "window=0"),
        (lambda: BlockAttention(16, 2, pattern="causal"), "pattern='causal'; it must be blocks"),
    ],
)
def test_what_makes_no_sense_is_refused(build: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


def test_documents_must_rise() -> None:
    with pytest.raises(ValueError, match="rising order"):
        FullAttention(8, 1)(torch.randn(1, 3, 8), torch.tensor([[1, 0, 1]]))
