from __future__ import annotations

import pytest
import torch
from torch import nn

from fovea.errors import UsageError
from fovea.inspect import capture


@pytest.fixture
def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(2, 3), nn.Sequential(nn.ReLU(), nn.Linear(3, 4)), nn.Tanh())


def hooks(network: nn.Module) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in network.modules())


def test_outputs_and_inputs_by_pattern(network: nn.Sequential) -> None:
    x = torch.randn(5, 2)
    with capture(network, "0", "1.*") as outputs, capture(network, "1", what="input") as inputs:
        y = network(x)
        network(2 * x)
    assert outputs.keys() == {"0", "1.0", "1.1"}
    assert [len(entries) for entries in outputs.values()] == [2, 2, 2]
    torch.testing.assert_close(outputs["0"][0], network[0](x))
    torch.testing.assert_close(inputs["1"][0], outputs["0"][0])
    torch.testing.assert_close(outputs["1.1"][0].tanh(), y)
    assert not outputs["0"][0].requires_grad


def test_leaves_nothing_behind(network: nn.Sequential) -> None:
    with capture(network, "*"):
        assert hooks(network) == 5
    assert hooks(network) == 0
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"), capture(network, "*"):
        network(torch.randn(5, 3))
    assert hooks(network) == 0


def test_gradients_flow_when_asked(network: nn.Sequential) -> None:
    x = torch.randn(5, 2, requires_grad=True)
    with capture(network, "0", detach=False) as seen:
        network(x)
    (gradient,) = torch.autograd.grad(seen["0"][0].sum(), x)
    torch.testing.assert_close(gradient, network[0].weight.sum(0).expand(5, 2))


def test_modules_that_are_not_called_stay_empty(network: nn.Sequential) -> None:
    with capture(network, "2") as seen:
        network[0](torch.randn(1, 2))
    assert seen == {"2": []}


def test_unknown_names_are_told(network: nn.Sequential) -> None:
    with pytest.raises(UsageError, match=r"unknown module '1.o'.*here are: 0, 1, 1\.0"), capture(network, "1.o"):
        pass
    assert hooks(network) == 0
