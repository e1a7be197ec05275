from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fovea.models.unet_discriminator import UNetDiscriminator


def test_one_logit_a_pixel() -> None:
    assert UNetDiscriminator(3, 4)(torch.rand(2, 3, 16, 24)).shape == (2, 1, 16, 24)


def test_inner_convolutions_have_norm_one_after_some_training() -> None:
    network = UNetDiscriminator(3, 4)
    x = torch.rand(1, 3, 8, 8)
    for _ in range(50):
        network(x)
    for conv in (*network.down, *network.up, *network.refine):
        assert torch.linalg.matrix_norm(conv.weight.detach().flatten(1), 2).item() == pytest.approx(1, abs=0.02)
    assert torch.linalg.matrix_norm(network.first.weight.detach().flatten(1), 2).item() != pytest.approx(1, abs=0.02)


def test_evaluation_leaves_the_estimates_alone() -> None:
    network = UNetDiscriminator(3, 4).eval()
    before = {name: buffer.clone() for name, buffer in network.named_buffers()}
    network(torch.rand(1, 3, 8, 8))
    for name, buffer in network.named_buffers():
        assert torch.equal(buffer, before[name])


class Nothing(nn.Module):
    """A convolution whose output is zero."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.outputs = outputs

    def forward(self, x: Tensor) -> Tensor:
        return x.new_zeros(x.shape[0], self.outputs, *x.shape[2:])


def test_each_doubling_adds_what_the_halving_left_at_its_size() -> None:
    network = UNetDiscriminator(3, 4).eval()
    x = torch.rand(1, 3, 16, 16)
    before = network(x)
    network.up[2] = Nothing(4)  # all that remains is the first skip
    expected = F.leaky_relu(network.first(x), 0.2)
    for conv in network.refine:
        expected = F.leaky_relu(conv(expected), 0.2)
    torch.testing.assert_close(network(x), network.last(expected))
    assert not torch.allclose(network(x), before)


def test_sizes_that_cannot_be_halved_thrice_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(8, 12\) pixels; both sides must be multiples of 8"):
        UNetDiscriminator(3, 4)(torch.rand(1, 3, 8, 12))
