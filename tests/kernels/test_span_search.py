"""Superlinear attention: the fast form against the definition, its gradients, and how little it reads."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from fovea.kernels import span_search
from fovea.kernels.span_search import find, superlinear_attention, superlinear_attention_naive
from fovea.patterns.search import SpanSearch

SEARCHES = [
    SpanSearch(),
    SpanSearch(sw_index=2),
    SpanSearch(sw_index=3, num_spans=3, backward_factor=3.0, forward_factor=1.0, search_power=0.55, span_power=0.55),
    SpanSearch(num_spans=1, forward_factor=1.5),
    SpanSearch(sw_index=1, num_spans=30, search_power=1 / 3, span_power=2 / 3, backward_factor=3.0),
]
BORDERS = torch.tensor([[0] * 70 + [70] * 1 + [71] * 29, [13] * 100])


def tensors(
    tokens: int = 100, keys: int | None = None, dtype: torch.dtype = torch.float64, kv_heads: int = 2
) -> list[Tensor]:
    keys = tokens if keys is None else keys
    queries = [torch.randn(2, tokens, 4, 8, dtype=dtype, requires_grad=True) for _ in range(2)]
    return queries + [torch.randn(2, keys, kv_heads, 8, dtype=dtype, requires_grad=True) for _ in range(2)]


@pytest.fixture(params=["spans", "fallback"])
def never_dense(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Short sequences take the form with tables of all pairs; once they are forced through that of long ones."""
    if request.param == "spans":
        monkeypatch.setattr(SpanSearch, "visits", lambda self, count: 0)


@pytest.mark.usefixtures("never_dense")
@pytest.mark.parametrize("first", [None, BORDERS], ids=["", "borders"])
@pytest.mark.parametrize("search", SEARCHES, ids=str)
def test_it_is_the_definition(search: SpanSearch, first: Tensor | None) -> None:
    inputs = tensors()
    scored = torch.randn_like(inputs[2], requires_grad=True)
    out = superlinear_attention(*inputs, search, first=first, search_key=scored)
    wanted, _, found = superlinear_attention_naive(*inputs, search, first=first, search_key=scored)
    torch.testing.assert_close(out, wanted)
    for ours, naive in zip(find(inputs[0], scored, search, 0, first), found, strict=True):
        torch.testing.assert_close(ours, naive.detach())
    weight = torch.randn_like(out)
    ours, naive = (torch.autograd.grad((each * weight).sum(), [*inputs, scored]) for each in (out, wanted))
    for name, one, other in zip(("search_query", "query", "key", "value", "search_key"), ours, naive, strict=True):
        assert search.num_spans == 1 or other.abs().max() > 1e-3, name
        torch.testing.assert_close(one, other, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.usefixtures("never_dense")
def test_gradients_by_differences() -> None:
    search = SpanSearch(sw_index=1, backward_factor=3.0, forward_factor=1.0)
    inputs = [tensor[:1, :20].detach().requires_grad_() for tensor in tensors()]
    assert torch.autograd.gradcheck(lambda *given: superlinear_attention(*given, search), inputs, fast_mode=True)


@pytest.mark.usefixtures("never_dense")
@pytest.mark.parametrize("search", SEARCHES, ids=str)
@pytest.mark.parametrize("pieces", [[100], [1, 7, 64, 28], [1] * 100], ids=["whole", "pieces", "tokens"])
def test_pieces_of_a_sequence(search: SpanSearch, pieces: list[int]) -> None:
    """Also with keys that are longer than what was read so far, as a cache that was made in advance."""
    inputs = [tensor.detach().float() for tensor in tensors()]
    whole = superlinear_attention_naive(*inputs, search)[0]
    search_query, query, key, value = inputs
    done = 0
    for piece in pieces:
        at = slice(done, done + piece)
        later = [tensor.clone() for tensor in (key, value)]
        for tensor in later:
            tensor[:, done + piece :] = torch.nan
        with torch.no_grad():
            out = superlinear_attention(search_query[:, at], query[:, at], *later, search, position=done)
        torch.testing.assert_close(out, whole[:, at])
        done += piece


def test_many_chunks_are_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(span_search, "_HELD", 1 << 8)
    monkeypatch.setattr(span_search, "_PAIRS", 1 << 8)
    search = SpanSearch(sw_index=1)
    inputs = [tensor.detach() for tensor in tensors(300)]
    assert search.visits(300) < 300
    torch.testing.assert_close(superlinear_attention(*inputs, search), superlinear_attention_naive(*inputs, search)[0])
    monkeypatch.setattr(span_search, "_DENSE", 1 << 12)
    short, search = [tensor[:, :60] for tensor in inputs], SpanSearch(sw_index=1, num_spans=4)
    assert search.visits(60) >= 60
    torch.testing.assert_close(superlinear_attention(*short, search), superlinear_attention_naive(*short, search)[0])


def test_padding_on_the_left_sees_nothing_and_changes_nothing() -> None:
    search = SEARCHES[2]
    inputs = [tensor.detach() for tensor in tensors(90)]
    alone = superlinear_attention(*inputs, search)
    padded = [torch.cat([torch.full_like(tensor[:, :17], 3.0), tensor], 1) for tensor in inputs]
    out = superlinear_attention(*padded, search, first=torch.full((2, 107), 17))
    torch.testing.assert_close(out[:, 17:], alone)
    assert (out[:, :17] == 0).all()


@pytest.mark.parametrize("window", [0, 3])
def test_spans_that_cover_everything_are_full_attention(window: int) -> None:
    search = SpanSearch(sw_index=window, num_spans=1, backward_factor=100.0)
    inputs = [tensor.detach() for tensor in tensors(60)]
    search_query, query, key, value = inputs
    if not window:  # a single span ends at its anchor: the token itself is the best where all queries say so
        key = torch.cat(
            [key[..., :7], torch.arange(60.0, dtype=key.dtype)[None, :, None, None].expand(2, 60, 2, 1)], -1
        )
        search_query = torch.zeros_like(search_query)
        search_query[..., 7] = 1
    else:  # or the nearest stripe, just before the window
        scored = torch.arange(60.0, dtype=key.dtype)[None, :, None, None].expand_as(key)
        search_query = torch.ones_like(search_query)
    out = superlinear_attention(search_query, query, key, value, search, search_key=scored if window else None)
    full = functional.scaled_dot_product_attention(
        *(each.transpose(1, 2) for each in (query, key, value)), is_causal=True, enable_gqa=True
    )
    torch.testing.assert_close(out, full.transpose(1, 2))


def test_nothing_is_asked() -> None:
    for shape in ((0, 5, 2, 4), (2, 0, 2, 4)):
        nothing, key = torch.zeros(shape), torch.zeros(shape[0], 9, 2, 4)
        assert superlinear_attention(nothing, nothing, key, key, SpanSearch(sw_index=1), position=0).shape == shape


def test_equal_scores_choose_the_farther_anchor() -> None:
    search = SpanSearch(sw_index=1)
    inputs = [torch.zeros_like(tensor) for tensor in tensors(40)]
    for found in (find(inputs[0], inputs[2], search, 0, None), superlinear_attention_naive(*inputs, search)[2]):
        assert found.anchor[0, 39, 0].tolist() == [39 - 35, 39 - 24]


def test_a_token_reads_only_what_it_may() -> None:
    """Keys that are no stripe, in no chosen span and outside the window are NaN."""
    search = SpanSearch(sw_index=2)
    tokens = 400
    inputs = [tensor.detach()[:1, :, :1] for tensor in tensors(tokens, kv_heads=1)]
    last = [tensor[:, -1:] for tensor in inputs[:2]]
    out = superlinear_attention(*last, *inputs[2:], search)
    found = find(last[0], inputs[2], search, tokens - 1, None)
    spans = torch.zeros(tokens, dtype=torch.bool)
    for start, end in zip(found.start.flatten().tolist(), found.end.flatten().tolist(), strict=True):
        spans[start : end + 1] = True
    spans[-search.window :] = True
    scored = spans.clone()
    scored[tokens - 1 - torch.tensor(search.distances(tokens))] = True
    assert scored.sum() <= search.visits(tokens) < tokens / 2
    key, value = (tensor.clone() for tensor in inputs[2:])
    key[:, ~scored] = torch.nan
    value[:, ~spans] = torch.nan
    assert torch.equal(superlinear_attention(*last, key, value, search), out)


def test_work_grows_as_published() -> None:
    """What is found is never more than ``visits``, and its sum over queries grows with exponent 1.5."""
    search = SpanSearch(sw_index=2)
    lengths = 2 ** np.arange(10, 17)
    most = np.cumsum([search.visits(count) for count in range(1, int(lengths[-1]) + 1)])[lengths - 1]
    assert np.polyfit(np.log(lengths), np.log(most), 1)[0] == pytest.approx(1.5, abs=0.05)
    inputs = [tensor.detach() for tensor in tensors(1024)]
    found = find(inputs[0], inputs[2], search, 0, None)
    keys = torch.where(found.anchor >= 0, found.end - found.start + 1, 0).sum(-1)
    at = torch.arange(1024)
    stripes = torch.tensor([len(search.distances(count)) for count in range(1, 1025)])
    read = keys + (stripes + (at + 1).clamp(max=search.window))[:, None]
    visits = torch.tensor([search.visits(count) for count in range(1, 1025)])
    assert (read <= visits[:, None]).all()


@pytest.mark.usefixtures("never_dense")
def test_half_precision_and_scores_far_apart() -> None:
    inputs = [tensor.detach().bfloat16() * 30 for tensor in tensors()]
    out = superlinear_attention(*inputs, SEARCHES[1])
    assert out.dtype == torch.bfloat16 and out.isfinite().all()
    wanted = superlinear_attention_naive(*(tensor.float() for tensor in inputs), SEARCHES[1])[0]
    torch.testing.assert_close(out.float(), wanted, rtol=0.05, atol=0.5)


def test_what_it_refuses() -> None:
    search_query, query, key, value = (tensor.detach() for tensor in tensors(20))
    search = replace(SEARCHES[0])
    with pytest.raises(ValueError, match="search_query has shape"):
        superlinear_attention(search_query[:, :3], query, key, value, search)
    with pytest.raises(ValueError, match="position=4"):
        superlinear_attention(search_query, query, key, value, search, position=4)
    with pytest.raises(ValueError, match="first has shape"):
        superlinear_attention(search_query, query, key, value, search, first=torch.zeros(2, 1, dtype=torch.int64))
    with pytest.raises(ValueError, match="heads of key"):
        superlinear_attention(search_query, query, key[:, :, :1].expand(2, 20, 3, 8), value, search)
