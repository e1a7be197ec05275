"""The Triton kernels compiled for GPUs, which needs none: they fit, do not spill, and use the matrix units."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fovea.kernels.problem import Problem
from fovea.patterns import Blocks, GridPattern, Neighborhood, Pattern, Window

pytest.importorskip("triton")
pytestmark = pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="this process interprets")

TYPES = {torch.float32: "*fp32", torch.bfloat16: "*bf16", torch.float16: "*fp16", torch.int32: "*i32"}
SHARED = 227 << 10
"""Bytes of shared memory that a program may have on compute capability 9.0."""


class Recorder:
    """Stands in for a kernel and keeps what it is called with."""

    def __init__(self, kernel: Any) -> None:
        self.kernel, self.arguments = kernel, {}

    def __getitem__(self, grid: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> None:
            self.arguments = dict(zip(self.kernel.arg_names, args, strict=False)) | kwargs

        return call


def compiled(recorder: Recorder, capability: int) -> Any:
    """The kernel as a call with these arguments would compile it."""
    from triton import compile
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    given = dict(recorder.arguments)
    options = {name: given.pop(name) for name in ("num_warps", "num_stages") if name in given}
    constants: dict[Any, Any] = {}
    attributes: dict[Any, Any] = {}

    def kind(value: Any, path: tuple[int, ...], constant: bool) -> Any:
        if constant or value is None or (isinstance(value, int) and value == 1):
            constants[path] = value
            return "constexpr"
        if isinstance(value, tuple):
            return tuple(kind(item, (*path, place), False) for place, item in enumerate(value))
        if isinstance(value, float):
            return "fp32"
        if isinstance(value, Tensor) or value % 16 == 0:
            attributes[path] = [["tt.divisibility", 16]]
        return TYPES[value.dtype] if isinstance(value, Tensor) else "i32"

    signature = {
        parameter.name: kind(given[parameter.name], (place,), parameter.is_constexpr)
        for place, parameter in enumerate(recorder.kernel.params)
    }
    source = ASTSource(recorder.kernel, signature, constants, attributes)
    return compile(source, target=GPUTarget("cuda", capability, 32), options=options)


def record(problem: Problem, monkeypatch: pytest.MonkeyPatch) -> dict[str, Recorder]:
    """The kernels' arguments in the forward or, where ``problem.grad``, the backward pass."""
    from fovea.kernels.triton import backward, launch, tiling

    found = {}
    for module, name in (
        (launch, "attend"),
        *((backward, n) for n in ("row_sums", "grad_queries", "grad_keys", "grad_bias")),
    ):
        found[name] = Recorder(getattr(module, name))
        monkeypatch.setattr(module, name, found[name])
    walks = launch.walks(problem, tiling.predicted(problem))
    row = (problem.batch, *problem.query_grid)
    query = torch.empty(*row, problem.heads, problem.head_dim, dtype=problem.dtype)
    key = torch.empty(*row, problem.kv_heads, problem.head_dim, dtype=problem.dtype)
    bias = None
    if problem.bias:
        assert isinstance(problem.pattern, GridPattern)
        bias = torch.empty(problem.heads, *problem.pattern.bias_shape(problem.query_grid), dtype=problem.dtype)
    out, lse = launch.forward(problem, walks, query, key, key, bias, None, None)
    if problem.grad:
        launch.backward(problem, walks, out, None, query, key, key, out, lse, bias, None, None)
    return found


def problem_of(pattern: Pattern, grid: tuple[int, ...], dim: int, *, grad: bool, bias: bool = False) -> Problem:
    return Problem(
        pattern, grid, grid, 1, 8, 4, dim, dim, 0, bias, dim**-0.5, torch.bfloat16, torch.device("cpu"), grad
    )


@pytest.mark.parametrize(
    ("problem", "kernels"),
    [
        (problem_of(Neighborhood((6, 16, 16)), (12, 24, 32), 128, grad=False), ["attend"]),
        (problem_of(Neighborhood((6, 16, 16)), (12, 24, 32), 128, grad=True), ["grad_queries", "grad_keys"]),
        (problem_of(Window(7), (28, 28), 32, grad=True, bias=True), ["row_sums", "grad_keys", "grad_bias"]),
        (problem_of(Blocks.power(256), (4096,), 128, grad=False), ["attend"]),
    ],
    ids=["3d forward", "3d backward", "bias backward", "blocks forward"],
)
def test_kernels_compile(problem: Problem, kernels: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    recorders = record(problem, monkeypatch)
    for name in kernels:
        kernel = compiled(recorders[name], 90)
        assert kernel.metadata.shared <= SHARED, name
        ptx = kernel.asm["ptx"]
        if name in ("attend", "grad_queries", "grad_keys"):
            assert "wgmma.mma_async" in ptx or "mma.sync" in ptx, name
            assert re.search(r"cp\.async|ld\.global[^ ]*\.v4", ptx), f"{name}: rows are read element by element"


def test_taylor_kernels_compile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fovea.kernels.triton import taylor, taylor_kernels

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    names = ("chunk_states", "add_up", "outputs", "grad_queries", "grad_keys", "step")
    recorders = {name: Recorder(getattr(taylor_kernels, name)) for name in names}
    for name, recorder in recorders.items():
        monkeypatch.setattr(taylor_kernels, name, recorder)
    tensors: list[Any] = [
        torch.zeros(1, 512, 2, width, dtype=torch.bfloat16, requires_grad=True) for width in (16, 16, 64)
    ]
    taylor.taylor_attention(*tensors).sum().backward()
    state = taylor.TaylorState.empty(1, 2, 16, 64, "cpu")
    state.step(*(tensor.detach()[:, 0] for tensor in tensors))
    for name, recorder in recorders.items():
        assert compiled(recorder, 90).metadata.shared <= SHARED, name


def test_decoding_kernels_compile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fovea.kernels.triton import decode

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    recorders = {name: Recorder(getattr(decode, name)) for name in ("attend_split", "join")}
    for name, recorder in recorders.items():
        monkeypatch.setattr(decode, name, recorder)
    problem = problem_of(Blocks.power(256), (8192,), 128, grad=False).but(query_grid=(1,))
    query, key = (torch.zeros(1, n, h, 128, dtype=torch.bfloat16) for n, h in ((1, 8), (8192, 4)))
    assert decode.decodes(problem)
    decode.forward(problem, query, key, key)
    for name, recorder in recorders.items():
        assert compiled(recorder, 90).metadata.shared <= SHARED, name
