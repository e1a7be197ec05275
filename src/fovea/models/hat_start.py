"""A start from which a HAT of any size learns at once: the untrained network already enlarges by interpolation.

The published trainings start from random layers and need tens of thousands of steps before they draw what goes in at
all, since the network has no skip from image to image. Nothing in its form forbids a better start: the colours can pass
along the skip of the features and through the sub-pixel convolutions, whose kernels can interpolate. Every layer stays
free to learn; what is set is a fraction of the channels. This start is ours, not the papers'.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fovea.models.hat import HAT

LEAK = 0.01
"""Slope of the leaky rectifier between features and upsampler."""


@torch.no_grad()
def start_as_interpolation(network: HAT) -> HAT:
    """Set the network's first and last layers so that it enlarges by quadratic interpolation; returns it.

    At scale 1 with an image residual the network starts as the identity.
    """
    colours = network.config.in_chans
    if network.scale == 1 and network.config.image_residual:
        nn.init.zeros_(network.conv_last.conv.weight)
        nn.init.zeros_(_bias(network.conv_last.conv))
        return network
    _pass(network.conv_first.conv, colours)
    features = network.conv_after_groups.conv
    features.weight[:colours], _bias(features)[:colours] = 0, 0
    before = network.conv_before_upsampler.conv
    _pass(before, colours)
    _pass(before, colours, first=colours, sign=-1)
    rectified = True
    for factor, conv in zip(network.upsampler.factors, network.upsampler.convs, strict=True):
        _interpolate(conv.conv, colours, factor, rectified)  # type: ignore[arg-type]
        rectified = False
    last = network.conv_last.conv
    nn.init.zeros_(last.weight)
    _pass(last, colours, rectified=rectified)
    return network


def _pass(conv: nn.Module, colours: int, *, first: int = 0, sign: float = 1.0, rectified: bool = False) -> None:
    """Output ``first + c`` is input ``c``."""
    identity = torch.zeros(3, 3)
    identity[1, 1] = sign
    for colour in range(colours):
        _set(conv, first + colour, colour, colours, identity, rectified)


def _interpolate(conv: nn.Module, colours: int, factor: int, rectified: bool) -> None:
    """Sub-pixel ``(i, j)`` of output ``c`` is the quadratic through the three nearest pixels of input ``c``."""
    offset = (torch.arange(factor) + 0.5) / factor - 0.5
    taps = torch.stack([offset * (offset - 1) / 2, 1 - offset**2, offset * (offset + 1) / 2], 1)  # [factor, 3]
    for colour in range(colours):
        for i in range(factor):
            for j in range(factor):
                place = (colour * factor + i) * factor + j
                _set(conv, place, colour, colours, torch.outer(taps[i], taps[j]), rectified)


def _set(conv: nn.Module, output: int, colour: int, colours: int, kernel: Tensor, rectified: bool) -> None:
    """One output reads one colour; a colour behind the rectifier is the difference of the two signs it was sent in."""
    conv.weight[output] = 0  # type: ignore[index, operator]
    _bias(conv)[output] = 0
    if rectified:
        conv.weight[output, colour] = kernel / (1 + LEAK)  # type: ignore[index, operator]
        conv.weight[output, colours + colour] = -kernel / (1 + LEAK)  # type: ignore[index, operator]
    else:
        conv.weight[output, colour] = kernel  # type: ignore[index, operator]


def _bias(conv: nn.Module) -> Tensor:
    bias = conv.bias
    assert isinstance(bias, Tensor)
    return bias
