"""The feed-forward half of a transformer block."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from fovea.nn.linear import Linear


class MLP(nn.Module):
    """``Linear(GELU(Linear(x)))``, exact GELU, on the last axis: ``[..., dim] -> [..., dim]``."""

    def __init__(self, dim: int, hidden: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.expand = Linear(dim, hidden)
        self.contract = Linear(hidden, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Float[Tensor, "*tokens dim"]) -> Float[Tensor, "*tokens dim"]:
        return self.dropout(self.contract(self.dropout(F.gelu(self.expand(x)))))
