"""The feature map of the second-order Taylor expansion of the exponential (Based, arXiv 2402.18668, section 4.1)."""

from __future__ import annotations

from functools import lru_cache
from math import sqrt
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

Features = Literal["compact", "full"]


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
    first, second = pairs_of(x.shape[-1], features, x.device)
    table = table_of(x.unsqueeze(-1), scale_of(x, scale)).squeeze(-1)
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


@lru_cache(maxsize=32)
def pairs_of(feature_dim: int, features: Features, device: torch.device) -> tuple[Tensor, Tensor]:
    """The two rows of :func:`table_of` whose product each feature is."""
    feature_size(feature_dim, features)
    one, rows = [0] * (1 + feature_dim), range(1, 1 + feature_dim)
    if features == "compact":
        products = [(i + feature_dim if i == j else i, j) for i in rows for j in rows if i <= j]
    else:
        products = [(i + feature_dim, j) for i in rows for j in rows]
    with torch.inference_mode(False):  # what is kept may be used in training later
        first = torch.tensor([*one, *(i for i, _ in products)], device=device)
        second = torch.tensor([*range(1 + feature_dim), *(j for _, j in products)], device=device)
    return first, second


def table_of(x: Tensor, scale: float = 1.0) -> Tensor:
    """``[..., f, tokens] -> [..., 1 + 2f, tokens]``: 1, ``sqrt(scale) x`` and ``sqrt(scale / 2) x``."""
    x = x * sqrt(scale)
    return torch.cat([torch.ones_like(x[..., :1, :]), x, x * sqrt(0.5)], -2)


def scale_of(query: Tensor, scale: float | None) -> float:
    if scale is None:
        return query.shape[-1] ** -0.5
    if not scale > 0:
        raise ValueError(f"scale={scale}; it must be above 0")
    return scale
