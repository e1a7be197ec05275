"""The CPU kernels: every variant against the definition, what is not finite, threads, refusals, and the build."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from torch import Tensor

import fovea
from fovea.kernels.native import library as native
from fovea.kernels.native.backend import Native
from fovea.kernels.native.library import ISA_VARIABLE, Question, call, variants
from fovea.kernels.registry import backends
from fovea.patterns import Blocks, Halo, Neighborhood, SlidingWindow, Window
from kernels.problems import Case, cases
from kernels.test_backends import LARGE, compare, run

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src/fovea/kernels/native"
here = Native().missing() is None
needs_library = pytest.mark.skipif(not here, reason="the library was not built")
VARIANTS = list(variants()) if here else []


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", VARIANTS)
@given(case=cases())
@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
def test_variant_is_the_definition(name: str, case: Case) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(ISA_VARIABLE, name)
        compare(case, "native", torch.float32)


@pytest.mark.parametrize("case", [LARGE[i] for i in (0, 1, 5, 6, 7, 10)], ids=lambda case: f"{case.pattern}")
@pytest.mark.parametrize("name", VARIANTS)
def test_variant_at_sizes_that_break_tiles(name: str, case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ISA_VARIABLE, name)
    compare(case, "native", torch.float32)


@needs_library
@pytest.mark.parametrize("width", [1, 3, 8, 30, 64, 80, 129])
def test_any_head_dim(width: int) -> None:
    compare(
        Case(Neighborhood(5), (9, 11), (9, 11), head_dim=width, value_dim=width + 7, bias=True), "native", torch.float32
    )


@needs_library
def test_unknown_variant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ISA_VARIABLE, "abacus")
    x = torch.randn(1, 4, 1, 4)
    with pytest.raises(ValueError, match="FOVEA_ISA='abacus'; this machine runs baseline"):
        fovea.attention(x, x, x, "causal", backend="native")


@needs_library
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", ["query", "key", "value"])
@pytest.mark.parametrize("pattern", [Neighborhood(3), Halo(4, 1, "zero"), SlidingWindow(200), Blocks.power(4, 1)])
def test_what_is_not_finite_stays_with_those_who_see_it(pattern: fovea.Pattern, name: str, value: float) -> None:
    source = torch.Generator().manual_seed(3)
    tensors = {n: torch.randn(1, 40, 2, 8, generator=source) for n in ("query", "key", "value")}
    tensors[name][0, 17, 1, 2] = value
    cotangent = torch.randn(1, 40, 2, 8, generator=source)

    def results(backend: str) -> list[Tensor]:
        leaves: dict[str, Any] = {n: t.clone().requires_grad_() for n, t in tensors.items()}
        out, lse = fovea.attention(**leaves, pattern=pattern, backend=backend, return_lse=True)
        return [out, lse, *torch.autograd.grad(out, list(leaves.values()), cotangent)]

    found, wanted = results("native"), results("reference")
    for number, (mine, exact) in enumerate(zip(found, wanted, strict=True)):
        if number < 2:
            assert torch.equal(mine.isfinite(), exact.isfinite())
        both = mine.isfinite() & exact.isfinite()
        torch.testing.assert_close(mine[both], exact[both], rtol=0, atol=2e-5)
    mask = torch.from_numpy(pattern.mask(40))[:, slice(None) if pattern.name != "halo" else slice(1, 41)]
    touched = ~found[0].isfinite().all(-1)[0, :, 1]
    reached = mask[touched].any(0)
    for gradient, allowed in zip(found[2:], (touched | mask[:, 17], reached, reached), strict=True):
        assert gradient[0, :, 0].isfinite().all()
        assert gradient[0, ~allowed, 1].isfinite().all()


@needs_library
def test_gradient_that_is_not_finite_stays_with_its_keys() -> None:
    x = [torch.randn(1, 12, 12, 2, 8, requires_grad=True) for _ in range(3)]
    cotangent = torch.randn(1, 12, 12, 2, 8)
    cotangent[0, 6, 6, 1, 0] = float("nan")
    found, wanted = (
        torch.autograd.grad(fovea.attention(*x, pattern=Neighborhood(3), backend=b), x, cotangent)
        for b in ("native", "reference")
    )
    for mine, exact in zip(found, wanted, strict=True):
        assert torch.equal(mine.isnan(), exact.isnan())
        assert mine.isnan().any()


@needs_library
@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("case", [LARGE[0], LARGE[5], LARGE[7]], ids=lambda case: f"{case.pattern}")
def test_threads_change_no_output_and_repeat_their_gradients(case: Case) -> None:
    tensors = case.tensors(torch.float32)
    results: dict[int, dict[str, Tensor]] = {}
    for count in (1, 2, 3, 5):
        torch.set_num_threads(count)
        results[count] = run(case, tensors, "native")
        again = run(case, tensors, "native")
        assert all(torch.equal(results[count][name], again[name]) for name in again)
    for count in (2, 3, 5):
        for name, wanted in results[1].items():
            torch.testing.assert_close(results[count][name], wanted, rtol=2e-5, atol=2e-5)


@needs_library
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_forked_child_computes() -> None:
    """As the workers of a DataLoader do, after the parent's threads have run."""
    script = (
        "import os, torch, fovea; torch.set_num_threads(2); x = torch.randn(2, 64, 2, 8)\n"
        "ask = lambda: fovea.attention(x, x, x, 'sliding:left=7', backend='native')\n"
        "wanted = ask(); child = os.fork()\n"
        "if child == 0: os._exit(0 if torch.equal(ask(), wanted) else 3)\n"
        "raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", script], check=True, timeout=120)


@needs_library
def test_inputs_at_odd_addresses() -> None:
    base = torch.randn(3, 1 + 2 * 9 * 9 * 2 * 6)
    x = [row[1:].view(2, 9, 9, 2, 6) for row in base]
    wanted = fovea.attention(*(t.clone() for t in x), pattern=Window(4, 1), backend="native")
    assert torch.equal(fovea.attention(*x, pattern=Window(4, 1), backend="native"), wanted)
    columns = [t.transpose(-1, -2).contiguous().transpose(-1, -2) for t in x]
    torch.testing.assert_close(fovea.attention(*columns, pattern=Window(4, 1), backend="native"), wanted)


def ask(start: list[int], stop: list[int], *, step: int = 1, keys: int = 8, position: list[int] | None = None) -> None:
    """Hand the library the tables of one axis."""
    tables = [np.array(t, np.int64) for t in (start, stop, position or list(range(len(start))))]
    question = Question(0, 1, 1, -1, 1, 1, 1, 4, 4, 0, 1.0)
    question.axis[0] = native.Axis(
        len(start), keys, step, 0, 0, 0, 1, *(t.ctypes.data for t in tables)
    )  # fmt: skip
    call("fovea_work", question, (ctypes.c_int64 * 2)())


@needs_library
@pytest.mark.parametrize(
    ("start", "stop", "options", "message"),
    [
        ([-1, 0], [2, 2], {}, "sees keys -1 to 1; the axis has 0 to 7"),
        ([0, 7], [2, 9], {}, "sees keys 7 to 8"),
        ([2, 1], [4, 4], {}, "starts or stops before"),
        ([0, 0], [4, 3], {}, "starts or stops before"),
        ([0, 2], [3, 4], {"step": 2}, "outside its residue class"),
        ([0, 1, 2], [3, 4, 4], {"step": 2, "position": [0, 1, 3]}, "leaves its residue class"),
        ([-(2**62), 0], [2, 2], {}, "out of all bounds"),
        ([0, 0], [2, 2**62], {}, "out of all bounds"),
        ([0, 0], [2, 2], {"step": 0}, "the step 1 or more"),
        ([0, 0], [2, 2], {"keys": -3}, "0 or more"),
    ],
)
def test_impossible_tables_are_refused(start: list[int], stop: list[int], options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ask(start, stop, **options)


@needs_library
def test_random_tables_are_refused_or_harmless() -> None:
    source = np.random.default_rng(5)
    taken = 0
    for _ in range(300):
        n = int(source.integers(1, 9))
        start = source.integers(-2, 10, n)
        stop = start + source.integers(-1, 4, n)
        if source.random() < 0.5:
            start, stop = np.sort(start), np.sort(stop)
        fits = all(s >= e or (s >= 0 and e <= 8) for s, e in zip(start, stop, strict=True))
        try:
            ask(start.tolist(), stop.tolist())
        except ValueError:
            continue
        assert fits
        taken += 1
    assert taken > 20


@needs_library
def test_strides_that_leave_the_storage_are_refused() -> None:
    x = torch.randn(1, 6, 1, 4)
    operands = native.Operands()
    for name in ("query", "key", "value", "out"):
        setattr(operands, name, native.Array(x.data_ptr(), 24, (ctypes.c_int64 * 5)(24, 4, 0, 0, 4)))
    operands.key.stride[1] = 5
    operands.lse = x.data_ptr()
    tables = [np.array(t, np.int64) for t in ([0] * 6, [6] * 6, range(6))]
    question = Question(0, 1, 1, -1, 1, 1, 1, 4, 4, 0, 1.0)
    question.axis[0] = native.Axis(6, 6, 1, 0, 0, 0, 1, *(t.ctypes.data for t in tables))
    with pytest.raises(ValueError, match="key: its strides reach element 29 of 24"):
        call("fovea_forward", question, operands)


def test_it_leaves_to_others_what_it_does_not_compute() -> None:
    backend = backends()["native"]
    x = torch.randn(1, 6, 1, 4)
    problem = fovea.kernels.problem.describe(fovea.parse("causal"), x, x, x, None, None, None, None)
    assert backend.refuses(problem) is None
    assert "float64" in str(backend.refuses(problem.but(dtype=torch.float64)))
    assert "union" in str(backend.refuses(problem.but(pattern=fovea.parse("union(causal; sliding:left=1)"))))
    assert "CPU" in str(backend.refuses(problem.but(device=torch.device("cuda"))))


def test_install_without_a_compiler(tmp_path: Path) -> None:
    """The build says what is missing and succeeds; the backend says why it is missing."""
    environment = {**os.environ, "PATH": "/nonexistent", "CC": "/nonexistent/cc", "CXX": "/nonexistent/c++"}
    command = [
        sys.executable,
        "setup.py",
        "build_ext",
        "--build-lib",
        str(tmp_path),
        "--build-temp",
        str(tmp_path / "t"),
    ]
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert "were not built (there is no C++ compiler)" in result.stderr
    assert not list(tmp_path.rglob("*.so"))


def test_missing_library_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(native, "HERE", tmp_path)
    native.library.cache_clear()
    try:
        assert "C++ compiler" in str(Native().missing())
    finally:
        native.library.cache_clear()


@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no compiler")
def test_sanitizers_find_nothing(tmp_path: Path) -> None:
    """Address and undefined-behaviour sanitizers over arrays of exactly the size that may be touched."""
    program = tmp_path / "driver"
    command = [
        "g++",
        "-std=c++17",
        "-O1",
        "-g0",
        "-Wno-psabi",
        "-fsanitize=address,undefined",
        "-fno-sanitize-recover=all",
    ]
    command += ["-pthread", f"-I{SOURCE}", "-DFOVEA_VARIANT=baseline", '-DFOVEA_VARIANT_NAME="baseline"']
    sources = [
        SOURCE / "api.cpp",
        SOURCE / "threads.cpp",
        SOURCE / "kernels.cpp",
        ROOT / "tests/kernels/native_driver.cpp",
    ]
    subprocess.run([*command, *map(str, sources), "-o", str(program)], check=True, timeout=400)
    result = subprocess.run([str(program)], capture_output=True, text=True, timeout=200)
    assert result.returncode == 0, result.stdout[-500:] + result.stderr[-3000:]
    assert "0 failed" in result.stdout
