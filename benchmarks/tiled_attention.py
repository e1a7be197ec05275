"""The tiled backend against dense and compiled attention on the CPU, in one run.

    python benchmarks/tiled_attention.py [--threads 2] [--shapes WORD ...] [--without flex ...] [--output FILE]

For each shape, forward and forward + backward in float32: the operator, PyTorch's fused dense attention with and
without a boolean mask, compiled FlexAttention (forward alone: it has no backward pass on the CPU; what it takes before
the first result is told apart), a loop that gathers the keys of each tile of queries, and the floor, which is the exact
work at the matrix rate of the same run. The ways take turns and each keeps its shortest time, so that a busy machine
disturbs them alike; load and processor time are recorded. Relative bias is given to the operator alone. Then time and
peak memory from 32x32 to 256x256 tokens, with their slopes. Peak memory is the growth of the resident memory of a
process of its own.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise, product
from math import log
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

import fovea
from fovea.kernels.problem import describe
from fovea.kernels.tiled import Tiled
from fovea.patterns import Full, GridPattern, Halo, Neighborhood, SlidingWindow, Window

RESULT = Path(__file__).parent / "results" / "tiled_attention.json"
SIDES = (32, 64, 112, 128, 256)
PEERS = ("masked", "dense", "flex", "gather")


@dataclass(frozen=True)
class Shape:
    """One attention: pattern, grid, heads and their width."""

    name: str
    pattern: GridPattern
    grid: tuple[int, ...]
    heads: int
    head_dim: int
    bias: bool = False

    @property
    def flops(self) -> float:
        """Exact floating-point operations of the forward pass; those of the backward pass are 2.5 times as many."""
        return 4.0 * self.pattern.pairs(self.grid) * self.heads * self.head_dim

    def tensors(self) -> list[Tensor]:
        source = torch.Generator().manual_seed(0)
        shape = (1, *self.grid, self.heads, self.head_dim)
        return [torch.randn(shape, generator=source).requires_grad_() for _ in range(3)]

    def table(self) -> Tensor | None:
        """The relative bias."""
        if not self.bias:
            return None
        return torch.zeros(self.heads, *self.pattern.bias_shape(self.grid)).requires_grad_()


SHAPES = (
    Shape("56x56 k7", Neighborhood(7), (56, 56), 4, 32),
    Shape("56x56 k7 d8", Neighborhood(7, dilation=8), (56, 56), 4, 32),
    Shape("16x24x24 k5", Neighborhood(5), (16, 24, 24), 4, 32),
    Shape("64x64 k13", Neighborhood(13), (64, 64), 4, 64),
    Shape("halo 8+3 64x64", Halo(8, 3), (64, 64), 4, 32),
    Shape("gna 64x64 k24 s1", Neighborhood(24, 1), (64, 64), 4, 32),
    Shape("gna 64x64 k24 s4", Neighborhood(24, 4), (64, 64), 4, 32),
    Shape("gna 64x64 k24 s8", Neighborhood(24, 8), (64, 64), 4, 32),
    Shape("gna 64x64 k24 s24", Neighborhood(24, 24), (64, 64), 4, 32),
    Shape("causal w256 8192", SlidingWindow(255), (8192,), 8, 64),
    Shape("swin 8x8 112x112", Window(8), (112, 112), 4, 32, bias=True),
)


def operator(shape: Shape, backend: str) -> Callable[..., Tensor]:
    """``fovea.attention`` on the shape."""
    bias = shape.table()
    return lambda q, k, v: fovea.attention(q, k, v, shape.pattern, bias=bias, backend=backend)


def dense(shape: Shape, *, masked: bool) -> Callable[..., Tensor]:
    """Fused attention of all tokens with all tokens."""
    mask = torch.from_numpy(shape.pattern.mask(shape.grid)) if masked else None

    def run(*tensors: Tensor) -> Tensor:
        q, k, v = (tensor.flatten(1, -3).transpose(1, 2) for tensor in tensors)
        return functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)

    return run


def tiles(shape: Shape) -> Iterator[tuple[tuple[slice, ...], tuple[slice, ...], Tensor]]:
    """Tiles of some 64 queries: where they are, where their keys are, and which pairs see each other."""
    side = {1: 64, 2: 8, 3: 4}[len(shape.grid)]
    axes = []
    for spans in shape.pattern.spans(shape.grid):
        pieces = []
        for residue in range(spans.step):
            rows = np.arange(residue, spans.queries, spans.step)
            for part in np.split(rows, np.arange(side, len(rows), side)):
                start, stop = int(spans.start[part].min()), int(spans.stop[part].max())
                keys = np.arange(start, stop, spans.step)
                seen = (keys >= spans.start[part][:, None]) & (keys < spans.stop[part][:, None])
                pieces.append((slice(part[0], part[-1] + 1, spans.step), slice(start, stop, spans.step), seen))
        axes.append(pieces)
    for piece in product(*axes):
        mask = np.ones((1, 1), np.bool_)
        for _, _, seen in piece:
            mask = np.kron(mask, seen)
        yield tuple(p[0] for p in piece), tuple(p[1] for p in piece), torch.from_numpy(mask)


def gather(shape: Shape) -> Callable[..., Tensor]:
    """A loop over tiles of queries, each gathering the box of its keys."""
    loop = list(tiles(shape))

    def run(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out = torch.zeros_like(q)
        for where, keys, mask in loop:
            some = [
                t[(slice(None), *box)].flatten(1, -3).transpose(1, 2) for t, box in ((q, where), (k, keys), (v, keys))
            ]
            part = functional.scaled_dot_product_attention(*some, attn_mask=None if mask.all() else mask)
            target = out[(slice(None), *where)]
            out[(slice(None), *where)] = part.transpose(1, 2).reshape(target.shape)
        return out

    return run


def flex(shape: Shape) -> Callable[..., Tensor]:
    """Compiled FlexAttention under the pattern's analytic block mask."""
    from torch.nn.attention.flex_attention import flex_attention

    from fovea.patterns.flex import block_mask

    torch._dynamo.reset()
    mask = block_mask(shape.pattern, shape.grid, shape.grid, block_size=128, device=torch.device("cpu"))
    compiled = torch.compile(flex_attention, dynamic=False)

    def run(*tensors: Tensor) -> Tensor:
        q, k, v = (tensor.flatten(1, -3).transpose(1, 2).contiguous() for tensor in tensors)
        return compiled(q, k, v, block_mask=mask)

    return run


def best(run: Callable[[], object], seconds: float = 1.5, most: int = 30) -> float:
    """The shortest of several runs, after one that warms up."""
    run()
    shortest, began, runs = float("inf"), time.perf_counter(), 0
    while runs < 2 or (runs < most and time.perf_counter() - began < seconds):
        start = time.perf_counter()
        run()
        shortest, runs = min(shortest, time.perf_counter() - start), runs + 1
    return shortest


def passes(
    attend: Callable[..., Tensor], tensors: list[Tensor], *, backward: bool
) -> Mapping[str, Callable[[], object]]:
    """The forward pass without gradients and (with ``backward``) both passes."""

    def forward() -> None:
        with torch.no_grad():
            attend(*tensors)

    def both() -> None:
        out = attend(*tensors)
        torch.autograd.grad(out, tensors, torch.ones_like(out))

    return {"forward": forward} | ({"forward_backward": both} if backward else {})


def timed(attend: Callable[..., Tensor], tensors: list[Tensor], *, backward: bool) -> dict[str, float]:
    """Shortest seconds of each pass."""
    return {name: best(run) for name, run in passes(attend, tensors, backward=backward).items()}


def in_turns(
    ways: dict[str, Mapping[str, Callable[[], object]]], seconds: float = 6.0, most: int = 40
) -> dict[str, dict[str, float]]:
    """Shortest seconds of every way and pass; in each round every one runs once."""
    shortest = {way: dict.fromkeys(runs, float("inf")) for way, runs in ways.items()}
    for runs in ways.values():
        for run in runs.values():
            run()
    began, rounds = time.perf_counter(), 0
    while rounds < 2 or (rounds < most and time.perf_counter() - began < seconds):
        for way, runs in ways.items():
            for name, run in runs.items():
                start = time.perf_counter()
                run()
                shortest[way][name] = min(shortest[way][name], time.perf_counter() - start)
        rounds += 1
    return shortest


def measure(shape: Shape, rate: float, backend: str, peers: list[str]) -> dict[str, Any]:
    """Everything about one shape."""
    tensors = shape.tensors()
    plan = fovea.plan(shape.pattern, shape.grid, heads=shape.heads, head_dim=shape.head_dim, bias=shape.bias)
    row: dict[str, Any] = {
        "name": shape.name,
        "pattern": str(shape.pattern),
        "grid": list(shape.grid),
        "heads": shape.heads,
        "head_dim": shape.head_dim,
        "bias": shape.bias,
        "auto": plan.backend,
        "floor": {"forward": shape.flops / rate, "forward_backward": 3.5 * shape.flops / rate},
        "load": os.getloadavg()[0],
    }
    makers: dict[str, Callable[[], Callable[..., Tensor]]] = {
        backend: lambda: operator(shape, backend),
        "masked": lambda: dense(shape, masked=True),
        "dense": lambda: dense(shape, masked=False),
        "gather": lambda: gather(shape),
        "flex": lambda: flex(shape),
    }
    ways = {}
    for name in (backend, *peers):
        began = time.perf_counter()
        attend = makers[name]()
        if name == "flex":
            with torch.no_grad():
                attend(*tensors)
            row["flex_setup"] = time.perf_counter() - began
        ways[name] = passes(attend, tensors, backward=name != "flex")
    row |= in_turns(ways)
    if "masked" in row:
        row["over_masked"] = {name: row["masked"][name] / row[backend][name] for name in row[backend]}
    del ways
    gc.collect()
    return row


def resident(field: str) -> int:
    """``VmRSS`` (now) or ``VmHWM`` (peak) of this process, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"no {field} in /proc/self/status")


def footprint(side: int, backend: str, threads: int) -> dict[str, Any]:
    """Time of a square grid at window 13, and by how much both passes raise this process's peak memory."""
    torch.set_num_threads(threads)
    small, shape = (Shape("", Neighborhood(13), (n, n), 4, 32) for n in (32, side))
    timed(operator(small, backend), small.tensors(), backward=True)
    tensors = shape.tensors()
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts from what is resident now
    before = resident("VmRSS")
    attend = operator(shape, backend)
    out = attend(*tensors)
    torch.autograd.grad(out, tensors, torch.ones_like(out))
    del out
    peak = resident("VmHWM") - before
    return {"side": side, "tokens": side * side, "peak_bytes": peak, **timed(attend, tensors, backward=True)}


def slope(rows: list[dict[str, Any]], field: str) -> float:
    """Exponent of the growth with the tokens, by least squares on logarithms."""
    tokens, values = ([log(max(row[name], 1e-9)) for row in rows] for name in ("tokens", field))
    return float(np.polyfit(tokens, values, 1)[0])


def scaling(backend: str, threads: int) -> dict[str, Any]:
    """Growth of time and memory with the number of tokens."""
    rows = []
    for side in SIDES:
        words = [sys.executable, __file__, "--footprint", str(side), "--backend", backend, "--threads", str(threads)]
        rows.append(
            json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
        )
        print(f"  {side}x{side}: " + ", ".join(f"{k} {v:.4g}" for k, v in rows[-1].items()), flush=True)
    return {
        "rows": rows,
        "slope_forward": slope(rows, "forward"),
        "slope_forward_backward": slope(rows, "forward_backward"),
        "slope_peak": slope(rows[1:], "peak_bytes"),  # at 32x32 the growth is below what the allocator holds already
    }


def strides(rows: list[dict[str, Any]], backend: str) -> dict[str, Any]:
    """How the strided shapes go down to the block-sparse one, and stride 8 against dense attention on its own tiles.

    Both are the tiled backend's, cut in 8 x 8 queries, in turns; ``fused`` is dense attention in one call.
    """
    times = [row[backend]["forward"] for row in rows]
    whole = Shape("full 64x64", Full(), (64, 64), 4, 32)
    ways = {
        "stride 8": lambda *qkv: _cut(Neighborhood(24, 8), *qkv),
        "dense": lambda *qkv: _cut(Full(), *qkv),
        "fused": operator(whole, backend),
    }
    tensors = whole.tensors()
    found = in_turns({name: {"forward": passes(way, tensors, backward=False)["forward"]} for name, way in ways.items()})
    eight, dense_tiles = found["stride 8"]["forward"], found["dense"]["forward"]
    flops = Neighborhood(24, 8).pairs(whole.grid) / Full().pairs(whole.grid)
    return {
        "forward": times,
        "rises": max(later / earlier for earlier, later in pairwise(times)),
        "stride_8_forward": eight,
        "dense_forward_same_tiles": dense_tiles,
        "dense_forward_fused": found["fused"]["forward"],
        "flop_ratio": flops,
        "time_over_flop_ratio": eight / dense_tiles / flops,
        "time_over_flop_ratio_fused": eight / found["fused"]["forward"] / flops,
    }


def _cut(pattern: GridPattern, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention by the tiled backend in tiles of 8 x 8 queries."""
    problem = describe(pattern, query, key, value, None, None, None, None)
    return Tiled((8, 8)).forward(problem, query, key, value, None, None, None)[0]


def planning() -> float:
    """Seconds to plan what was planned before."""

    def plan() -> None:
        for _ in range(1000):
            fovea.plan("neighborhood:window=13", (64, 64), heads=4)

    return best(plan, seconds=0.5) / 1000


def bars(result: dict[str, Any]) -> dict[str, bool]:
    """What the operator promises, and whether this run kept it.

    Window 24 of 64 sees a seventh of the keys and so cannot be many times faster than dense attention; there it is the
    strides that are compared.
    """
    rows = [row for row in result["shapes"] if not row["name"].startswith("gna")]
    grown = result["scaling"]
    return {
        "three_times_masked_forward": all(row["over_masked"]["forward"] >= 3 for row in rows),
        "three_times_masked_forward_backward": all(row["over_masked"]["forward_backward"] >= 3 for row in rows),
        "time_slope_at_most_1.1": max(grown["slope_forward"], grown["slope_forward_backward"]) <= 1.1,
        "memory_slope_at_most_1.1": grown["slope_peak"] <= 1.1,
        "256x256_below_1_GiB": max(row["peak_bytes"] for row in grown["rows"]) < 1 << 30,
        "strides_fall": result["strides"]["rises"] <= 1.1,
        "planning_below_50_microseconds": result["planning_seconds"] < 50e-6,
        "stride_8_within_1.25_of_flops": result["strides"]["time_over_flop_ratio"] <= 1.25,
    }


def matrix_rate() -> float:
    """Floating-point operations a second of a large matrix product."""
    a, b = torch.randn(2048, 2048), torch.randn(2048, 2048)
    return 2 * 2048**3 / best(lambda: a @ b, seconds=1.0)


def about() -> dict[str, Any]:
    """Machine, versions and commit."""
    cpu = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    root = Path(__file__).resolve().parents[1]
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=False)
    return {
        "cpu": cpu[0].partition(":")[2].strip() if cpu else platform.processor(),
        "cores": os.cpu_count(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "fovea": fovea.__version__,
        "commit": head.stdout.strip(),
        "date": time.strftime("%Y-%m-%d"),
        "load": os.getloadavg()[0],
        "wait_policy": os.environ.get("OMP_WAIT_POLICY", ""),
    }


def line(row: dict[str, Any], backend: str, peers: list[str]) -> str:
    """A row of the printed table: milliseconds, forward / both."""

    def cell(name: str) -> str:
        found = row.get(name, {})
        return "/".join(f"{found[key] * 1e3:.1f}" for key in ("forward", "forward_backward") if key in found)

    gain = "/".join(f"{gain:.1f}x" for gain in row.get("over_masked", {}).values())
    return f"{row['name']:<20}" + "".join(f"{cell(name):>18}" for name in (backend, *peers, "floor")) + f"{gain:>14}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--backend", default="tiled")
    parser.add_argument("--shapes", nargs="*", default=[], help="only shapes whose name contains one of these words")
    parser.add_argument("--without", nargs="*", default=[], choices=[*PEERS, "scaling"])
    parser.add_argument("--output", type=Path, default=RESULT)
    parser.add_argument("--footprint", type=int, help=argparse.SUPPRESS)
    words = parser.parse_args()
    if words.footprint:
        print(json.dumps(footprint(words.footprint, words.backend, words.threads)))
        return
    torch.set_num_threads(words.threads)
    peers = [peer for peer in PEERS if peer not in words.without]
    shapes = [s for s in SHAPES if not words.shapes or any(word in s.name for word in words.shapes)]
    rate = matrix_rate()
    print(f"matrix rate {rate / 1e9:.0f} GFLOP/s; milliseconds, forward/forward + backward")
    print(f"{'':<20}" + "".join(f"{name:>18}" for name in (words.backend, *peers, "floor")) + f"{'over masked':>14}")
    rows = []
    for shape in shapes:
        rows.append(measure(shape, rate, words.backend, peers))
        print(line(rows[-1], words.backend, peers), flush=True)
    result: dict[str, Any] = {"about": about(), "matrix_flops": rate, "backend": words.backend, "shapes": rows}
    strided = [row for row in rows if row["name"].startswith("gna")]
    if len(strided) == 4:
        result["strides"] = strides(strided, words.backend)
        print("strides:", {k: v for k, v in result["strides"].items() if k != "forward"}, flush=True)
    result["planning_seconds"] = planning()
    print(f"planning a seen problem: {result['planning_seconds'] * 1e6:.1f} microseconds")
    if "scaling" not in words.without:
        print("growth with the tokens, window 13, 4 heads of 32:")
        result["scaling"] = scaling(words.backend, words.threads)
        print({k: round(v, 3) for k, v in result["scaling"].items() if k != "rows"})
    if not words.shapes and not words.without:
        result["bars"] = bars(result)
        result["about"]["processor_seconds"] = time.process_time()
        print(result["bars"])
        words.output.parent.mkdir(parents=True, exist_ok=True)
        words.output.write_text(json.dumps(result, indent=1) + "\n")
        print(f"written to {words.output}")


if __name__ == "__main__":
    main()
