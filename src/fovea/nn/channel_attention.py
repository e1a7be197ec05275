"""Channel attention and the convolution block around it (RCAN, arXiv 1807.02758; HAT, section 3.2)."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from fovea.nn.convolution import GridConv


class ChannelAttention(nn.Module):
    """Weigh each channel by what the whole grid holds: ``u * sigmoid(W2 relu(W1 mean(u)))``.

    Shapes: ``[B, *grid, dim] -> [B, *grid, dim]`` for any number of grid axes. The mean is over all that is given, so
    the output of one tile of an image differs from that of the whole.

    Args:
        dim: channels.
        squeeze: ``W1`` leads to ``dim // squeeze`` channels.
        bias: of ``W1`` and ``W2``.
    """

    def __init__(self, dim: int, squeeze: int, *, bias: bool = True) -> None:
        super().__init__()
        if not 1 <= squeeze <= dim:
            raise ValueError(f"squeeze={squeeze}; it must be 1 to {dim}, the channels")
        self.reduce = nn.Linear(dim, dim // squeeze, bias=bias)
        self.restore = nn.Linear(dim // squeeze, dim, bias=bias)

    def forward(self, u: Float[Tensor, "batch *grid dim"]) -> Float[Tensor, "batch *grid dim"]:
        mean = u.mean(dim=tuple(range(1, u.ndim - 1)), keepdim=True)
        return u * self.restore(F.relu(self.reduce(mean))).sigmoid()


class ChannelAttentionBlock(nn.Module):
    """CAB: convolution, exact GELU, convolution, channel attention (HAT, section 3.2).

    Shapes: ``[B, *grid, dim] -> [B, *grid, dim]``.

    Args:
        dim: channels.
        compress: the convolutions meet at ``dim // compress`` channels (beta in the paper).
        squeeze: the divisor inside the channel attention; not the same thing as ``compress``.
        axes: number of grid axes.
    """

    def __init__(self, dim: int, compress: int, squeeze: int, *, axes: int = 2) -> None:
        super().__init__()
        if not 1 <= compress <= dim:
            raise ValueError(f"compress={compress}; it must be 1 to {dim}, the channels")
        self.compress = GridConv(dim, dim // compress, 3, axes=axes)
        self.expand = GridConv(dim // compress, dim, 3, axes=axes)
        self.attention = ChannelAttention(dim, squeeze)

    def forward(self, x: Float[Tensor, "batch *grid dim"]) -> Float[Tensor, "batch *grid dim"]:
        return self.attention(self.expand(F.gelu(self.compress(x))))
