"""Every backend against the definition in float64: outputs, log-sum-exp and all gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from torch import Tensor

import fovea
from fovea.kernels.problem import describe
from fovea.kernels.registry import backends
from fovea.patterns import Blocks, Causal, Full, Halo, Neighborhood, PerHead, SlidingWindow, Union, Window
from kernels.problems import NAMES, Case, cases

HERE = [name for name, backend in backends().items() if backend.missing() is None]
TOLERANCE = {torch.float64: 1e-10, torch.float32: 2e-5, torch.bfloat16: 3e-2, torch.float16: 1e-2}
many = settings(max_examples=120, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])


def takes(case: Case, backend: str, tensors: dict[str, Tensor], *, grad: bool) -> bool:
    """Whether the backend takes the case, forward or backward."""
    arguments = {name: tensors.get(name) for name in NAMES}
    problem = describe(case.pattern, **arguments, scale=case.scale, grad=grad)  # type: ignore[arg-type]
    parts = case.pattern.parts if isinstance(case.pattern, PerHead) else (case.pattern,)
    return not any(backends()[backend].refuses(problem.but(pattern=part)) for part in parts)


def run(case: Case, tensors: dict[str, Any], backend: str, *, grad: bool = True) -> dict[str, Tensor]:
    """Outputs and, with ``grad``, gradients of the case for fixed random cotangents."""
    out, lse = fovea.attention(**tensors, pattern=case.pattern, scale=case.scale, backend=backend, return_lse=True)
    if not grad:
        return {"out": out, "lse": lse}
    source = torch.Generator().manual_seed(1)
    weights = torch.randn(out.shape, generator=source, dtype=torch.float64).to(out.dtype)
    loss = (out * weights).sum()
    if case.lse:
        seen = torch.where(lse.isfinite(), lse, 0)
        loss = loss + (seen * torch.randn(lse.shape, generator=source, dtype=torch.float64).to(lse.dtype)).sum()
    gradients = torch.autograd.grad(loss, list(tensors.values()), allow_unused=True, materialize_grads=True)
    return {"out": out, "lse": lse} | dict(zip(tensors, gradients, strict=True))


def compare(case: Case, backend: str, dtype: torch.dtype, seed: int = 0) -> None:
    """The backend against the definition, as far as it takes the case."""
    tensors = case.tensors(dtype, seed)
    if not takes(case, backend, tensors, grad=False):
        return
    grad = takes(case, backend, tensors, grad=True)
    got = run(case, tensors, backend, grad=grad)
    exact = {name: tensor.detach().to(torch.float64).requires_grad_() for name, tensor in tensors.items()}
    for name, wanted in run(case, exact, "reference", grad=grad).items():
        found = got[name].detach()
        assert found.shape == wanted.shape
        lse_dtype = torch.float64 if dtype == torch.float64 else torch.float32
        assert found.dtype == (lse_dtype if name == "lse" else dtype)
        assert torch.equal(found == -torch.inf, wanted == -torch.inf)
        both = [torch.where(t == -torch.inf, 0, t.double()) for t in (found, wanted.detach())]
        allowed = TOLERANCE[dtype] * max(1.0, float(both[1].abs().max()) if both[1].numel() else 0.0)
        torch.testing.assert_close(*both, rtol=0, atol=allowed, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("backend", [name for name in HERE if name != "flex"])
@given(case=cases())
@many
def test_backend_is_the_definition(backend: str, case: Case) -> None:
    compare(case, backend, torch.float32)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("backend", [name for name in HERE if name != "flex"])
@given(case=cases())
@settings(many, max_examples=40)
def test_backend_in_other_dtypes(backend: str, dtype: torch.dtype, case: Case) -> None:
    compare(case, backend, dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@given(case=cases())
@settings(many, max_examples=12)
def test_flex_attention_is_the_definition(dtype: torch.dtype, case: Case) -> None:
    """Fewer examples: each makes PyTorch trace and check a new mask."""
    compare(case, "flex", dtype)


LARGE = [
    Case(Neighborhood(7), (56, 56), (56, 56), bias=True),
    Case(Neighborhood(7, dilation=8), (57, 59), (57, 59)),
    Case(Neighborhood(13, 4), (63, 60), (63, 60), head_dim=16),
    Case(Window(8, 4), (60, 63), (60, 63), bias=True),
    Case(Halo(8, 3), (61, 50), (61, 50)),
    Case(Halo(8, 2, "zero"), (40, 48), (40, 48), bias=True),
    Case(Neighborhood((3, 5, 4), (1, 2, 1), causal=(True, False, False)), (6, 17, 13), (6, 17, 13), extra=5),
    Case(SlidingWindow(255), (1500,), (1500,), heads=4),
    Case(Causal(), (1000,), (1000,), heads=4, kv_heads=2),
    Case(Full(), (513,), (700,), value_dim=12),
    Case(Blocks.power(64, 2), (1500,), (1500,), heads=4, kv_heads=1),
    Case(Blocks.longnet(16, ((2, 1), (4, 2), (8, 4))), (700,), (700,)),
    Case(Union((SlidingWindow(99), Blocks.sliding(64, 1))), (900,), (900,)),
]


@pytest.mark.parametrize("case", LARGE, ids=lambda case: f"{case.pattern} {case.query_grid}")
@pytest.mark.parametrize("backend", [name for name in HERE if name != "reference"])
def test_backend_at_sizes_that_break_tiles(backend: str, case: Case) -> None:
    compare(case, backend, torch.float32)


@pytest.mark.parametrize("backend", HERE)
@pytest.mark.parametrize("pattern", [Neighborhood(3), Window(2, 1), Halo(2, 1, "zero"), Blocks.power(2, 1), "causal"])
def test_nothing_to_compute(backend: str, pattern: str) -> None:
    for batch, length in ((0, 8), (2, 0)):
        if length == 0 and isinstance(pattern, Neighborhood):
            continue
        x = torch.randn(batch, length, 2, 4, requires_grad=True)
        case = Case(fovea.parse(str(pattern)), (length,), (length,))
        if not takes(case, backend, {"query": x, "key": x, "value": x}, grad=True):
            continue
        out, lse = fovea.attention(x, x, x, pattern, backend=backend, return_lse=True)
        assert out.shape == x.shape
        assert lse.shape == x.shape[:-1]
        out.sum().backward()
        assert x.grad is not None
        assert x.grad.shape == x.shape


@pytest.mark.parametrize("backend", HERE)
def test_rows_that_see_nothing(backend: str) -> None:
    """Queries that stand before the first key see none of them."""
    case = Case(SlidingWindow(1), (6,), (3,), head_dim=4, value_dim=4)
    tensors = case.tensors(torch.float32)
    if not takes(case, backend, tensors, grad=True):
        pytest.skip(f"{backend} does not take it")
    got = run(case, tensors, backend)
    assert (got["out"][:, :3] == 0).all()
    assert (got["lse"][:, :3] == -torch.inf).all()
    assert got["lse"][:, 3:].isfinite().all()
    assert (got["query"][:, :3] == 0).all()
    assert all(gradient.isfinite().all() for name, gradient in got.items() if name in NAMES)


@pytest.mark.parametrize("backend", HERE)
def test_strided_inputs(backend: str) -> None:
    """Projections are views: heads transposed, query, key and value cut out of one tensor."""
    packed = torch.randn(2, 9, 8, 3, 2, 6)
    views: dict[str, Any] = dict(zip(("query", "key", "value"), packed.unbind(3), strict=True))
    dense: dict[str, Any] = {name: tensor.contiguous() for name, tensor in views.items()}
    wanted = fovea.attention(**dense, pattern=Neighborhood(5), backend=backend)
    assert torch.equal(fovea.attention(**views, pattern=Neighborhood(5), backend=backend), wanted)
    turned: dict[str, Any] = {
        name: tensor.transpose(1, 2).contiguous().transpose(1, 2) for name, tensor in dense.items()
    }
    assert torch.equal(fovea.attention(**turned, pattern=Neighborhood(5), backend=backend), wanted)


@pytest.mark.parametrize("backend", HERE)
def test_same_numbers_twice(backend: str) -> None:
    case = Case(Neighborhood((5, 4), (2, 1)), (19, 23), (19, 23), heads=4, kv_heads=2, bias=True)
    tensors = case.tensors(torch.float32)
    if not takes(case, backend, tensors, grad=True):
        pytest.skip(f"{backend} does not take it")
    first, second = run(case, tensors, backend), run(case, tensors, backend)
    assert all(torch.equal(first[name], second[name]) for name in first)


def gradient_rows(gradient: Tensor) -> list[int]:
    """The tokens whose gradient is no number."""
    return gradient.isnan().any(-1)[0, :, 0].nonzero().flatten().tolist()


def test_definition_keeps_gradients_that_are_no_numbers_to_the_keys_of_their_query() -> None:
    tensors = [torch.randn(1, 12, 1, 4) for _ in range(3)]
    tensors[0][0, 6] = float("nan")
    leaves = [tensor.requires_grad_() for tensor in tensors]
    out = fovea.attention(*leaves, pattern=Neighborhood(3), backend="reference")
    grads = torch.autograd.grad(out, leaves, torch.ones_like(out))
    seen = torch.from_numpy(np.asarray(Neighborhood(3).mask(12)))[6]
    for gradient in grads[1:]:
        assert torch.equal(gradient.isnan().any(-1)[0, :, 0], seen)
    assert gradient_rows(grads[0]) == [6]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_definition_keeps_what_is_not_finite_to_those_who_see_it(value: float) -> None:
    x = torch.randn(1, 12, 1, 4)
    for name in ("key", "value"):
        tensors: dict[str, Any] = {n: x.clone() for n in ("query", "key", "value")}
        tensors[name][0, 6] = value
        out = fovea.attention(**tensors, pattern=Neighborhood(3), backend="reference")
        touched = ~out.isfinite().all(-1)[0, :, 0]
        seen = torch.from_numpy(np.asarray(Neighborhood(3).mask(12)))[:, 6]
        assert not (touched & ~seen).any()
        assert touched.any()
