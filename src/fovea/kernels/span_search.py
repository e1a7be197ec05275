"""Superlinear attention: a search for spans, attention inside them and a window, mixed by the scores of the search.

(arXiv 2601.18401, sections 2 and 3; ``concavity-ai/superlinear`` release 0.1.) Queries are contiguous tokens of a
sequence whose keys are all there; ``first`` is where the sequence of each query begins, so that padding on the left
and packed documents are one thing. Nothing here makes a table of all pairs of tokens, unless all that a query sees
would be no less.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from fovea.kernels.attention import attention
from fovea.kernels.ranges import range_attention, range_attention_naive
from fovea.patterns import SlidingWindow
from fovea.patterns.search import SpanSearch

_GATHERED = 16
"""So few queries score anchors that are gathered for them; more are scored stripe by stripe."""
_HELD = 1 << 17
"""Numbers of a product of queries with a stripe; it should stay in the cache of a core."""
_PAIRS = 1 << 18
"""Pairs of a query and a span that are computed at a time where no gradients are needed."""
_DENSE = 1 << 24
"""Pairs of a span and a key, seen or not, that are computed at a time where spans would read no less."""

Queries = Float[Tensor, "batch queries heads head_dim"]
Keys = Float[Tensor, "batch keys kv_heads head_dim"]
Positions = Int64[Tensor, "batch queries"]


class Found(NamedTuple):
    """What the search found for each query and head, the best first.

    Attributes:
        anchor: ``[batch, queries, heads, spans]``; -1 where there are fewer stripes.
        score: ``q . k`` of the anchors, in float32 or wider; -inf where there is none.
        start, end: first and last key of the span; ``end`` is -1 where there is no anchor.
    """

    anchor: Tensor
    score: Tensor
    start: Tensor
    end: Tensor


def superlinear_attention(
    search_query: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    search: SpanSearch,
    *,
    search_key: Tensor | None = None,
    first: Tensor | None = None,
    position: int | None = None,
) -> Tensor:
    """``sum_j softmax_j(score_j) softmax(q . k / sqrt(head_dim)) v`` over the keys of span ``j`` and the window.

    Differentiable in all tensors; which spans are chosen has no gradient, their scores have.

    Args:
        search_query, query: ``[batch, queries, heads, head_dim]``, of the tokens ``position, position + 1, ...``.
        key, value: ``[batch, keys, kv_heads, head_dim]``, of the tokens from 0 on, at least up to the last query; later
            ones are not seen. ``kv_heads`` divides ``heads``.
        search: which positions are scored, how long spans are, how many are chosen.
        search_key: what the search scores, if not ``key``.
        first: ``[batch, queries]``: where the sequence of each query begins (padding on the left, packed documents);
            earlier keys are not seen, and a query before it sees nothing and gets zeros.
        position: of the first query; by default the queries are the last tokens.

    Returns:
        ``[batch, queries, heads, head_dim]`` in query's dtype.
    """
    queries = query.shape[1]
    position = key.shape[1] - queries if position is None else position
    _check(search_query, query, key, value, position, first)
    seen = position + queries
    key, value = key[:, :seen], value[:, :seen]
    search_key = key if search_key is None else search_key[:, :seen]
    own, own_lse = window_attention(query, key, value, search.window, position, first)
    if seen <= search.window or not query.numel():
        return own
    found = find(search_query, search_key, search, position, first)
    if torch.is_grad_enabled() and (search_query.requires_grad or search_key.requires_grad):
        found = found._replace(score=anchor_scores(search_query, search_key, found.anchor))
    every = found.anchor[:, 0].numel()  # pairs of all rows and heads for one token
    learning = torch.is_grad_enabled()
    dense = search.visits(seen) >= seen and (not learning or every * queries * seen <= 4 * _DENSE)
    step = _DENSE // (every * seen) if dense else queries if learning else _PAIRS // every
    parts = []
    for low in range(0, queries, max(1, step)):
        at = slice(low, low + max(1, step))
        part = Found(*(tensor[:, at] for tensor in found))
        attend = range_attention_naive if dense else range_attention
        out, lse = attend(query[:, at], key, value, part.start, part.end + 1)
        parts.append(mix(own[:, at], own_lse[:, at], out, lse, part))
    return parts[0] if len(parts) == 1 else torch.cat(parts, 1)


def superlinear_attention_naive(
    search_query: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    search: SpanSearch,
    *,
    search_key: Tensor | None = None,
    first: Tensor | None = None,
    position: int | None = None,
) -> tuple[Tensor, Tensor, Found]:
    """The definition, with scores of all pairs: the output, that of each span, and what was found."""
    batch, queries, heads, _ = query.shape
    position = key.shape[1] - queries if position is None else position
    at = position + torch.arange(queries, device=query.device)
    first = torch.zeros(batch, queries, dtype=torch.int64, device=query.device) if first is None else first
    group = heads // key.shape[2]
    wide = torch.promote_types(query.dtype, torch.float32)
    scored = (key if search_key is None else search_key).repeat_interleave(group, 2)
    scores = torch.einsum("bthd,bshd->bths", search_query.to(wide), scored.to(wide))
    keys = torch.arange(key.shape[1], device=key.device)
    back = at[:, None] - keys
    stripe = torch.isin(back, torch.tensor(search.distances(position + queries), device=back.device))
    stripe = stripe & (keys >= first[..., None])  # [batch, queries, keys]
    scores = torch.where(stripe[:, :, None], scores, -torch.inf)
    score, anchor = scores.sort(dim=-1, descending=True, stable=True)
    score, anchor = _padded(score, search.num_spans, -torch.inf), _padded(anchor, search.num_spans, -1)
    anchor = anchor.masked_fill(score == -torch.inf, -1)
    start, end = spans(anchor, search, position, first)
    window = (back >= 0) & (back < search.window) & (keys >= first[..., None])
    inside = (keys >= start[..., None]) & (keys <= end[..., None]) & (anchor[..., None] >= 0)
    logits = torch.einsum("bthd,bshd->bths", query, key.repeat_interleave(group, 2)) * query.shape[-1] ** -0.5
    logits = torch.where(inside | window[:, :, None, None], logits[:, :, :, None], -torch.inf)
    weights = logits.softmax(-1).nan_to_num(0.0)
    out = torch.einsum("bthrs,bshd->bthrd", weights, value.repeat_interleave(group, 2))
    gate = torch.where(anchor >= 0, score, -1e9).softmax(-1)
    return (gate[..., None] * out).sum(-2), out, Found(anchor, score, start, end)


def window_attention(
    query: Queries, key: Keys, value: Keys, window: int, position: int, first: Positions | None = None
) -> tuple[Tensor, Tensor]:
    """Attention to the last ``window`` tokens, the query's own included, and its lse; 0 and -inf without a window."""
    if not window or not query.numel():
        wide = torch.promote_types(query.dtype, torch.float32)
        out = query.new_zeros(*query.shape[:-1], value.shape[-1])
        return out, query.new_full(query.shape[:-1], -torch.inf, dtype=wide)
    if first is None:
        low = max(0, position - window + 1)
        return attention(query, key[:, low:], value[:, low:], SlidingWindow(window - 1), return_lse=True)
    stop = position + 1 + torch.arange(query.shape[1], device=query.device)
    start = torch.maximum(stop - window, first)
    start, stop = (tensor[..., None, None].expand(*query.shape[:3], 1) for tensor in (start, stop.expand_as(start)))
    out, lse = range_attention(query, key, value, start, stop)
    return out[..., 0, :], lse[..., 0]


@torch.no_grad()
def find(
    search_query: Queries, search_key: Keys, search: SpanSearch, position: int, first: Positions | None = None
) -> Found:
    """The best anchors of each query and the spans around them. Of equal scores the farther anchor counts as better."""
    batch, queries, heads, width = search_query.shape
    wide = torch.promote_types(search_query.dtype, torch.float32)
    grouped = search_query.to(wide).unflatten(2, (search_key.shape[2], -1))
    step = _GATHERED if queries <= _GATHERED else max(64, _HELD // (batch * heads * width))
    anchors, scores = [], []
    for low in range(0, queries, step):
        part = grouped[:, low : low + step]
        begin = position + low
        back = _back(search, begin + part.shape[1], search_query.device)
        if queries <= _GATHERED:
            table = _gathered_scores(part, search_key, back, begin)
        else:
            table = _striped_scores(part, search_key, back.tolist(), begin)
        at = begin + torch.arange(part.shape[1], device=back.device)
        if first is not None:
            outside = (at - first[:, low : low + step])[..., None] < back
            table.masked_fill_(outside[:, :, None], -torch.inf)
        score, stripe = _best(table, search.num_spans)
        anchor = at[:, None, None] - back[stripe] if len(back) else torch.zeros_like(stripe)
        anchors.append(anchor.masked_fill_(score == -torch.inf, -1))
        scores.append(score)
    anchor, score = torch.cat(anchors, 1), torch.cat(scores, 1)
    return Found(anchor, score, *spans(anchor, search, position, first))


def anchor_scores(search_query: Queries, search_key: Keys, anchor: Tensor) -> Tensor:
    """``q . k`` at given anchors, differentiable; -inf where there is none."""
    wide = torch.promote_types(search_query.dtype, torch.float32)
    batch, _, heads, _ = search_query.shape
    row = torch.arange(batch, device=anchor.device).view(-1, 1, 1, 1)
    head = torch.arange(heads, device=anchor.device).view(1, 1, -1, 1) // (heads // search_key.shape[2])
    keys = search_key.to(wide)[row, anchor.clamp(min=0), head]  # [batch, queries, heads, spans, head_dim]
    scores = torch.einsum("bthd,bthrd->bthr", search_query.to(wide), keys)
    return scores.masked_fill(anchor < 0, -torch.inf)


def spans(anchor: Tensor, search: SpanSearch, position: int, first: Tensor | None) -> tuple[Tensor, Tensor]:
    """First and last key of the spans at the anchors of queries at ``position, position + 1, ...``."""
    queries = anchor.shape[1]
    at = position + torch.arange(queries, device=anchor.device)
    back, ahead = _reach(search, position + queries, anchor.device)
    if first is None:
        count, lowest = at + 1, 0
        back, ahead, latest = (t[:, None, None] for t in (back[count], ahead[count], at - search.window))
    else:
        count = (at + 1 - first).clamp(min=0)
        back, ahead = back[count][..., None, None], ahead[count][..., None, None]
        latest, lowest = (at - search.window)[:, None, None], first[..., None, None]
    if not search.window:
        latest = at[:, None, None]
    known = anchor >= 0
    start = torch.where(known, (anchor - back).clamp(min=lowest), anchor - back)
    end = torch.where(known, torch.minimum(anchor + ahead, latest), -1)
    return start, end


def mix(own: Tensor, own_lse: Tensor, out: Tensor, lse: Tensor, found: Found) -> Tensor:
    """Join the window with each span, and mix what they say by a softmax over the scores of the anchors."""
    gate = torch.where(found.anchor >= 0, found.score, -1e9).softmax(-1)
    base = own_lse[..., None]
    share = torch.where(lse == -torch.inf, 0, torch.where(base == -torch.inf, 1, (lse - base).sigmoid()))
    weights = gate * share
    left = (gate - weights).sum(-1, keepdim=True).to(own.dtype)
    return left * own + torch.einsum("bthr,bthrd->bthd", weights.to(out.dtype), out)


def _gathered_scores(query: Tensor, key: Tensor, back: Tensor, position: int) -> Tensor:
    """``[batch, queries, heads, stripes]``, the farthest first, of keys gathered for each query."""
    at = position + torch.arange(query.shape[1], device=key.device)
    index = at[:, None] - back
    taken = key[:, index.clamp(min=0)].to(query.dtype)  # [batch, queries, stripes, kv_heads, head_dim]
    scores = torch.einsum("btkgd,btnkd->btkgn", query, taken).flatten(2, 3)
    return scores.masked_fill_((index < 0)[:, None], -torch.inf)


def _striped_scores(query: Tensor, key: Tensor, back: list[int], position: int) -> Tensor:
    """The same, stripe by stripe: all queries meet the keys so far back, which are neighbours as they are."""
    batch, queries, kv_heads, group, width = query.shape
    scores = query.new_full((len(back), batch, queries, kv_heads, group), -torch.inf)
    held = query.new_empty(batch, queries, kv_heads, group, width)
    for place, distance in enumerate(back):
        skip = max(0, distance - position)
        keys = key[:, position + skip - distance : position + queries - distance, :, None]
        product = torch.mul(query[:, skip:], keys, out=held[:, skip:] if batch == 1 or not skip else None)
        torch.sum(product, -1, out=scores[place, :, skip:])
    return scores.permute(1, 2, 3, 4, 0).flatten(2, 3).contiguous()


def _best(scores: Tensor, number: int) -> tuple[Tensor, Tensor]:
    """The largest of the last axis and their places, of equals the first; overwrites ``scores``."""
    scores = _padded(scores, number, -torch.inf) if scores.shape[-1] < number else scores
    values, places = [], []
    for _ in range(number):
        value, place = scores.max(-1, keepdim=True)
        scores.scatter_(-1, place, -torch.inf)
        values.append(value)
        places.append(place)
    return torch.cat(values, -1), torch.cat(places, -1)


def _padded(tensor: Tensor, number: int, fill: float) -> Tensor:
    """The first ``number`` of the last axis, filled up where there are fewer."""
    missing = number - tensor.shape[-1]
    if missing <= 0:
        return tensor[..., :number]
    return torch.cat([tensor, tensor.new_full((*tensor.shape[:-1], missing), fill)], -1)


@lru_cache(maxsize=256)
def _back(search: SpanSearch, length: int, device: torch.device) -> Tensor:
    """How far back the stripes lie, the farthest first."""
    return torch.from_numpy(search.distances(length)[::-1].copy()).to(device)


def _reach(search: SpanSearch, length: int, device: torch.device) -> tuple[Tensor, Tensor]:
    return _reach_tables(search, 1 << max(6, length.bit_length()), device)


@lru_cache(maxsize=64)
def _reach_tables(search: SpanSearch, room: int, device: torch.device) -> tuple[Tensor, Tensor]:
    back, ahead = search.reach(room)
    return torch.tensor(back, device=device), torch.tensor(ahead, device=device)


def _check(
    search_query: Tensor, query: Tensor, key: Tensor, value: Tensor, position: int, first: Tensor | None
) -> None:
    if search_query.shape != query.shape:
        raise ValueError(
            f"search_query has shape {tuple(search_query.shape)}; it must be {tuple(query.shape)}, as query"
        )
    if position < 0 or position + query.shape[1] > key.shape[1]:
        raise ValueError(f"position={position}; {query.shape[1]} queries there do not stand among {key.shape[1]} keys")
    if query.shape[2] % key.shape[2] or value.shape[:3] != key.shape[:3]:
        raise ValueError(
            f"query has {query.shape[2]} heads, key {tuple(key.shape)}, value {tuple(value.shape)}; the heads of key "
            "must divide those of query, and value must have as many"
        )
    if first is not None and first.shape != query.shape[:2]:
        raise ValueError(f"first has shape {tuple(first.shape)}; it must be {tuple(query.shape[:2])}")
