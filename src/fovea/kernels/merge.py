"""Joining attention over disjoint sets of keys by its log-sum-exp."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def merge(parts: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Join attention computed apart over disjoint sets of keys into attention over all of them.

    ``lse = log sum_i exp(lse_i)`` and ``out = sum_i exp(lse_i - lse) out_i``. Differentiable in every ``out`` and every
    ``lse``. A part that saw nothing (lse -inf) adds nothing; where no part saw anything the result is 0 and -inf.

    Args:
        parts: pairs ``(out [..., dim], lse [...])``, all of the same shape.

    Returns:
        ``(out, lse)``, ``out`` in the dtype of the first part.

    >>> import torch
    >>> out, lse = merge([(torch.zeros(1, 2), torch.zeros(1)), (torch.ones(1, 2), torch.zeros(1))])
    >>> out
    tensor([[0.5000, 0.5000]])
    """
    parts = list(parts)
    if not parts:
        raise ValueError("parts is empty; it must hold at least one pair (out, lse)")
    first = parts[0][0]
    for place, (out, lse) in enumerate(parts):
        if out.shape != first.shape or lse.shape != first.shape[:-1]:
            raise ValueError(
                f"parts[{place}] has out {tuple(out.shape)} and lse {tuple(lse.shape)}; "
                f"they must be {tuple(first.shape)} and {tuple(first.shape[:-1])}"
            )
    stacked = torch.stack([lse for _, lse in parts])
    top = stacked.detach().amax(0)
    top = top.masked_fill(top == -torch.inf, 0)
    weights = (stacked - top).exp()
    total = weights.sum(0)
    lse = torch.where(total > 0, total, 1).log() + top
    lse = lse.masked_fill(total == 0, -torch.inf)
    shares = weights / torch.where(total > 0, total, 1)
    out = sum(share[..., None] * out for share, (out, _) in zip(shares, parts, strict=True))
    assert isinstance(out, Tensor)
    return out.to(first.dtype), lse
