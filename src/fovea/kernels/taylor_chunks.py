"""Taylor linear attention in chunks: scores inside a chunk, the memory of what came before across chunks.

Chunks stand first in memory, ``[chunks, rows, ...]`` with ``rows = batch * heads``, and tokens last in all that
features are made of, so that each feature of a chunk is the product of two contiguous rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import sqrt
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from fovea.kernels.taylor_features import feature_size, pairs_of

GROUP = 1 << 17
"""Numbers of one chunk's features, over the heads that are computed together on a processor: 512 KB, so that these, the
scores and the memory stay in its second-level cache."""


class Chunked(torch.autograd.Function):
    """The chunked form, on ``[batch, tokens, heads, ...]``; what is kept for the backward pass is linear in the tokens.

    With ``D_i`` the gradient at ``sums_i = sum_{j<=i} g(q_i.k_j) c_j``, ``c_j = [v_j, 1]``: ``dc_j = sum_i g(s_ij)
    D_i``; ``dq_i = sum_j (D_i.c_j) g'(s_ij) k_j`` and ``dk_j`` likewise, ``g'(s) = 1 + s``. Inside a chunk by the
    scores; across chunks through the features, with the memory of the keys before for queries, and of the queries after
    (weighted by ``D``) for keys.
    """

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        documents: Tensor | None,
        scale: float,
        epsilon: float,
        normalise: bool,
        chunk: int,
    ) -> Tensor:
        with torch.autocast(query.device.type, enabled=False):
            sizes, precision = Sizes.of(value, chunk), precision_of(query)
            q, k = (tables(x.to(precision), sizes, scale) for x in (query, key))
            columns = columns_of(value, sizes, precision)
            out, mass = torch.empty_like(columns[..., :-1]), torch.empty_like(columns[..., -1])
            for at, rows, sums in sums_of(q, k, columns, sizes.documents_of(documents), None):
                mass[at, rows] = sums[..., -1] + epsilon
                out[at, rows] = divided(sums, epsilon, normalise)
        ctx.save_for_backward(query, key, value, documents, out if normalise else None, mass if normalise else None)
        ctx.scale, ctx.sizes = scale, sizes
        return sizes.tokens_of(out).to(value.dtype)

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, gradient: Tensor
    ) -> tuple[Tensor | None, ...]:
        query, key, value, documents, out, mass = ctx.saved_tensors
        sizes, precision = ctx.sizes, precision_of(query)
        with torch.autocast(query.device.type, enabled=False):
            q, k = (tables(x.to(precision), sizes, ctx.scale) for x in (query, key))
            columns, wanted = columns_of(value, sizes, precision), columns_of(gradient, sizes, precision)
            if mass is None:
                wanted[..., -1] = 0
            else:
                wanted /= mass[..., None]
                wanted[..., -1] = -torch.linalg.vecdot(wanted[..., :-1], out)
            grads = _gradients(q, k, columns, wanted, sizes.documents_of(documents))
        root = sqrt(ctx.scale)
        grad_q, grad_k = (sizes.tokens_of(x.transpose(-2, -1)) * root for x in grads[:2])
        grad_value = sizes.tokens_of(grads[2][..., :-1])
        return grad_q.to(query), grad_k.to(key), grad_value.to(value), *[None] * 5


@dataclass(frozen=True)
class Sizes:
    """How tokens are cut: ``[batch, tokens, heads, n] <-> [chunks, batch * heads, chunk, n]``, the end padded."""

    batch: int
    tokens: int
    heads: int
    chunk: int

    @classmethod
    def of(cls, value: Tensor, chunk: int) -> Sizes:
        batch, tokens, heads, _ = value.shape
        return cls(batch, tokens, heads, max(min(chunk, tokens), 1))

    @property
    def chunks(self) -> int:
        return -(-self.tokens // self.chunk)

    def chunks_of(self, x: Tensor) -> Tensor:
        """``[batch, tokens, heads, n] -> [chunks, batch, heads, chunk, n]``, zeros at the padding."""
        padded = F.pad(x, (0, 0, 0, 0, 0, self.chunks * self.chunk - self.tokens))
        return padded.unflatten(1, (self.chunks, self.chunk)).permute(1, 0, 3, 2, 4)

    def tokens_of(self, x: Tensor) -> Tensor:
        """``[chunks, batch * heads, chunk, n] -> [batch, tokens, heads, n]``."""
        x = x.unflatten(1, (self.batch, self.heads)).permute(1, 0, 3, 2, 4)
        return x.flatten(1, 2)[:, : self.tokens]

    def documents_of(self, documents: Tensor | None) -> Tensor | None:
        """``[batch, tokens] -> [batch * heads, chunks * chunk]``; padding belongs to the last document."""
        if documents is None:
            return None
        more = documents[:, -1:].expand(-1, self.chunks * self.chunk - self.tokens)
        return torch.cat([documents, more], 1).repeat_interleave(self.heads, 0)


def tables(x: Tensor, sizes: Sizes, scale: float) -> Tensor:
    """``[batch, tokens, heads, f] -> [chunks, batch * heads, 1 + 2f, chunk]``: the table of each chunk's features."""
    f = x.shape[-1]
    table = x.new_empty(sizes.chunks, sizes.batch, sizes.heads, 1 + 2 * f, sizes.chunk)
    table[..., 0, :] = 1
    torch.mul(sizes.chunks_of(x).transpose(-2, -1), sqrt(scale), out=table[..., 1 : 1 + f, :])
    torch.mul(table[..., 1 : 1 + f, :], sqrt(0.5), out=table[..., 1 + f :, :])
    return table.flatten(1, 2)


def columns_of(value: Tensor, sizes: Sizes, precision: torch.dtype, real: Tensor | None = None) -> Tensor:
    """``[batch, tokens, heads, dim] -> [chunks, batch * heads, chunk, dim + 1]``: ``[v, 1]``, all 0 at padding."""
    dim = value.shape[-1]
    columns = value.new_empty(sizes.chunks, sizes.batch, sizes.heads, sizes.chunk, dim + 1, dtype=precision)
    columns[..., :dim] = sizes.chunks_of(value)
    ones = value.new_ones(sizes.batch, sizes.tokens) if real is None else real.to(precision)
    columns[..., dim:] = sizes.chunks_of(ones[:, :, None, None])
    return columns.flatten(1, 2)


def _groups(rows: int, q: Tensor) -> Iterator[slice]:
    """Rows whose chunks are computed together: on a processor, as many as its second-level cache holds."""
    together = rows if q.device.type != "cpu" else max(1, GROUP // (feature_size(q.shape[-2] // 2) * q.shape[-1]))
    return (slice(start, min(start + together, rows)) for start in range(0, rows, together))


def sums_of(
    q: Tensor, k: Tensor, columns: Tensor, documents: Tensor | None, memory: Tensor | None
) -> Iterator[tuple[int, slice, Tensor]]:
    """``sum_{j<=i} g(q_i.k_j) c_j`` of each chunk and group of rows: ``(chunk, rows, [rows, chunk, dim + 1])``.

    ``memory`` ``[rows, features, dim + 1]``, where given, is what came before, and is brought up to date.
    """
    chunks, rows, width, chunk = q.shape
    pairs = pairs_of(width // 2, "compact", q.device)
    half = q.new_full((chunk, chunk), 0.5).tril_()
    for group in _groups(rows, q):
        if memory is None:
            held = q.new_zeros(group.stop - group.start, len(pairs[0]), columns.shape[-1])
        else:
            held = memory[group]
        for at in range(chunks):
            borders = None if documents is None else _Borders(documents[group], at * chunk, chunk)
            weights, _ = _scores(q[at, group], k[at, group], half, borders)
            if at or memory is not None:
                past = torch.bmm(_phi(q[at, group], pairs).transpose(1, 2), held)
                if borders is not None:
                    past *= borders.continues[..., None]
                yield at, group, past.baddbmm_(weights, columns[at, group])
            else:
                yield at, group, torch.bmm(weights, columns[at, group])
            if at + 1 < chunks or memory is not None:
                _add(held, _phi(k[at, group], pairs), columns[at, group], borders)


def _gradients(
    q: Tensor, k: Tensor, columns: Tensor, gradient: Tensor, documents: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients at queries and keys, ``[chunks, rows, f, chunk]`` before their scale, and at the columns."""
    chunks, rows, width, chunk = q.shape
    x = slice(1, 1 + width // 2)
    pairs = pairs_of(width // 2, "compact", q.device)
    half = q.new_full((chunk, chunk), 0.5).tril_()
    grad_q, grad_k, gradcolumns_of = (
        torch.empty_like(q[:, :, x]),
        torch.empty_like(k[:, :, x]),
        torch.empty_like(columns),
    )
    for group in _groups(rows, q):
        memory = q.new_zeros(group.stop - group.start, len(pairs[0]), columns.shape[-1])
        for at in range(chunks):
            query, key, given, wanted = q[at, group], k[at, group], columns[at, group], gradient[at, group]
            borders = None if documents is None else _Borders(documents[group], at * chunk, chunk)
            weights, slopes = _scores(query, key, half, borders)
            slopes *= torch.bmm(wanted, given.transpose(1, 2))
            grad_q[at, group] = torch.bmm(key[:, x], slopes.transpose(1, 2))
            grad_k[at, group] = torch.bmm(query[:, x], slopes)
            gradcolumns_of[at, group] = torch.bmm(weights.transpose(1, 2), wanted)
            if at:
                ours = wanted if borders is None else wanted * borders.continues[..., None]
                grad_q[at, group] += _phi_backward(query, torch.bmm(memory, ours.transpose(1, 2)), pairs)
            if at + 1 < chunks:
                _add(memory, _phi(key, pairs), given, borders)
        memory.zero_()  # from here on: of the queries behind, sum_i phi(q_i) D_i^T
        for at in reversed(range(chunks)):
            query, key, given, wanted = q[at, group], k[at, group], columns[at, group], gradient[at, group]
            borders = None if documents is None else _Borders(documents[group], at * chunk, chunk)
            if at + 1 < chunks:
                past = torch.bmm(_phi(key, pairs).transpose(1, 2), memory)
                if borders is not None:
                    past, given = past * borders.remembered[..., None], given * borders.remembered[..., None]
                gradcolumns_of[at, group] += past
                grad_k[at, group] += _phi_backward(key, torch.bmm(memory, given.transpose(1, 2)), pairs)
            if at:
                _add(memory, _phi(query, pairs), wanted, borders, backwards=True)
    return grad_q, grad_k, gradcolumns_of


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

    def __init__(self, documents: Tensor, start: int, chunk: int) -> None:
        stop = start + chunk
        inside = documents[:, start:stop]
        self.same = inside[:, :, None] == inside[:, None, :]
        self.continues = inside == documents[:, max(start - 1, 0), None]
        self.remembered = inside == documents[:, min(stop, documents.shape[1] - 1), None]
        self.first = inside == inside[:, :1]
        self.last = inside == inside[:, -1:]
        self.through = self.continues[:, -1]
        self.through_backwards = self.remembered[:, 0]


def _add(memory: Tensor, phi: Tensor, columns: Tensor, borders: _Borders | None, *, backwards: bool = False) -> None:
    """``memory += phi columns``, of the one document that goes on beyond the chunk's end (``backwards``: beginning)."""
    if borders is not None:
        memory *= (borders.through_backwards if backwards else borders.through)[:, None, None]
        columns = columns * (borders.first if backwards else borders.last)[..., None]
    memory.baddbmm_(phi, columns)


def _scores(q: Tensor, k: Tensor, half: Tensor, borders: _Borders | None) -> tuple[Tensor, Tensor]:
    """``g(s)`` and ``g'(s) = 1 + s`` inside a chunk: ``g(s) = (1 + g'(s)^2) / 2``; 0 where a query does not see.

    ``q, k``: tables, whose first ``1 + f`` rows are ``[1, x]``; ``half``: 1/2 in the lower triangle.
    """
    rows = slice(1 + q.shape[1] // 2)
    slopes = torch.bmm(q[:, rows].transpose(1, 2), k[:, rows]).tril_()
    if borders is not None:
        slopes *= borders.same
        half = half * borders.same
    return torch.addcmul(half, slopes, slopes, value=0.5), slopes


def _phi(table: Tensor, pairs: tuple[Tensor, Tensor]) -> Tensor:
    """``[rows, 1 + 2f, tokens] -> [rows, features, tokens]``; rows of tokens are gathered whole, which is fast."""
    return table.index_select(1, pairs[0]).mul_(table.index_select(1, pairs[1]))


def _phi_backward(table: Tensor, gradient: Tensor, pairs: tuple[Tensor, Tensor]) -> Tensor:
    """The gradient at ``x`` ``[rows, f, tokens]`` from that at the features of its table."""
    f = table.shape[1] // 2
    found = torch.zeros_like(table)
    found.index_add_(1, pairs[0], table.index_select(1, pairs[1]).mul_(gradient))
    found.index_add_(1, pairs[1], table.index_select(1, pairs[0]).mul_(gradient))
    return found[:, 1 : 1 + f].add_(found[:, 1 + f :], alpha=sqrt(0.5))


def precision_of(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def divided(sums: Tensor, epsilon: float, normalise: bool) -> Tensor:
    return sums[..., :-1] / (sums[..., -1:] + epsilon) if normalise else sums[..., :-1]
