"""Local attention on this machine's CPU: our kernels beside what else there is, in one process.

    python benchmarks/cpu_attention.py [--shapes WORDS] [--flex] [--rounds N]

For each shape the least time of several rounds, forward and backward, of each contestant; the floor is the time that
the matrix products of the exact pairs would take at the rate of a large matrix product of the same run. Written to
``benchmarks/results/cpu_attention.json`` with machine, versions, commit and instruction set.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

import fovea
from fovea.kernels.native.library import variant, variants
from fovea.kernels.problem import describe
from fovea.kernels.registry import backends
from fovea.patterns import Blocks, GridPattern, Halo, Neighborhood, Pattern, SlidingWindow, Window
from fovea.patterns.pattern import Grid

RESULTS = Path(__file__).parent / "results" / "cpu_attention.json"
DENSE = 5000
"""Tokens beyond which dense attention is left out."""


@dataclass(frozen=True)
class Shape:
    name: str
    pattern: Pattern
    grid: Grid
    heads: int
    head_dim: int
    batch: int = 1
    bias: bool = False


SHAPES = (
    Shape("2-D 56x56 k7", Neighborhood(7), (56, 56), 4, 32),
    Shape("2-D 56x56 k7 dilation 8", Neighborhood(7, dilation=8), (56, 56), 4, 32),
    Shape("2-D 64x64 k13", Neighborhood(13), (64, 64), 4, 64),
    Shape("2-D 128x128 k7 batch 4", Neighborhood(7), (128, 128), 4, 32, 4),
    Shape("windows 8x8 bias 112x112", Window(8), (112, 112), 4, 32, bias=True),
    Shape("windows 16x16 bias 64x64, head 30", Window(16), (64, 64), 6, 30, bias=True),
    Shape("overlapping 16+4 zero border bias 64x64, head 30", Halo(16, 4, "zero"), (64, 64), 6, 30, bias=True),
    Shape("3-D 16x24x24 k5", Neighborhood(5), (16, 24, 24), 4, 32),
    Shape("1-D causal w256 n8192", SlidingWindow(255), (8192,), 8, 64),
    Shape("1-D causal w1024 n16384", SlidingWindow(1023), (16384,), 8, 64),
    Shape("HaloNet block 8 halo 3", Halo(8, 3), (64, 64), 8, 32),
    Shape("strided 64x64 k24 s1", Neighborhood(24), (64, 64), 4, 32),
    Shape("strided 64x64 k24 s4", Neighborhood(24, 4), (64, 64), 4, 32),
    Shape("strided 64x64 k24 s8", Neighborhood(24, 8), (64, 64), 4, 32),
    Shape("strided 64x64 k24 s24", Neighborhood(24, 24), (64, 64), 4, 32),
    Shape("PowerAttention n16384", Blocks.power(256), (16384,), 4, 64),
)


def least(work: Callable[[], object], rounds: int) -> float:
    """Seconds of the fastest of so many rounds, after one that is not counted."""
    work()
    found = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        found.append(time.perf_counter() - start)
    return min(found)


def matrix_rate(rounds: int) -> float:
    """Floating-point operations a second of a 2048 x 2048 matrix product."""
    a, b = torch.randn(2048, 2048), torch.randn(2048, 2048)
    return 2 * 2048**3 / least(lambda: a @ b, rounds)


def inputs(shape: Shape, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    size = (shape.batch, *shape.grid, shape.heads, shape.head_dim)
    return [torch.randn(size, dtype=dtype, requires_grad=True) for _ in range(3)]


def timed(attend: Callable[..., Tensor], tensors: list[Tensor], rounds: int) -> dict[str, float]:
    """Forward and backward seconds."""
    with torch.no_grad():
        forward = least(lambda: attend(*tensors), rounds)
    out = attend(*tensors)
    if not out.requires_grad:
        return {"forward": forward}
    cotangent = torch.randn_like(out)
    backward = least(lambda: torch.autograd.grad(out, tensors, cotangent, retain_graph=True), max(rounds // 2, 2))
    return {"forward": forward, "backward": backward}


def dense(mask: Tensor | None) -> Callable[..., Tensor]:
    def attend(*tensors: Tensor) -> Tensor:
        q, k, v = (t.flatten(1, -3).transpose(1, 2) for t in tensors)
        return functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)

    return attend


def windows(shape: Shape, bias: Tensor) -> Callable[..., Tensor]:
    """What a good Swin implementation does: windows by reshape, one fused call with the bias."""
    pattern = shape.pattern
    assert isinstance(pattern, Window)
    m = int(pattern.size) if isinstance(pattern.size, int) else int(pattern.size[0])
    rows, columns = shape.grid
    coordinates = torch.stack(torch.meshgrid(torch.arange(m), torch.arange(m), indexing="ij")).flatten(1)
    offsets = (coordinates[:, None, :] - coordinates[:, :, None]) + m - 1

    def attend(*tensors: Tensor) -> Tensor:
        cut = [
            t.view(shape.batch, rows // m, m, columns // m, m, shape.heads, shape.head_dim)
            .permute(0, 1, 3, 5, 2, 4, 6)
            .reshape(-1, shape.heads, m * m, shape.head_dim)
            for t in tensors
        ]
        out = functional.scaled_dot_product_attention(*cut, attn_mask=bias[:, offsets[0], offsets[1]])
        out = out.view(shape.batch, rows // m, columns // m, shape.heads, m, m, shape.head_dim)
        return out.permute(0, 1, 4, 2, 5, 3, 6).reshape(tensors[0].shape)

    return attend


def contestants(shape: Shape, flex: bool) -> dict[str, Callable[..., Tensor]]:
    bias = None
    if shape.bias:
        assert isinstance(shape.pattern, GridPattern)
        bias = torch.randn(shape.heads, *shape.pattern.bias_shape(shape.grid))
    found: dict[str, Callable[..., Tensor]] = {}
    for name in ("native", "tiled", *(["flex"] if flex and not shape.bias else [])):
        if name not in backends() or backends()[name].missing() is not None:
            continue
        found[name] = lambda *t, name=name: fovea.attention(*t, shape.pattern, bias=bias, backend=name)
    tokens = 1
    for n in shape.grid:
        tokens *= n
    if tokens <= DENSE and not shape.bias:
        found["dense, boolean mask"] = dense(torch.from_numpy(shape.pattern.mask(shape.grid)))
        found["dense, no mask"] = dense(None)
    if isinstance(shape.pattern, Window) and bias is not None:
        found["reshape + SDPA"] = windows(shape, bias)
    return found


def measure(shape: Shape, rate: float, rounds: int, flex: bool) -> dict[str, Any]:
    tensors = inputs(shape)
    exact = describe(shape.pattern, *tensors, None, None, None, None).pairs * shape.batch * shape.heads
    floor = 4 * exact * shape.head_dim / rate
    row: dict[str, Any] = {"shape": shape.name, "pattern": str(shape.pattern), "floor": floor, "seconds": {}}
    for name, attend in contestants(shape, flex).items():
        try:
            row["seconds"][name] = timed(attend, tensors, rounds if name == "native" else max(rounds // 3, 2))
        except (RuntimeError, NotImplementedError) as error:
            row["seconds"][name] = {"failed": str(error).splitlines()[0][:200]}
    mine = row["seconds"]["native"]
    row["share_of_floor"] = floor / mine["forward"]
    row["backward_over_forward"] = mine["backward"] / mine["forward"]
    half = inputs(shape, torch.bfloat16)
    with torch.no_grad():
        row["bfloat16_forward"] = least(lambda: fovea.attention(*half, shape.pattern, backend="native"), rounds)
    print(
        f"{shape.name:50s} share {row['share_of_floor']:.2f}  "
        + "  ".join(
            f"{n} {1e3 * s.get('forward', 0):.1f}/{1e3 * s.get('backward', 0):.1f}" for n, s in row["seconds"].items()
        ),
        flush=True,
    )
    return row


def slope(rounds: int) -> dict[str, float]:
    """Seconds of window 7 on growing grids."""
    found = {}
    for side in (32, 64, 128, 256, 512):
        tensors = inputs(Shape("", Neighborhood(7), (side, side), 4, 32))
        with torch.no_grad():
            found[str(side)] = least(lambda t=tensors: fovea.attention(*t, Neighborhood(7), backend="native"), rounds)
    return found


def threads(rounds: int) -> dict[str, dict[str, float]]:
    """Seconds of 64x64 k13 and 1-D w1024 with one thread and with two."""
    before, found = torch.get_num_threads(), {}
    for shape in (s for s in SHAPES if s.name in ("2-D 64x64 k13", "1-D causal w1024 n16384")):
        tensors = inputs(shape)
        found[shape.name] = {}
        for count in (1, 2):
            torch.set_num_threads(count)
            with torch.no_grad():
                run = least(lambda s=shape, t=tensors: fovea.attention(*t, s.pattern, backend="native"), rounds)
            found[shape.name][str(count)] = run
    torch.set_num_threads(before)
    return found


def decode(rounds: int) -> dict[str, float]:
    """Seconds of one query against a cache of 65536 tokens: window 1024, and all of it."""
    q = torch.randn(1, 1, 8, 64)
    k, v = torch.randn(1, 65536, 8, 64), torch.randn(1, 65536, 8, 64)
    heads = [t.transpose(1, 2) for t in (q, k, v)]
    with torch.no_grad():
        return {
            "native, window 1024": least(
                lambda: fovea.attention(q, k, v, SlidingWindow(1023), backend="native"), rounds
            ),
            "dense over the whole cache": least(lambda: functional.scaled_dot_product_attention(*heads), rounds),
        }


def memory() -> dict[str, int]:
    """Bytes of the inputs of 64x64 k13, batch 8, and how much the process grew beyond the output in a forward pass."""
    tensors = inputs(Shape("", Neighborhood(13), (64, 64), 4, 64, 8))
    with torch.no_grad():
        fovea.attention(*(t[:1, :16, :16] for t in tensors), Neighborhood(13), backend="native")
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        out = fovea.attention(*tensors, Neighborhood(13), backend="native")
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    size = sum(t.numel() * 4 for t in tensors)
    return {"inputs": size, "extra": max(0, (after - before) * 1024 - out.numel() * 4)}


def machine() -> dict[str, Any]:
    model = platform.processor()
    if os.path.exists("/proc/cpuinfo"):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), model)
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], capture_output=True, text=True, cwd=RESULTS.parent
    ).stdout.strip()
    names = {number: name for name, number in variants().items()}
    isa = names[variant() if variant() >= 0 else max(names)]
    load = os.getloadavg()[0]
    return {
        "cpu": model, "cores": os.cpu_count(), "threads": torch.get_num_threads(), "isa": isa, "load": load,
        "torch": torch.__version__, "fovea": fovea.__version__, "python": platform.python_version(), "commit": commit,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", default="", help="only shapes whose name holds these words")
    parser.add_argument("--flex", action="store_true", help="the flex backend, too (slow on a CPU)")
    parser.add_argument("--rounds", type=int, default=12)
    options = parser.parse_args()
    result: dict[str, Any] = {"machine": machine(), "memory": memory()}
    result["decode"] = decode(options.rounds)
    result["slope"] = slope(max(options.rounds // 3, 2))
    result["threads"] = threads(max(options.rounds // 2, 2))
    result["matrix_rate"] = matrix_rate(options.rounds)
    result["shapes"] = []
    RESULTS.parent.mkdir(exist_ok=True)
    for shape in SHAPES:
        if options.shapes in shape.name:
            rate = matrix_rate(options.rounds)
            result["shapes"].append(measure(shape, rate, options.rounds, options.flex))
            RESULTS.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
