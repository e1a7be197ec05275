"""Short causal convolutions as mixers: the cheap layers of Based (arXiv 2402.18668, section 4; arXiv 2312.04927)."""

from __future__ import annotations

import math
from abc import abstractmethod

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from fovea.nn.linear import Linear
from fovea.nn.mixer import Mixer, State, real_tokens


class CausalConvolution(nn.Module):
    """A convolution along time for each channel alone: ``y_i = b + sum_t w_t x_{i - (kernel - 1) + t}``.

    Tokens before the first, and of other documents, count as zeros.

    Shapes: ``[batch, tokens, channels] -> [batch, tokens, channels]``; the weight is ``[channels, 1, kernel]``.

    Args:
        channels: how many.
        kernel: tokens that an output sees, its own included.
        bias: whether a number is added to each channel.
    """

    def __init__(self, channels: int, kernel: int, *, bias: bool) -> None:
        super().__init__()
        if kernel < 1:
            raise ValueError(f"kernel={kernel}; it must be at least 1")
        self.kernel = kernel
        self.weight = nn.Parameter(torch.empty(channels, 1, kernel))
        self.bias = nn.Parameter(torch.empty(channels)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """As ``nn.Conv1d`` starts: uniform within ``kernel ** -0.5``."""
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -1 / math.sqrt(self.kernel), 1 / math.sqrt(self.kernel))

    def forward(
        self,
        x: Float[Tensor, "batch tokens channels"],
        documents: Int64[Tensor, "batch tokens"] | None = None,
        before: Float[Tensor, "batch past channels"] | None = None,
    ) -> Float[Tensor, "batch tokens channels"]:
        """``before``: the ``kernel - 1`` tokens before these; zeros unless given."""
        tokens, past = x.shape[1], self.kernel - 1
        padded = F.pad(x, (0, 0, past, 0)) if before is None else torch.cat([before, x], 1)
        out = x * self.weight[:, 0, -1]
        for tap in range(past):
            shifted = padded[:, tap : tap + tokens]
            if documents is not None:
                same = F.pad(documents, (past - tap, 0), value=-1)[:, :tokens] == documents
                shifted = shifted * same[..., None]
            out = torch.addcmul(out, shifted, self.weight[:, 0, tap])
        return out if self.bias is None else out + self.bias


class ConvolutionMixer(Mixer):
    """What mixers made of one causal convolution share: the last ``kernel`` inputs of it are the state.

    Subclasses say what goes into the convolution and what is made of what comes out.
    """

    conv: CausalConvolution

    def forward(
        self, x: Float[Tensor, "batch tokens dim"], documents: Int64[Tensor, "batch tokens"] | None = None
    ) -> Float[Tensor, "batch tokens dim"]:
        inputs, beside = self.split(x)
        return self.join(self.conv(inputs, documents), beside)

    @abstractmethod
    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The convolution's inputs, and what is kept beside it."""

    @abstractmethod
    def join(self, convolved: Tensor, beside: Tensor) -> Tensor:
        """The mixer's outputs."""

    def start(self, batch: int, like: Tensor) -> State:
        position = torch.zeros(batch, dtype=torch.long, device=like.device)
        return State(position, {"inputs": like.new_zeros(batch, self.conv.kernel, len(self.conv.weight))})

    @torch.no_grad()
    def prefill(
        self,
        x: Float[Tensor, "batch tokens dim"],
        state: State,
        lengths: Int64[Tensor, " batch"] | None = None,
    ) -> Float[Tensor, "batch tokens dim"]:
        inputs, beside = self.split(x)
        kernel, held = self.conv.kernel, state.tensors["inputs"]
        mixed = self.join(self.conv(inputs, before=held[:, 1:]), beside)
        if lengths is None:
            state.tensors["inputs"] = torch.cat([held, inputs[:, -kernel:]], 1)[:, -kernel:]
            state.position += x.shape[1]
        else:
            real_tokens(x, lengths)  # refuses what does not fit
            last = lengths[:, None] + torch.arange(kernel, device=x.device)
            row = torch.arange(len(x), device=x.device)[:, None]
            state.tensors["inputs"] = torch.cat([held, inputs], 1)[row, last]
            state.position += lengths
        return mixed

    def state_size(self, length: int) -> int:
        return self.conv.kernel * len(self.conv.weight)


class GatedConvolution(ConvolutionMixer):
    """The short gated convolution of Based's language models: ``(SiLU(conv(u1)) * u2) W_out``, ``[u1; u2] = x W_in``.

    Shapes: ``[batch, tokens, dim] -> [batch, tokens, dim]``.

    Args:
        dim: channels.
        kernel: tokens that the convolution sees.
        expand: channels of u1 and u2 together, as a multiple of ``dim``; even, or ``dim`` is.
        bias: whether the two projections have one.
        conv_bias: whether the convolution has one: the official CUDA path does, its plain path does not.
    """

    def __init__(
        self, dim: int, *, kernel: int = 3, expand: int = 4, bias: bool = True, conv_bias: bool = False
    ) -> None:
        super().__init__()
        if expand < 1 or expand * dim % 2:
            raise ValueError(f"expand={expand}; expand * dim must be even, with dim={dim}")
        self.input = Linear(dim, expand * dim, bias=bias)
        self.conv = CausalConvolution(expand * dim // 2, kernel, bias=conv_bias)
        self.output = Linear(expand * dim // 2, dim, bias=bias)

    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        inputs, gate = self.input(x).chunk(2, -1)
        return inputs, gate

    def join(self, convolved: Tensor, beside: Tensor) -> Tensor:
        return self.output(F.silu(convolved) * beside)


class BaseConvolution(ConvolutionMixer):
    """The short gated convolution of the recall experiments (zoology): ``conv(x) * (x W + b) + x``, no activation.

    Shapes: ``[batch, tokens, dim] -> [batch, tokens, dim]``.

    Args:
        dim: channels.
        kernel: tokens that the convolution sees.
    """

    def __init__(self, dim: int, *, kernel: int = 3) -> None:
        super().__init__()
        self.gate = Linear(dim, dim)
        self.conv = CausalConvolution(dim, kernel, bias=True)

    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x

    def join(self, convolved: Tensor, beside: Tensor) -> Tensor:
        return convolved * self.gate(beside) + beside
