"""Second-order Taylor attention as it is defined, in two forms: what the kernels are held to.

(Based, arXiv 2402.18668, sections 2.1 and 2.2.)

The feature map ``phi(x) = [vec(x x^T) scale / sqrt(2), x sqrt(scale), 1]`` makes ``phi(q) . phi(k)`` the sum
``1 + s + s^2 / 2`` with ``s = scale q . k``: the exponential to second order, never below 1/2.
"""

from __future__ import annotations

import torch
from torch import Tensor

EPSILON = 1e-12


def quadratic(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    scale: float | None = None,
    epsilon: float = EPSILON,
    normalise: bool = True,
) -> Tensor:
    """``y_i = sum_{j <= i} a_ij v_j / (sum_{j <= i} a_ij + epsilon)`` with ``a = 1 + s + s^2 / 2``.

    All scores at once: memory is quadratic in the tokens.

    Args:
        query, key: ``[batch, tokens, heads, features]``.
        value: ``[batch, tokens, heads, head_dim]``.
        scale: of the products, by default ``features ** -0.5``.
        normalise: false leaves the denominator out.

    Returns:
        ``[batch, tokens, heads, head_dim]``.
    """
    scores = torch.einsum("bihf,bjhf->bhij", query, key) * (query.shape[-1] ** -0.5 if scale is None else scale)
    weights = (1 + scores + scores.square() / 2).tril()
    mixed = torch.einsum("bhij,bjhd->bihd", weights, value)
    return mixed / (weights.sum(-1).transpose(1, 2)[..., None] + epsilon) if normalise else mixed


def features(x: Tensor, scale: float | None = None) -> Tensor:
    """``[..., f] -> [..., f^2 + f + 1]``: the second order, the first, the constant."""
    factor: float = x.shape[-1] ** -0.5 if scale is None else scale
    second = (x[..., :, None] * x[..., None, :]).flatten(-2) * (factor / 2**0.5)
    return torch.cat([second, x * factor**0.5, x[..., :1] ** 0], -1)


def recurrent(query: Tensor, key: Tensor, value: Tensor, *, epsilon: float = EPSILON) -> Tensor:
    """The same, token by token over a state of fixed size: ``M += phi(k) v^T``, ``z += phi(k)``,
    ``y = phi(q)^T M / (phi(q) . z + epsilon)``."""
    batch, tokens, heads, width = query.shape
    state = value.new_zeros(batch, heads, width * width + width + 1, value.shape[-1])
    mass = value.new_zeros(batch, heads, width * width + width + 1)
    out = []
    for token in range(tokens):
        seen, asked = features(key[:, token]), features(query[:, token])
        state = state + seen[..., None] * value[:, token, :, None]
        mass = mass + seen
        out.append((asked[..., None] * state).sum(-2) / ((asked * mass).sum(-1, keepdim=True) + epsilon))
    return torch.stack(out, 1)
