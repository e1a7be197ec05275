"""Second-order Taylor attention on GPUs, and the state that decoding carries.

The definition and what the names mean: :mod:`fovea.kernels.taylor`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fovea.kernels.taylor import EPS
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
    query: Tensor, key: Tensor, value: Tensor, eps: float = EPS, *, chunk: int = CHUNK, block_tokens: int = TOKENS
) -> Tensor:
    """``y_i = sum_{j <= i} a_ij v_j / (sum_{j <= i} a_ij + eps)``, ``a = 1 + s + s^2 / 2``, ``s = q . k / sqrt(f)``.

    Differentiable in query, key and value. The feature map is never in memory; the states of the chunks are:
    ``f^2 + f + 1`` rows of ``head_dim`` float32 numbers every ``chunk`` tokens.

    Args:
        query, key: ``[batch, tokens, heads, features]``, features of at most 64.
        value: ``[batch, tokens, heads, head_dim]``, head_dim of at most 128.
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
    return _Taylor.apply(query, key, value, eps, chunk, block_tokens)  # type: ignore[no-any-return]


class _Taylor(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, eps: float, chunk: int, tokens: int) -> Tensor:
        query, key, value = (tensor.contiguous() for tensor in (query, key, value))
        shape = _Shape.of(query, value, chunk, tokens)
        states, masses = shape.states(key, value, None, 1.0, reverse=False)
        out = torch.empty_like(value)
        norm = torch.empty(value.shape[:-1], dtype=torch.float32, device=value.device)
        call(
            kernels.outputs, shape.blocks,
            query, key, value, states, masses, out, norm, *shape.numbers, shape.scale, eps, **shape.sizes,
            PRECISION=precision(value.dtype), STATE_PRECISION=shape.precision,
            WIDEN=interpreted() and value.dtype == torch.bfloat16,
        )  # fmt: skip
        ctx.save_for_backward(query, key, value, out, norm)
        ctx.shape = shape
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        query, key, value, out, norm = ctx.saved_tensors
        shape: _Shape = ctx.shape
        over = grads[0].float() / norm[..., None]
        under = -(over * out).sum(-1)
        dq, dk, dv = (torch.empty_like(tensor) for tensor in (query, key, value))
        sizes = shape.sizes | {"STATE_PRECISION": shape.precision}
        states, masses = shape.states(key, value, None, 1.0, reverse=False)
        call(
            kernels.grad_queries, shape.blocks,
            query, key, value, over, under, states, masses, dq, *shape.numbers, shape.scale, **sizes,
        )  # fmt: skip
        states, masses = shape.states(query, over, under, shape.scale, reverse=True)
        call(
            kernels.grad_keys, shape.blocks,
            query, key, value, over, under, states, masses, dk, dv, *shape.numbers, shape.scale, **sizes,
        )  # fmt: skip
        return dq, dk, dv, None, None, None


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
    precision: str

    @classmethod
    def of(cls, query: Tensor, value: Tensor, chunk: int, tokens: int) -> _Shape:
        # States are float32; half-precision inputs do not need more of their products than tf32 keeps.
        chosen = precision(value.dtype) if value.dtype == torch.float32 else "tf32"
        batch, length, heads, features = query.shape
        return cls(batch, length, heads, features, value.shape[-1], chunk, tokens, chosen)

    @property
    def scale(self) -> float:
        return self.features**-0.5

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

    def step(self, query: Tensor, key: Tensor, value: Tensor, eps: float = EPS) -> Tensor:
        """Take in one token, ``[batch, heads, features]`` and ``[batch, heads, head_dim]``, and return its output."""
        query, key, value = (tensor.contiguous() for tensor in (query, key, value))
        out = torch.empty_like(value)
        features, dim = query.shape[-1], value.shape[-1]
        call(
            kernels.step, (query.shape[0] * query.shape[1],),
            query, key, value, self.sums, self.mass, out, features**-0.5, eps, FEATURES=features, DIM=dim,
            BLOCK_FEATURES=block(features), BLOCK_DIM=block(dim),
        )  # fmt: skip
        return out
