"""Second-order Taylor attention on GPUs, and the state that decoding carries.

The definition and what the names mean: :mod:`fovea.kernels.taylor`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fovea.kernels.taylor import EPSILON
from fovea.kernels.triton import taylor_kernels as kernels
from fovea.kernels.triton.call import call
from fovea.kernels.triton.interpreter import interpreted, mend
from fovea.kernels.triton.launch import block, precision

if interpreted():
    mend()

CHUNK, TOKENS = 256, 64
"""Tokens of a chunk, whose pairs are computed, and of a block inside it."""

CELLS = 1024
"""Cells of states that a program adds up."""


def taylor_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    scale: float | None = None,
    epsilon: float = EPSILON,
    normalise: bool = True,
    chunk: int = CHUNK,
    block_tokens: int = TOKENS,
) -> Tensor:
    """``y_i = sum_{j <= i} a_ij v_j / (sum_{j <= i} a_ij + epsilon)``, ``a = 1 + s + s^2 / 2``, ``s = scale q . k``.

    Differentiable in query, key and value, once; one node for torch.compile. The feature map is never in memory; the
    states of the chunks are: ``f^2 + f + 1`` rows of ``head_dim`` float32 numbers every ``chunk`` tokens.

    Args:
        query, key: ``[batch, tokens, heads, features]``, features of at most 64.
        value: ``[batch, tokens, heads, head_dim]``, head_dim of at most 128.
        scale: of the products, by default ``features ** -0.5``.
        normalise: false leaves the denominator out.
        chunk, block_tokens: powers of two, the second at least 16 and not above the first.

    Returns:
        ``[batch, tokens, heads, head_dim]`` in value's dtype.

    Raises:
        ValueError: naming the argument, what it was and what it may be.
    """
    if query.ndim != 4 or key.shape != query.shape or value.shape[:-1] != query.shape[:-1]:
        raise ValueError(
            f"query {tuple(query.shape)}, key {tuple(key.shape)} and value {tuple(value.shape)} must be "
            "[batch, tokens, heads, features], the same, and [batch, tokens, heads, head_dim]"
        )
    if query.shape[-1] > 64 or value.shape[-1] > 128:
        raise ValueError(
            f"query has {query.shape[-1]} features and value is {value.shape[-1]} wide; at most 64 and 128 fit"
        )
    if block_tokens < 16 or chunk < block_tokens or chunk & (chunk - 1) or block_tokens & (block_tokens - 1):
        raise ValueError(
            f"chunk={chunk}, block_tokens={block_tokens}; they must be powers of two, the second at least 16 and not "
            "above the first"
        )
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    out, _ = torch.ops.fovea.taylor_attention(query, key, value, scale, epsilon, normalise, chunk, block_tokens)
    return out


@torch.library.custom_op("fovea::taylor_attention", mutates_args=())
def _forward(
    query: Tensor, key: Tensor, value: Tensor, scale: float, epsilon: float, normalise: bool, chunk: int, tokens: int
) -> tuple[Tensor, Tensor]:
    query, key, value = (tensor.contiguous() for tensor in (query, key, value))
    shape = _Shape.of(query, value, scale, chunk, tokens)
    states, masses = shape.states(key, value, None, 1.0, reverse=False)
    out = torch.empty_like(value)
    norm = torch.empty(value.shape[:-1], dtype=torch.float32, device=value.device)
    call(
        kernels.outputs, shape.blocks,
        query, key, value, states, masses, out, norm, *shape.numbers, scale, epsilon, **shape.sizes,
        NORMALISED=normalise, PRECISION=precision(value.dtype), STATE_PRECISION=shape.precision,
        WIDEN=interpreted() and value.dtype == torch.bfloat16,
    )  # fmt: skip
    return out, norm


@torch.library.custom_op("fovea::taylor_attention_backward", mutates_args=())
def _backward(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, out: Tensor, norm: Tensor, scale: float, normalise: bool,
    chunk: int, tokens: int,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    query, key, value = (tensor.contiguous() for tensor in (query, key, value))
    shape = _Shape.of(query, value, scale, chunk, tokens)
    over = (grad.float() / norm[..., None]).contiguous()
    under = -(over * out).sum(-1) if normalise else torch.zeros_like(norm)
    dq, dk, dv = (torch.empty_like(tensor) for tensor in (query, key, value))
    sizes = shape.sizes | {"STATE_PRECISION": shape.precision}
    states, masses = shape.states(key, value, None, 1.0, reverse=False)
    call(
        kernels.grad_queries, shape.blocks,
        query, key, value, over, under, states, masses, dq, *shape.numbers, scale, **sizes,
    )  # fmt: skip
    states, masses = shape.states(query, over, under, scale, reverse=True)
    call(
        kernels.grad_keys, shape.blocks,
        query, key, value, over, under, states, masses, dk, dv, *shape.numbers, scale, **sizes,
    )  # fmt: skip
    return dq, dk, dv


@_forward.register_fake
def _(query, key, value, scale, epsilon, normalise, chunk, tokens):
    return value.new_empty(value.shape), value.new_empty(value.shape[:-1], dtype=torch.float32)


@_backward.register_fake
def _(grad, query, key, value, out, norm, scale, normalise, chunk, tokens):
    return tuple(tensor.new_empty(tensor.shape) for tensor in (query, key, value))


def _save(ctx: Any, inputs: Any, output: Any) -> None:
    query, key, value, ctx.scale, _, ctx.normalise, ctx.chunk, ctx.tokens = inputs
    ctx.save_for_backward(query, key, value, *output)


def _differentiate(ctx: Any, grad: Tensor, _: Tensor) -> Any:
    grads = torch.ops.fovea.taylor_attention_backward(
        grad, *ctx.saved_tensors, ctx.scale, ctx.normalise, ctx.chunk, ctx.tokens
    )
    return (*grads, None, None, None, None, None)


_forward.register_autograd(_differentiate, setup_context=_save)


@dataclass(frozen=True)
class _Shape:
    """Sizes of a call and how it is cut."""

    batch: int
    tokens: int
    heads: int
    features: int
    dim: int
    chunk: int
    block: int
    scale: float
    precision: str

    @classmethod
    def of(cls, query: Tensor, value: Tensor, scale: float, chunk: int, tokens: int) -> _Shape:
        # States are float32; half-precision inputs do not need more of their products than tf32 keeps.
        chosen = precision(value.dtype) if value.dtype == torch.float32 else "tf32"
        batch, length, heads, features = query.shape
        return cls(batch, length, heads, features, value.shape[-1], chunk, tokens, scale, chosen)

    @property
    def numbers(self) -> tuple[int, int, int]:
        return self.tokens, self.heads, self.chunks

    @property
    def chunks(self) -> int:
        return -(-self.tokens // self.chunk)

    @property
    def blocks(self) -> tuple[int, int]:
        return -(-self.tokens // self.block), self.batch * self.heads

    @property
    def sizes(self) -> dict[str, Any]:
        return {
            "FEATURES": self.features, "DIM": self.dim, "BLOCK_FEATURES": block(self.features),
            "BLOCK_DIM": block(self.dim), "CHUNK": self.chunk, "TOKENS": self.block,
        }  # fmt: skip

    def states(self, x: Tensor, u: Tensor, w: Tensor | None, scale: float, *, reverse: bool) -> tuple[Tensor, Tensor]:
        """For each chunk the state of those before it (``reverse``: after it), and that of the weights."""
        size, rows = self.features * (self.features + 1) + 1, self.batch * self.heads
        states = torch.empty((rows, self.chunks, size, self.dim), dtype=torch.float32, device=x.device)
        masses = torch.empty((rows, self.chunks, size), dtype=torch.float32, device=x.device)
        call(
            kernels.chunk_states, (self.chunks, rows, self.features + 1),
            x, u, masses if w is None else w, states, masses, *self.numbers, scale, **self.sizes,
            WEIGHTED=w is not None, PRECISION=self.precision,
        )  # fmt: skip
        for tensor, cells in ((states, size * self.dim), (masses, size)):
            call(kernels.add_up, (-(-cells // CELLS), rows), tensor, self.chunks, cells, BLOCK=CELLS, REVERSE=reverse)
        return states, masses


@dataclass(frozen=True, eq=False)
class TaylorState:
    """What decoding carries from token to token; ``step`` changes it in place.

    Attributes:
        sums: ``[batch, heads, features^2 + features + 1, head_dim]``, float32.
        mass: ``[batch, heads, features^2 + features + 1]``, float32.
    """

    sums: Tensor
    mass: Tensor

    @classmethod
    def empty(cls, batch: int, heads: int, features: int, head_dim: int, device: torch.device | str) -> TaylorState:
        """The state before the first token."""
        size = features * (features + 1) + 1
        zeros = torch.zeros((batch, heads, size, head_dim), dtype=torch.float32, device=device)
        return cls(zeros, torch.zeros((batch, heads, size), dtype=torch.float32, device=device))

    def step(self, query: Tensor, key: Tensor, value: Tensor, epsilon: float = EPSILON) -> Tensor:
        """Take in one token, ``[batch, heads, features]`` and ``[batch, heads, head_dim]``, and return its output."""
        query, key, value = (tensor.contiguous() for tensor in (query, key, value))
        out = torch.empty_like(value)
        features, dim = query.shape[-1], value.shape[-1]
        call(
            kernels.step, (query.shape[0] * query.shape[1],),
            query, key, value, self.sums, self.mass, out, features**-0.5, epsilon, FEATURES=features, DIM=dim,
            BLOCK_FEATURES=block(features), BLOCK_DIM=block(dim),
        )  # fmt: skip
        return out
