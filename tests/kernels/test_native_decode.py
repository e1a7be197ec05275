"""Few queries against a long cache: ranges of keys, their join, grouped heads, and what is not finite."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

import fovea
from fovea.kernels.native.backend import Native, _dense
from fovea.kernels.native.library import ISA_VARIABLE, variants
from fovea.patterns import Blocks, Causal, Full, Neighborhood, Product, SlidingWindow
from kernels.problems import Case
from kernels.test_backends import compare

here = Native().missing() is None
pytestmark = pytest.mark.skipif(not here, reason="the library was not built")
VARIANTS = list(variants()) if here else []

CASES = [
    Case(SlidingWindow(1023), (1,), (3000,), heads=8, kv_heads=2, head_dim=64, value_dim=64),
    Case(SlidingWindow(300), (3,), (700,), heads=4, kv_heads=2, head_dim=64, value_dim=72, extra=5, batch=2),
    Case(SlidingWindow(100), (2,), (333,), head_dim=30, value_dim=17, extra=70, bias=True),
    Case(Causal(), (1,), (2777,), kv_heads=1, head_dim=128, value_dim=64),
    Case(Full(), (5,), (1301,), heads=3, kv_heads=1, head_dim=40, value_dim=40),
    Case(Blocks.power(64), (1,), (3000,), heads=4, kv_heads=1, head_dim=64, value_dim=64),
    Case(Blocks.power(64), (4,), (3010,), heads=4, kv_heads=1, head_dim=16, value_dim=16, extra=3),
    Case(Neighborhood(3, dilation=4), (13,), (13,), heads=1, kv_heads=1, head_dim=16),
    Case(Product((SlidingWindow(1), Full())), (1, 9), (1, 300), heads=1, kv_heads=1, bias=True),
    Case(SlidingWindow(1), (6,), (3,), heads=1, kv_heads=1),
]


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.pattern} {case.key_grid}")
def test_decoding_is_the_definition(case: Case, dtype: torch.dtype) -> None:
    compare(case, "native", dtype)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.pattern} {case.key_grid}")
@pytest.mark.parametrize("name", VARIANTS)
def test_variant_decodes(name: str, case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ISA_VARIABLE, name)
    compare(case, "native", torch.float32)


def cache(heads: int, keys: int = 2000) -> tuple[Tensor, Tensor, Tensor]:
    source = torch.Generator().manual_seed(0)
    return (
        torch.randn(1, 1, 4, 32, generator=source),
        torch.randn(1, keys, heads, 32, generator=source),
        torch.randn(1, keys, heads, 32, generator=source),
    )


@pytest.mark.usefixtures("threads")
def test_the_number_of_threads_changes_no_bit() -> None:
    """Ranges of keys depend on the problem alone, and are joined in their order whoever computed them."""
    tensors = cache(1)
    found = []
    for count in (1, 2, 3, 5):
        torch.set_num_threads(count)
        found += [fovea.attention(*tensors, "causal", backend="native") for _ in range(3)]
    assert all(torch.equal(out, found[0]) for out in found)


def test_one_query_is_the_last_of_many() -> None:
    query, key, value = cache(2)
    for pattern in (SlidingWindow(99), Causal(), Blocks.power(16)):
        many = fovea.attention(query.expand(1, 2000, 4, 32), key, value, pattern, backend="native")
        one = fovea.attention(query, key, value, pattern, backend="native")
        torch.testing.assert_close(one[0, 0], many[0, -1], rtol=1e-5, atol=1e-6)


def test_a_cache_is_read_where_it_lies() -> None:
    """Heads before tokens, and a part of a longer cache: views, of which nothing is copied."""
    query, key, value = cache(2)
    long = torch.full((2, 1, 2, 4000, 32), float("nan"))
    long[0, :, :, :2000], long[1, :, :, :2000] = key.transpose(1, 2), value.transpose(1, 2)
    views = [half[:, :, :2000].transpose(1, 2) for half in long]
    assert all(_dense(view) is view for view in views)
    wanted = fovea.attention(query, key, value, "sliding:left=999", backend="native")
    assert torch.equal(fovea.attention(query, *views, pattern="sliding:left=999", backend="native"), wanted)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", ["key", "value"])
@pytest.mark.parametrize("at", [900, 1500, 1999])
def test_what_is_not_finite_stays_with_those_who_see_it(at: int, name: str, value: float) -> None:
    tensors: dict[str, Any] = dict(zip(("query", "key", "value"), cache(2), strict=True))
    tensors[name][0, at, 1, 3] = value
    found, wanted = (
        fovea.attention(**tensors, pattern="sliding:left=999", backend=backend, return_lse=True)
        for backend in ("native", "reference")
    )
    for mine, exact in zip(found, wanted, strict=True):
        torch.testing.assert_close(mine, exact, rtol=1e-5, atol=1e-5, equal_nan=True)
    assert found[0][0, 0, :2].isfinite().all()


def test_the_planner_decodes_natively() -> None:
    plan = fovea.plan(SlidingWindow(1023), 1, key_grid=65536, heads=8, head_dim=64)
    assert plan.backend == "native"
    assert plan.chosen.work is not None
    assert plan.chosen.work.bytes < 8 << 20  # the window, not the cache
