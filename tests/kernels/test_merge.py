"""Parts of attention joined by their log-sum-exp are attention over all keys."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import fovea
from fovea.patterns import Full


def parts(q: Tensor, k: Tensor, v: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Attention to the first three, the next five and the last keys, apart."""
    cuts = (slice(0, 3), slice(3, 8), slice(8, None))
    return [fovea.attention(q, k[:, cut], v[:, cut], Full(), return_lse=True) for cut in cuts]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_parts_make_the_whole(dtype: torch.dtype) -> None:
    q, k, v = (torch.randn(2, n, 3, 4).to(dtype) for n in (7, 9, 9))
    out, lse = fovea.merge(parts(q, k, v))
    wanted, wanted_lse = fovea.attention(q, k, v, Full(), return_lse=True)
    assert out.dtype == dtype
    assert lse.dtype == wanted_lse.dtype
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 3e-2}[dtype]
    torch.testing.assert_close(out, wanted, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(lse, wanted_lse, rtol=1e-2 * tolerance + 1e-6, atol=1e-5)


def test_gradients_of_the_parts_make_those_of_the_whole() -> None:
    q, k, v = (torch.randn(1, n, 2, 4, dtype=torch.float64, requires_grad=True) for n in (7, 9, 9))
    weights, lse_weights = torch.randn(1, 7, 2, 4, dtype=torch.float64), torch.randn(1, 7, 2, dtype=torch.float64)

    def loss(out: Tensor, lse: Tensor) -> Tensor:
        return (out * weights).sum() + (lse * lse_weights).sum()

    found = torch.autograd.grad(loss(*fovea.merge(parts(q, k, v))), (q, k, v))
    wanted = torch.autograd.grad(loss(*fovea.attention(q, k, v, Full(), return_lse=True)), (q, k, v))
    torch.testing.assert_close(found, wanted)


def test_gradients_are_those_of_finite_differences() -> None:
    inputs = [torch.randn(3, 2, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    inputs += [torch.randn(3, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    assert torch.autograd.gradcheck(lambda a, b, x, y: fovea.merge([(a, x), (b, y)]), inputs)


def test_a_part_that_saw_nothing_adds_nothing() -> None:
    out = torch.randn(3, 2, requires_grad=True)
    lse = torch.tensor([0.5, -torch.inf, 900.0], requires_grad=True)
    nothing = torch.zeros(3, 2), torch.full((3,), -torch.inf)
    merged, merged_lse = fovea.merge([nothing, (out, lse), nothing])
    torch.testing.assert_close(merged, torch.where(lse.isfinite()[:, None], out, 0))
    torch.testing.assert_close(merged_lse, lse)
    merged.sum().backward()
    assert out.grad is not None
    assert lse.grad is not None
    assert torch.equal(out.grad, torch.tensor([[1.0, 1.0], [0.0, 0.0], [1.0, 1.0]]))
    assert lse.grad.isfinite().all()


def test_wrong_parts_are_named() -> None:
    with pytest.raises(ValueError, match="parts is empty"):
        fovea.merge([])
    with pytest.raises(ValueError, match=r"parts\[1\] has out \(3, 2\) and lse \(2,\)"):
        fovea.merge([(torch.zeros(3, 2), torch.zeros(3)), (torch.zeros(3, 2), torch.zeros(2))])
