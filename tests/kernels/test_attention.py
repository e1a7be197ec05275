"""The operator as PyTorch sees it, and what it says to wrong arguments."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import fovea
from fovea.patterns import Blocks, Full, Halo, Neighborhood, Pattern, PerHead, SlidingWindow, Union, Window

DOUBLE = torch.float64


def tokens(*shape: int, dtype: torch.dtype = torch.float32, grad: bool = True) -> Tensor:
    return torch.randn(*shape, dtype=dtype, requires_grad=grad)


def everything(dtype: torch.dtype = DOUBLE) -> dict[str, Tensor]:
    """Every tensor argument of a call on a 4x5 grid, window 3: four heads of two kv heads, values of another width."""
    return {
        "query": tokens(1, 4, 5, 4, 3, dtype=dtype),
        "key": tokens(1, 4, 5, 2, 3, dtype=dtype),
        "value": tokens(1, 4, 5, 2, 2, dtype=dtype),
        "bias": tokens(4, 5, 5, dtype=dtype),
        "extra_key": tokens(1, 2, 2, 3, dtype=dtype),
        "extra_value": tokens(1, 2, 2, 2, dtype=dtype),
    }


@pytest.mark.parametrize("backend", ["reference", "tiled"])
def test_gradients_are_those_of_finite_differences(backend: str) -> None:
    names, tensors = zip(*everything().items(), strict=True)

    def run(*inputs: Tensor) -> Any:
        named: dict[str, Any] = dict(zip(names, inputs, strict=True))
        return fovea.attention(**named, pattern=Neighborhood(3), backend=backend, return_lse=True)

    assert torch.autograd.gradcheck(run, tensors)


@pytest.mark.parametrize(
    "pattern",
    [
        Window(2, shift=1),
        Halo(2, 1, "zero"),
        Neighborhood(2, dilation=2),
        Union((Window(2), Full())),
        PerHead((Full(), Window(2), Window(2), Neighborhood(3))),
    ],
    ids=str,
)
def test_gradients_under_other_patterns(pattern: Pattern) -> None:
    inputs = (
        tokens(1, 4, 5, 4, 3, dtype=DOUBLE),
        tokens(1, 4, 5, 2, 3, dtype=DOUBLE),
        tokens(1, 4, 5, 2, 2, dtype=DOUBLE),
    )

    def run(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        return fovea.attention(query, key, value, pattern, return_lse=True)

    assert torch.autograd.gradcheck(run, inputs, fast_mode=True)


def test_a_gradient_of_lse_alone() -> None:
    x = tokens(1, 6, 1, 4, dtype=DOUBLE)
    _, lse = fovea.attention(x, x, x, "full", return_lse=True)
    found = torch.autograd.grad(lse.sum(), x)[0]
    logits = (x[0, :, 0] @ x[0, :, 0].T) / 2
    torch.testing.assert_close(found, torch.autograd.grad(logits.logsumexp(-1).sum(), x)[0])


def test_registered_as_pytorch_demands() -> None:
    given = everything()
    arguments = (given["query"], given["key"], given["value"], "neighborhood:window=3", given["bias"])
    extras = (given["extra_key"], given["extra_value"])
    torch.library.opcheck(torch.ops.fovea.attention.default, (*arguments, *extras, None, "tiled"))
    plain = [tensor.detach() for tensor in arguments[:3]]
    out, lse = fovea.attention(*plain, pattern="neighborhood:window=3", return_lse=True)
    backward = (
        torch.ones_like(out),
        torch.ones_like(lse),
        *plain,
        out,
        lse,
        "neighborhood:window=3",
        *[None] * 4,
        "tiled",
    )
    tests = ("test_schema", "test_faketensor")
    torch.library.opcheck(torch.ops.fovea.attention_backward.default, backward, test_utils=tests)


@pytest.mark.parametrize("inductor", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_compiles_as_one_graph(inductor: bool, request: pytest.FixtureRequest) -> None:
    if inductor:
        request.getfixturevalue("compiler")
    pattern = Neighborhood(3)

    def run(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return fovea.attention(2 * q, k, v, pattern)

    compiled = torch.compile(run, fullgraph=True, backend="inductor" if inductor else "aot_eager")
    inputs = [tokens(1, 6, 7, 2, 4) for _ in range(3)]
    wanted, found = run(*inputs), compiled(*inputs)
    torch.testing.assert_close(found, wanted)
    for mine, theirs in zip(*(torch.autograd.grad(out.sum(), inputs) for out in (found, wanted)), strict=True):
        torch.testing.assert_close(mine, theirs)


class Layer(torch.nn.Module):
    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return fovea.attention(q, k, v, "neighborhood:window=3")


def test_exports_for_any_batch() -> None:
    inputs = tuple(tokens(2, 6, 7, 2, 4, grad=False) for _ in range(3))
    batch = torch.export.Dim("batch")
    program = torch.export.export(Layer(), inputs, dynamic_shapes=({0: batch},) * 3)
    assert [n.target for n in program.graph.nodes if "fovea" in str(n.target)] == [torch.ops.fovea.attention.default]
    other = tuple(tokens(5, 6, 7, 2, 4, grad=False) for _ in range(3))
    torch.testing.assert_close(program.module()(*other), Layer()(*other))


def test_shapes_on_the_meta_device() -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        x = torch.empty(2, 6, 7, 4, 8)
        out, lse = fovea.attention(x, x, torch.empty(2, 6, 7, 4, 5), "window:size=2", return_lse=True)
        assert out.shape == (2, 6, 7, 4, 5)
        assert lse.shape == (2, 6, 7, 4)
        with pytest.raises(ValueError, match="made for 1 axes"):
            fovea.attention(x, x, x, "blocks:size=2,terms=local(1)")


def test_autocast_computes_in_its_dtype() -> None:
    x = tokens(1, 8, 2, 4)
    with torch.autocast("cpu", torch.bfloat16):
        out, lse = fovea.attention(x, x, x, "full", return_lse=True)
        exact = fovea.attention(x.double(), x.double(), x.double(), "full")
    assert out.dtype == torch.bfloat16
    assert lse.dtype == torch.float32
    assert exact.dtype == DOUBLE
    out.sum().backward()
    assert x.grad is not None
    assert x.grad.dtype == torch.float32


def test_no_gradients_of_gradients() -> None:
    x = tokens(1, 5, 1, 4)
    (first,) = torch.autograd.grad(fovea.attention(x, x, x, "full").square().sum(), x, create_graph=True)
    with pytest.raises(NotImplementedError, match="gradients of gradients"):
        first.sum().backward()


def test_one_pattern_a_head_is_each_head_alone() -> None:
    parts = (Full(), SlidingWindow(2), Full(), Neighborhood(3), SlidingWindow(2), SlidingWindow(2))
    q, k, v = tokens(2, 9, 6, 4), tokens(2, 9, 3, 4), tokens(2, 9, 3, 4)
    together = fovea.attention(q, k, v, PerHead(parts))
    for head, part in enumerate(parts):
        kv = slice(head // 2, head // 2 + 1)
        alone = fovea.attention(q[..., head : head + 1, :], k[..., kv, :], v[..., kv, :], part)
        torch.testing.assert_close(together[..., head : head + 1, :], alone)


def test_text_and_pattern_are_one() -> None:
    x = tokens(1, 8, 1, 4)
    assert torch.equal(
        fovea.attention(x, x, x, "blocks:size=2,terms=local(2)"), fovea.attention(x, x, x, Blocks.dilated(2, 2, 1))
    )


X = torch.randn(2, 6, 7, 4, 8)

WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "array": ({"value": X.numpy()}, "value is a ndarray; it must be a torch.Tensor"),
    "axes": ({"query": torch.randn(2, 4, 8)}, r"query has shape \(2, 4, 8\)"),
    "dtype": ({"query": X.int()}, r"query has dtype torch.int32; it may be torch.float64"),
    "batch": ({"key": X[:1], "value": X[:1]}, r"key has shape \(1, 6, 7, 4, 8\)"),
    "width": ({"key": X[..., :4]}, r"key has shape \(2, 6, 7, 4, 4\)"),
    "value": ({"value": X[:, :5]}, r"value has shape \(2, 5, 7, 4, 8\)"),
    "kv heads": ({"key": X[..., :3, :], "value": X[..., :3, :]}, "4 heads of 8 and key has 3 heads"),
    "mixed": ({"key": X.double()}, "key is torch.float64 on cpu; it must be torch.float32"),
    "pattern": ({"pattern": 7}, "pattern=7"),
    "text": ({"pattern": "neighbourhood:window=3"}, "did you mean 'neighborhood'"),
    "grid": ({"pattern": Neighborhood(9)}, "window"),
    "heads": ({"pattern": PerHead((Full(),) * 3)}, "3 heads; query has 4"),
    "bias": ({"bias": torch.zeros(4, 5, 4)}, r"bias has shape \(4, 5, 4\).*must be \(4, 5, 5\)"),
    "bias of blocks": ({"pattern": Union((Full(), Window(2))), "bias": torch.zeros(4, 5, 5)}, "takes no relative bias"),
    "one extra": ({"extra_key": torch.zeros(2, 3, 4, 8)}, "extra_value is None although extra_key is given"),
    "extra": ({"extra_key": X[:, 0], "extra_value": X[:, 0, :, :2]}, r"extra_value has shape \(2, 7, 2, 8\)"),
    "backend": ({"backend": "fast"}, "backend='fast'; it may be 'auto', 'reference', 'tiled'"),
}


@pytest.mark.parametrize(("changes", "message"), WRONG.values(), ids=WRONG)
def test_wrong_arguments_are_named(changes: dict[str, Any], message: str) -> None:
    arguments = {"query": X, "key": X, "value": X, "pattern": Neighborhood(3)} | changes
    with pytest.raises(ValueError, match=message):
        fovea.attention(**arguments)


def test_a_named_backend_says_why_it_cannot() -> None:
    x = tokens(1, 6, 1, 4)
    with pytest.raises(ValueError, match=r"backend='flex' cannot compute this: .*bias"):
        fovea.attention(x, x, x, Neighborhood(3), bias=torch.zeros(1, 5), backend="flex")
