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

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from fovea.kernels.taylor_chunks import How, divided, mixed, precision_of
from fovea.kernels.taylor_features import (
    Features,
    feature_map,
    feature_size,
    full_memory,
    pairs_of,
    scale_of,
    table_of,
)

__all__ = [
    "CHUNK",
    "EPSILON",
    "Features",
    "chunked",
    "feature_map",
    "feature_size",
    "full_memory",
    "new_memory",
    "quadratic",
    "read",
    "recurrent",
    "scan",
]

EPSILON = 1e-12
CHUNK = 64
"""Tokens whose scores are computed directly."""


def new_memory(
    batch: int, heads: int, feature_dim: int, dim: int, like: Tensor, features: Features = "compact"
) -> Float[Tensor, "batch heads features columns"]:
    """The memory before the first token, all zeros, on the device of ``like``; float64 if that is, else float32."""
    return torch.zeros(
        batch, heads, feature_size(feature_dim, features), dim + 1, dtype=precision_of(like), device=like.device
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
    q, k, v = (x.to(precision_of(query)).transpose(1, 2) for x in (query, key, value))
    logits = q @ k.transpose(-2, -1) * scale_of(query, scale)
    weights = (1 + logits + logits.square() / 2).tril()
    if documents is not None:
        weights = weights * (documents[:, None, :, None] == documents[:, None, None, :])
    return divided(weights @ _with_ones(v), epsilon, normalise).transpose(1, 2).to(value.dtype)


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
    precision = precision_of(query)
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
    return divided(sums, epsilon, normalise).to(value.dtype), memory


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
    precision = precision_of(query)
    phi_query, phi_key = (feature_map(x.to(precision), features, scale) for x in (query, key))
    memories = (phi_key.unsqueeze(-1) * _with_ones(value.to(precision)).unsqueeze(-2)).cumsum(1)
    sums = (phi_query.unsqueeze(-2) @ memories).squeeze(-2)
    return divided(sums, epsilon, normalise).to(value.dtype)


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
    out, _ = torch.ops.fovea.taylor(
        query, key, value, documents, scale_of(query, scale), epsilon, normalise, _checked(chunk)
    )
    return out


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
    dtype = value.dtype
    wanted = (*query.shape[:1], query.shape[2], feature_size(query.shape[-1]), value.shape[-1] + 1)
    if memory.shape != wanted:
        raise ValueError(f"memory has shape {tuple(memory.shape)}; these tokens need {wanted}")
    how = How(scale_of(query, scale), epsilon, normalise, _checked(chunk))
    with torch.autocast(query.device.type, enabled=False):
        query, key, value = (x.to(memory.dtype) for x in (query, key, value))
        if query.shape[1] == 1:
            return _one(query, key, value, memory, real, how).to(dtype)
        return mixed(query, key, value, how, memory=memory, real=real).to(dtype)


def _one(query: Tensor, key: Tensor, value: Tensor, memory: Tensor, real: Tensor | None, how: How) -> Tensor:
    """One token of each row."""
    batch, _, heads, feature_dim = query.shape
    first, second = pairs_of(feature_dim, "compact", query.device)
    table = table_of(torch.stack([query, key]).flatten(1, 3).unsqueeze(-1), how.scale).squeeze(-1)
    phi = table.index_select(-1, first).mul_(table.index_select(-1, second))
    columns = _with_ones(value)
    if real is not None:
        columns *= real[:, :, None, None]
    rows = memory.view(batch * heads, *memory.shape[2:])
    rows.addcmul_(phi[1].unsqueeze(-1), columns.view(batch * heads, 1, -1))
    sums = torch.bmm(phi[0].unsqueeze(1), rows)
    return divided(sums, how.epsilon, how.normalise).view(value.shape)


def _checked(chunk: int) -> int:
    if chunk < 1:
        raise ValueError(f"chunk={chunk}; it must be at least 1")
    return chunk


def _with_ones(value: Tensor) -> Tensor:
    return torch.cat([value, torch.ones_like(value[..., :1])], -1)
