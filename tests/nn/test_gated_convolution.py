"""Short causal convolutions as mixers."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from fovea.nn.gated_convolution import BaseConvolution, CausalConvolution, GatedConvolution
from nn.mixer_contract import check_mixer


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_causal_convolution_is_that_of_torch(kernel: int, bias: bool) -> None:
    conv = CausalConvolution(6, kernel, bias=bias)
    x = torch.randn(2, 11, 6)
    padded = F.pad(x.transpose(1, 2), (kernel - 1, 0))
    torch.testing.assert_close(conv(x), F.conv1d(padded, conv.weight, conv.bias, groups=6).transpose(1, 2))


@pytest.mark.parametrize(
    "layer",
    [
        lambda: GatedConvolution(6),
        lambda: GatedConvolution(6, kernel=5, expand=1, bias=False, conv_bias=True),
        lambda: GatedConvolution(6, kernel=1),
        lambda: BaseConvolution(6),
    ],
)
def test_contract(layer) -> None:
    mixer = layer()
    for parameter in mixer.parameters():
        torch.nn.init.normal_(parameter)
    check_mixer(mixer, 6, 17)


def test_formulas() -> None:
    x = torch.randn(2, 7, 4)
    gated = GatedConvolution(4, conv_bias=True)
    first, second = gated.input(x).chunk(2, -1)
    torch.testing.assert_close(gated(x), gated.output(F.silu(gated.conv(first)) * second))
    base = BaseConvolution(4)
    torch.testing.assert_close(base(x), base.conv(x) * base.gate(x) + x)


def test_state_is_the_published_formula() -> None:
    assert GatedConvolution(1024).state_size(5) == 3 * 2 * 1024


def test_refusals() -> None:
    with pytest.raises(ValueError, match=r"expand=1; expand \* dim must be even, with dim=5"):
        GatedConvolution(5, expand=1)
    with pytest.raises(ValueError, match="kernel=0; it must be at least 1"):
        GatedConvolution(4, kernel=0)
