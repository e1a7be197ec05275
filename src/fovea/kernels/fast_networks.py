"""Networks small enough to be trained while reading: what they compute, and their gradients in closed form.

Weights are dictionaries of tensors ``[..., rows, columns]`` whose leading axes (batch, memory heads) broadcast; inputs
are ``[..., tokens, dim]``. A column of weights stands for an input, so that the norm of a row is taken along the
input's axis. Gradients are those of ``sum_t rate[t] * loss_t`` and are ordinary operations: an outer loss
differentiates through them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

Weights = dict[str, Tensor]


class FastNetwork(ABC):
    """What a memory computes. ``fast`` weights learn while reading, ``fixed`` ones do not; ``normed`` are the matrices
    whose rows may be held at their first norms."""

    fast: tuple[str, ...]
    fixed: tuple[str, ...] = ()
    normed: tuple[str, ...]

    @abstractmethod
    def shapes(self, dim: int, value_dim: int, hidden: int) -> dict[str, tuple[int, int]]:
        """Shape of every weight of one memory."""

    @abstractmethod
    def apply(self, w: Weights, z: Tensor) -> tuple[Tensor, Any]:
        """``f(z)``, and what :meth:`gradients` needs of the way there."""

    @abstractmethod
    def gradients(self, w: Weights, z: Tensor, kept: Any, slope: Tensor, rates: Weights) -> Weights:
        """Gradient of each fast weight, given ``slope = d loss_t / d f(z_t)`` ``[..., tokens, value_dim]`` and for each
        weight the tokens' rates ``[..., tokens, 1]``."""

    def __call__(self, w: Weights, z: Tensor) -> Tensor:
        return self.apply(w, z)[0]


@dataclass(frozen=True)
class GLU(FastNetwork):
    """``f(z) = [z +] w1 (silu(w0 z) * (w2 z))`` (AllMem with the residual, LaCT without)."""

    residual: bool = True
    fast = normed = ("w0", "w1", "w2")

    def shapes(self, dim: int, value_dim: int, hidden: int) -> dict[str, tuple[int, int]]:
        return {"w0": (hidden, dim), "w1": (value_dim, hidden), "w2": (hidden, dim)}

    def apply(self, w: Weights, z: Tensor) -> tuple[Tensor, Any]:
        a, b = z @ w["w0"].mT, z @ w["w2"].mT
        s = F.silu(a)
        out = (s * b) @ w["w1"].mT
        return (out + z if self.residual else out), (a, b, s)

    def gradients(self, w: Weights, z: Tensor, kept: Any, slope: Tensor, rates: Weights) -> Weights:
        a, b, s = kept
        du = slope @ w["w1"]
        sigma = a.sigmoid()
        da = du * b * sigma * (1 + a * (1 - sigma))
        return {
            "w0": (da * rates["w0"]).mT @ z,
            "w1": (slope * rates["w1"]).mT @ (s * b),
            "w2": (du * s * rates["w2"]).mT @ z,
        }


@dataclass(frozen=True)
class Linear(FastNetwork):
    """``f(z) = w z``: with the squared loss the delta rule."""

    fast = normed = ("w",)

    def shapes(self, dim: int, value_dim: int, hidden: int) -> dict[str, tuple[int, int]]:
        return {"w": (value_dim, dim)}

    def apply(self, w: Weights, z: Tensor) -> tuple[Tensor, Any]:
        return z @ w["w"].mT, None

    def gradients(self, w: Weights, z: Tensor, kept: Any, slope: Tensor, rates: Weights) -> Weights:
        return {"w": (slope * rates["w"]).mT @ z}


@dataclass(frozen=True)
class MLP(FastNetwork):
    """``f(z) = w1 gelu(w0 z)`` (Titans, arXiv 2501.00663, two layers)."""

    fast = normed = ("w0", "w1")

    def shapes(self, dim: int, value_dim: int, hidden: int) -> dict[str, tuple[int, int]]:
        return {"w0": (hidden, dim), "w1": (value_dim, hidden)}

    def apply(self, w: Weights, z: Tensor) -> tuple[Tensor, Any]:
        a = z @ w["w0"].mT
        u = F.gelu(a)
        return u @ w["w1"].mT, (a, u)

    def gradients(self, w: Weights, z: Tensor, kept: Any, slope: Tensor, rates: Weights) -> Weights:
        a, u = kept
        normal = torch.exp(-0.5 * a * a) * (2 * torch.pi) ** -0.5
        slope_of_gelu = 0.5 * (1 + torch.erf(a * 2**-0.5)) + a * normal
        da = (slope @ w["w1"]) * slope_of_gelu
        return {"w0": (da * rates["w0"]).mT @ z, "w1": (slope * rates["w1"]).mT @ u}


@dataclass(frozen=True)
class NormedMLP(FastNetwork):
    """``f(z) = z + LN(w1 gelu(w0 z + b0) + b1)`` (TTT-MLP, arXiv 2407.04620): the layer norm's ``scale`` and ``shift``
    are learned by the outer loss only."""

    eps: float = 1e-6
    fast = ("w0", "b0", "w1", "b1")
    fixed = ("scale", "shift")
    normed = ("w0", "w1")

    def shapes(self, dim: int, value_dim: int, hidden: int) -> dict[str, tuple[int, int]]:
        biases = {"b0": (hidden, 1), "b1": (value_dim, 1), "scale": (value_dim, 1), "shift": (value_dim, 1)}
        return {"w0": (hidden, dim), "w1": (value_dim, hidden), **biases}

    def apply(self, w: Weights, z: Tensor) -> tuple[Tensor, Any]:
        a = z @ w["w0"].mT + w["b0"].mT
        u = F.gelu(a, approximate="tanh")
        y = u @ w["w1"].mT + w["b1"].mT
        centred = y - y.mean(-1, keepdim=True)
        inverse = (centred.square().mean(-1, keepdim=True) + self.eps).rsqrt()
        unit = centred * inverse
        return z + unit * w["scale"].mT + w["shift"].mT, (a, u, unit, inverse)

    def gradients(self, w: Weights, z: Tensor, kept: Any, slope: Tensor, rates: Weights) -> Weights:
        a, u, unit, inverse = kept
        dunit = slope * w["scale"].mT
        across = (dunit * unit).mean(-1, keepdim=True)
        dy = (dunit - dunit.mean(-1, keepdim=True) - unit * across) * inverse
        root = (2 / torch.pi) ** 0.5
        tanh = torch.tanh(root * (a + 0.044715 * a**3))
        slope_of_gelu = 0.5 * (1 + tanh) + 0.5 * a * (1 - tanh * tanh) * root * (1 + 3 * 0.044715 * a * a)
        da = (dy @ w["w1"]) * slope_of_gelu
        return {
            "w0": (da * rates["w0"]).mT @ z,
            "b0": (da * rates["b0"]).sum(-2).unsqueeze(-1),
            "w1": (dy * rates["w1"]).mT @ u,
            "b1": (dy * rates["b1"]).sum(-2).unsqueeze(-1),
        }
