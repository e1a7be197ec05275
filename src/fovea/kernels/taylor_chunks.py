"""Taylor linear attention in chunks: scores inside a chunk, the memory of what came before across chunks.

A chunk of some rows (``rows = batch * heads``) is brought into buffers that the next chunk uses again and that a
processor's second-level cache holds; beside them only what goes in and comes out is as long as the sequence. Tokens
stand last in all that features are made of, so that a feature of a chunk is the product of two contiguous rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import sqrt
from typing import Any

import torch
from torch import Tensor

from fovea.kernels.taylor_features import feature_size, pairs_of

GROUP = 1 << 17
"""Numbers of one chunk's features, over the rows that are computed together on a processor: 512 KB."""


@dataclass(frozen=True)
class How:
    """What the forms share beside tensors: scale of the logits, epsilon and presence of the denominator, tokens a
    chunk."""

    scale: float
    epsilon: float
    normalise: bool
    chunk: int


@torch.library.custom_op("fovea::taylor", mutates_args=())
def _forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    documents: Tensor | None,
    scale: float,
    epsilon: float,
    normalise: bool,
    chunk: int,
) -> tuple[Tensor, Tensor]:
    with torch.autocast(query.device.type, enabled=False):
        mass = query.new_empty(query.shape[:3], dtype=precision_of(query))
        how = How(scale, epsilon, normalise, chunk)
        return mixed(query, key, value, how, documents=documents, mass=mass).to(value.dtype), mass


@torch.library.custom_op("fovea::taylor_backward", mutates_args=())
def _backward(
    gradient: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    mass: Tensor,
    documents: Tensor | None,
    scale: float,
    epsilon: float,
    normalise: bool,
    chunk: int,
) -> tuple[Tensor, Tensor, Tensor]:
    with torch.autocast(query.device.type, enabled=False):
        how = How(scale, epsilon, normalise, chunk)
        found = gradients(query, key, value, gradient, how, documents=documents, out=out, mass=mass)
        at_query, at_key, at_value = (grad.to(x.dtype) for grad, x in zip(found, (query, key, value), strict=True))
        return at_query, at_key, at_value


@_forward.register_fake
def _(query, key, value, documents, scale, epsilon, normalise, chunk):
    return value.new_empty(value.shape), query.new_empty(query.shape[:3], dtype=precision_of(query))


@_backward.register_fake
def _(gradient, query, key, value, out, mass, documents, scale, epsilon, normalise, chunk):
    return tuple(x.new_empty(x.shape) for x in (query, key, value))


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    query, key, value, documents, *ctx.words = inputs
    ctx.save_for_backward(query, key, value, *output, documents)


def _differentiate(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    return *torch.ops.fovea.taylor_backward(gradient, *ctx.saved_tensors, *ctx.words), *[None] * 5


def _refuse_double(ctx: Any, *grads: Tensor) -> None:
    raise NotImplementedError(
        "chunked Taylor attention has no gradients of gradients; fovea.kernels.taylor.quadratic has"
    )


_forward.register_autograd(_differentiate, setup_context=_save)
_backward.register_autograd(_refuse_double)


def mixed(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    how: How,
    *,
    documents: Tensor | None = None,
    memory: Tensor | None = None,
    real: Tensor | None = None,
    mass: Tensor | None = None,
) -> Tensor:
    """The outputs ``[batch, tokens, heads, dim]`` in the precision of sums.

    Args:
        query, key, value, documents, memory, real: as :func:`fovea.kernels.taylor.read` has them; ``memory``, where
            given, is brought up to date.
        how: the rest.
        mass: ``[batch, tokens, heads]``, where the denominators are written.
    """
    out = torch.empty_like(value, dtype=precision_of(query), memory_format=torch.contiguous_format)
    buffers = _Buffers(precision_of(query), how.scale)
    for batch, heads in _groups(query, how.chunk):
        held = None if memory is None else memory[batch, heads].flatten(0, 1)
        begun = held is not None
        for here in _chunks(query, how.chunk):
            place, last = (batch, here, heads), here.stop == query.shape[1]
            work = buffers.of(query[place], value[place])
            work.load(query[place], key[place], value[place], None if real is None else real[batch, here])
            borders = None if documents is None else _Borders(documents[batch], here, work.heads)
            sums = work.sums(held if here.start or begun else None, borders)
            sums[..., -1] += how.epsilon
            if mass is not None:
                mass[place] = sums[..., -1].transpose(1, 2)
            if how.normalise:
                torch.div(sums[..., :-1], sums[..., -1:], out=out[place].transpose(1, 2))
            else:
                out[place] = sums[..., :-1].transpose(1, 2)
            if begun or not last:
                held = work.new_memory() if held is None else held
                work.add(held, work.phi(work.k), work.columns, borders)
        if memory is not None and held is not None:
            memory[batch, heads] = held.view_as(memory[batch, heads])
    return out


def gradients(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    gradient: Tensor,
    how: How,
    *,
    documents: Tensor | None,
    out: Tensor,
    mass: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients at query, key and value from that at the outputs ``out``, whose denominators are ``mass``.

    With ``D_i`` the gradient at ``sums_i = sum_{j<=i} g(q_i.k_j) c_j``, ``c_j = [v_j, 1]``: ``dc_j = sum_i g(s_ij)
    D_i``; ``dq_i = sum_j (D_i.c_j) g'(s_ij) k_j`` and ``dk_j`` likewise, ``g'(s) = 1 + s``. Inside a chunk by the
    scores; across chunks through the features, with the memory of the keys before for queries, and of the queries after
    (weighted by ``D``) for keys.
    """
    grad_query, grad_key, grad_value = (
        torch.empty_like(x, dtype=precision_of(query), memory_format=torch.contiguous_format)
        for x in (query, key, value)
    )
    root, tokens = sqrt(how.scale), query.shape[1]
    chunks, buffers = _chunks(query, how.chunk), _Buffers(precision_of(query), how.scale)
    for batch, heads in _groups(query, how.chunk):
        memory: Tensor | None = None
        for here in chunks:
            place = (batch, here, heads)
            work = buffers.of(query[place], value[place])
            work.load(query[place], key[place], value[place], None)
            wanted = work.wanted(gradient[place], out[place], mass[place], how.normalise)
            borders = None if documents is None else _Borders(documents[batch], here, work.heads)
            weights, slopes = work.scores(borders)
            slopes *= torch.bmm(wanted, work.columns.transpose(1, 2))
            at_query = torch.bmm(work.x(work.k), slopes.transpose(1, 2))
            if memory is not None:
                ours = wanted if borders is None else wanted * borders.continues[..., None]
                at_query += work.phi_backward(work.q, torch.bmm(memory, ours.transpose(1, 2)))
            torch.mul(work.apart(at_query).transpose(2, 3), root, out=grad_query[place].transpose(1, 2))
            torch.mul(
                work.apart(torch.bmm(work.x(work.q), slopes)).transpose(2, 3), root, out=grad_key[place].transpose(1, 2)
            )
            grad_value[place] = work.apart(torch.bmm(weights.transpose(1, 2), wanted)[..., :-1]).transpose(1, 2)
            if here.stop < tokens:
                memory = work.new_memory() if memory is None else memory
                work.add(memory, work.phi(work.k), work.columns, borders)
        behind: Tensor | None = None  # of the queries behind: sum_i phi(q_i) D_i^T
        for here in reversed(chunks):
            place = (batch, here, heads)
            work = buffers.of(query[place], value[place])
            work.load(query[place], key[place], value[place], None)
            borders = None if documents is None else _Borders(documents[batch], here, work.heads)
            if behind is not None:
                past, given = torch.bmm(work.phi(work.k).transpose(1, 2), behind), work.columns
                if borders is not None:
                    past, given = past * borders.remembered[..., None], given * borders.remembered[..., None]
                grad_value[place] += work.apart(past[..., :-1]).transpose(1, 2)
                at_key = work.phi_backward(work.k, torch.bmm(behind, given.transpose(1, 2)))
                grad_key[place].add_(work.apart(at_key).permute(0, 3, 1, 2), alpha=root)
            if here.start:
                behind = work.new_memory() if behind is None else behind
                wanted = work.wanted(gradient[place], out[place], mass[place], how.normalise)
                work.add(behind, work.phi(work.q), wanted, borders, backwards=True)
    return grad_query, grad_key, grad_value


class _Work:
    """One chunk of some rows in buffers: ``rows = batch * heads``, tokens last in the tables.

    Attributes:
        q, k: ``[rows, 1 + 2f, chunk]``: 1, ``x`` and ``x / sqrt(2)``, where ``q.k`` is the logit.
        columns: ``[rows, chunk, dim + 1]``: values, and a last column of ones.
    """

    def __init__(self, batch: int, chunk: int, heads: int, f: int, dim: int, like: Tensor, scale: float) -> None:
        rows = batch * heads
        self.batch, self.heads, self.f, self.root = batch, heads, f, sqrt(scale)
        self.pairs = pairs_of(f, "compact", like.device)
        self.q, self.k = (like.new_ones(rows, 1 + 2 * f, chunk) for _ in range(2))
        self.columns, self._wanted = (like.new_ones(rows, chunk, dim + 1) for _ in range(2))
        self._sums = like.new_empty(rows, chunk, dim + 1)
        self._phi, self._other = (like.new_empty(rows, len(self.pairs[0]), chunk) for _ in range(2))
        self._slopes, self._weights = (like.new_empty(rows, chunk, chunk) for _ in range(2))
        self._half = like.new_full((chunk, chunk), 0.5).tril_()

    def load(self, query: Tensor, key: Tensor, value: Tensor, real: Tensor | None) -> None:
        """Bring in ``[batch, chunk, heads, ...]``; what is not ``real`` ``[batch, chunk]`` counts nothing as a key."""
        for table, x in ((self.q, query), (self.k, key)):
            rows = self.apart(table)
            rows[:, :, 1 : 1 + self.f] = x.permute(0, 2, 3, 1)
            torch.mul(self.x(table), self.root, out=self.x(table))
            torch.mul(self.x(table), sqrt(0.5), out=table[:, 1 + self.f :])
        columns = self.apart(self.columns)
        columns[..., :-1] = value.transpose(1, 2)
        if real is not None:
            columns[..., -1] = 1
            columns *= real[:, None, :, None]

    def wanted(self, gradient: Tensor, out: Tensor, mass: Tensor, normalise: bool) -> Tensor:
        """The gradient at the sums, ``[rows, chunk, dim + 1]``, from that at the outputs."""
        rows = self.apart(self._wanted)
        rows[..., :-1], rows[..., -1] = gradient.transpose(1, 2), 0
        if normalise:
            rows[..., :-1] /= mass.transpose(1, 2)[..., None]
            rows[..., -1] = -(rows[..., :-1] * out.transpose(1, 2)).sum(-1)
        return self._wanted

    def sums(self, memory: Tensor | None, borders: _Borders | None) -> Tensor:
        """``sum_{j<=i} g(q_i.k_j) c_j``, ``[batch, heads, chunk, dim + 1]``; ``memory`` holds what came before."""
        weights, _ = self.scores(borders)
        if memory is None:
            return self.apart(torch.bmm(weights, self.columns, out=self._sums))
        sums = torch.bmm(self.phi(self.q).transpose(1, 2), memory, out=self._sums)
        if borders is not None:
            sums *= borders.continues[..., None]
        return self.apart(sums.baddbmm_(weights, self.columns))

    def scores(self, borders: _Borders | None) -> tuple[Tensor, Tensor]:
        """``g(s)`` and ``g'(s) = 1 + s`` inside the chunk, ``g(s) = (1 + g'(s)^2) / 2``; 0 where no query sees."""
        rows, half = slice(1 + self.f), self._half
        slopes = torch.bmm(self.q[:, rows].transpose(1, 2), self.k[:, rows], out=self._slopes).tril_()
        if borders is not None:
            slopes *= borders.same
            half = half * borders.same
        return torch.addcmul(half, slopes, slopes, value=0.5, out=self._weights), slopes

    def phi(self, table: Tensor) -> Tensor:
        """The features ``[rows, features, chunk]`` of a table."""
        torch.index_select(table, 1, self.pairs[0], out=self._phi)
        return self._phi.mul_(torch.index_select(table, 1, self.pairs[1], out=self._other))

    def phi_backward(self, table: Tensor, gradient: Tensor) -> Tensor:
        """The gradient at ``x`` ``[rows, f, chunk]`` from that at the features of its table."""
        found = torch.zeros_like(table)
        for one, other in (self.pairs, self.pairs[::-1]):
            torch.index_select(table, 1, other, out=self._other)
            found.index_add_(1, one, self._other.mul_(gradient))
        return self.x(found).add_(found[:, 1 + self.f :], alpha=sqrt(0.5))

    def add(
        self, memory: Tensor, phi: Tensor, columns: Tensor, borders: _Borders | None, *, backwards: bool = False
    ) -> None:
        """``memory += phi columns``, of the one document that goes on beyond the chunk's end (or beginning)."""
        if borders is not None:
            memory *= (borders.through_backwards if backwards else borders.through)[:, None, None]
            columns = columns * (borders.first if backwards else borders.last)[..., None]
        memory.baddbmm_(phi, columns)

    def new_memory(self) -> Tensor:
        return self._sums.new_zeros(len(self.q), len(self.pairs[0]), self.columns.shape[-1])

    def x(self, table: Tensor) -> Tensor:
        """The rows of a table that are the query or key itself."""
        return table[:, 1 : 1 + self.f]

    def apart(self, rows: Tensor) -> Tensor:
        """``[rows, ...] -> [batch, heads, ...]``."""
        return rows.view(self.batch, self.heads, *rows.shape[1:])


class _Buffers:
    """The buffers of one pass: those of full chunks, and of what is left at the ends."""

    def __init__(self, precision: torch.dtype, scale: float) -> None:
        self.precision, self.scale = precision, scale
        self.made: dict[tuple[int, ...], _Work] = {}

    def of(self, query: Tensor, value: Tensor) -> _Work:
        """The buffers for a chunk ``[batch, chunk, heads, ...]``."""
        batch, chunk, heads, f = query.shape
        work = self.made.get((batch, chunk, heads))
        if work is None:
            like = query.new_empty(0, dtype=self.precision)
            work = self.made[batch, chunk, heads] = _Work(batch, chunk, heads, f, value.shape[-1], like, self.scale)
        return work


class _Borders:
    """How documents cut one chunk: what of it goes on from the chunk before, and what into the chunk behind.

    A memory that crosses the border of two chunks is of one document only: that of the last token before the border for
    keys, that of the first token behind it for queries (in the backward pass).

    Attributes:
        same: ``[rows, tokens, tokens]``: both tokens are of one document.
        continues: ``[rows, tokens]``: of the document that ended the chunk before.
        remembered: ``[rows, tokens]``: of the document that begins the chunk behind.
        first, last: ``[rows, tokens]``: of the document of the chunk's first, and last, token.
        through: ``[rows]``: one document reaches from the chunk before through this one.
        through_backwards: ``[rows]``: one document reaches from the chunk behind through this one.
    """

    def __init__(self, documents: Tensor, here: slice, heads: int) -> None:
        documents = documents[:, max(here.start - 1, 0) : here.stop + 1].repeat_interleave(heads, 0)
        offset = min(here.start, 1)
        inside = documents[:, offset : offset + here.stop - here.start]
        self.same = inside[:, :, None] == inside[:, None, :]
        self.continues, self.remembered = inside == documents[:, :1], inside == documents[:, -1:]
        self.first, self.last = inside == inside[:, :1], inside == inside[:, -1:]
        self.through, self.through_backwards = self.continues[:, -1], self.remembered[:, 0]


def precision_of(x: Tensor) -> torch.dtype:
    """Of sums: float64 for float64, else float32."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def divided(sums: Tensor, epsilon: float, normalise: bool) -> Tensor:
    """``[..., dim + 1] -> [..., dim]``: by the last column, or without it."""
    return sums[..., :-1] / (sums[..., -1:] + epsilon) if normalise else sums[..., :-1]


def _chunks(query: Tensor, chunk: int) -> list[slice]:
    tokens = query.shape[1]
    return [slice(start, min(start + chunk, tokens)) for start in range(0, tokens, chunk)]


def _groups(query: Tensor, chunk: int) -> Iterator[tuple[slice, slice]]:
    """Batch elements and heads that are computed together: all of them, but on a processor what its cache holds."""
    batch, tokens, heads, f = query.shape
    together = batch * heads
    if query.device.type == "cpu":
        together = min(together, max(1, GROUP // (feature_size(f) * max(min(chunk, tokens), 1))))
    rows, columns = max(1, together // max(heads, 1)), min(together, heads)
    for row in range(0, batch, rows):
        for head in range(0, heads, max(columns, 1)):
            yield slice(row, row + rows), slice(head, head + columns)
