"""Superlinear attention as a mixer: the contract of mixers, its accumulators, and what of it learns."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from fovea.kernels.span_search import superlinear_attention_naive
from fovea.nn.span_search import KeyAccumulator, SuperlinearAttention
from fovea.patterns.search import SpanSearch
from nn.mixer_contract import check_mixer


@pytest.mark.parametrize(
    "options",
    [
        {"sw_index": 1},
        {"sw_index": 0, "num_spans": 3, "heads": 4, "kv_heads": 2, "backward_factor": 3.0, "forward_factor": 1.0},
        {"sw_index": 2, "accumulator": "ema", "search_power": 0.55, "span_power": 0.55, "bias": True},
        {"sw_index": 1, "accumulator": "linear", "heads": 4, "kv_heads": 1},
    ],
    ids=str,
)
def test_contract(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SuperlinearAttention, "PAGE", 16)
    mixer = SuperlinearAttention(16, **{"heads": 2, **options})
    with torch.no_grad():
        for parameter in mixer.parameters():  # scores that matter, and a search that looks elsewhere than attention
            parameter.add_(torch.randn_like(parameter) * 0.4)
    check_mixer(mixer, 16, 53)


def test_contract_without_tables_of_all_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SpanSearch, "visits", lambda self, count: 0)
    check_mixer(SuperlinearAttention(16, 2, sw_index=1, accumulator="ema"), 16, 53)


@pytest.mark.parametrize("pieces", [[1] * 150, [7] * 22, [64, 64, 26]], ids=["1", "7", "64"])
def test_prefill_in_chunks(pieces: list[int]) -> None:
    mixer = SuperlinearAttention(16, 2, sw_index=2, accumulator="linear")
    x = torch.randn(2, sum(pieces), 16)
    state, parts = mixer.start(2, x), []
    for piece in x.split(pieces, 1):
        parts.append(mixer.prefill(piece, state))
    torch.testing.assert_close(torch.cat(parts, 1), mixer(x).detach(), rtol=1e-5, atol=1e-5)


def test_it_is_the_definition() -> None:
    mixer = SuperlinearAttention(16, 4, kv_heads=2, sw_index=1)
    x = torch.randn(2, 200, 16) * 5
    projected = mixer._projected(x)
    naive = mixer.project(superlinear_attention_naive(*projected, mixer.search)[0].flatten(2))
    torch.testing.assert_close(mixer(x), naive)


def test_the_last_tokens_alone() -> None:
    mixer = SuperlinearAttention(16, 2, sw_index=1, accumulator="linear")
    x, documents = torch.randn(2, 90, 16) * 5, torch.tensor([[0] * 40 + [1] * 50, [0] * 90])
    for given in (None, documents):
        torch.testing.assert_close(mixer(x, given, last=3), mixer(x, given)[:, -3:])


@pytest.mark.parametrize("accumulator", ["none", "ema", "linear"])
def test_everything_learns(accumulator: Any) -> None:
    mixer = SuperlinearAttention(16, 2, sw_index=1, accumulator=accumulator)
    mixer(torch.randn(2, 150, 16) * 5).square().sum().backward()
    for name, parameter in mixer.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


def test_search_starts_where_attention_looks() -> None:
    mixer = SuperlinearAttention(16, 2)
    torch.testing.assert_close(mixer.search_query.weight * 8**0.5, mixer.query.weight)


@pytest.mark.parametrize("kind", ["ema", "linear"])
def test_an_accumulator_is_a_recurrence(kind: Any) -> None:
    accumulator = KeyAccumulator(6, 3, kind).double()
    x, key = torch.randn(2, 150, 6, dtype=torch.float64), torch.randn(2, 150, 3, 5, dtype=torch.float64)
    if accumulator.decay is not None:
        torch.nn.init.normal_(accumulator.decay.weight)
    bias = accumulator.offset if accumulator.decay is None else accumulator.decay(x) + accumulator.offset
    a = bias.sigmoid().expand(2, 150, 3)
    first = torch.tensor([[0] * 70 + [70] * 80, [0] * 64 + [64] * 86])
    for borders in (None, first):
        memory, wanted = torch.zeros(2, 3, 5, dtype=torch.float64), []
        for t in range(150):
            if borders is not None:
                memory = memory * (borders[:, t] < t)[:, None, None]
            memory = a[:, t, :, None] * memory + (1 - a[:, t, :, None]) * key[:, t]
            wanted.append(memory)
        scored, means = accumulator(key, x, borders)
        torch.testing.assert_close(means, torch.stack(wanted, 1))
        torch.testing.assert_close(scored, key + means)


def test_an_accumulator_summarises_for_the_search_alone() -> None:
    """Values and attention keep single keys: with one span that covers all, an accumulator changes nothing."""
    options: dict[str, Any] = {"sw_index": 2, "num_spans": 1, "backward_factor": 100.0}
    plain = SuperlinearAttention(16, 2, **options)
    summing = SuperlinearAttention(16, 2, accumulator="ema", **options)
    summing.load_state_dict(plain.state_dict(), strict=False)
    x = torch.randn(2, 20, 16) * 3
    torch.testing.assert_close(plain(x), summing(x))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heads": 3}, "heads=3"),
        ({"heads": 4, "kv_heads": 3}, "kv_heads=3"),
        ({"heads": 2, "accumulator": "mean"}, "accumulator='mean'"),
        ({"heads": 2, "num_spans": 0}, "num_spans=0"),
    ],
)
def test_what_it_refuses(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SuperlinearAttention(16, **options)


def test_documents_must_rise() -> None:
    mixer = SuperlinearAttention(16, 2)
    with pytest.raises(ValueError, match="fall along a row"):
        mixer(torch.randn(1, 3, 16), torch.tensor([[1, 0, 0]]))
