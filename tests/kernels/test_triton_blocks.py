"""Block tables that are chosen at run time, and decoding over split keys, against dense attention."""

from __future__ import annotations

import os

import pytest
import torch
from torch import Tensor

import fovea
from fovea.kernels.problem import describe
from fovea.patterns import Blocks, Causal, Full, Local, Sink, SlidingWindow
from parity.test_power_attention import pattern_of

interpreted = pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") != "1", reason="runs where Triton interprets")
pytest.importorskip("triton")


def dense(query: Tensor, key: Tensor, value: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
    """``seen: [batch, kv_heads, queries, keys]``; in float64."""
    group = query.shape[2] // key.shape[2]
    q, k, v = (tensor.double().transpose(1, 2) for tensor in (query, key, value))
    k, v, seen = (tensor.repeat_interleave(group, 1) for tensor in (k, v, seen))
    logits = (q @ k.mT * q.shape[-1] ** -0.5).masked_fill(~seen, -torch.inf)
    lse = logits.logsumexp(-1)
    weights = (logits - lse.masked_fill(lse == -torch.inf, 0)[..., None]).exp()
    return (weights @ v).transpose(1, 2), lse.transpose(1, 2)


def chosen(batch: int, kv_heads: int, rows: int, blocks: int, most: int) -> Tensor:
    """Random lists without repeats, in random order, some of them short."""
    order = torch.rand(batch, kv_heads, rows, blocks).argsort(-1)[..., :most]
    return order.masked_fill(torch.rand(order.shape) < 0.3, -1)


def compare(
    queries: int, keys: int, query_block: int, key_block: int, causal: bool, heads: int, kv_heads: int,
    device: str = "cpu", dtype: torch.dtype = torch.float32, width: int = 16, most: int = 3, allowed: float = 1e-5,
) -> None:  # fmt: skip
    from fovea.kernels.triton.blocks import Sizes, block_attention, mask

    shape = Sizes(queries, keys, query_block, key_block, causal)
    index = chosen(1, kv_heads, shape.rows, shape.key_blocks, most)
    tensors = [
        torch.randn(1, n, h, width, dtype=torch.float64).to(dtype)
        for n, h in ((queries, heads), (keys, kv_heads), (keys, kv_heads))
    ]
    leaves = [tensor.to(device).requires_grad_() for tensor in tensors]
    exact = [tensor.double().requires_grad_() for tensor in tensors]
    out, lse = block_attention(
        *leaves, index=index.to(device), query_block=query_block, key_block=key_block, causal=causal, return_lse=True
    )
    wanted, wanted_lse = dense(*exact, seen=mask(index, shape))
    assert torch.equal(lse.cpu() == -torch.inf, wanted_lse == -torch.inf)
    weights, more = torch.randn(wanted.shape), torch.randn(wanted_lse.shape)

    def loss(out: Tensor, lse: Tensor) -> Tensor:
        seen = torch.where(lse.isfinite(), lse, 0)
        return (out * weights.to(out)).sum() + (seen * more.to(lse)).sum()

    found = torch.autograd.grad(loss(out, lse), leaves)
    expected = torch.autograd.grad(loss(wanted, wanted_lse), exact)
    for mine, theirs in zip((out, *found), (wanted, *expected), strict=True):
        assert (mine.cpu().double() - theirs).norm() <= allowed * max(1.0, float(theirs.detach().norm()))


@interpreted
@pytest.mark.parametrize("causal", [False, True])
def test_chosen_blocks(causal: bool) -> None:
    compare(33, 33, 16, 16, causal, 2, 1)
    compare(21, 50, 9, 20, causal, 1, 1)


@interpreted
def test_all_blocks_are_plain_attention() -> None:
    from fovea.kernels.triton.blocks import block_attention

    x = torch.randn(1, 32, 1, 8)
    index = torch.arange(2).expand(1, 1, 2, 2)
    out = block_attention(x, x, x, index, query_block=16, key_block=16, causal=True)
    torch.testing.assert_close(out, fovea.attention(x, x, x, "causal", backend="reference"))


def test_tables_that_do_not_fit_are_named() -> None:
    from fovea.kernels.triton.blocks import block_attention

    x = torch.randn(1, 32, 1, 8)
    with pytest.raises(ValueError, match=r"index has shape \(1, 1, 3, 1\); it must be \(1, 1, 2\)"):
        block_attention(x, x, x, torch.zeros(1, 1, 3, 1, dtype=torch.int64), query_block=16, key_block=16)


@interpreted
@pytest.mark.parametrize(
    ("pattern", "queries", "keys"),
    [(Causal(), 3, 450), (SlidingWindow(300), 1, 700), (Full(), 2, 290), (Blocks(128, (Local(1), Sink(2))), 1, 900)],
    ids=str,
)
def test_split_keys(pattern, queries: int, keys: int) -> None:
    from fovea.kernels.triton.decode import decodes, shares

    query, key, value = torch.randn(1, queries, 4, 16), torch.randn(1, keys, 2, 16), torch.randn(1, keys, 2, 20)
    problem = describe(pattern, query, key, value, None, None, None, None)
    assert decodes(problem)
    assert shares(problem) > 1
    out, lse = fovea.attention(query, key, value, pattern, backend="triton", return_lse=True)
    wanted = fovea.attention(query, key, value, pattern, backend="reference", return_lse=True)
    torch.testing.assert_close(out, wanted[0])
    torch.testing.assert_close(lse, wanted[1])


@interpreted
@pytest.mark.parity
def test_block_patterns_give_the_vectors(golden, subtests) -> None:
    """Of one head, so that the interpreter is done in seconds. All of them, with gradients:
    ``TRITON_INTERPRET=1 pytest tests/parity/test_power_attention.py``."""
    description, tensors = golden("power-attention")
    query, key, value = (tensors[f"input.{name}"][:1, :1].transpose(1, 2) for name in "qkv")
    for kind, values in description["small_patterns"].items():
        with subtests.test(kind):
            pattern = pattern_of(kind, values, description["small"]["block"])
            out = fovea.attention(query, key, value, pattern, backend="triton")
            wanted = tensors[f"output.small.{kind}.out"][:1, :1].transpose(1, 2)
            torch.testing.assert_close(out, wanted, rtol=0, atol=1e-5)


@pytest.mark.gpu
@pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="this process interprets")
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_chosen_blocks_on_a_gpu(causal: bool, dtype: torch.dtype) -> None:
    allowed = 1e-4 if dtype == torch.float32 else 2e-2
    for sizes in ((2048, 2048, 128, 128), (1000, 3000, 64, 100)):
        compare(*sizes, causal, 8, 2, "cuda", dtype, 128, 6, allowed)


@interpreted
def test_one_node_when_compiled() -> None:
    from fovea.kernels.triton.blocks import block_attention

    leaves = [torch.randn(1, 32, 2, 8, requires_grad=True) for _ in range(3)]
    index = torch.tensor([[0, -1], [1, 0]]).expand(1, 2, 2, 2)

    def call(*tensors: Tensor) -> Tensor:
        return block_attention(*tensors, index=index, query_block=16, key_block=16, causal=True)

    found, wanted = torch.compile(call, backend="aot_eager", fullgraph=True)(*leaves), call(*leaves)
    torch.testing.assert_close(found, wanted)
    for mine, theirs in zip(*(torch.autograd.grad(out.sum(), leaves) for out in (found, wanted)), strict=True):
        torch.testing.assert_close(mine, theirs)
