"""The Triton kernels against the definition in float64: interpreted on the CPU, and at real sizes on a GPU.

Triton decides when it is imported whether it interprets, so the interpreted tests run in processes of their own: one
test here starts them, over the files of these kernels and over the golden vectors.
"""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings

import fovea
from fovea.kernels.problem import Problem, describe
from fovea.kernels.registry import backends
from fovea.kernels.triton.layers import layered_lists, layers
from fovea.kernels.triton.tables import block_lists, pattern_axis
from fovea.kernels.triton.tiling import boxes, copies_boxes, cost, predicted
from fovea.patterns import (
    Blocks,
    Causal,
    Chosen,
    Every,
    Full,
    Halo,
    Local,
    Neighborhood,
    Pattern,
    PerHead,
    Sink,
    SlidingWindow,
    Union,
    Window,
)
from kernels.problems import Case, cases
from kernels.test_backends import compare, run

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
interpreted = pytest.mark.skipif(not INTERPRETED, reason="runs where Triton interprets")
TESTS = Path(__file__).resolve().parents[1]
KERNELS = [f"kernels/{file.name}" for file in sorted(Path(__file__).parent.glob("test_triton*.py"))]
GOLDEN = ["parity/test_fna.py::test_operator[triton]", "parity/test_gna.py::test_operator[triton]"]


@pytest.mark.slow
@pytest.mark.skipif(INTERPRETED, reason="this process interprets")
@pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")
@pytest.mark.parametrize("tests", [KERNELS, GOLDEN], ids=["kernels", "vectors"])
def test_kernels_in_the_interpreter(tests: list[str]) -> None:
    environment = os.environ | {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *(f"{TESTS}/{test}" for test in tests)],
        env=environment, cwd=TESTS.parent, capture_output=True, text=True, timeout=540,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]


def test_why_it_is_missing() -> None:
    reason = backends()["triton"].missing()
    if torch.cuda.is_available() or INTERPRETED:
        assert reason is None
    else:
        assert "no CUDA device" in str(reason) or "not installed" in str(reason)
        x = torch.randn(1, 4, 1, 8)
        with pytest.raises(ValueError, match="backend='triton' cannot compute this"):
            fovea.attention(x, x, x, "causal", backend="triton")


# The tables, which need no Triton.


AXES = [
    Neighborhood(5),
    Neighborhood(6, 4),
    Neighborhood(4, 2, 3),
    Neighborhood(4, 3, 2, True),
    Window(7, 3),
    Halo(5, 2),
    Halo(4, 3, "zero"),
    Causal(),
    SlidingWindow(3, 1),
    Full(),
]


@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize("pattern", AXES, ids=str)
def test_axis_tables_are_the_mask(pattern, inverse: bool) -> None:
    """Rows and tiles of the tables give back the mask; full tiles hold no pair that is masked."""
    for length, row_tile, column_tile in ((33, 8, 4), (29, 4, 16), (20, 16, 1)):
        mask = np.asarray(pattern.mask(length))
        before = pattern.padding((length,), (length,))[0][0]
        tiles = (column_tile, row_tile) if inverse else (row_tile, column_tile)
        found = pattern_axis(pattern, 0, length, length, *tiles, inverse)
        step = pattern.axis_spans(0, length, length).step
        wanted = mask[:, before : before + length].T if inverse else mask
        rebuilt = np.zeros_like(wanted)
        shift = 0 if inverse else before
        for first, rows, residue, _, origin, visits, full_first, full in found.tiles:
            for row in range(first, first + rows * step, step):
                start, stop, _, column_0 = found.rows[row]
                assert column_0 == residue
                members = np.arange(origin, origin + visits * column_tile)
                members = members[(members >= start) & (members < stop)]
                assert len(members) == stop - start
                rebuilt[row, residue + members * step + shift] = True
                whole = np.arange(full * column_tile) + origin + full_first * column_tile
                assert not len(whole) or (start <= whole[0] and whole[-1] < stop)
        assert np.array_equal(rebuilt, wanted)
        assert sorted(np.concatenate([f + step * np.arange(n) for f, n, *_ in found.tiles])) == list(range(length))


@pytest.mark.parametrize("inverse", [False, True])
def test_block_lists_are_the_mask(inverse: bool) -> None:
    for pattern, queries, keys in (
        (Blocks.power(6, 1), 40, 40),
        (Blocks(5, (Local(1), Every(3))), 9, 33),
        (Blocks.dilated(16, 4), 70, 70),
    ):
        table = pattern.table(queries, keys)
        tiles, rows, columns = block_lists(table, 4, 8, inverse)
        wanted = table.mask().T if inverse else table.mask()
        rebuilt = np.zeros(wanted.shape, np.int64)
        for first, count, _, _, full, full_end, partial, partial_end in tiles:
            for begin, end, whole in ((full, full_end, True), (partial, partial_end, False)):
                for start, stop in columns[begin:end]:
                    for row in range(first, first + count):
                        seen = np.arange(max(start, rows[row, 0]), min(stop, rows[row, 1]))
                        rebuilt[row, seen] += 1
                        assert not whole or len(seen) == stop - start
        assert np.array_equal(rebuilt, wanted)


@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize(
    "pattern",
    [
        Union((SlidingWindow(5), Blocks(4, (Sink(1),)))),
        Union((Window(6), Union((Blocks.power(3, 1), SlidingWindow(2))))),
        Union((Causal(), Chosen.where(8, np.eye(5, dtype=bool)))),
        Union((Chosen(40, ((),)),)),
    ],
    ids=str,
)
def test_layers_of_a_union_are_the_mask(pattern: Union, inverse: bool) -> None:
    """Every pair once, in one layer; entries without a mask hold no pair that is masked."""
    queries = keys = 37
    mask = pattern.mask(queries)
    found = layers(pattern, queries, keys)
    column = np.arange(keys)
    assert np.array_equal(((found[..., :1] <= column) & (column < found[..., 1:])).sum(0), mask)
    tiles, _, columns = layered_lists(pattern, queries, keys, 4, 8, inverse)
    rebuilt = np.zeros((queries, keys), np.int64)
    for first, count, _, _, full, full_end, partial, partial_end in tiles:
        for begin, end, whole in ((full, full_end, True), (partial, partial_end, False)):
            for at, to, layer in columns[begin:end]:
                box = np.zeros((queries, keys), np.bool_)
                box[
                    (slice(at, to), slice(first, first + count))
                    if inverse
                    else (slice(first, first + count), slice(at, to))
                ] = True
                seen = box & (found[layer, :, :1] <= column) & (column < found[layer, :, 1:])
                assert not whole or np.array_equal(seen, box)
                rebuilt += seen
    assert np.array_equal(rebuilt, mask)


def posed(pattern: Pattern, grid: tuple[int, ...], dim: int) -> Problem:
    x = torch.empty(1, *grid, 1, dim)
    return describe(pattern, x, x, x, None, None, None, None)


def test_tiles_of_a_windows_side_follow_the_windows() -> None:
    """Windows of 7 are cut at their edges: 64 places hold one window, not parts of four."""
    problem = posed(Window(7), (56, 56), 32)
    tiles = cost(problem, (1, 8, 8), (1, 8, 8), False)
    assert (tiles.programs, tiles.visited) == (64, 64)


def test_boxes_that_begin_at_the_window_visit_less_than_aligned_ones() -> None:
    """The worst tile of aligned boxes bounds HunyuanVideo's sliding window at 3.27; ours beat the exact bound 5.24."""
    problem = posed(Neighborhood((18, 24, 24)), (30, 48, 80), 128)
    tiles = cost(problem, (4, 8, 8), (2, 8, 8), False)
    pairs = 30 * 48 * 80
    assert pairs * pairs / (tiles.visited * 256 * 128) > 5.24
    strided = posed(Neighborhood((18, 24, 24), (16, 8, 8)), (30, 48, 80), 128)
    tiles = cost(strided, (2, 8, 8), (2, 8, 8), False)
    assert tiles.full == tiles.visited


def test_boxes_have_the_places_that_were_asked_for() -> None:
    for grid in ((1,), (300,), (7, 900), (56, 56), (1, 1, 1), (16, 44, 80)):
        for places in (16, 64, 128):
            found = list(boxes(places, grid))
            assert found
            assert all(np.prod(box) == places for box in found)
            assert all(box[: 3 - len(grid)] == (1,) * (3 - len(grid)) for box in found)


# The kernels.


CASES = [
    Case(Neighborhood(7), (33,), (33,), heads=1, kv_heads=1, bias=True),
    Case(Neighborhood(3, 2), (9, 7), (9, 7), heads=2, kv_heads=1, extra=3),
    Case(
        Neighborhood((2, 3, 2), (1, 2, 1), (2, 1, 1), (True, False, False)), (4, 5, 3), (4, 5, 3), heads=1, kv_heads=1
    ),
    Case(Halo(3, 2, "zero"), (7, 5), (7, 5), heads=1, kv_heads=1, bias=True),
    Case(Window(7, 3), (15, 9), (15, 9), heads=1, kv_heads=1, value_dim=20),
    Case(Blocks.power(16, 1), (53,), (53,), heads=2, kv_heads=1),
    Case(Blocks.power(7, 1), (5,), (40,)),
    Case(Causal(), (40,), (40,), heads=1, kv_heads=1, head_dim=20, extra=17),
    Case(SlidingWindow(1), (6,), (3,)),
    Case(Full(), (6, 7), (3, 9), heads=1, kv_heads=1, scale=0.3),
    Case(PerHead((Causal(), SlidingWindow(3))), (21,), (21,), kv_heads=1),
    Case(Union((SlidingWindow(5), Blocks(4, (Sink(1),)))), (39,), (39,), heads=2, kv_heads=1),
    Case(Chosen(6, ((0,), (), (1, 3)), True), (15,), (22,), heads=1, kv_heads=1, extra=2),
]


@interpreted
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.pattern} {case.query_grid}")
def test_kernels_are_the_definition(case: Case) -> None:
    compare(case, "triton", torch.float32)


BOXED = [
    Case(Neighborhood(3, 2), (9, 7), (9, 7), heads=2, kv_heads=1, head_dim=16, value_dim=32, extra=2),
    Case(Halo(3, 1, "zero"), (3, 2, 4), (3, 2, 4), batch=2, heads=1, kv_heads=1, head_dim=16, value_dim=16),
    Case(Blocks.power(16, 1), (37,), (37,), heads=2, kv_heads=1, head_dim=16, value_dim=16),
]


@interpreted
@pytest.mark.parametrize("case", BOXED, ids=lambda case: f"{case.pattern} {case.query_grid}")
def test_boxes_copied_by_the_hardware_are_the_same(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through descriptors of the tensors; compute capability 9.0 and newer take this way."""
    from fovea.kernels.triton import launch, tiling

    described = []
    original = launch._descriptor
    monkeypatch.setattr(launch, "_descriptor", lambda *given: described.append(found := original(*given)) or found)
    monkeypatch.setattr(tiling, "copies_boxes", lambda device: True)
    compare(case, "triton", torch.float32)
    assert len(described) >= 6  # key and value twice, query and the gradient of the output once
    assert None not in described


@interpreted
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_kernels_in_half_precision(dtype: torch.dtype) -> None:
    compare(CASES[1], "triton", dtype)
    compare(CASES[5], "triton", dtype)


@interpreted
@given(case=cases())
@settings(max_examples=5, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
def test_kernels_on_any_problem(case: Case) -> None:
    small = Case(**{**case.__dict__, "batch": 1, "bias": case.bias and max(case.query_grid) < 10})
    compare(small, "triton", torch.float32)


@interpreted
def test_same_bits_twice_and_strided_inputs() -> None:
    case = CASES[1]
    tensors = case.tensors(torch.float32)
    first, second = run(case, tensors, "triton"), run(case, tensors, "triton")
    assert all(torch.equal(first[name], second[name]) for name in first)
    turned = {name: t.detach().transpose(1, -2).contiguous().transpose(1, -2) for name, t in tensors.items()}
    again = run(case, turned, "triton", grad=False)
    assert torch.equal(again["out"], first["out"])


def test_what_the_kernels_do_not_take() -> None:
    triton = backends()["triton"]
    x = torch.empty(1, 8, 1, 4)
    problem = describe(Causal(), x, x, x, None, None, None, None).but(device=torch.device("cuda"))
    assert triton.refuses(problem.but(pattern=Union((Causal(), SlidingWindow(1))))) is None
    assert "leaves keys out" in str(triton.refuses(problem.but(pattern=Union((Causal(), Neighborhood(3, 1, 2))))))
    planes = {"query_grid": (4, 2), "key_grid": (4, 2)}
    assert "sequences" in str(triton.refuses(problem.but(pattern=Union((Window(2), Neighborhood(2))), **planes)))
    assert "float32" in str(triton.refuses(problem.but(dtype=torch.float64)))
    assert "at most 256" in str(triton.refuses(problem.but(head_dim=300)))
    assert predicted(problem).query_tile[:2] == (1, 1)


# On a GPU.


REAL = [
    Case(Neighborhood(2048), (8192,), (8192,), heads=2, head_dim=128, value_dim=128),
    Case(Neighborhood(256, 64), (4096,), (4096,), heads=2, head_dim=128, value_dim=128),
    Case(Neighborhood(7), (56, 56), (56, 56), heads=4, kv_heads=4, head_dim=32, value_dim=32, bias=True),
    Case(Neighborhood(7, dilation=8), (57, 59), (57, 59), head_dim=32, value_dim=32),
    Case(Neighborhood(13, 4), (63, 60), (63, 60), head_dim=80, value_dim=96),
    Case(
        Neighborhood((6, 8, 8), (4, 8, 8)), (12, 24, 40), (12, 24, 40), heads=2, head_dim=128, value_dim=128, extra=77
    ),
    Case(Window(7, 3), (56, 56), (56, 56), head_dim=32, value_dim=32, bias=True),
    Case(Halo(8, 3, "zero"), (64, 50), (64, 50), head_dim=64, value_dim=64, bias=True),
    Case(Causal(), (3000,), (3000,), heads=8, kv_heads=2, head_dim=64, value_dim=64),
    Case(Full(), (513,), (700,), head_dim=256, value_dim=256),
    Case(Blocks.power(256, 2), (5000,), (5000,), heads=8, kv_heads=2, head_dim=128, value_dim=128),
    Case(Blocks.power(256, 2), (1,), (5000,), heads=8, kv_heads=2, head_dim=128, value_dim=128),
    Case(Union((SlidingWindow(500), Blocks(64, (Sink(2),)))), (3001,), (3001,), heads=4, kv_heads=2, head_dim=64),
    Case(Chosen.clusters(64, np.arange(40) % 5), (2555,), (2555,), heads=4, kv_heads=2, head_dim=64, value_dim=48),
    Case(Neighborhood(9), (40, 41), (40, 41), heads=6, kv_heads=2, head_dim=16, value_dim=48, batch=2),
    Case(Neighborhood(100, 10), (1500,), (1500,), heads=4, kv_heads=1, head_dim=192, value_dim=128, extra=5),
]


@pytest.mark.gpu
@pytest.mark.skipif(INTERPRETED, reason="this process interprets")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("case", REAL, ids=lambda case: f"{case.pattern} {case.query_grid}")
def test_kernels_on_a_gpu(case: Case, dtype: torch.dtype) -> None:
    """Everything against the definition in float64 on the CPU, computed by the tiled backend where it is large."""
    tensors = case.tensors(dtype)
    there = {name: tensor.detach().cuda().requires_grad_() for name, tensor in tensors.items()}
    got = run_on(case, there, "triton")
    wanted = run_on(case, {n: t.detach().double().requires_grad_() for n, t in tensors.items()}, "tiled")
    allowed = {torch.float32: 1e-4, torch.bfloat16: 2e-2, torch.float16: 5e-3}[dtype]
    for name, expected in wanted.items():
        found = got[name].detach().cpu().double()
        error = (found - expected.detach()).norm() / expected.detach().norm()
        assert error < allowed, f"{name}: {error:.2e}"
    again = run_on(case, there, "triton")
    assert all(torch.equal(got[name], again[name]) for name in got)


@pytest.mark.gpu
@pytest.mark.skipif(INTERPRETED, reason="this process interprets")
@pytest.mark.parametrize("case", [REAL[1], REAL[5], REAL[10]], ids=lambda case: f"{case.pattern} {case.query_grid}")
def test_boxes_and_rows_are_the_same_on_a_gpu(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read through descriptors, where the device copies boxes, and by pointers as on all others."""
    from fovea.kernels.triton import tuning

    there = {name: tensor.detach().cuda().requires_grad_() for name, tensor in case.tensors(torch.bfloat16).items()}
    found = []
    for described in (True, False):
        if described and not copies_boxes(there["query"].device):
            pytest.skip("the device does not copy boxes")
        monkeypatch.setattr(tuning, "chosen", lambda problem, d=described: predicted(problem).but(described=d))
        found.append(run_on(case, there, "triton"))
    for name, boxed in found[0].items():
        torch.testing.assert_close(boxed, found[1][name], rtol=1e-2, atol=1e-2)


def run_on(case: Case, tensors: dict[str, Any], backend: str) -> dict[str, torch.Tensor]:
    """Outputs and gradients for cotangents drawn on the CPU."""
    out, lse = fovea.attention(**tensors, pattern=case.pattern, scale=case.scale, backend=backend, return_lse=True)
    source = torch.Generator().manual_seed(1)
    weights = torch.randn(out.shape, generator=source, dtype=torch.float64).to(out.device, out.dtype)
    gradients = torch.autograd.grad((out * weights).sum(), list(tensors.values()))
    return {"out": out, "lse": lse} | dict(zip(tensors, gradients, strict=True))


@pytest.mark.gpu
@pytest.mark.skipif(INTERPRETED, reason="this process interprets")
@pytest.mark.parametrize("kind", ["grid", "decoding", "chosen blocks", "taylor"])
def test_kernels_in_a_cuda_graph_and_compiled(kind: str) -> None:
    from fovea.kernels.triton.blocks import block_attention
    from fovea.kernels.triton.taylor import taylor_attention

    x = torch.randn(1, 32, 32, 4, 64, device="cuda", dtype=torch.bfloat16)
    line, features = x.flatten(1, 2), x.flatten(1, 2)[..., :16].contiguous()
    index = torch.tensor([[0, -1], [1, 0], [2, 0], [3, 1]], device="cuda").expand(1, 4, 4, 2)

    def call() -> torch.Tensor:
        if kind == "grid":
            return fovea.attention(x, x, x, "neighborhood:window=7", backend="triton")
        if kind == "decoding":
            return fovea.attention(line[:, -1:], line, line, "causal", backend="triton")
        if kind == "taylor":
            return taylor_attention(features, features, line)
        return block_attention(line, line, line, index, query_block=256, key_block=256, causal=True)

    wanted = call()
    torch.testing.assert_close(torch.compile(call)(), wanted)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = call()
    graph.replay()
    torch.testing.assert_close(captured, wanted)


def test_wide_values_are_addressed_with_64_bits() -> None:
    from fovea.kernels.triton.launch import reach_far

    near = torch.empty(2, 64, 4, 16, device="meta")
    far = torch.empty_strided((2, 64, 4, 16), (1 << 33, 1 << 26, 16, 1), device="meta")
    assert not reach_far((near, near))
    assert reach_far((near, far))
