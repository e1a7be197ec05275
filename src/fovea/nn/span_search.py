"""Superlinear attention as a mixer: a search for spans, trained end to end (arXiv 2601.18401)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from fovea.kernels.span_search import superlinear_attention
from fovea.nn.key_cache import KeyCache
from fovea.nn.linear import Linear
from fovea.nn.mixer import Mixer, State, real_tokens
from fovea.patterns.search import SpanSearch

_CHUNK = 64
"""Tokens that an accumulator weighs directly."""

KeysOf = Float[Tensor, "batch tokens kv_heads head_dim"]


class KeyAccumulator(nn.Module):
    """Keys for the search that speak for the tokens before them: ``k_t + gate m_t``, a mean that forgets.

    ``m_t = a_t m_{t-1} + (1 - a_t) k_t`` for each head. The search reads single keys at anchors, so a key should tell
    what its span holds (arXiv 2601.18401: left to the recurrent layers below; where there are none, this stands in).

    Args:
        dim: channels of the tokens.
        heads: of keys.
        kind: ``"ema"``: ``a`` is learned, one number a head; ``"linear"``: each token says how much is forgotten when
            it comes, ``a_t = sigmoid(w . x_t + b)``, as in a linear recurrence with a scalar decay.
    """

    def __init__(self, dim: int, heads: int, kind: Literal["ema", "linear"]) -> None:
        super().__init__()
        self.kind = kind
        self.gate = nn.Parameter(torch.ones(heads))
        self.decay = Linear(dim, heads, bias=False) if kind == "linear" else None
        length = 2.0 ** torch.linspace(2, 6, heads) if heads > 1 else torch.full((1,), 16.0)
        self.offset = nn.Parameter((length - 1).log())  # a = 1 - 1 / length: means over 4 to 64 tokens

    def forward(
        self,
        key: KeysOf,
        x: Float[Tensor, "batch tokens dim"],
        first: Int64[Tensor, "batch tokens"] | None = None,
        memory: Float[Tensor, "batch kv_heads head_dim"] | None = None,
    ) -> tuple[KeysOf, KeysOf]:
        """Keys for the search, and ``m`` after each token. ``first``: of these tokens, where the sequence of each
        begins; ``memory``: ``m`` before the first token."""
        bias = self.offset if self.decay is None else self.decay(x) + self.offset
        wide = torch.promote_types(key.dtype, torch.float32)
        keep = nn.functional.logsigmoid(bias.to(wide)).expand(*key.shape[:3])  # log a
        write = nn.functional.logsigmoid(-bias.to(wide)).expand(*key.shape[:3])  # log (1 - a)
        held = key.new_zeros(len(key), *key.shape[2:], dtype=wide) if memory is None else memory.to(wide)
        parts = []
        for low in range(0, key.shape[1], _CHUNK):
            at = slice(low, low + _CHUNK)
            total = keep[:, at].cumsum(1)
            tokens = torch.arange(total.shape[1], device=key.device)
            weights = total[:, :, None] - total[:, None] + write[:, None, at]  # [batch, to, from, heads]
            seen = (tokens[:, None] >= tokens)[None]
            reached = torch.ones(1, 1, dtype=torch.bool, device=key.device)
            if first is not None:
                seen = seen & (low + tokens >= first[:, at, None])
                reached = first[:, at] <= low - 1 if low else torch.zeros_like(first[:, at], dtype=torch.bool)
            weights = torch.where(seen[..., None], weights, -torch.inf).exp()
            mean = torch.einsum("btsh,bshd->bthd", weights, key[:, at].to(wide))
            mean = mean + torch.where(reached[..., None], total.exp(), 0)[..., None] * held[:, None]
            held = mean[:, -1]
            parts.append(mean)
        means = torch.cat(parts, 1) if parts else key.to(wide)
        return (key + self.gate[:, None] * means).to(key.dtype), means.to(key.dtype)


class SuperlinearAttention(Mixer):
    """Causal attention that searches: about the square root of the positions is scored, the best ``num_spans`` open a
    run of keys each, and what these say, with a window in each, is mixed by a softmax over the scores.

    Scores are ``search_query . key`` without a scale, attention is scaled as usual; there are no positions (what the
    published model mixes below tells them). The map to search queries starts as that to queries, divided by
    ``sqrt(head_dim)``, so that the search starts near what attention would choose; how the authors start it is not
    known. The cache grows with what is read: ``2 kv_heads head_dim`` numbers a token, in pages of ``PAGE`` tokens;
    half as many more, and ``kv_heads head_dim`` once, with an accumulator.

    Shapes: ``[batch, tokens, dim] -> [batch, tokens, dim]``.

    Args:
        dim: channels in and out.
        heads, kv_heads: of queries, and of keys and values (as many, if not given); ``kv_heads`` divides ``heads``.
        head_dim: ``dim / heads`` unless given.
        sw_index, num_spans, backward_factor, forward_factor, search_power, span_power: see
            :class:`fovea.patterns.search.SpanSearch`.
        accumulator: what the search scores: single keys (``"none"``), or keys with a mean of those before them
            (``"ema"``, ``"linear"``; see :class:`KeyAccumulator`).
        bias: whether the projections have a bias.
    """

    PAGE = 256

    def __init__(
        self,
        dim: int,
        heads: int,
        *,
        kv_heads: int | None = None,
        head_dim: int | None = None,
        sw_index: int = 3,
        num_spans: int = 2,
        backward_factor: float = 2.0,
        forward_factor: float = 0.0,
        search_power: float = 0.5,
        span_power: float = 0.5,
        accumulator: Literal["none", "ema", "linear"] = "none",
        bias: bool = False,
    ) -> None:
        super().__init__()
        kv_heads = heads if kv_heads is None else kv_heads
        if heads < 1 or kv_heads < 1 or heads % kv_heads:
            raise ValueError(f"heads={heads}, kv_heads={kv_heads}; kv_heads must divide heads")
        if head_dim is None and dim % heads:
            raise ValueError(f"heads={heads}; without head_dim it must divide dim={dim}")
        if accumulator not in ("none", "ema", "linear"):
            raise ValueError(f"accumulator={accumulator!r}; it may be 'none', 'ema' or 'linear'")
        head_dim = dim // heads if head_dim is None else head_dim
        self.heads, self.kv_heads, self.head_dim = heads, kv_heads, head_dim
        self.search = SpanSearch(
            sw_index=sw_index,
            num_spans=num_spans,
            backward_factor=backward_factor,
            forward_factor=forward_factor,
            search_power=search_power,
            span_power=span_power,
        )
        self.search_query = Linear(dim, heads * head_dim, bias=bias)
        self.query = Linear(dim, heads * head_dim, bias=bias)
        self.key = Linear(dim, kv_heads * head_dim, bias=bias)
        self.value = Linear(dim, kv_heads * head_dim, bias=bias)
        self.project = Linear(heads * head_dim, dim, bias=bias)
        self.accumulator = None if accumulator == "none" else KeyAccumulator(dim, kv_heads, accumulator)
        self.cache = KeyCache(self.PAGE)
        self.start_search()

    @torch.no_grad()
    def start_search(self) -> None:
        """Let the search begin where attention looks: search queries become queries over ``sqrt(head_dim)``."""
        for name, parameter in self.search_query.named_parameters():
            parameter.copy_(self.query.get_parameter(name) * self.head_dim**-0.5)

    def forward(
        self,
        x: Float[Tensor, "batch tokens dim"],
        documents: Int64[Tensor, "batch tokens"] | None = None,
        *,
        last: int | None = None,
    ) -> Float[Tensor, "batch answered dim"]:
        """``last``: answer the last so many tokens alone, where a loss is asked of no others."""
        search_query, query, key, value = self._projected(x, last)
        first = None if documents is None else beginnings(documents, x)
        scored = None if self.accumulator is None else self.accumulator(key, x, first)[0]
        if first is not None and last is not None:
            first = first[:, -last:]
        mixed = superlinear_attention(search_query, query, key, value, self.search, search_key=scored, first=first)
        return self.project(mixed.flatten(2))

    def start(self, batch: int, like: Tensor) -> State:
        width = (self.kv_heads, self.head_dim)
        if self.accumulator is None:
            return self.cache.start(batch, like, key=width, value=width)
        state = self.cache.start(batch, like, key=width, value=width, search_key=width)
        state.tensors["memory"] = like.new_zeros(batch, *width)
        return state

    @torch.no_grad()
    def prefill(
        self,
        x: Float[Tensor, "batch tokens dim"],
        state: State,
        lengths: Int64[Tensor, " batch"] | None = None,
    ) -> Float[Tensor, "batch tokens dim"]:
        tokens = x.shape[1]
        if lengths is not None:
            real_tokens(x, lengths)  # refuses lengths that do not fit
        if not tokens:
            return x
        search_query, query, key, value = self._projected(x)
        new = {"key": key, "value": value}
        memory = state.tensors.pop("memory", None)
        if self.accumulator is not None:
            new["search_key"], means = self.accumulator(key, x, memory=memory)
            memory = means[:, -1] if lengths is None else _last(means, lengths, memory)
        groups = list(_alike(state.position, tokens, lengths))
        self.cache.write(state, tokens, lengths, **new)
        if memory is not None:
            state.tensors["memory"] = memory
        mixed = torch.zeros_like(query)
        for rows, position, count in groups:
            held = {name: self.cache.read(state, name, rows) for name in new}
            mixed[rows, :count] = superlinear_attention(
                search_query[rows, :count],
                query[rows, :count],
                held["key"],
                held["value"],
                self.search,
                search_key=held.get("search_key"),
                position=position,
            )
        return self.project(mixed.flatten(2))

    def state_size(self, length: int) -> int:
        width = self.kv_heads * self.head_dim
        if self.accumulator is None:
            return 2 * width * self.cache.slots(length)
        return 3 * width * self.cache.slots(length) + width

    def _projected(self, x: Tensor, last: int | None = None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Search queries and queries, of the ``last`` tokens alone where it is given; keys; values."""
        asking = x if last is None else x[:, -last:]
        search_query, query = (
            each(asking).unflatten(-1, (self.heads, self.head_dim)) for each in (self.search_query, self.query)
        )
        key, value = (each(x).unflatten(-1, (self.kv_heads, self.head_dim)) for each in (self.key, self.value))
        return search_query, query, key, value

    def extra_repr(self) -> str:
        return str(self.search)


def beginnings(documents: Tensor, x: Tensor) -> Int64[Tensor, "batch tokens"]:
    """Where the document of each token begins; ``ValueError`` where numbers do not fit or fall along a row."""
    if documents.shape != x.shape[:2]:
        raise ValueError(
            f"documents has shape {tuple(documents.shape)}; it must be {tuple(x.shape[:2])}, as tokens have"
        )
    step = documents.diff(dim=1, prepend=documents[:, :1])
    if (step < 0).any():
        raise ValueError("documents fall along a row; the documents packed into a row must be numbered in rising order")
    place = torch.arange(documents.shape[1], device=documents.device)
    return torch.where(step > 0, place, 0).cummax(1).values


def _last(means: Tensor, lengths: Tensor, before: Tensor | None) -> Tensor:
    """``m`` after the last real token of each row; what it was before where there is none."""
    found = means[torch.arange(len(means), device=means.device), (lengths - 1).clamp(min=0)]
    return found if before is None else torch.where((lengths > 0)[:, None, None], found, before)


def _alike(position: Tensor, tokens: int, lengths: Tensor | None) -> Iterator[tuple[slice, int, int]]:
    """Rows to compute at once, where they stand, and how many tokens: all where they stand alike, else one by one."""
    places = position.tolist()
    counts = [tokens] * len(places) if lengths is None else lengths.tolist()
    if len(set(places)) == 1 and max(counts):
        yield slice(None), places[0], max(counts)
        return
    for row, (place, count) in enumerate(zip(places, counts, strict=True)):
        if count:
            yield slice(row, row + 1), place, count
