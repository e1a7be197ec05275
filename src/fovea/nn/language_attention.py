"""Softmax attention of a causal language model: to everything, to a window, or to blocks of the past.

All share projections, grouped heads, rotary positions and a cache of keys; a class says what a query sees of contiguous
keys, of those that a bounded cache still has, and of the cache itself when one token is read.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from functools import lru_cache

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

import fovea
from fovea.kernels.merge import merge
from fovea.nn.key_cache import KeyCache
from fovea.nn.linear import Linear
from fovea.nn.mixer import Mixer, State, real_tokens
from fovea.nn.rotary import rotate, turns
from fovea.patterns import Blocks, Chosen, Pattern, Sink, SlidingWindow, Union, parse

_LENGTHS = 32
"""Documents of a packed row are computed with those of equal length, rounded up to a multiple of this."""

Queries = Float[Tensor, "batch queries heads head_dim"]
Keys = Float[Tensor, "batch keys kv_heads head_dim"]


class LanguageAttention(Mixer):
    """Causal softmax attention with grouped heads; subclasses say what a token sees.

    ``out_i = sum_j softmax_j(q_i . k_j / sqrt(head_dim)) v_j``, with ``q`` and ``k`` turned by their positions before
    keys are kept, so that a cache need not know where its tokens stood.

    Args:
        dim: channels in and out.
        heads, kv_heads: of queries, and of keys and values (as many, if not given); ``kv_heads`` divides ``heads``.
        head_dim: ``dim / heads`` unless given.
        rotary_base: theta of the rotary positions; ``None`` for no positions.
        head_norm: normalise queries and keys of each head by their root mean square, with a learned scale (Qwen3).
        bias: whether the projections to queries, keys and values have a bias.
        cache: how the keys of earlier tokens are kept.
        backend: of the operator.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        *,
        cache: KeyCache,
        kv_heads: int | None = None,
        head_dim: int | None = None,
        rotary_base: float | None = 10000.0,
        head_norm: bool = False,
        bias: bool = False,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        kv_heads = heads if kv_heads is None else kv_heads
        if heads < 1 or kv_heads < 1 or heads % kv_heads:
            raise ValueError(f"heads={heads}, kv_heads={kv_heads}; kv_heads must divide heads")
        if head_dim is None and dim % heads:
            raise ValueError(f"heads={heads}; without head_dim it must divide dim={dim}")
        head_dim = dim // heads if head_dim is None else head_dim
        if rotary_base is not None and head_dim % 2:
            raise ValueError(f"head_dim={head_dim}; with rotary positions it must be even")
        self.heads, self.kv_heads, self.head_dim = heads, kv_heads, head_dim
        self.rotary_base, self.cache, self.backend = rotary_base, cache, backend
        self.query = Linear(dim, heads * head_dim, bias=bias)
        self.key = Linear(dim, kv_heads * head_dim, bias=bias)
        self.value = Linear(dim, kv_heads * head_dim, bias=bias)
        self.query_norm = nn.RMSNorm(head_dim, eps=1e-6) if head_norm else nn.Identity()
        self.key_norm = nn.RMSNorm(head_dim, eps=1e-6) if head_norm else nn.Identity()
        self.project = Linear(heads * head_dim, dim, bias=False)

    @abstractmethod
    def attend(self, query: Queries, key: Keys, value: Keys) -> Queries:
        """Attention of the last ``queries`` tokens to all tokens, from the first on."""

    def attend_kept(self, query: Queries, key: Keys, value: Keys, position: int) -> Queries:
        """The same where the keys between the cache's first pages and its oldest token are gone.

        ``key, value``: those of the first pages, of the tokens ``cache.oldest(position)`` to ``position - 1``, and the
        queries' own.
        """
        raise NotImplementedError(f"{type(self).__name__} keeps all keys")

    @abstractmethod
    def attend_step(self, query: Queries, key: Keys, value: Keys, position: int) -> Queries:
        """Attention of the one token at ``position`` to the slots of a cache in which it already lies."""

    def forward(
        self, x: Float[Tensor, "batch tokens dim"], documents: Int64[Tensor, "batch tokens"] | None = None
    ) -> Float[Tensor, "batch tokens dim"]:
        token = torch.arange(x.shape[1], device=x.device)[None]
        if documents is None:
            query, key, value = self._projected(x, token)
            return self.project(self.attend(query, key, value).flatten(-2))
        borders = _borders(documents, x)
        query, key, value = self._projected(x, token - torch.where(borders, token, 0).cummax(1).values)
        return self.project(_each_document(self.attend, query, key, value, borders).flatten(-2))

    def start(self, batch: int, like: Tensor) -> State:
        return self.cache.start(batch, like, key=(self.kv_heads, self.head_dim), value=(self.kv_heads, self.head_dim))

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
        query, key, value = self._projected(x, state.position[:, None] + torch.arange(tokens, device=x.device))
        groups = list(_alike(state.position, lengths))
        if tokens == 1:
            self.cache.write(state, tokens, lengths, key=key, value=value)
            parts = [
                self.attend_step(
                    query[rows], self.cache.read(state, "key", rows), self.cache.read(state, "value", rows), position
                )
                for rows, position in groups
            ]
        else:
            parts = [
                self._attend_after(query[rows], key[rows], value[rows], state, rows, position)
                for rows, position in groups
            ]
            self.cache.write(state, tokens, lengths, key=key, value=value)
        if len(groups) == 1 and groups[0][0] == slice(None):
            return self.project(parts[0].flatten(-2))
        out = torch.zeros_like(query)
        for (rows, _), part in zip(groups, parts, strict=True):
            out[rows] = part
        return self.project(out.flatten(-2))

    def state_size(self, length: int) -> int:
        return 2 * self.kv_heads * self.head_dim * self.cache.slots(length)

    def _projected(self, x: Tensor, position: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        query = self.query_norm(self.query(x).unflatten(-1, (self.heads, self.head_dim)))
        key = self.key_norm(self.key(x).unflatten(-1, (self.kv_heads, self.head_dim)))
        value = self.value(x).unflatten(-1, (self.kv_heads, self.head_dim))
        if self.rotary_base is not None:
            dtype = torch.promote_types(x.dtype, torch.float32)
            cosine, sine = turns(position, self.head_dim, base=self.rotary_base, dtype=dtype)
            query, key = rotate(query, cosine, sine), rotate(key, cosine, sine)
        return query, key, value

    def _attend_after(
        self, query: Tensor, key: Tensor, value: Tensor, state: State, rows: slice, position: int
    ) -> Tensor:
        """Attention of new tokens to what the cache has of those before ``position``, and to themselves."""
        if not position:
            return self.attend(query, key, value)
        whole = self.cache.whole(position)
        slots: slice | Tensor = slice(position)
        if not whole:
            token = torch.arange(position, device=query.device)
            token = torch.cat([token[: self.cache.first * self.cache.page], token[self.cache.oldest(position) :]])
            slots = self.cache.slot(token)
        key, value = (
            torch.cat([self.cache.read(state, name, rows)[:, slots].to(new.dtype), new], 1)
            for name, new in (("key", key), ("value", value))
        )
        return self.attend(query, key, value) if whole else self.attend_kept(query, key, value, position)

    def _attention(self, query: Tensor, key: Tensor, value: Tensor, pattern: Pattern | str) -> Tensor:
        return fovea.attention(query, key, value, pattern, backend=self.backend)

    def _joined(self, query: Tensor, *parts: tuple[Tensor, Tensor, Pattern | str]) -> Tensor:
        """Attention to keys and values in parts that do not overlap."""
        found = [
            fovea.attention(query, key, value, pattern, backend=self._backend(query, key, pattern), return_lse=True)
            for key, value, pattern in parts
        ]
        return found[0][0] if len(found) == 1 else merge(found)[0]

    def _backend(self, query: Tensor, key: Tensor, pattern: Pattern | str) -> str:
        """What computes one query's attention to some keys. Nearly equal numbers of keys are planned as one: a cache
        that fills is not planned anew with each token."""
        keys = key.shape[1]
        if self.backend != "auto" or pattern != "full":
            return self.backend
        return fovea.plan(
            pattern,
            1,
            key_grid=1 << (keys - 1).bit_length(),
            batch=len(query),
            heads=self.heads,
            kv_heads=self.kv_heads,
            head_dim=self.head_dim,
            dtype=query.dtype,
            device=query.device,
        ).backend


class FullAttention(LanguageAttention):
    """Every token sees itself and all before it. See :class:`LanguageAttention` for the arguments.

    The cache grows with what is read: ``2 kv_heads head_dim`` numbers a token, in pages of ``PAGE`` tokens.
    """

    PAGE = 64

    def __init__(
        self,
        dim: int,
        heads: int,
        *,
        kv_heads: int | None = None,
        head_dim: int | None = None,
        rotary_base: float | None = 10000.0,
        head_norm: bool = False,
        bias: bool = False,
        backend: str = "auto",
    ) -> None:
        super().__init__(
            dim,
            heads,
            cache=KeyCache(self.PAGE),
            kv_heads=kv_heads,
            head_dim=head_dim,
            rotary_base=rotary_base,
            head_norm=head_norm,
            bias=bias,
            backend=backend,
        )

    def attend(self, query: Queries, key: Keys, value: Keys) -> Queries:
        return self._attention(query, key, value, "causal")

    def attend_step(self, query: Queries, key: Keys, value: Keys, position: int) -> Queries:
        seen = position + 1
        return self._joined(query, (key[:, :seen], value[:, :seen], "full"))


class SlidingWindowAttention(LanguageAttention):
    """Every token sees the last ``window`` tokens, itself included, and the first ``sinks`` of all (StreamingLLM,
    arXiv 2309.17453). See :class:`LanguageAttention` for the other arguments.

    The cache holds ``window + sinks`` tokens at any length.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        *,
        window: int,
        sinks: int = 0,
        kv_heads: int | None = None,
        head_dim: int | None = None,
        rotary_base: float | None = 10000.0,
        head_norm: bool = False,
        bias: bool = False,
        backend: str = "auto",
    ) -> None:
        if window < 1 or sinks < 0:
            raise ValueError(f"window={window}, sinks={sinks}; they must be at least 1 and 0")
        super().__init__(
            dim,
            heads,
            cache=KeyCache(1, first=sinks, ring=window),
            kv_heads=kv_heads,
            head_dim=head_dim,
            rotary_base=rotary_base,
            head_norm=head_norm,
            bias=bias,
            backend=backend,
        )
        self.window, self.sinks = window, sinks
        self._window = SlidingWindow(window - 1)
        self._beginning = Union((self._window, Blocks(sinks, (Sink(1),)))) if sinks else self._window

    def attend(self, query: Queries, key: Keys, value: Keys) -> Queries:
        keys, apart = key.shape[1], self.window + self.sinks
        if not self.sinks or keys <= apart:
            return self._attention(query, key, value, self._beginning if self.sinks else self._window)
        # From here on no window reaches a sink: what both see counts once only before.
        before = max(0, query.shape[1] - (keys - apart))
        late = self._beside_sinks(query[:, before:], key, value)
        if not before:
            return late
        return torch.cat(
            [self._attention(query[:, :before], key[:, :apart], value[:, :apart], self._beginning), late], 1
        )

    def _beside_sinks(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Queries whose windows reach no sink; ``key`` begins with the sinks."""
        held = min(key.shape[1] - self.sinks, query.shape[1] + self.window - 1)
        return fovea.attention(
            query,
            key[:, -held:],
            value[:, -held:],
            self._window,
            extra_key=key[:, : self.sinks] if self.sinks else None,
            extra_value=value[:, : self.sinks] if self.sinks else None,
            backend=self.backend,
        )

    def attend_kept(self, query: Queries, key: Keys, value: Keys, position: int) -> Queries:
        return self._beside_sinks(query, key, value)

    def attend_step(self, query: Queries, key: Keys, value: Keys, position: int) -> Queries:
        seen = min(position + 1, self.window + self.sinks)
        return self._joined(query, (key[:, :seen], value[:, :seen], "full"))

    def extra_repr(self) -> str:
        return f"window={self.window}, sinks={self.sinks}"


class BlockAttention(LanguageAttention):
    """Every token sees the blocks of tokens that ``pattern`` shows it, such as PowerAttention's (arXiv 2503.03588),
    ``Blocks.power(256)``. See :class:`LanguageAttention` for the other arguments.

    A token read alone costs the blocks it sees, at any length. Where the pattern never comes back to a block after some
    distance (``pattern.memory``), the cache is bounded; powers of two come back to every block.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        *,
        pattern: Blocks | str,
        kv_heads: int | None = None,
        head_dim: int | None = None,
        rotary_base: float | None = 10000.0,
        head_norm: bool = False,
        bias: bool = False,
        backend: str = "auto",
    ) -> None:
        found = parse(pattern) if isinstance(pattern, str) else pattern
        if not isinstance(found, Blocks):
            raise ValueError(
                f"pattern={str(pattern)!r}; it must be blocks, e.g. 'blocks:size=64,terms=local(5)+powers'"
            )
        self.pattern = found
        super().__init__(
            dim,
            heads,
            cache=KeyCache(found.size, first=found.sinks, ring=found.memory),
            kv_heads=kv_heads,
            head_dim=head_dim,
            rotary_base=rotary_base,
            head_norm=head_norm,
            bias=bias,
            backend=backend,
        )

    def attend(self, query: Queries, key: Keys, value: Keys) -> Queries:
        return self._attention(query, key, value, self.pattern)

    def attend_kept(self, query: Queries, key: Keys, value: Keys, position: int) -> Queries:
        size, first = self.pattern.size, self.cache.first
        gone = self.cache.oldest(position) // size - first
        blocks = range(position // size, (position + query.shape[1] - 1) // size + 1)
        rows = tuple(
            tuple(block if block < first else block - gone for block in self.pattern.row(row).tolist())
            for row in blocks
        )
        return self._attention(query, key, value, Chosen(size, rows, causal=True))

    def attend_step(self, query: Queries, key: Keys, value: Keys, position: int) -> Queries:
        size = self.pattern.size
        others, own = _blocks_of(self.pattern, self.cache, position // size)
        parts: list[tuple[Tensor, Tensor, Pattern | str]] = [] if others is None else [(key, value, others)]
        if own is not None:
            seen = slice(own, own + position % size + 1)
            parts.append((key[:, seen], value[:, seen], "full"))
        return self._joined(query, *parts) if parts else torch.zeros_like(query)

    def extra_repr(self) -> str:
        return f"pattern={self.pattern}"


@lru_cache(maxsize=4096)
def _blocks_of(pattern: Blocks, cache: KeyCache, block: int) -> tuple[Chosen | None, int | None]:
    """What a token of ``block`` sees in a cache: the earlier blocks, and the slot where its own begins (none if it does
    not see it)."""
    seen = torch.from_numpy(pattern.row(block))
    slots = cache.slot(seen * pattern.size)
    others = (slots[seen < block] // pattern.size).tolist()
    own = slots[seen == block].tolist()
    return Chosen(pattern.size, (tuple(others),)) if others else None, own[0] if own else None


def _alike(position: Tensor, lengths: Tensor | None) -> Iterator[tuple[slice, int]]:
    """Rows to compute at once, and where they stand: all of them where they stand alike, else one by one those that
    have new tokens."""
    places = position.tolist()
    if len(set(places)) == 1 and (lengths is None or bool((lengths > 0).all())):
        yield slice(None), places[0]
        return
    counts = [1] * len(places) if lengths is None else lengths.tolist()
    for row, (place, count) in enumerate(zip(places, counts, strict=True)):
        if count:
            yield slice(row, row + 1), place


def _borders(documents: Tensor, x: Tensor) -> Tensor:
    """``[batch, tokens]``: whether a document begins; ``ValueError`` where numbers do not fit or fall."""
    if documents.shape != x.shape[:2]:
        raise ValueError(
            f"documents has shape {tuple(documents.shape)}; it must be {tuple(x.shape[:2])}, as tokens have"
        )
    step = documents.diff(dim=1, prepend=documents[:, :1] - 1)
    if (step < 0).any():
        raise ValueError("documents fall along a row; the documents packed into a row must be numbered in rising order")
    return step > 0


def _each_document(
    attend: Callable[[Tensor, Tensor, Tensor], Tensor], query: Tensor, key: Tensor, value: Tensor, borders: Tensor
) -> Tensor:
    """Attention of each document alone; those of about one length together. What follows a document up to that length
    stands behind it, where no token of it looks."""
    tokens = borders.shape[1]
    rows, starts = borders.nonzero(as_tuple=True)
    flat = rows * tokens + starts
    lengths = flat.diff(append=flat.new_tensor([borders.numel()]))
    out = torch.empty_like(query).flatten(0, 1)
    rounded = -(-lengths // _LENGTHS) * _LENGTHS
    for length in rounded.unique().tolist():
        chosen = rounded == length
        step = torch.arange(length, device=query.device)
        index = flat[chosen, None] + step
        inside = step < lengths[chosen, None]
        taken = (tensor.flatten(0, 1)[index.clamp(max=borders.numel() - 1)] for tensor in (query, key, value))
        out = out.index_copy(0, index[inside], attend(*taken)[inside])
    return out.unflatten(0, borders.shape)
