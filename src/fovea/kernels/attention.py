"""The operator: attention under any pattern, one node for autograd, torch.compile, torch.export and autocast."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Literal, overload

import torch
from torch import Tensor

from fovea.kernels.problem import Problem
from fovea.kernels.registry import get
from fovea.patterns import GridPattern, Pattern, PerHead, parse

_DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
_parse = lru_cache(maxsize=1024)(parse)


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
    """Softmax attention in which each query sees the keys that ``pattern`` lets it see.

    Args:
        query: ``[B, *query_grid, H, D]``; float64, float32, bfloat16 or float16.
        key, value: ``[B, *key_grid, Hkv, D]`` and ``[B, *key_grid, Hkv, Dv]``; ``Hkv`` divides ``H``, and query head
            ``h`` uses kv head ``h // (H / Hkv)``.
        pattern: a pattern or its text form, ``"neighborhood:window=13x13"``.
        bias: relative-position table ``[H, *pattern.bias_shape(query_grid, key_grid)]``, added to the scaled logits.
        extra_key, extra_value: ``[B, E, Hkv, D]`` and ``[B, E, Hkv, Dv]``, seen by every query in the same softmax.
        scale: of the logits; ``D ** -0.5`` unless given.
        backend: ``"auto"`` or the name of a backend.
        return_lse: also return the log-sum-exp of the logits.

    Returns:
        ``[B, *query_grid, H, Dv]`` in the dtype of the query; with ``return_lse`` also ``[B, *query_grid, H]`` in
        float32 (float64 for float64). A query that sees nothing gets zeros and ``-inf``.

    Raises:
        ValueError: naming the argument, what it was and what it may be.
    """
    pattern = _parse(pattern) if isinstance(pattern, str) else pattern
    _check(query, key, value, pattern, bias, extra_key, extra_value)
    scale = query.shape[-1] ** -0.5 if scale is None else float(scale)
    out, lse = _forward(query, key, value, bias, extra_key, extra_value, str(pattern), scale, backend)
    return (out, lse) if return_lse else out


def _check(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    pattern: Pattern,
    bias: Tensor | None,
    extra_key: Tensor | None,
    extra_value: Tensor | None,
) -> None:
    for name, tensor in (("query", query), ("key", key), ("value", value)):
        if not 4 <= tensor.ndim <= 6:
            raise ValueError(f"{name} has shape {tuple(tensor.shape)}; it must be [batch, *grid, heads, head_dim]")
        if tensor.ndim != query.ndim:
            raise ValueError(f"{name} has {tensor.ndim - 3} grid axes, query has {query.ndim - 3}; they must agree")
    if query.dtype not in _DTYPES:
        raise ValueError(f"query is {query.dtype}; it may be float64, float32, bfloat16 or float16")
    batch, grid, kv_heads, dim = key.shape[0], key.shape[1:-2], key.shape[-2], query.shape[-1]
    if key.shape[0] != query.shape[0] or key.shape[-1] != dim:
        raise ValueError(
            f"key has shape {tuple(key.shape)}; with this query it must be [{query.shape[0]}, *grid, heads, {dim}]"
        )
    if value.shape[:-1] != key.shape[:-1]:
        raise ValueError(f"value has shape {tuple(value.shape)}; all but its last axis must be the key's {tuple(key.shape)}")
    heads = query.shape[-2]
    if kv_heads < 1 or heads % kv_heads:
        raise ValueError(f"key has {kv_heads} heads; they must divide the query's {heads}")
    query_grid = query.shape[1:-2]
    pattern.check(tuple(query_grid), tuple(grid))
    if isinstance(pattern, PerHead) and pattern.heads != heads:
        raise ValueError(f"pattern is for {pattern.heads} heads; query has {heads}")
    if (extra_key is None) != (extra_value is None):
        raise ValueError("extra_key and extra_value must be given together")
    if extra_key is not None and extra_value is not None:
        wanted = (batch, extra_key.shape[1] if extra_key.ndim == 4 else "extra", kv_heads)
        for name, tensor, width in (("extra_key", extra_key, dim), ("extra_value", extra_value, value.shape[-1])):
            if tuple(tensor.shape) != (*wanted, width):
                raise ValueError(f"{name} has shape {tuple(tensor.shape)}; it must be {[*wanted, width]}")
    if bias is not None:
        parts = pattern.parts if isinstance(pattern, PerHead) else (pattern,)
        shapes = set()
        for part in parts:
            if not isinstance(part, GridPattern):
                raise ValueError(f"bias is for grid patterns; {part} has no relative offsets on a grid")
            shapes.add((heads, *part.bias_shape(tuple(query_grid), tuple(grid))))
        if shapes != {tuple(bias.shape)}:
            wanted = " or ".join(str(list(shape)) for shape in shapes)
            raise ValueError(f"bias has shape {list(bias.shape)}; for {pattern} it must be {wanted}")
    for name, tensor in (
        ("key", key), ("value", value), ("extra_key", extra_key), ("extra_value", extra_value), ("bias", bias)
    ):  # fmt: skip
        if tensor is None:
            continue
        if tensor.device != query.device:
            raise ValueError(f"{name} is on {tensor.device}; it must be on the query's {query.device}")
        if name != "bias" and tensor.dtype != query.dtype and not torch.is_autocast_enabled(query.device.type):
            raise ValueError(f"{name} is {tensor.dtype}; it must have the query's dtype, {query.dtype}")


def _problem(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor | None,
    extra_key: Tensor | None,
    pattern: Pattern,
    scale: float,
    grad: bool,
) -> Problem:
    return Problem(
        pattern=pattern,
        query_grid=tuple(query.shape[1:-2]),
        key_grid=tuple(key.shape[1:-2]),
        batch=query.shape[0],
        heads=query.shape[-2],
        kv_heads=key.shape[-2],
        head_dim=query.shape[-1],
        value_dim=value.shape[-1],
        extra=0 if extra_key is None else extra_key.shape[1],
        bias=bias is not None,
        scale=scale,
        dtype=query.dtype,
        device=query.device,
        grad=grad,
    )


def _backend(name: str, problem: Problem):
    backend = get("reference" if name == "auto" else name)
    if (reason := backend.refuses(problem)) is not None:
        raise ValueError(f"backend={name!r} does not take this problem: {reason}")
    return backend


@torch.library.custom_op("fovea::attention", mutates_args=())
def _forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor | None,
    extra_key: Tensor | None,
    extra_value: Tensor | None,
    pattern: str,
    scale: float,
    backend: str,
) -> tuple[Tensor, Tensor]:
    problem = _problem(query, key, value, bias, extra_key, _parse(pattern), scale, False)
    out, lse = _backend(backend, problem).forward(problem, query, key, value, bias, extra_key, extra_value)
    return out.contiguous(), lse


@_forward.register_fake
def _(query, key, value, bias, extra_key, extra_value, pattern, scale, backend):
    lse_dtype = torch.float64 if query.dtype == torch.float64 else torch.float32
    shape = query.shape[:-1]
    return query.new_empty(*shape, value.shape[-1]), query.new_empty(shape, dtype=lse_dtype)


@torch.library.custom_op("fovea::attention_backward", mutates_args=())
def _backward(
    grad_out: Tensor,
    grad_lse: Tensor | None,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    lse: Tensor,
    bias: Tensor | None,
    extra_key: Tensor | None,
    extra_value: Tensor | None,
    pattern: str,
    scale: float,
    backend: str,
) -> list[Tensor]:
    problem = _problem(query, key, value, bias, extra_key, _parse(pattern), scale, True)
    gradients = _backend(backend, problem).backward(
        problem, grad_out, grad_lse, query, key, value, out, lse, bias, extra_key, extra_value
    )
    return [gradient.contiguous() for gradient in gradients if gradient is not None]


@_backward.register_fake
def _(grad_out, grad_lse, query, key, value, out, lse, bias, extra_key, extra_value, pattern, scale, backend):
    inputs = (query, key, value, bias, extra_key, extra_value)
    return [torch.empty_like(x, memory_format=torch.contiguous_format) for x in inputs if x is not None]


def _setup(ctx, inputs, output):
    query, key, value, bias, extra_key, extra_value, ctx.pattern, ctx.scale, ctx.backend = inputs
    out, lse = output
    ctx.save_for_backward(query, key, value, bias, extra_key, extra_value, out, lse)
    ctx.set_materialize_grads(False)


def _autograd(ctx, grad_out, grad_lse):
    query, key, value, bias, extra_key, extra_value, out, lse = ctx.saved_tensors
    if grad_out is None:
        grad_out = torch.zeros_like(out)
    gradients = iter(
        _backward(
            grad_out, grad_lse, query, key, value, out, lse, bias, extra_key, extra_value,
            ctx.pattern, ctx.scale, ctx.backend,
        )
    )  # fmt: skip
    inputs = (query, key, value, bias, extra_key, extra_value)
    return *(None if x is None else next(gradients) for x in inputs), None, None, None


_forward.register_autograd(_autograd, setup_context=_setup)
