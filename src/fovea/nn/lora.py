"""Low-rank adapters beside linear maps (LoRA, arXiv 2106.09685), and the gated form of LoLA-SpecViT."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from fovea.nn.linear import Linear

ADAPTERS = ("down", "up", "gate", "residual")
"""Names of the parameters that are an adapter's own."""


class LoRALinear(Linear):
    """A linear map and beside it one of low rank: ``y = W x + c + s U (D x)`` with ``s = alpha / rank``.

    ``U`` starts at zero, so that a new adapter changes nothing. Shapes: ``[..., inputs] -> [..., outputs]``
    (arXiv 2106.09685, section 4.1).

    Args:
        inputs, outputs: channels.
        rank: of ``D`` (``[rank, inputs]``) and ``U`` (``[outputs, rank]``).
        alpha: ``s * rank``.
    """

    def __init__(self, inputs: int, outputs: int, *, rank: int, alpha: float) -> None:
        super().__init__(inputs, outputs)
        if rank < 1:
            raise ValueError(f"rank={rank}; it must be at least 1")
        self.rank, self.alpha = rank, alpha
        self.down = nn.Parameter(torch.empty(rank, inputs))
        self.up = nn.Parameter(torch.zeros(outputs, rank))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    @property
    def scale(self) -> float:
        """The factor of the adapter, s."""
        return self.alpha / self.rank

    def forward(self, input: Float[Tensor, "*tokens inputs"]) -> Float[Tensor, "*tokens outputs"]:
        return super().forward(input) + self.low_rank(input)

    def low_rank(self, x: Float[Tensor, "*tokens inputs"]) -> Float[Tensor, "*tokens outputs"]:
        """``s U (D x)``."""
        return F.linear(F.linear(x, self.down), self.scale * self.up)

    @torch.no_grad()
    def merge(self) -> None:
        """Put the adapter into the weight: ``W += s U D``, ``U = 0``. The map stays what it is, and so it is put in
        once however often this is called."""
        self.weight += self.scale * self.up @ self.down
        self.up.zero_()

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, rank={self.rank}, alpha={self.alpha}"


class GatedLoRALinear(LoRALinear):
    """The adapter of LoLA-SpecViT's code: ``y = W x + c + sigmoid(G x) * (s U (D x)) + V x``.

    ``G`` and ``V`` are full matrices ``[outputs, inputs]``: the adapter has more parameters than the map it adapts. The
    code's constructor starts it at ``U = 0``; ``V = 0`` is ours, so that a new adapter changes nothing.

    Only ``V`` can be merged: what the gate lets through depends on ``x``. (The published code adds ``V`` to ``W`` and
    keeps it as well, so that a merged layer counts it twice. Here it is zeroed.)
    """

    def __init__(self, inputs: int, outputs: int, *, rank: int, alpha: float) -> None:
        super().__init__(inputs, outputs, rank=rank, alpha=alpha)
        self.gate = nn.Parameter(torch.empty(outputs, inputs))
        self.residual = nn.Parameter(torch.zeros(outputs, inputs))
        nn.init.kaiming_uniform_(self.gate, a=math.sqrt(5))

    def forward(self, input: Float[Tensor, "*tokens inputs"]) -> Float[Tensor, "*tokens outputs"]:
        plain = F.linear(input, self.weight + self.residual, self.bias)
        return plain + F.linear(input, self.gate).sigmoid() * self.low_rank(input)

    @torch.no_grad()
    def merge(self) -> None:
        """``W += V``, ``V = 0``; the gated part stays beside it."""
        self.weight += self.residual
        self.residual.zero_()


def adapters(module: nn.Module) -> dict[str, nn.Parameter]:
    """The adapters' parameters by their names in ``module``."""
    return {
        f"{path}.{name}" if path else name: parameter
        for path, layer in module.named_modules()
        if isinstance(layer, LoRALinear)
        for name, parameter in layer.named_parameters(recurse=False)
        if name in ADAPTERS
    }


def merge(module: nn.Module) -> None:
    """Merge every adapter in ``module`` as far as it can be."""
    for layer in module.modules():
        if isinstance(layer, LoRALinear):
            layer.merge()
