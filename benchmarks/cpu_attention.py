"""Local attention on this machine's CPU: our kernels beside what else there is, in one process.

    python benchmarks/cpu_attention.py [--shapes WORDS] [--no-flex] [--seconds N]

For each shape every contestant runs once a round, and the shortest time of all rounds counts; a large matrix product
takes its turn among them. The floor is the time that the matrix products of the exact pairs would take at its rate.
Contestants have all threads; ours also runs with one thread. Written to ``benchmarks/results/cpu_attention.json`` with
machine, versions, commit, instruction set and load, and with a table of bars: what was measured, and what was asked.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from tiled_attention import resident, slope
from torch import Tensor
from torch.nn import functional

import fovea
from fovea.kernels.native.library import variant, variants
from fovea.kernels.problem import describe
from fovea.kernels.registry import backends
from fovea.patterns import Blocks, GridPattern, Halo, Neighborhood, Pattern, SlidingWindow, Window
from fovea.patterns.flex import block_mask
from fovea.patterns.pattern import Grid

RESULTS = Path(__file__).parent / "results" / "cpu_attention.json"
BACKWARD = 5000
"""Tokens beyond which dense attention is measured without its backward pass."""
MASKED = 17000
"""Tokens times batch beyond which dense attention is left out: a run would take half a minute."""
LONG = 1.0
"""Seconds beyond which a contestant runs twice and no more."""
SIDES = (32, 64, 128, 256, 512)


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


Runs = Mapping[str, Callable[[], object]]
"""What is timed of a contestant: its passes, by name."""


def in_turns(ways: Mapping[str, Runs], seconds: float, most: int = 40) -> dict[str, dict[str, float]]:
    """Shortest seconds of every pass of every contestant; each takes one turn a round, long ones two in all."""
    shortest = {way: dict.fromkeys(runs, float("inf")) for way, runs in ways.items()}
    began, rounds = time.perf_counter(), 0
    while rounds < 3 or (rounds < most and time.perf_counter() - began < seconds):
        for way, runs in ways.items():
            for name, run in runs.items():
                if rounds >= 2 and shortest[way][name] > LONG:
                    continue
                start = time.perf_counter()
                run()
                shortest[way][name] = min(shortest[way][name], time.perf_counter() - start)
        rounds += 1
    return shortest


def product() -> Callable[[], object]:
    """A 2048 x 2048 matrix product."""
    a, b = torch.randn(2048, 2048), torch.randn(2048, 2048)
    return lambda: a @ b


def inputs(shape: Shape, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    size = (shape.batch, *shape.grid, shape.heads, shape.head_dim)
    return [torch.randn(size, dtype=dtype, requires_grad=True) for _ in range(3)]


def passes(attend: Callable[..., Tensor], tensors: list[Tensor], *, backward: bool = True) -> Runs:
    """The forward pass without gradients, and the backward pass alone."""

    def forward() -> None:
        with torch.no_grad():
            attend(*tensors)

    if not backward:
        return {"forward": forward}
    out = attend(*tensors)
    cotangent = torch.randn_like(out)
    return {"forward": forward, "backward": lambda: torch.autograd.grad(out, tensors, cotangent, retain_graph=True)}


def with_threads(count: int, runs: Runs) -> Runs:
    """The passes with so many threads."""

    def limited(run: Callable[[], object]) -> Callable[[], object]:
        def once() -> None:
            before = torch.get_num_threads()
            torch.set_num_threads(count)
            run()
            torch.set_num_threads(before)

        return once

    return {name: limited(run) for name, run in runs.items()}


def dense(mask: Tensor | None) -> Callable[..., Tensor]:
    def attend(*tensors: Tensor) -> Tensor:
        q, k, v = (t.flatten(1, -3).transpose(1, 2) for t in tensors)
        return functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)

    return attend


def flex(shape: Shape, bias: Tensor | None) -> Callable[..., Tensor]:
    """Compiled FlexAttention under the pattern's analytic block mask; a relative bias is looked up for each pair."""
    from torch.nn.attention.flex_attention import flex_attention

    torch._dynamo.reset()
    mask = block_mask(shape.pattern, shape.grid, shape.grid, block_size=128, device=torch.device("cpu"))
    score: Callable[..., Tensor] | None = None
    if bias is not None:
        columns, reach = shape.grid[1], bias.shape[1] // 2

        def biased(logit: Tensor, b: Tensor, head: Tensor, i: Tensor, j: Tensor) -> Tensor:
            down, across = j // columns - i // columns + reach, j % columns - i % columns + reach
            return logit + bias[head, down.clamp(0, 2 * reach), across.clamp(0, 2 * reach)]

        score = biased

    compiled = torch.compile(flex_attention, dynamic=False)

    def attend(*tensors: Tensor) -> Tensor:
        q, k, v = (t.flatten(1, -3).transpose(1, 2).contiguous() for t in tensors)
        return compiled(q, k, v, block_mask=mask, score_mod=score)

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


def contestants(shape: Shape, tensors: list[Tensor], names: list[str], row: dict[str, Any]) -> dict[str, Runs]:
    """What runs in turns; what cannot run is said in the row."""
    bias = None
    if shape.bias:
        assert isinstance(shape.pattern, GridPattern)
        bias = torch.randn(shape.heads, *shape.pattern.bias_shape(shape.grid))
    tokens = prod(shape.grid)
    small = tokens * shape.batch <= MASKED

    def operator(backend: str) -> Callable[..., Tensor]:
        return lambda *t: fovea.attention(*t, pattern=shape.pattern, bias=bias, backend=backend)

    half = [t.detach().to(torch.bfloat16) for t in tensors]
    ways: dict[str, Runs] = {
        "matrix product": {"forward": product()},
        "native": passes(operator("native"), tensors),
        "native, bfloat16": passes(operator("native"), half, backward=False),
    }
    if torch.get_num_threads() > 1:
        ways["matrix product, one thread"] = with_threads(1, ways["matrix product"])
        ways["native, one thread"] = with_threads(1, ways["native"])
    makers: dict[str, Callable[[], Callable[..., Tensor]]] = {"tiled": lambda: operator("tiled")}
    if not shape.bias and small:
        makers["dense, boolean mask"] = lambda: dense(torch.from_numpy(shape.pattern.mask(shape.grid)))
        makers["dense, no mask"] = lambda: dense(None)
    if isinstance(shape.pattern, Window) and bias is not None:
        makers["reshape + SDPA"] = lambda: windows(shape, bias)
    makers["FlexAttention, compiled"] = lambda: flex(shape, bias)
    for name, make in makers.items():
        if name not in names:
            continue
        began = time.perf_counter()
        backward = not name.startswith(("dense", "Flex")) or (tokens <= BACKWARD and name.startswith("dense"))
        try:
            attend = make()
            if name.startswith("Flex"):
                with torch.no_grad():
                    attend(*tensors)
                row["flex_setup"] = time.perf_counter() - began
            ways[name] = passes(attend, tensors, backward=backward)
        except (RuntimeError, NotImplementedError, ValueError) as error:
            row["failed"][name] = str(error).strip().splitlines()[0][:200]
    return ways


def measure(shape: Shape, names: list[str], seconds: float) -> dict[str, Any]:
    """Everything about one shape."""
    tensors = inputs(shape)
    query, key, value = tensors
    exact = describe(shape.pattern, query, key, value, None, None, None, None).pairs * shape.batch * shape.heads
    row: dict[str, Any] = {"shape": shape.name, "pattern": str(shape.pattern), "failed": {}}
    found = in_turns(contestants(shape, tensors, names, row), seconds)
    share = 4 * exact * shape.head_dim / (2 * 2048**3)
    row["floor"] = share * found.pop("matrix product")["forward"]
    row["share_of_floor"] = row["floor"] / found["native"]["forward"]
    if "native, one thread" in found:
        row["floor_one_thread"] = share * found.pop("matrix product, one thread")["forward"]
        row["share_of_floor_one_thread"] = row["floor_one_thread"] / found["native, one thread"]["forward"]
        row["two_threads"] = found["native, one thread"]["forward"] / found["native"]["forward"]
    row["backward_over_forward"] = found["native"]["backward"] / found["native"]["forward"]
    row["bfloat16_over_float32"] = found["native, bfloat16"]["forward"] / found["native"]["forward"]
    row["seconds"], row["load"] = found, os.getloadavg()[0]
    print(
        f"{shape.name:50s} share {row['share_of_floor']:.2f}  "
        + "  ".join(f"{n} " + "/".join(f"{1e3 * t:.1f}" for t in found[n].values()) for n in found)
        + (f"  flex set-up {row['flex_setup']:.0f} s" if "flex_setup" in row else ""),
        flush=True,
    )
    gc.collect()
    return row


def growth(seconds: float) -> dict[str, Any]:
    """Seconds of window 7 on growing grids, and how they grow with the tokens."""
    ways: dict[str, Runs] = {}
    for side in SIDES:
        tensors = inputs(Shape("", Neighborhood(7), (side, side), 4, 32))
        ways[str(side)] = passes(lambda *t: fovea.attention(*t, pattern=Neighborhood(7), backend="native"), tensors)
    found = in_turns(ways, seconds)
    rows = [{"side": side, "tokens": side * side, **found[str(side)]} for side in SIDES]
    return {"rows": rows, "forward": slope(rows, "forward"), "backward": slope(rows, "backward")}


def decode(seconds: float) -> dict[str, Any]:
    """One query of 8 heads against a cache of 65536 tokens, in the operator's layout and in that dense attention likes.

    Contestants take turns, so that each finds the processor's caches full of what dense attention read: as between two
    steps of a model with many layers.
    """
    q = torch.randn(1, 1, 8, 64)
    k, v = torch.randn(1, 65536, 8, 64), torch.randn(1, 65536, 8, 64)
    few = [t[:, :, :2].contiguous() for t in (k, v)]
    heads = [t.transpose(1, 2) for t in (q, k, v)]
    lying = [t.contiguous() for t in heads]
    sparse = Blocks.power(256)

    def ours(pattern: Pattern, *cache: Tensor) -> Runs:
        return passes(lambda *t: fovea.attention(*t, pattern=pattern, backend="native"), [q, *cache], backward=False)

    def theirs(tensors: list[Tensor]) -> Runs:
        return passes(lambda *t: functional.scaled_dot_product_attention(*t), tensors, backward=False)

    ways: dict[str, Runs] = {
        "native, window 1024": ours(SlidingWindow(1023), k, v),
        "native, window 1024, 2 kv heads": ours(SlidingWindow(1023), *few),
        "native, blocks at powers of two": ours(sparse, k, v),
        "native, window 1024, heads before tokens": ours(SlidingWindow(1023), *(t.transpose(1, 2) for t in lying[1:])),
        "dense over the whole cache": theirs(heads),
        "dense over the whole cache, heads before tokens": theirs(lying),
    }
    found = {name: times["forward"] for name, times in in_turns(ways, seconds, most=1000).items()}
    layouts = {"tokens before heads": "", "heads before tokens": ", heads before tokens"}
    over = {
        layout: found[f"dense over the whole cache{ending}"] / found[f"native, window 1024{ending}"]
        for layout, ending in layouts.items()
    }
    return {"seconds": found, "over_dense": over}


def memory() -> dict[str, Any]:
    """Bytes of the inputs of 64x64 k13, batch 8, and how much a forward pass needs beyond its output."""
    shape = Shape("", Neighborhood(13), (64, 64), 4, 64, 8)
    with torch.no_grad():
        fovea.attention(*inputs(Shape("", Neighborhood(13), (16, 16), 4, 64)), pattern=shape.pattern, backend="native")
        tensors = inputs(shape)
        gc.collect()
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts from what is resident now
        before = resident("VmRSS")
        out = fovea.attention(*tensors, pattern=shape.pattern, backend="native")
        peak = resident("VmHWM") - before
    size = sum(t.numel() * 4 for t in tensors)
    extra = max(0, peak - out.numel() * 4)
    return {"inputs": size, "extra": extra, "share": extra / size}


def bars(result: dict[str, Any]) -> list[dict[str, Any]]:
    """What was asked of the kernels, and what this run measured."""
    rows = {row["shape"]: row for row in result["shapes"]}
    found: list[dict[str, Any]] = []

    def bar(figure: str, measured: float | None, most: bool, bound: float) -> None:
        if measured is not None:
            reached = measured <= bound if most else measured >= bound
            found.append(
                {
                    "figure": figure,
                    "measured": measured,
                    "bar": f"at {'most' if most else 'least'} {bound:g}",
                    "reached": reached,
                }
            )

    def over(row: dict[str, Any], way: str) -> float | None:
        theirs = row["seconds"].get(way)
        return theirs and sum(theirs.values()) / sum(row["seconds"]["native"][name] for name in theirs)

    for name in ("2-D 64x64 k13", "1-D causal w1024 n16384"):
        if row := rows.get(name):
            bar(f"share of the floor, {name}", row["share_of_floor"], False, 0.4)
            bar(f"share of the floor, {name}, one thread", row.get("share_of_floor_one_thread"), False, 0.4)
    gains = {name: gain for name, row in rows.items() if (gain := over(row, "FlexAttention, compiled"))}
    if gains:
        least = min(gains, key=lambda name: gains[name])
        bar(
            f"compiled FlexAttention over native, forward, the least of {len(gains)} shapes: {least}",
            gains[least],
            False,
            3,
        )
    if row := rows.get("2-D 56x56 k7"):
        bar("masked dense over native, forward and backward, 2-D 56x56 k7", over(row, "dense, boolean mask"), False, 15)
    for name, row in rows.items():
        if gain := over(row, "reshape + SDPA"):
            bar(f"reshape + SDPA over native, forward and backward, {name}", gain, False, 1)
    worst = max(rows, key=lambda name: rows[name]["backward_over_forward"])
    bar(f"backward / forward, the most: {worst}", rows[worst]["backward_over_forward"], True, 3)
    bar("extra memory of a forward pass / memory of q, k and v", result["memory"]["share"], True, 0.25)
    bar("slope of forward time in tokens, 32x32 to 512x512", result["growth"]["forward"], True, 1.05)
    bar("slope of backward time in tokens, 32x32 to 512x512", result["growth"]["backward"], True, 1.05)
    worst = max(rows, key=lambda name: rows[name]["bfloat16_over_float32"])
    bar(f"bfloat16 / float32, forward, the most: {worst}", rows[worst]["bfloat16_over_float32"], True, 1.1)
    threaded = {name: row["two_threads"] for name, row in rows.items() if "two_threads" in row}
    for name in ("2-D 64x64 k13", "1-D causal w1024 n16384"):
        bar(f"one thread / {result['machine']['threads']} threads, forward, {name}", threaded.get(name), False, 1.8)
    for layout, gain in result["decode"]["over_dense"].items():
        bar(f"decoding, {layout}: dense over all of 64k / native, window 1024", gain, False, 30)
    return found


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
    parser.add_argument(
        "--no-flex", action="store_true", help="without compiled FlexAttention, which takes long to set up"
    )
    parser.add_argument("--seconds", type=float, default=8.0, help="of turns for each shape (default 8)")
    options = parser.parse_args()
    if backends()["native"].missing() is not None:
        parser.error(f"the native backend is missing: {backends()['native'].missing()}")
    os.environ["TORCHINDUCTOR_FORCE_DISABLE_CACHES"] = "1"  # setting up is measured, not remembered
    names = ["tiled", "dense, boolean mask", "dense, no mask", "reshape + SDPA"]
    names += [] if options.no_flex else ["FlexAttention, compiled"]
    result: dict[str, Any] = {"machine": machine(), "memory": memory()}
    shapes = [shape for shape in SHAPES if options.shapes in shape.name]
    result["decode"] = decode(options.seconds)
    result["growth"] = growth(options.seconds)
    result["shapes"] = [measure(shape, names, options.seconds) for shape in shapes]
    result["machine"]["load_at_end"] = os.getloadavg()[0]
    result["bars"] = bars(result)
    for row in result["bars"]:
        print(
            f"{'reached' if row['reached'] else 'MISSED':8s} {row['measured']:8.3g}  {row['bar']:14s} {row['figure']}"
        )
    if shapes == list(SHAPES):
        RESULTS.write_text(json.dumps(result, indent=1) + "\n")
        print(f"written to {RESULTS}")


if __name__ == "__main__":
    main()
