"""The Triton kernels compiled for GPUs, which needs none: calls are kept instead of started, and compiled as they would
be, down to the assembler's account. They fit, do not spill, use the matrix units, and read whole boxes or vectors."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from fovea.kernels.problem import Problem
from fovea.patterns import Blocks, GridPattern, Neighborhood, Pattern, Window

pytest.importorskip("triton")
pytestmark = pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="this process interprets")

SHARED = {80: 163 << 10, 90: 227 << 10, 100: 227 << 10}
"""Bytes of shared memory that a program may have, by compute capability."""

SPILLED = 512
"""Bytes that a thread may spill: a few registers around the loops, a twentieth of the instructions inside them."""


class Driver:
    """What Triton asks of a driver before it compiles."""

    def __init__(self, capability: int) -> None:
        from triton.backends.compiler import GPUTarget

        self.target = GPUTarget("cuda", capability, 32)

    def get_current_target(self) -> Any:
        return self.target

    def get_current_device(self) -> int:
        return int(self.target.arch)

    def get_current_stream(self, device: int) -> int:
        return 0


@pytest.fixture
def pretend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Compile for a compute capability, which the device seems to have."""
    from triton.runtime import driver

    from fovea.kernels.triton import tiling

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    before = driver._active

    def use(capability: int) -> None:
        driver.set_active(Driver(capability))  # type: ignore[arg-type]
        monkeypatch.setattr(tiling, "copies_boxes", lambda device: capability >= 90)
        monkeypatch.setattr(tiling, "shared_memory", lambda device: SHARED[capability])

    yield use
    driver._active = before


def account(kernel: Any) -> tuple[int, int]:
    """Registers of a thread, and bytes that it spills, as the assembler counts them."""
    import triton

    capability = kernel.metadata.target.arch
    suffix = "a" if capability >= 90 else ""
    options = ["-v", f"--gpu-name=sm_{capability}{suffix}", "-o", "/dev/null", "-"]
    for tool in ("ptxas", "ptxas-blackwell"):  # the second is the newer one
        command = [str(Path(triton.__path__[0]) / "backends/nvidia/bin" / tool), *options]
        found = subprocess.run(command, input=kernel.asm["ptx"], capture_output=True, text=True, check=False)
        if found.returncode == 0:
            break
    registers, spilled = re.search(r"Used (\d+) registers", found.stderr), re.search(r"(\d+) bytes spill", found.stderr)
    assert registers is not None, found.stderr
    assert spilled is not None, found.stderr
    return int(registers[1]), int(spilled[1])


def launches(problem: Problem) -> dict[str, Any]:
    """The calls of the forward or, where ``problem.grad``, of the backward pass, by the kernel's name."""
    from fovea.kernels.triton import launch, tiling
    from fovea.kernels.triton.call import kept

    walks = launch.walks(problem, tiling.predicted(problem))
    row = (problem.batch, *problem.query_grid)
    query = torch.empty(*row, problem.heads, problem.head_dim, dtype=problem.dtype)
    key = torch.empty(*row, problem.kv_heads, problem.head_dim, dtype=problem.dtype)
    extra = None
    if problem.extra:
        extra = torch.empty(problem.batch, problem.extra, problem.kv_heads, problem.head_dim, dtype=problem.dtype)
    bias = None
    if problem.bias:
        assert isinstance(problem.pattern, GridPattern)
        bias = torch.empty(problem.heads, *problem.pattern.bias_shape(problem.query_grid), dtype=problem.dtype)
    with kept() as found:
        out, lse = launch.forward(problem, walks, query, key, key, bias, extra, extra)
        if problem.grad:
            launch.backward(problem, walks, out, None, query, key, key, out, lse, bias, extra, extra)
    return {each.kernel.__name__: each for each in found}


def posed(
    pattern: Pattern, grid: tuple[int, ...], dim: int, dtype: torch.dtype = torch.bfloat16, *, grad: bool = False,
    bias: bool = False, extra: int = 0,
) -> Problem:  # fmt: skip
    return Problem(pattern, grid, grid, 1, 8, 4, dim, dim, extra, bias, 0.1, dtype, torch.device("cpu"), grad)


VIDEO = Neighborhood((6, 16, 16)), (12, 24, 32)
CASES = [
    ("3d 128", 90, posed(*VIDEO, 128), ["attend"]),
    ("3d 128 backward", 90, posed(*VIDEO, 128, grad=True), ["grad_queries", "grad_keys"]),
    ("2d 64 in fp16 with extra keys", 90, posed(Neighborhood(24), (64, 64), 64, torch.float16, extra=77), ["attend"]),
    ("windows with bias", 90, posed(Window(7), (28, 28), 32, grad=True, bias=True), ["grad_keys", "grad_bias"]),
    ("dilated", 90, posed(Neighborhood(7, 1, 8), (56, 56), 32), ["attend"]),
    ("width 80", 90, posed(Neighborhood(9), (40, 40), 80, grad=True), ["row_sums", "grad_queries"]),
    ("width 256", 90, posed(Neighborhood(512), (2048,), 256), ["attend"]),
    ("float32", 90, posed(Neighborhood(9), (40, 40), 64, torch.float32, grad=True), ["grad_queries"]),
    ("blocks", 90, posed(Blocks.power(256), (4096,), 128), ["attend"]),
    ("3d 128 on 8.0", 80, posed(*VIDEO, 128), ["attend"]),
    ("3d 128 on 10.0", 100, posed(*VIDEO, 128), ["attend"]),
]


@pytest.mark.parametrize(("capability", "problem", "names"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_kernels_compile(capability: int, problem: Problem, names: list[str], pretend: Any) -> None:
    pretend(capability)
    found = launches(problem)
    for name in names:
        kernel = found[name].compile()
        assert kernel.metadata.shared <= SHARED[capability], name
        registers, spilled = account(kernel)
        assert spilled <= SPILLED, f"{name}: {spilled} bytes a thread are spilled, {registers} registers"
        if name in ("attend", "grad_queries", "grad_keys"):
            ptx = kernel.asm["ptx"]
            # Products of float32 are exact unless tf32 is allowed: no matrix unit computes them.
            assert problem.dtype == torch.float32 or re.search("wgmma.mma_async|mma.sync|tcgen05.mma", ptx), name
            boxed = "cp.async.bulk.tensor" in ptx
            assert boxed == found[name].options["BOXED"], name
            assert boxed or re.search(r"cp\.async|ld\.global[^ ]*\.v4", ptx), f"{name}: rows are read one by one"


def test_taylor_kernels_compile(pretend: Any) -> None:
    from fovea.kernels.triton import taylor
    from fovea.kernels.triton.call import kept

    pretend(90)
    tensors = [torch.zeros(1, 512, 2, width, dtype=torch.bfloat16, requires_grad=True) for width in (16, 16, 64)]
    state = taylor.TaylorState.empty(1, 2, 16, 64, "cpu")
    with kept() as found:
        taylor.taylor_attention(*tensors).sum().backward()
        query, key, value = (tensor.detach()[:, 0] for tensor in tensors)
        state.step(query, key, value)
    kernels = {each.kernel.__name__: each for each in found}
    assert sorted(kernels) == ["add_up", "chunk_states", "grad_keys", "grad_queries", "outputs", "step"]
    for name, each in kernels.items():
        assert each.compile().metadata.shared <= SHARED[90], name


def test_decoding_kernels_compile(pretend: Any) -> None:
    from fovea.kernels.triton import decode
    from fovea.kernels.triton.call import kept

    pretend(90)
    problem = posed(Blocks.power(256), (8192,), 128).but(query_grid=(1,))
    query, key = (torch.zeros(1, n, h, 128, dtype=torch.bfloat16) for n, h in ((1, 8), (8192, 4)))
    assert decode.decodes(problem)
    with kept() as found:
        decode.forward(problem, query, key, key)
    assert [each.kernel.__name__ for each in found] == ["attend_split", "join"]
    for each in found:
        assert each.compile().metadata.shared <= SHARED[90]


def test_kernels_of_all_candidates_are_compiled_together(pretend: Any) -> None:
    """As a search for tiles does on a device: each kernel once, by several threads, and nothing is started."""
    from fovea.kernels.triton import backward, tiling, tuning

    pretend(90)
    problem = posed(Neighborhood(7), (20, 20), 32, grad=True)
    tile = tiling.predicted(problem)
    trial = tuning.Trial(problem)
    before = [key for cache in backward.grad_keys.device_caches.values() for key in cache[0]]
    trial.prepare([tile, tile.but(grad_stages=1), tile])
    after = [key for cache in backward.grad_keys.device_caches.values() for key in cache[0]]
    assert len(after) == len(before) + 2
