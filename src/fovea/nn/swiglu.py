"""The gated linear unit with SiLU (arXiv 2002.05202)."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from fovea.nn.linear import Linear


class SwiGLU(nn.Module):
    """``W3 (SiLU(W1 u) * W2 u)``: ``[..., dim] -> [..., dim]``.

    Args:
        dim: channels in and out.
        hidden: channels between; ``dim`` unless given.
        bias: whether the maps have one.
    """

    def __init__(self, dim: int, hidden: int | None = None, *, bias: bool = True) -> None:
        super().__init__()
        hidden = dim if hidden is None else hidden
        self.opened = Linear(dim, hidden, bias=bias)
        self.value = Linear(dim, hidden, bias=bias)
        self.project = Linear(hidden, dim, bias=bias)

    def forward(self, u: Float[Tensor, "*tokens dim"]) -> Float[Tensor, "*tokens dim"]:
        return self.project(F.silu(self.opened(u)) * self.value(u))
