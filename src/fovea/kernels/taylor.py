"""Linear attention with the second-order Taylor expansion of the exponential (Based, arXiv 2402.18668, section 4.1).

``out_i = sum_{j<=i} g(s_ij) v_j / (sum_{j<=i} g(s_ij) + epsilon)`` with ``s = scale q.k`` and ``g(s) = 1 + s + s^2/2``,
which is the inner product ``phi(q).phi(k)`` of a feature map. What the past is to all later tokens is therefore one
matrix of fixed size a head, ``sum_j phi(k_j) [v_j, 1]^T``: the *memory*; its last column, for which every value is 1,
holds the normaliser.

Four forms compute the same: :func:`quadratic` (the definition), :func:`recurrent` (token by token), :func:`scan` (a
prefix sum) and :func:`chunked` (fast, with a backward pass of its own); :func:`read` is ``chunked`` for decoding, with
a memory that it brings up to date. Sums are float32 whatever the inputs are, or float64 for float64 inputs.

Shapes: query and key ``[batch, tokens, heads, feature_dim]``, value ``[batch, tokens, heads, dim]``, memory
``[batch, heads, features, dim + 1]``. ``documents`` ``[batch, tokens]`` numbers the documents packed into a row, rising
along it; no token sees across a border.
"""

from __future__ import annotations

from functools import lru_cache
from math import sqrt
from typing import Any, Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.autograd.function import once_differentiable

Features = Literal["compact", "full"]
EPSILON = 1e-12
CHUNK = 64
"""Tokens whose scores are computed directly: with it a chunk's features stay in a processor's second-level cache."""


def feature_size(feature_dim: int, features: Features = "compact") -> int:
    """Length of ``phi(x)``: ``1 + f + f(f+1)/2`` compact (153 for f = 16), ``1 + f + f^2`` full (273).

    >>> feature_size(16), feature_size(16, "full")
    (153, 273)
    """
    if feature_dim < 1:
        raise ValueError(f"feature_dim={feature_dim}; it must be at least 1")
    products = feature_dim * (feature_dim + 1) // 2 if features == "compact" else feature_dim**2
    return 1 + feature_dim + products


def feature_map(
    x: Float[Tensor, "*rows feature_dim"], features: Features = "compact", scale: float | None = None
) -> Float[Tensor, "*rows features"]:
    """``phi(x)``, with ``phi(q).phi(k) = 1 + s + s^2/2`` for ``s = scale q.k``.

    ``[1; x sqrt(scale); vec(x x^T) scale / sqrt(2)]``. The outer product is symmetric: the compact map holds each
    product of two different entries once, ``sqrt(2)`` times as large, in the order of the upper triangle's rows.

    Args:
        x: a query or a key.
        features: which map.
        scale: of the inner product; ``feature_dim ** -0.5`` unless given.
    """
    first, second = _pairs(x.shape[-1], features, x.device)
    table = _table(x.unsqueeze(-1), _scale(x, scale)).squeeze(-1)
    return table.index_select(-1, first) * table.index_select(-1, second)


def full_memory(memory: Float[Tensor, "*rows features columns"], feature_dim: int) -> Tensor:
    """A memory of the compact map as that of the full map: ``[..., 1 + f + f^2, columns]``."""
    compact = feature_size(feature_dim)
    if memory.shape[-2] != compact:
        raise ValueError(f"memory has {memory.shape[-2]} features; {compact} are those of feature_dim={feature_dim}")
    rows, columns = torch.triu_indices(feature_dim, feature_dim)
    place = torch.empty(feature_dim, feature_dim, dtype=torch.long)
    place[rows, columns] = place[columns, rows] = torch.arange(len(rows)) + 1 + feature_dim
    weight = torch.full((feature_dim, feature_dim), sqrt(0.5)).fill_diagonal_(1.0)
    order = torch.cat([torch.arange(1 + feature_dim), place.flatten()]).to(memory.device)
    weights = torch.cat([torch.ones(1 + feature_dim), weight.flatten()]).to(memory)
    return memory.index_select(-2, order) * weights[:, None]


def new_memory(
    batch: int, heads: int, feature_dim: int, dim: int, like: Tensor, features: Features = "compact"
) -> Float[Tensor, "batch heads features columns"]:
    """The memory before the first token, all zeros, on the device of ``like``; float64 if that is, else float32."""
    return torch.zeros(
        batch, heads, feature_size(feature_dim, features), dim + 1, dtype=_precision(like), device=like.device
    )


def quadratic(
    query: Float[Tensor, "batch tokens heads feature_dim"],
    key: Float[Tensor, "batch tokens heads feature_dim"],
    value: Float[Tensor, "batch tokens heads dim"],
    *,
    scale: float | None = None,
    epsilon: float = EPSILON,
    normalise: bool = True,
    documents: Int64[Tensor, "batch tokens"] | None = None,
) -> Float[Tensor, "batch tokens heads dim"]:
    """The definition: all scores at once, lower triangle. ``normalise=False`` leaves out the denominator."""
    q, k, v = (x.to(_precision(query)).transpose(1, 2) for x in (query, key, value))
    logits = q @ k.transpose(-2, -1) * _scale(query, scale)
    weights = (1 + logits + logits.square() / 2).tril()
    if documents is not None:
        weights = weights * (documents[:, None, :, None] == documents[:, None, None, :])
    return _divided(weights @ _with_ones(v), epsilon, normalise).transpose(1, 2).to(value.dtype)


def recurrent(
    query: Float[Tensor, "batch tokens heads feature_dim"],
    key: Float[Tensor, "batch tokens heads feature_dim"],
    value: Float[Tensor, "batch tokens heads dim"],
    memory: Float[Tensor, "batch heads features columns"] | None = None,
    *,
    scale: float | None = None,
    epsilon: float = EPSILON,
    normalise: bool = True,
    documents: Int64[Tensor, "batch tokens"] | None = None,
    features: Features = "compact",
) -> tuple[Float[Tensor, "batch tokens heads dim"], Float[Tensor, "batch heads features columns"]]:
    """Token by token, differentiable: the outputs and the memory after the last token.

    Args:
        memory: after the tokens before these; none at the beginning.
    """
    batch, tokens, heads, feature_dim = query.shape
    if memory is None:
        memory = new_memory(batch, heads, feature_dim, value.shape[-1], query, features)
    precision = _precision(query)
    columns, out = _with_ones(value.to(precision)), []
    for token in range(tokens):
        if documents is not None and token:
            same = documents[:, token] == documents[:, token - 1]
            memory = memory * same[:, None, None, None]
        phi_key = feature_map(key[:, token].to(precision), features, scale)
        memory = memory + phi_key.unsqueeze(-1) * columns[:, token].unsqueeze(-2)
        phi_query = feature_map(query[:, token].to(precision), features, scale)
        out.append((phi_query.unsqueeze(-2) @ memory).squeeze(-2))
    sums = torch.stack(out, 1) if out else columns
    return _divided(sums, epsilon, normalise).to(value.dtype), memory


def scan(
    query: Float[Tensor, "batch tokens heads feature_dim"],
    key: Float[Tensor, "batch tokens heads feature_dim"],
    value: Float[Tensor, "batch tokens heads dim"],
    *,
    scale: float | None = None,
    epsilon: float = EPSILON,
    normalise: bool = True,
    features: Features = "compact",
) -> Float[Tensor, "batch tokens heads dim"]:
    """The prefix sum over all tokens at once: needs ``tokens * features * dim`` numbers, and no order of evaluation."""
    precision = _precision(query)
    phi_query, phi_key = (feature_map(x.to(precision), features, scale) for x in (query, key))
    memories = (phi_key.unsqueeze(-1) * _with_ones(value.to(precision)).unsqueeze(-2)).cumsum(1)
    sums = (phi_query.unsqueeze(-2) @ memories).squeeze(-2)
    return _divided(sums, epsilon, normalise).to(value.dtype)


def chunked(
    query: Float[Tensor, "batch tokens heads feature_dim"],
    key: Float[Tensor, "batch tokens heads feature_dim"],
    value: Float[Tensor, "batch tokens heads dim"],
    *,
    scale: float | None = None,
    epsilon: float = EPSILON,
    normalise: bool = True,
    documents: Int64[Tensor, "batch tokens"] | None = None,
    chunk: int = CHUNK,
) -> Float[Tensor, "batch tokens heads dim"]:
    """Scores inside chunks, the memory of what came before across them: time and space linear in the tokens.

    Only the features of one chunk exist at a time, forward and backward; the backward pass computes them again.
    """
    if chunk < 1:
        raise ValueError(f"chunk={chunk}; it must be at least 1")
    root = sqrt(_scale(query, scale))
    with torch.autocast(query.device.type, enabled=False):
        precision = _precision(query)
        q, k = (_rows(x.to(precision)).transpose(1, 2).contiguous() * root for x in (query, key))
        columns = _rows(_with_ones(value.to(precision))).contiguous()
        rows = None if documents is None else documents.repeat_interleave(query.shape[2], 0)
        sums = _Sums.apply(q, k, columns, rows, chunk)
        return _unrows(_divided(sums, epsilon, normalise), len(query)).to(value.dtype)


@torch.no_grad()
def read(
    query: Float[Tensor, "batch tokens heads feature_dim"],
    key: Float[Tensor, "batch tokens heads feature_dim"],
    value: Float[Tensor, "batch tokens heads dim"],
    memory: Float[Tensor, "batch heads features columns"],
    *,
    real: Tensor | None = None,
    scale: float | None = None,
    epsilon: float = EPSILON,
    normalise: bool = True,
    chunk: int = CHUNK,
) -> Float[Tensor, "batch tokens heads dim"]:
    """The next tokens of each row after what ``memory`` (of the compact map) holds; it is brought up to date in place.

    Args:
        real: ``[batch, tokens]``, false at padding, which leaves no trace in the memory; none where all are real.
    """
    wanted = (*query.shape[:1], query.shape[2], feature_size(query.shape[-1]), value.shape[-1] + 1)
    if memory.shape != wanted:
        raise ValueError(f"memory has shape {tuple(memory.shape)}; these tokens need {wanted}")
    with torch.autocast(query.device.type, enabled=False):
        columns = _with_ones(value.to(memory.dtype))
        if real is not None:
            columns = columns * real[:, :, None, None]
        held = memory.flatten(0, 1)
        if query.shape[1] == 1:
            phi_query, phi_key = (feature_map(x[:, 0].to(memory.dtype), scale=scale) for x in (query, key))
            held.baddbmm_(phi_key.flatten(0, 1).unsqueeze(-1), columns[:, 0].flatten(0, 1).unsqueeze(-2))
            sums = (phi_query.flatten(0, 1).unsqueeze(-2) @ held).unflatten(0, memory.shape[:2]).transpose(1, 2)
            return _divided(sums, epsilon, normalise).to(value.dtype)
        root = sqrt(_scale(query, scale))
        q, k = (_rows(x.to(memory.dtype)).transpose(1, 2).contiguous() * root for x in (query, key))
        sums = _forward(q, k, _rows(columns).contiguous(), None, chunk, held)
        return _unrows(_divided(sums, epsilon, normalise), len(query)).to(value.dtype)


class _Sums(torch.autograd.Function):
    """``sums_i = sum_{j<=i} g(q_i.k_j) columns_j``; q, k ``[rows, f, tokens]``, columns and sums ``[rows, tokens, c]``.

    Backward, with ``D`` the gradient of the sums: ``dcolumns_j = sum_i g(s_ij) D_i``; ``dq_i = sum_j (D_i.columns_j)
    g'(s_ij) k_j`` and ``dk_j`` likewise, ``g'(s) = 1 + s``. Inside a chunk by the scores; across chunks through the
    features, with the memory of the keys before for queries, and of the queries after (weighted by ``D``) for keys.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, columns: Tensor, documents: Tensor | None, chunk: int) -> Tensor:
        ctx.save_for_backward(q, k, columns, documents)
        ctx.chunk = chunk
        return _forward(q, k, columns, documents, chunk, None)

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, gradient: Tensor
    ) -> tuple[Tensor | None, ...]:
        q, k, columns, documents = ctx.saved_tensors
        with torch.autocast(q.device.type, enabled=False):
            return *_backward(q, k, columns, documents, ctx.chunk, gradient.contiguous()), None, None


def _forward(
    q: Tensor, k: Tensor, columns: Tensor, documents: Tensor | None, chunk: int, memory: Tensor | None
) -> Tensor:
    """The sums; ``memory`` ``[rows, features, c]``, where given, is what came before, and is brought up to date."""
    rows, feature_dim, tokens = q.shape
    pairs = _pairs(feature_dim, "compact", q.device)
    keep = memory is not None
    if memory is None:
        memory = q.new_zeros(rows, feature_size(feature_dim), columns.shape[-1])
    sums = torch.empty_like(columns)
    for start in range(0, tokens, chunk):
        here = slice(start, min(start + chunk, tokens))
        borders = None if documents is None else _Borders(documents, here)
        weights, _ = _scores(q[..., here], k[..., here], borders)
        inside = torch.bmm(weights, columns[:, here])
        if start or keep:
            past = torch.bmm(_phi(q[..., here], pairs).transpose(1, 2), memory)
            inside += past if borders is None else past * borders.continues[..., None]
        sums[:, here] = inside
        if keep or here.stop < tokens:
            _add(memory, _phi(k[..., here], pairs), columns[:, here], borders)
    return sums


def _backward(
    q: Tensor, k: Tensor, columns: Tensor, documents: Tensor | None, chunk: int, gradient: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    rows, feature_dim, tokens = q.shape
    pairs = _pairs(feature_dim, "compact", q.device)
    grad_q, grad_k, grad_columns = torch.empty_like(q), torch.empty_like(k), torch.empty_like(columns)
    starts = range(0, tokens, chunk)
    memory = q.new_zeros(rows, feature_size(feature_dim), columns.shape[-1])
    for start in starts:
        here = slice(start, min(start + chunk, tokens))
        borders = None if documents is None else _Borders(documents, here)
        weights, slopes = _scores(q[..., here], k[..., here], borders)
        slopes *= torch.bmm(gradient[:, here], columns[:, here].transpose(1, 2))
        grad_q[..., here] = torch.bmm(k[..., here], slopes.transpose(1, 2))
        grad_k[..., here] = torch.bmm(q[..., here], slopes)
        grad_columns[:, here] = torch.bmm(weights.transpose(1, 2), gradient[:, here])
        if start:
            ours = gradient[:, here] if borders is None else gradient[:, here] * borders.continues[..., None]
            grad_q[..., here] += _phi_backward(q[..., here], torch.bmm(memory, ours.transpose(1, 2)), pairs)
        if here.stop < tokens:
            _add(memory, _phi(k[..., here], pairs), columns[:, here], borders)
    memory.zero_()  # from here on: of the queries behind, sum_i phi(q_i) D_i^T
    for start in reversed(starts):
        here = slice(start, min(start + chunk, tokens))
        borders = None if documents is None else _Borders(documents, here)
        if here.stop < tokens:
            past = torch.bmm(_phi(k[..., here], pairs).transpose(1, 2), memory)
            theirs = columns[:, here]
            if borders is not None:
                past, theirs = past * borders.remembered[..., None], theirs * borders.remembered[..., None]
            grad_columns[:, here] += past
            grad_k[..., here] += _phi_backward(k[..., here], torch.bmm(memory, theirs.transpose(1, 2)), pairs)
        if start:
            _add(memory, _phi(q[..., here], pairs), gradient[:, here], borders, backwards=True)
    return grad_q, grad_k, grad_columns


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

    def __init__(self, documents: Tensor, here: slice) -> None:
        inside = documents[:, here]
        before = documents[:, max(here.start - 1, 0), None]
        behind = documents[:, min(here.stop, documents.shape[1] - 1), None]
        self.same = inside[:, :, None] == inside[:, None, :]
        self.continues = inside == before
        self.last = inside == inside[:, -1:]
        self.first = inside == inside[:, :1]
        self.remembered = inside == behind
        self.through = self.continues[:, -1]
        self.through_backwards = self.remembered[:, 0]


def _add(memory: Tensor, phi: Tensor, columns: Tensor, borders: _Borders | None, *, backwards: bool = False) -> None:
    """``memory += phi columns``, of the one document that goes on beyond the chunk's end (``backwards``: beginning)."""
    if borders is not None:
        memory *= (borders.through_backwards if backwards else borders.through)[:, None, None]
        columns = columns * (borders.first if backwards else borders.last)[..., None]
    memory.baddbmm_(phi, columns)


def _scores(q: Tensor, k: Tensor, borders: _Borders | None) -> tuple[Tensor, Tensor]:
    """``g(s)`` and ``g'(s) = 1 + s`` inside a chunk: ``g(s) = (1 + g'(s)^2) / 2``; 0 where a query does not see."""
    slopes = torch.bmm(q.transpose(1, 2), k).add_(1)
    weights = slopes.square().add_(1).mul_(0.5).tril_()
    slopes.tril_()
    if borders is not None:
        weights, slopes = weights * borders.same, slopes * borders.same
    return weights, slopes


@lru_cache(maxsize=32)
def _pairs(feature_dim: int, features: Features, device: torch.device) -> tuple[Tensor, Tensor]:
    """The two rows of :func:`_table` whose product each feature is."""
    feature_size(feature_dim, features)
    one, rows = [0] * (1 + feature_dim), range(1, 1 + feature_dim)
    if features == "compact":
        products = [(i + feature_dim if i == j else i, j) for i in rows for j in rows if i <= j]
    else:
        products = [(i + feature_dim, j) for i in rows for j in rows]
    first = torch.tensor([*one, *(i for i, _ in products)], device=device)
    second = torch.tensor([*range(1 + feature_dim), *(j for _, j in products)], device=device)
    return first, second


def _table(x: Tensor, scale: float = 1.0) -> Tensor:
    """``[..., f, tokens] -> [..., 1 + 2f, tokens]``: 1, ``sqrt(scale) x`` and ``sqrt(scale / 2) x``."""
    x = x * sqrt(scale)
    return torch.cat([torch.ones_like(x[..., :1, :]), x, x * sqrt(0.5)], -2)


def _phi(x: Tensor, pairs: tuple[Tensor, Tensor]) -> Tensor:
    """``[rows, f, tokens] -> [rows, features, tokens]``; whole rows of tokens are gathered, which is a fast copy."""
    table = _table(x)
    return table.index_select(1, pairs[0]).mul_(table.index_select(1, pairs[1]))


def _phi_backward(x: Tensor, gradient: Tensor, pairs: tuple[Tensor, Tensor]) -> Tensor:
    """The gradient at ``x`` from that at its features."""
    table, f = _table(x), x.shape[1]
    found = torch.zeros_like(table)
    found.index_add_(1, pairs[0], table.index_select(1, pairs[1]).mul_(gradient))
    found.index_add_(1, pairs[1], table.index_select(1, pairs[0]).mul_(gradient))
    return found[:, 1 : 1 + f] + found[:, 1 + f :] * sqrt(0.5)


def _scale(query: Tensor, scale: float | None) -> float:
    if scale is None:
        return query.shape[-1] ** -0.5
    if not scale > 0:
        raise ValueError(f"scale={scale}; it must be above 0")
    return scale


def _precision(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _with_ones(value: Tensor) -> Tensor:
    return torch.cat([value, torch.ones_like(value[..., :1])], -1)


def _divided(sums: Tensor, epsilon: float, normalise: bool) -> Tensor:
    return sums[..., :-1] / (sums[..., -1:] + epsilon) if normalise else sums[..., :-1]


def _rows(x: Tensor) -> Tensor:
    """``[batch, tokens, heads, dim] -> [batch * heads, tokens, dim]``."""
    return x.transpose(1, 2).flatten(0, 1)


def _unrows(x: Tensor, batch: int) -> Tensor:
    """``[batch * heads, tokens, dim] -> [batch, tokens, heads, dim]``."""
    return x.unflatten(0, (batch, -1)).transpose(1, 2)
