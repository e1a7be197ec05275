"""Instance norm in place against its formula: values, gradients, memory, precision."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from fovea.nn import instance_norm
from fovea.nn.instance_norm import instance_norm_


def formula(x: Tensor, residual: Tensor | None, slope: float) -> Tensor:
    normal = F.instance_norm(x)
    return F.leaky_relu(normal if residual is None else normal + residual, slope)


@pytest.mark.parametrize("with_residual", [False, True])
@pytest.mark.parametrize("slope", [1.0, 0.01])
@pytest.mark.parametrize("grid", [(4, 5), (3, 4, 5)])
def test_values_and_gradients(
    grid: tuple[int, ...], slope: float, with_residual: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(instance_norm, "ROWS", 21)  # seven voxels at a time
    x = torch.randn(2, 3, *grid, dtype=torch.float64, requires_grad=True)
    residual = torch.randn_like(x).requires_grad_() if with_residual else None
    ours, plain = instance_norm_(x * 1, residual=residual, slope=slope), formula(x, residual, slope)
    torch.testing.assert_close(ours, plain)
    wanted, weights = [x] if residual is None else [x, residual], torch.randn_like(plain)
    for first, second in zip(
        torch.autograd.grad(ours, wanted, weights), torch.autograd.grad(plain, wanted, weights), strict=True
    ):
        torch.testing.assert_close(first, second)


def test_the_memory_is_the_input_s() -> None:
    x = torch.randn(1, 4, 6, 6, 6).contiguous(memory_format=torch.channels_last_3d)
    expected = formula(x, None, 0.01)
    out = instance_norm_(x, slope=0.01)
    assert out.data_ptr() == x.data_ptr()
    torch.testing.assert_close(x, expected)


def test_sums_over_many_voxels_stay_precise() -> None:
    """Batch norm of PyTorch, channels last, is wrong in the fourth digit here."""
    x = (torch.randn(1, 2, 64, 64, 64) + 3).contiguous(memory_format=torch.channels_last_3d)
    expected = F.instance_norm(x.double())
    assert (instance_norm_(x).double() - expected).abs().max() < 3e-6


def test_a_single_voxel_becomes_zero() -> None:
    assert not instance_norm_(torch.randn(2, 3, 1, 1, 1)).any()


def test_what_the_backward_pass_needs_may_not_be_changed() -> None:
    x = torch.randn(1, 2, 4, 4, requires_grad=True)
    out = instance_norm_(x * 1)
    out.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()


def test_compiled() -> None:
    x = torch.randn(1, 2, 4, 4)
    found = torch.compile(lambda t: instance_norm_(t * 1, slope=0.5), backend="aot_eager", fullgraph=True)(x)
    torch.testing.assert_close(found, formula(x, None, 0.5))
