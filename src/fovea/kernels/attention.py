"""``fovea.attention``: the operator, registered with PyTorch as one node with shape inference and autograd."""

from __future__ import annotations

from functools import lru_cache
from typing import Literal, overload

import torch
from torch import Tensor

from fovea.kernels import per_head
from fovea.kernels.problem import describe
from fovea.patterns import Pattern, parse

_pattern = lru_cache(maxsize=4096)(parse)


def _text(pattern: Pattern | str) -> str:
    if isinstance(pattern, str):
        return pattern
    if isinstance(pattern, Pattern):
        return pattern.text
    raise ValueError(f"pattern={pattern!r}; it must be a pattern or its text, e.g. 'neighborhood:window=7'")


@overload
def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    pattern: Pattern | str,
    *,
    bias: Tensor | None = None,
    extra_key: Tensor | None = None,
    extra_value: Tensor | None = None,
    scale: float | None = None,
    backend: str = "auto",
    return_lse: Literal[False] = False,
) -> Tensor: ...
@overload
def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    pattern: Pattern | str,
    *,
    bias: Tensor | None = None,
    extra_key: Tensor | None = None,
    extra_value: Tensor | None = None,
    scale: float | None = None,
    backend: str = "auto",
    return_lse: Literal[True],
) -> tuple[Tensor, Tensor]: ...
@overload
def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    pattern: Pattern | str,
    *,
    bias: Tensor | None = None,
    extra_key: Tensor | None = None,
    extra_value: Tensor | None = None,
    scale: float | None = None,
    backend: str = "auto",
    return_lse: bool,
) -> Tensor | tuple[Tensor, Tensor]: ...
def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    pattern: Pattern | str,
    *,
    bias: Tensor | None = None,
    extra_key: Tensor | None = None,
    extra_value: Tensor | None = None,
    scale: float | None = None,
    backend: str = "auto",
    return_lse: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Attention in which each query sees only the keys that ``pattern`` shows it.

    ``out_i = sum_j softmax_j(scale * q_i . k_j + bias) v_j`` over the keys ``j`` of the pattern and the extra keys.
    Logits, softmax and lse are computed in float32 (float64 for float64). Differentiable in query, key, value, bias,
    extra_key and extra_value, and through lse; once (gradients of gradients are refused).

    Args:
        query: ``[batch, *query_grid, heads, head_dim]``, a grid of 1 to 3 axes; float64, float32, bfloat16 or float16.
        key: ``[batch, *key_grid, kv_heads, head_dim]``; ``kv_heads`` divides ``heads``.
        value: ``[batch, *key_grid, kv_heads, value_dim]``.
        pattern: a pattern, or its text such as ``"neighborhood:window=13x13"``.
        bias: ``[heads, *pattern.bias_shape(query_grid, key_grid)]``, added to the scaled logits of a grid pattern at
            ``(key - position) / step - low`` of each axis, where ``low`` is the pattern's smallest offset.
        extra_key, extra_value: ``[batch, extra, kv_heads, head_dim or value_dim]``, seen by every query, without bias.
        scale: factor of the logits; by default ``head_dim ** -0.5``.
        backend: ``"auto"`` lets the planner choose (see :func:`fovea.plan`), else a backend's name.
        return_lse: also return lse.

    Returns:
        ``out [batch, *query_grid, heads, value_dim]`` in query's dtype; with ``return_lse`` also
        ``lse [batch, *query_grid, heads]``, the natural logarithm of the sum of the exponentials of the logits. A query
        that sees no key gets zeros and -inf.

    Raises:
        ValueError: naming the argument, what it was and what it may be.

    >>> import torch
    >>> tokens = torch.ones(1, 8, 8, 2, 4)
    >>> attention(tokens, tokens, tokens, "neighborhood:window=3").shape
    torch.Size([1, 8, 8, 2, 4])
    """
    for name, tensor in (("query", query), ("key", key), ("value", value)):
        if not isinstance(tensor, Tensor):
            raise ValueError(f"{name} is a {type(tensor).__name__}; it must be a torch.Tensor")
    device = query.device.type
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        query, key, value = (_cast(tensor, dtype) for tensor in (query, key, value))
        extra_key = None if extra_key is None else _cast(extra_key, dtype)
        extra_value = None if extra_value is None else _cast(extra_value, dtype)
    out, lse = torch.ops.fovea.attention(
        query, key, value, _text(pattern), bias, extra_key, extra_value, scale, backend
    )
    return (out, lse) if return_lse else out


def _cast(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor if tensor.dtype == torch.float64 else tensor.to(dtype)


@torch.library.custom_op("fovea::attention", mutates_args=())
def _forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    pattern: str,
    bias: Tensor | None,
    extra_key: Tensor | None,
    extra_value: Tensor | None,
    scale: float | None,
    backend: str,
) -> tuple[Tensor, Tensor]:
    problem = describe(_pattern(pattern), query, key, value, bias, extra_key, extra_value, scale)
    out, lse = per_head.forward(problem, backend, query, key, value, bias, extra_key, extra_value)
    return out.contiguous(), lse.contiguous()  # as the shape inference below promises


@torch.library.custom_op("fovea::attention_backward", mutates_args=())
def _backward(
    grad_out: Tensor,
    grad_lse: Tensor | None,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    lse: Tensor,
    pattern: str,
    bias: Tensor | None,
    extra_key: Tensor | None,
    extra_value: Tensor | None,
    scale: float | None,
    backend: str,
) -> list[Tensor]:
    problem = describe(_pattern(pattern), query, key, value, bias, extra_key, extra_value, scale, grad=True)
    grads = per_head.backward(
        problem, backend, grad_out, grad_lse, query, key, value, out, lse, bias, extra_key, extra_value
    )
    return _owning([grad.contiguous() for grad in grads if grad is not None])


def _owning(tensors: list[Tensor]) -> list[Tensor]:
    """The tensors, none of which shares memory with another: PyTorch forbids results that do."""
    storages = [tensor.untyped_storage().data_ptr() for tensor in tensors]
    return [
        tensor.clone() if tensor.numel() and storages.count(storage) > 1 else tensor
        for tensor, storage in zip(tensors, storages, strict=True)
    ]


@_forward.register_fake
def _(query, key, value, pattern, bias, extra_key, extra_value, scale, backend):
    if all(isinstance(n, int) for n in (*query.shape, *key.shape)):
        describe(_pattern(pattern), query, key, value, bias, extra_key, extra_value, scale)
    lse = torch.float64 if query.dtype == torch.float64 else torch.float32
    return query.new_empty((*query.shape[:-1], value.shape[-1])), query.new_empty(query.shape[:-1], dtype=lse)


@_backward.register_fake
def _(grad_out, grad_lse, query, key, value, out, lse, pattern, bias, extra_key, extra_value, scale, backend):
    inputs = (query, key, value, bias, extra_key, extra_value)
    return [tensor.new_empty(tensor.shape) for tensor in inputs if tensor is not None]


def _save(ctx, inputs, output) -> None:
    query, key, value, pattern, bias, extra_key, extra_value, scale, backend = inputs
    out, lse = output
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(query, key, value, out, lse, bias, extra_key, extra_value)
    ctx.pattern, ctx.scale, ctx.backend = pattern, scale, backend


def _differentiate(ctx, grad_out: Tensor | None, grad_lse: Tensor | None):
    query, key, value, out, lse, bias, extra_key, extra_value = ctx.saved_tensors
    if grad_out is None and grad_lse is None:
        return (None,) * 9
    grads = torch.ops.fovea.attention_backward(
        torch.zeros_like(out) if grad_out is None else grad_out, grad_lse, query, key, value, out, lse,
        ctx.pattern, bias, extra_key, extra_value, ctx.scale, ctx.backend,
    )  # fmt: skip
    left = iter(grads)
    dq, dk, dv = next(left), next(left), next(left)
    dbias, dek, dev = (None if tensor is None else next(left) for tensor in (bias, extra_key, extra_value))
    return dq, dk, dv, None, dbias, dek, dev, None, None


def _refuse_double(ctx, *grads: Tensor):
    raise NotImplementedError(
        "fovea.attention has no gradients of gradients; compute the first ones without create_graph=True"
    )


_forward.register_autograd(_differentiate, setup_context=_save)
_backward.register_autograd(_refuse_double)
