"""Second-order Taylor attention: its definition, in two forms (Based, arXiv 2402.18668, sections 2.1 and 2.2).

The feature map ``phi(x) = [1, x / f^(1/4), vec(x x^T) / (sqrt(2) f^(1/2))]`` makes ``phi(q) . phi(k)`` the sum
``1 + s + s^2 / 2`` with ``s = q . k / sqrt(f)``: the exponential to second order, never below 1/2. GPUs compute the
same without the feature map in ``fovea.kernels.triton.taylor``.
"""

from __future__ import annotations

import torch
from torch import Tensor

EPS = 1e-12


def quadratic(query: Tensor, key: Tensor, value: Tensor, eps: float = EPS) -> Tensor:
    """``y_i = sum_{j <= i} a_ij v_j / (sum_{j <= i} a_ij + eps)`` with ``a = 1 + s + s^2 / 2``; memory is quadratic.

    Args:
        query, key: ``[batch, tokens, heads, features]``.
        value: ``[batch, tokens, heads, head_dim]``.

    Returns:
        ``[batch, tokens, heads, head_dim]``.
    """
    scores = torch.einsum("bihf,bjhf->bhij", query, key) * query.shape[-1] ** -0.5
    weights = (1 + scores + scores.square() / 2).tril()
    mixed = torch.einsum("bhij,bjhd->bihd", weights, value)
    return mixed / (weights.sum(-1).transpose(1, 2)[..., None] + eps)


def features(x: Tensor) -> Tensor:
    """``[..., f] -> [..., f^2 + f + 1]``: the second order, the first, the constant."""
    width = x.shape[-1]
    second = (x[..., :, None] * x[..., None, :]).flatten(-2) / (2 * width) ** 0.5
    return torch.cat([second, x / width**0.25, x[..., :1] ** 0], -1)


def recurrent(query: Tensor, key: Tensor, value: Tensor, eps: float = EPS) -> Tensor:
    """The same, token by token over a state of fixed size: ``M += phi(k) v^T``, ``z += phi(k)``,
    ``y = phi(q)^T M / (phi(q) . z + eps)``."""
    batch, tokens, heads, width = query.shape
    state = value.new_zeros(batch, heads, width * width + width + 1, value.shape[-1])
    mass = value.new_zeros(batch, heads, width * width + width + 1)
    out = []
    for token in range(tokens):
        seen, asked = features(key[:, token]), features(query[:, token])
        state = state + seen[..., None] * value[:, token, :, None]
        mass = mass + seen
        out.append((asked[..., None] * state).sum(-2) / ((asked * mass).sum(-1, keepdim=True) + eps))
    return torch.stack(out, 1)
