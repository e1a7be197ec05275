"""The four forms of Taylor linear attention agree, in outputs and gradients, at sizes that break chunks."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from fovea.kernels import taylor

FORMS: dict[str, Callable[..., Tensor]] = {
    "recurrent": lambda *inputs, **words: taylor.recurrent(*inputs, **words)[0],
    "recurrent, full": lambda *inputs, **words: taylor.recurrent(*inputs, features="full", **words)[0],
    "scan": taylor.scan,
    "scan, full": lambda *inputs, **words: taylor.scan(*inputs, features="full", **words),
    "chunked by 8": lambda *inputs, **words: taylor.chunked(*inputs, chunk=8, **words),
    "chunked by 1": lambda *inputs, **words: taylor.chunked(*inputs, chunk=1, **words),
    "chunked": taylor.chunked,
}


def made(tokens: int, f: int = 7, dim: int = 5, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    return [torch.randn(2, tokens, 3, n, dtype=dtype, requires_grad=True) for n in (f, f, dim)]


def close(found: Tensor, expected: Tensor, tolerance: float = 1e-5) -> None:
    assert found.shape == expected.shape
    found, expected = found.detach(), expected.detach()
    largest = max(float(expected.abs().max()), 0.1)  # the gradient at the only query is 0
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance * largest)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("tokens", "f"), [(63, 2), (63, 7), (41, 16), (1, 3), (130, 4)])
@pytest.mark.parametrize("normalise", [True, False])
def test_forms_and_their_gradients_agree(form: str, tokens: int, f: int, normalise: bool) -> None:
    inputs = made(tokens, f)
    found = FORMS[form](*inputs, normalise=normalise)
    expected = taylor.quadratic(*(x.double() for x in inputs), normalise=normalise)
    close(found.double(), expected)
    weights = torch.randn_like(expected)
    theirs = torch.autograd.grad((expected * weights).sum(), inputs)
    for ours, other in zip(torch.autograd.grad((found * weights).sum(), inputs), theirs, strict=True):
        close(ours, other)


def test_gradient_is_that_of_finite_differences() -> None:
    inputs = made(7, 2, 2, torch.float64)
    assert torch.autograd.gradcheck(lambda *x: taylor.chunked(*x, chunk=3), inputs)


@pytest.mark.parametrize("form", ["recurrent", "chunked by 8", "chunked by 1", "chunked"])
def test_no_token_sees_into_another_document(form: str) -> None:
    documents = torch.tensor([[0] * 5 + [1] * 14 + [2] * 2 + [3] * 20, [0] * 16 + [4] * 24 + [5]])
    inputs = made(41)
    found = FORMS[form](*inputs, documents=documents)
    weights = torch.randn_like(found)
    ours = torch.autograd.grad((found * weights).sum(), inputs)
    alone = torch.empty_like(found)
    for row in range(2):
        for document in documents[row].unique():
            inside = documents[row] == document
            alone[row, inside] = taylor.quadratic(*(x[row : row + 1, inside] for x in inputs))[0]
    close(found, alone)
    close(taylor.quadratic(*inputs, documents=documents), alone)
    for mine, theirs in zip(ours, torch.autograd.grad((alone * weights).sum(), inputs), strict=True):
        close(mine, theirs)


def test_feature_map_is_the_expansion_of_the_exponential() -> None:
    q, k = torch.randn(2, 9, 16, dtype=torch.float64)
    s = (q * k).sum(-1) / 4
    sizes: dict[taylor.Features, int] = {"compact": 153, "full": 273}
    for features, size in sizes.items():
        phi_q, phi_k = taylor.feature_map(q, features), taylor.feature_map(k, features)
        assert phi_q.shape == (9, size)
        torch.testing.assert_close((phi_q * phi_k).sum(-1), 1 + s + s**2 / 2)
    assert (taylor.feature_map(q) @ taylor.feature_map(k).T >= 0.5 - 1e-12).all()
    assert 1 - taylor.feature_size(16) / taylor.feature_size(16, "full") == pytest.approx(0.44, abs=0.005)


def test_compact_memory_unfolds_into_the_full_one() -> None:
    inputs = made(12)
    compact, full = (taylor.recurrent(*inputs, features=features)[1] for features in ("compact", "full"))
    close(taylor.full_memory(compact, 7), full)
    with pytest.raises(ValueError, match="memory has 57 features; 36 are those of feature_dim=7"):
        taylor.full_memory(full, 7)


@pytest.mark.parametrize("pieces", [(41,), (1,) * 41, (17, 1, 23), (8, 0, 33)])
def test_reading_in_pieces(pieces: tuple[int, ...]) -> None:
    inputs = [x.detach() for x in made(41)]
    expected, last = taylor.recurrent(*inputs)
    memory = taylor.new_memory(2, 3, 7, 5, inputs[0])
    split = [x.split(pieces, 1) for x in inputs]
    found = [taylor.read(q, k, v, memory, chunk=8) for q, k, v in zip(*split, strict=True)]
    close(torch.cat(found, 1), expected)
    close(memory, last)


@pytest.mark.parametrize("tokens", [1, 20])
def test_padding_leaves_no_trace(tokens: int) -> None:
    query, key, value = inputs = [x.detach() for x in made(tokens)]
    real = torch.arange(tokens) < torch.tensor([[tokens], [tokens // 2]])
    memory = taylor.new_memory(2, 3, 7, 5, query)
    taylor.read(query, key, value, memory, real=real, chunk=8)
    close(memory[:1], taylor.recurrent(*(x[:1] for x in inputs))[1])
    close(memory[1:], taylor.recurrent(*(x[1:, : tokens // 2] for x in inputs))[1])


def test_half_precision_sums_in_single() -> None:
    inputs = [x.bfloat16() for x in made(300)]
    found = taylor.chunked(*inputs)
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, taylor.chunked(*(x.float() for x in inputs)).bfloat16())
    with torch.autocast("cpu", torch.bfloat16):
        inputs = made(100)
        close(taylor.chunked(*inputs), taylor.quadratic(*(x.double() for x in inputs)).float())


def test_is_an_operator_that_compiles() -> None:
    inputs = made(20)
    documents = torch.tensor([[0] * 20, [0] * 7 + [1] * 13])
    words = (0.5, 1e-12, True, 8)
    torch.library.opcheck(torch.ops.fovea.taylor, (*inputs, documents, *words), test_utils="test_schema")
    torch.library.opcheck(torch.ops.fovea.taylor, (*inputs, None, *words), test_utils="test_faketensor")
    compiled = torch.compile(taylor.chunked, backend="aot_eager", fullgraph=True)
    found = torch.autograd.grad(compiled(*inputs).square().sum(), inputs)
    for ours, expected in zip(found, torch.autograd.grad(taylor.chunked(*inputs).square().sum(), inputs), strict=True):
        close(ours, expected)
    with pytest.raises(NotImplementedError, match="no gradients of gradients"):
        first = torch.autograd.grad(taylor.chunked(*inputs).square().sum(), inputs[0], create_graph=True)[0]
        first.sum().backward()


def test_training_after_inference() -> None:
    taylor.pairs_of.cache_clear()
    with torch.inference_mode():
        taylor.recurrent(*made(3))
    taylor.recurrent(*made(3))[0].sum().backward()


def test_refusals() -> None:
    query, key, value = made(5)
    with pytest.raises(ValueError, match=r"scale=-1\.0; it must be above 0"):
        taylor.chunked(query, key, value, scale=-1.0)
    with pytest.raises(ValueError, match="chunk=0; it must be at least 1"):
        taylor.chunked(query, key, value, chunk=0)
    with pytest.raises(ValueError, match=r"memory has shape \(2, 3, 57, 6\); these tokens need \(2, 3, 36, 6\)"):
        taylor.read(query, key, value, taylor.new_memory(2, 3, 7, 5, query, "full"))
    with pytest.raises(ValueError, match="feature_dim=0; it must be at least 1"):
        taylor.feature_size(0)
