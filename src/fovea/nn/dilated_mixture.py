"""Dilated separable convolutions whose kernels are mixed for each image (Med-DSPP of HBFormer, arXiv 2512.03597).

Both convolutions of a branch are linear in their kernels, so mixing the kernels and convolving once is the same as
convolving with every expert and mixing the results, at a quarter of the convolutions. :meth:`DilatedMixture.forward`
does the first; :meth:`DilatedMixture.expert_by_expert` is the definition, which tests and benchmarks hold it to.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from fovea.nn.norm import Norm, channel_norm


class EfficientChannelAttention(nn.Module):
    """Weigh each channel by its mean and those of its neighbours: ``u * sigmoid(conv1d(mean(u)))`` (arXiv 1910.03151).

    Shapes: ``[B, dim, H, W] -> [B, dim, H, W]``; the convolution runs along the channels, zero padded, without bias.
    """

    def __init__(self, width: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 1, width, padding=width // 2, bias=False)

    def forward(self, u: Float[Tensor, "batch dim height width"]) -> Float[Tensor, "batch dim height width"]:
        mean = u.mean((2, 3))[:, None]  # [B, 1, dim]
        return u * self.conv(mean).sigmoid()[:, 0, :, None, None]


class Gate(nn.Module):
    """Weights that sum to one for each image: ``softmax(W2 relu(W1 mean(z)))``, ``[B, dim, H, W] -> [B, choices]``."""

    def __init__(self, dim: int, hidden: int, choices: int) -> None:
        super().__init__()
        self.reduce = nn.Linear(dim, hidden)
        self.choose = nn.Linear(hidden, choices)

    def forward(self, z: Float[Tensor, "batch dim height width"]) -> Float[Tensor, "batch choices"]:
        return self.choose(F.relu(self.reduce(z.mean((2, 3))))).softmax(-1)


class DilatedMixture(nn.Module):
    """Med-DSPP: branches of dilated depthwise and pointwise convolutions, joined by channel attention.

    With branch weights ``b`` and expert weights ``g`` of each image (one set, shared by all branches and used for both
    convolutions), for dilation ``r``::

        p = sum_i g_i depthwise[r, i](z);  q = sum_j g_j pointwise[r, j](p);  f_r = b_r SiLU(norm_r(q))

    then ``norm(conv1x1(eca(concat_r f_r)))``.

    Shapes: ``[B, dim, H, W] -> [B, dim, H, W]``.

    Args:
        dim: channels, at least 8 (the gates' hidden width is ``dim // 8``).
        dilations: of the branches.
        experts: kernels that each branch mixes; with 1 the convolutions are ordinary ones.
        norm: see :func:`fovea.nn.norm.channel_norm`.
    """

    def __init__(
        self, dim: int, *, dilations: Sequence[int] = (1, 4, 8), experts: int = 4, norm: Norm = "batch"
    ) -> None:
        super().__init__()
        if dim < 8:
            raise ValueError(f"dim={dim}; it must be at least 8, the gates' hidden width is an eighth of it")
        if experts < 1 or not dilations or min(dilations) < 1:
            raise ValueError(f"dilations={tuple(dilations)}, experts={experts}; all must be at least 1")
        self.dilations = tuple(dilations)
        self.branch_gate = Gate(dim, dim // 8, len(self.dilations))
        self.expert_gate = Gate(dim, dim // 8, experts) if experts > 1 else None
        self.depthwise = nn.ModuleList(_kernels(experts, (dim, 1, 3, 3)) for _ in self.dilations)
        self.pointwise = nn.ModuleList(_kernels(experts, (dim, dim)) for _ in self.dilations)
        self.norms = nn.ModuleList(channel_norm(norm, dim) for _ in self.dilations)
        self.eca = EfficientChannelAttention()
        self.fuse = nn.Conv2d(len(self.dilations) * dim, dim, 1, bias=False)
        self.fuse_norm = channel_norm(norm, dim)

    def forward(self, z: Float[Tensor, "batch dim height width"]) -> Float[Tensor, "batch dim height width"]:
        gates = self._expert_weights(z)
        return self._joined(z, [self._mixed(branch, z, gates) for branch in range(len(self.dilations))])

    def expert_by_expert(self, z: Float[Tensor, "batch dim height width"]) -> Float[Tensor, "batch dim height width"]:
        """The same, convolving with every expert and mixing what comes out, as the formula says it."""
        gates = self._expert_weights(z)[..., None, None, None]  # [B, experts, 1, 1, 1]
        branches = []
        for dilation, depthwise, pointwise in zip(self.dilations, self.depthwise, self.pointwise, strict=True):
            pairs = [F.conv2d(z, kernel, None, 1, dilation, dilation, z.shape[1]) for kernel in depthwise.parameters()]
            p = torch.stack([gates[:, i] * out for i, out in enumerate(pairs)]).sum(0)
            outs = [F.conv2d(p, matrix[..., None, None]) for matrix in pointwise.parameters()]
            branches.append(torch.stack([gates[:, j] * out for j, out in enumerate(outs)]).sum(0))
        return self._joined(z, branches)

    def _expert_weights(self, z: Tensor) -> Tensor:
        return z.new_ones(len(z), 1) if self.expert_gate is None else self.expert_gate(z)

    def _mixed(self, branch: int, z: Tensor, gates: Tensor) -> Tensor:
        """One branch before its norm. The batch is folded into the groups, so each image has kernels of its own."""
        batch, dim, height, width = z.shape
        dilation = self.dilations[branch]
        depthwise, pointwise = (
            torch.einsum("be,e...->b...", gates, torch.stack(list(kernels.parameters())).to(gates.dtype))
            for kernels in (self.depthwise[branch], self.pointwise[branch])
        )
        folded = z.reshape(1, batch * dim, height, width)
        p = F.conv2d(folded, depthwise.flatten(0, 1), None, 1, dilation, dilation, batch * dim)
        return torch.bmm(pointwise, p.view(batch, dim, height * width)).unflatten(2, (height, width))

    def _joined(self, z: Tensor, branches: Sequence[Tensor]) -> Tensor:
        weights = self.branch_gate(z)[..., None, None, None]  # [B, branches, 1, 1, 1]
        parts = [weights[:, r] * F.silu(norm(q)) for r, (norm, q) in enumerate(zip(self.norms, branches, strict=True))]
        return self.fuse_norm(self.fuse(self.eca(torch.cat(parts, 1))))

    def extra_repr(self) -> str:
        return f"dilations={self.dilations}"


def _kernels(experts: int, shape: tuple[int, ...]) -> nn.ParameterList:
    """Kernels that start as those of PyTorch's convolutions do, uniform within ``fan_in ** -0.5``."""
    bound = math.prod(shape[1:]) ** -0.5
    return nn.ParameterList(nn.Parameter(torch.empty(shape).uniform_(-bound, bound)) for _ in range(experts))
