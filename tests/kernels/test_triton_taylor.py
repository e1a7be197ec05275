"""Second-order Taylor attention: its two definitions, and the kernels against them."""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch

from fovea.kernels import taylor
from fovea.kernels.taylor_features import feature_map

interpreted = pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") != "1", reason="runs where Triton interprets")


def inputs(tokens: int, features: int, dim: int, dtype: torch.dtype, heads: int = 1) -> list[Any]:
    """Query, key, value and a cotangent."""
    shapes = (features, features, dim, dim)
    return [torch.randn(1, tokens, heads, width, dtype=torch.float64).to(dtype) for width in shapes]


def test_definitions_agree() -> None:
    q, k, v, _ = inputs(9, 4, 3, torch.float64, heads=2)
    torch.testing.assert_close(taylor.recurrent(q, k, v)[0], taylor.quadratic(q, k, v))
    scores = (feature_map(q[0, 0, 0], "full") * feature_map(k[0, 0, 0], "full")).sum()
    s = (q[0, 0, 0] * k[0, 0, 0]).sum() / 2
    torch.testing.assert_close(scores, 1 + s + s * s / 2)


@interpreted
@pytest.mark.parametrize(
    ("tokens", "features", "dim", "dtype"),
    [(50, 4, 20, torch.float32), (33, 6, 8, torch.float32), (37, 4, 16, torch.bfloat16)],
)
def test_kernels_are_the_definition(tokens: int, features: int, dim: int, dtype: torch.dtype) -> None:
    from fovea.kernels.triton.taylor import taylor_attention

    *tensors, weights = inputs(tokens, features, dim, dtype)
    leaves = [tensor.clone().requires_grad_() for tensor in tensors]
    exact = [tensor.double().requires_grad_() for tensor in tensors]
    out, wanted = taylor_attention(*leaves, chunk=32, block_tokens=16), taylor.quadratic(*exact)
    found = torch.autograd.grad((out * weights).sum(), leaves)
    expected = torch.autograd.grad((wanted * weights.double()).sum(), exact)
    allowed = 1e-5 if dtype == torch.float32 else 2e-2
    for mine, theirs in zip((out, *found), (wanted, *expected), strict=True):
        assert mine.dtype == dtype
        assert (mine.double() - theirs).norm() <= allowed * theirs.norm()


@interpreted
def test_the_cotangent_may_lie_in_any_order() -> None:
    from fovea.kernels.triton.taylor import taylor_attention

    *leaves, weights = inputs(33, 4, 8, torch.float32, heads=2)
    leaves = [leaf.requires_grad_() for leaf in leaves]
    out = taylor_attention(*leaves, chunk=32, block_tokens=16)
    strided = weights.transpose(1, 2).contiguous().transpose(1, 2)
    found = torch.autograd.grad(out, leaves, strided)
    expected = torch.autograd.grad(taylor.quadratic(*leaves), leaves, weights)
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)


@interpreted
def test_steps_are_the_definition() -> None:
    from fovea.kernels.triton.taylor import TaylorState

    q, k, v, _ = inputs(7, 4, 12, torch.float32, heads=2)
    state = TaylorState.empty(1, 2, 4, 12, "cpu")
    out = torch.stack([state.step(q[:, t], k[:, t], v[:, t]) for t in range(7)], 1)
    torch.testing.assert_close(out, taylor.quadratic(q, k, v))


def test_shapes_that_do_not_fit_are_named() -> None:
    pytest.importorskip("triton")
    from fovea.kernels.triton.taylor import taylor_attention

    q, k, v, _ = inputs(4, 4, 4, torch.float32)
    with pytest.raises(ValueError, match="must be"):
        taylor_attention(q, k[:, :3], v)
    with pytest.raises(ValueError, match="at most 64"):
        taylor_attention(*2 * [torch.empty(1, 4, 1, 80)], value=v)


@pytest.mark.gpu
@pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="this process interprets")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_kernels_on_a_gpu(dtype: torch.dtype) -> None:
    from fovea.kernels.triton.taylor import TaylorState, taylor_attention

    *tensors, weights = inputs(1500, 16, 64, dtype, heads=2)
    leaves = [tensor.cuda().requires_grad_() for tensor in tensors]
    exact = [tensor.double().requires_grad_() for tensor in tensors]
    out, wanted = taylor_attention(*leaves), taylor.quadratic(*exact)
    found = torch.autograd.grad((out * weights.cuda()).sum(), leaves)
    expected = torch.autograd.grad((wanted * weights.double()).sum(), exact)
    for mine, theirs in zip((out, *found), (wanted, *expected), strict=True):
        error = (mine.cpu().double() - theirs).norm() / theirs.norm()
        assert error < (1e-4 if dtype == torch.float32 else 2e-2)
    state = TaylorState.empty(1, 2, 16, 64, "cuda")
    q, k, v = leaves
    steps = torch.stack([state.step(q[:, t], k[:, t], v[:, t]) for t in range(64)], 1)
    torch.testing.assert_close(steps.cpu().double(), wanted[:, :64], rtol=2e-2, atol=2e-2)


@interpreted
@pytest.mark.parity
def test_kernels_give_the_vectors(golden) -> None:
    """Those of a public kernel's plain form: whole sequences, and taken in token by token."""
    from fovea.kernels.triton.taylor import TaylorState, taylor_attention

    _, tensors = golden("based")
    q, k, v = (tensors[f"input.fla.{name}"][:1].transpose(1, 2) for name in "qkv")
    for name, normalise in (("norm", True), ("nonorm", False)):
        out = taylor_attention(q, k, v, epsilon=1e-6, normalise=normalise, chunk=16, block_tokens=16)
        torch.testing.assert_close(out.transpose(1, 2), tensors[f"output.fla.parallel_{name}"][:1], rtol=0, atol=1e-5)
    state = TaylorState.empty(1, 2, 8, 6, "cpu")
    steps = [state.step(q[:, token], k[:, token], v[:, token], 1e-6) for token in range(q.shape[1])]
    torch.testing.assert_close(torch.stack(steps, 2), tensors["output.fla.parallel_norm"][:1], rtol=0, atol=1e-5)


@interpreted
def test_one_node_when_compiled() -> None:
    from fovea.kernels.triton.taylor import taylor_attention

    q, k, v, _ = inputs(20, 4, 8, torch.float32)
    leaves = [tensor.requires_grad_() for tensor in (q, k, v)]

    def call(*tensors: Any) -> torch.Tensor:
        return taylor_attention(*tensors, chunk=16, block_tokens=16)

    compiled = torch.compile(call, backend="aot_eager", fullgraph=True)
    found, wanted = compiled(*leaves), call(*leaves)
    torch.testing.assert_close(found, wanted)
    for mine, theirs in zip(*(torch.autograd.grad(out.sum(), leaves) for out in (found, wanted)), strict=True):
        torch.testing.assert_close(mine, theirs)
