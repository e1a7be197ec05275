"""Instance norm with its activation, in the memory of its input (arXiv 1607.08022; in place: arXiv 1712.02616).

Full-resolution feature maps of volumes are hundreds of megabytes, and fetching fresh memory costs more than computing
on it. So the norm overwrites the convolution's output, together with the residual that is added and the leaky ReLU that
follows. Nothing else is kept for the backward pass: the leaky ReLU can be undone, and what the backward pass needs are
the normalised values.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

ROWS = 1 << 19
"""How many values are treated at a time on a CPU: as many as its caches hold."""


def instance_norm_(x: Tensor, *, residual: Tensor | None = None, slope: float = 1.0, eps: float = 1e-5) -> Tensor:
    """``leaky_relu(norm(x) + residual)`` in the memory of ``x``, which nobody may need afterwards.

    The norm gives each channel of each sample mean 0 and (biased) variance 1, without parameters; a channel of a single
    voxel becomes 0.

    Shapes: ``[B, C, *grid]``, also ``residual`` and the result.

    Args:
        x: what is normalised; quickest where its channels lie last in memory.
        residual: added before the activation; it must not be changed before the backward pass.
        slope: of the leaky ReLU below zero, 1 for none.
        eps: added to the variance.
    """
    if torch.compiler.is_compiling():
        return _formula(x, residual, slope, eps)
    return _InstanceNorm.apply(_last(x), residual, slope, eps)  # type: ignore[no-any-return]


def _formula(x: Tensor, residual: Tensor | None, slope: float, eps: float) -> Tensor:
    axes = tuple(range(2, x.ndim))
    variance, mean = torch.var_mean(x, axes, correction=0, keepdim=True)
    out = (x - mean) * torch.rsqrt(variance + eps)
    return F.leaky_relu(out if residual is None else out + residual, slope)


class _InstanceNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, residual: Tensor | None, slope: float, eps: float) -> Tensor:
        scales = x.new_empty(x.shape[:2])
        residual = None if residual is None else _last(residual)
        for b in range(len(x)):
            mean, scale = _statistics(x[b], eps)
            scales[b] = scale
            for here, there in _pieces(x[b], None if residual is None else residual[b]):
                assert here is not None
                here.sub_(mean).mul_(scale)
                if there is not None:
                    here.add_(there)
                if slope != 1.0:
                    F.leaky_relu_(here, slope)
        ctx.mark_dirty(x)
        ctx.slope = slope
        ctx.save_for_backward(x, residual, scales)
        return x

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        out, residual, scales = ctx.saved_tensors
        grad = _last(grads[0])
        slope, wants_residual = ctx.slope, ctx.needs_input_grad[1]
        grad_x = torch.empty_like(out)
        grad_residual = torch.empty_like(out) if wants_residual else None
        for b in range(len(out)):
            voxels = prod(out.shape[2:])
            mean, along = (torch.zeros(out.shape[1], dtype=torch.float64, device=out.device) for _ in range(2))
            sources = (out[b], grad[b], None if residual is None else residual[b], grad_x[b])
            for y, g, r, dx in _pieces(*sources):
                assert y is not None and g is not None and dx is not None
                torch.where(y < 0, g * slope, g, out=dx) if slope != 1.0 else dx.copy_(g)
                mean += dx.sum(0)
                along += (_undone(y, r, slope) * dx).sum(0)
            mean, along = ((total / voxels).to(out.dtype) for total in (mean, along))
            targets = (out[b], grad_x[b], None if residual is None else residual[b])
            targets += (None if grad_residual is None else grad_residual[b],)
            for y, dx, r, dr in _pieces(*targets):
                assert y is not None and dx is not None
                if dr is not None:
                    dr.copy_(dx)
                dx.sub_(mean).sub_(_undone(y, r, slope).mul_(along)).mul_(scales[b])
        return grad_x, grad_residual, None, None


def _undone(y: Tensor, residual: Tensor | None, slope: float) -> Tensor:
    """The normalised values of which ``y`` was made; new memory."""
    normal = torch.where(y < 0, y / slope, y) if slope != 1.0 else y.clone()
    return normal if residual is None else normal.sub_(residual)


def _statistics(sample: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Mean and reciprocal deviation of each channel of ``[C, *grid]``; sums of pieces are added in double precision."""
    total, squares = (torch.zeros(len(sample), dtype=torch.float64, device=sample.device) for _ in range(2))
    for (piece,) in _pieces(sample):
        assert piece is not None
        piece = piece if piece.dtype in (torch.float32, torch.float64) else piece.float()
        total += piece.sum(0)
        squares += (piece * piece).sum(0)
    voxels = prod(sample.shape[1:])
    mean = total / voxels
    variance = (squares / voxels - mean.square()).clamp_(min=0)
    return mean.to(sample.dtype), torch.rsqrt(variance + eps).to(sample.dtype)


def _pieces(*samples: Tensor | None) -> Iterator[tuple[Tensor | None, ...]]:
    """Rows of ``[voxels, C]`` views of ``[C, *grid]``, some at a time on a CPU; all must lie in memory alike."""
    first = next(sample for sample in samples if sample is not None)
    rows = [None if sample is None else _rows(sample) for sample in samples]
    count = prod(first.shape[1:])
    step = max(1, ROWS // len(first)) if first.device.type == "cpu" else count
    for start in range(0, count, step):
        yield tuple(None if row is None else row[start : start + step] for row in rows)


def _rows(sample: Tensor) -> Tensor:
    """``[C, *grid] -> [voxels, C]``, a view."""
    return sample.movedim(0, -1).view(-1, len(sample))


def _last(x: Tensor) -> Tensor:
    """``[B, C, *grid]`` with channels last in memory: itself, or a copy."""
    return x.movedim(1, -1).contiguous().movedim(-1, 1)
