"""Dense attention of one call of tiles, with its log-sum-exp: PyTorch's fused kernel where it takes the call, plain
matrix products elsewhere."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def forward(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float, *, causal: bool = False
) -> tuple[Tensor, Tensor]:
    """``[n, H, T, D], [n, H, U, D], [n, H, U, Dv] -> [n, H, T, Dv], [n, H, T]``.

    ``mask`` is added to the scaled logits and broadcasts to ``[n, H, T, U]``. Rows of which nothing is seen are
    undefined; the caller knows them.
    """
    if _fused(query):
        width = max(query.shape[-1], value.shape[-1])
        out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            *(_widen(tensor, width) for tensor in (query, key, value)), 0.0, causal, attn_mask=mask, scale=scale
        )
        return out[..., : value.shape[-1]], lse
    logits = _logits(query, key, mask, scale, causal)
    lse = torch.logsumexp(logits, -1)
    return torch.exp(logits - lse[..., None]).to(value.dtype) @ value, lse


def backward(
    grad_out: Tensor,
    grad_lse: Tensor | None,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    lse: Tensor,
    mask: Tensor | None,
    scale: float,
    *,
    causal: bool = False,
    scores: bool = False,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Gradients of query, key, value and, with ``scores``, of the logits. ``out`` and ``lse`` are those of the whole
    row, of which this call may compute a part; rows that see nothing must have a finite ``lse``."""
    if _fused(query) and grad_lse is None and not scores:
        width = max(query.shape[-1], value.shape[-1])
        tensors = (_widen(tensor, width) for tensor in (grad_out, query, key, value, out))
        dq, dk, dv = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
            *tensors, lse, 0.0, causal, attn_mask=mask, scale=scale
        )
        return dq[..., : query.shape[-1]], dk[..., : query.shape[-1]], dv[..., : value.shape[-1]], None
    weights = torch.exp(_logits(query, key, mask, scale, causal) - lse[..., None])
    delta = (grad_out.to(lse.dtype) * out.to(lse.dtype)).sum(-1)
    if grad_lse is not None:
        delta = delta - grad_lse
    dv = weights.to(value.dtype).mT @ grad_out
    dlogits = (grad_out @ value.mT).to(lse.dtype).sub_(delta[..., None]).mul_(weights)
    low = dlogits.to(query.dtype)
    return low @ key * scale, low.mT @ query * scale, dv, dlogits if scores else None


def _fused(query: Tensor) -> bool:
    return query.device.type == "cpu" and hasattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu")


def _widen(tensor: Tensor, width: int) -> Tensor:
    return tensor if tensor.shape[-1] == width else F.pad(tensor, (0, width - tensor.shape[-1]))


def _logits(query: Tensor, key: Tensor, mask: Tensor | None, scale: float, causal: bool) -> Tensor:
    logits = (query @ key.mT).to(torch.promote_types(query.dtype, torch.float32)) * scale
    if mask is not None:
        logits = logits + mask.to(logits.dtype)
    if causal:
        beyond = torch.ones(logits.shape[-2:], dtype=torch.bool, device=logits.device).triu(1)
        logits = logits.masked_fill(beyond, -torch.inf)
    return logits
