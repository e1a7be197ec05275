"""Mixers of language models at length: time of a prefill and of a decode step, what they keep, and peak memory.

    python benchmarks/long_sequences.py [--mixers power taylor] [--prefill 4096 16384 65536] [--decode 1024 16384 65536]

Each mixer is one layer of ``--dim`` channels, random and in float32, in a process of its own that reads random tokens:
a prefill of all tokens at once (best of the repeats that fit in ``--seconds``), then 40 further tokens one by one (the
median). Both also in seconds of the processors, which say more where others use the machine too. Peak memory is what
the process held most during that, less what it held before. ``sdpa`` is what all are
compared with: full attention by ``scaled_dot_product_attention`` over keys and values that lie ready in a cache of the
right size. To measure another mixer, name it in :func:`layers`.
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
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fovea.models.language_config import Layer
    from fovea.nn.mixer import Mixer

RESULT = Path(__file__).parent / "results" / "long_sequences.json"
SIZE, HEADS = 64, 4
BASELINE = "sdpa"


def layers(longest: int) -> dict[str, Layer]:
    """The mixers by name, those whose patterns depend on the length made for ``longest`` tokens."""
    from fovea.models.language_config import MIXERS, Layer, block_layers, power_attention
    from fovea.patterns import Blocks

    heads = {"heads": HEADS}
    blocks = max(16, longest // SIZE)
    found = {
        "full": Layer("full", heads),
        "window": Layer("window", {"window": 9 * SIZE, "sinks": SIZE, **heads}),
        "power": power_attention("power", 1, size=SIZE, blocks=blocks, **heads)[0],
        "one-power": power_attention("one-power", 32, size=SIZE, blocks=blocks, **heads)[-1],
        "power-128": power_attention("power", 1, size=128, blocks=blocks, **heads)[0],
        "power-256": power_attention("power", 1, size=256, blocks=blocks, **heads)[0],
        "strided": block_layers([Blocks.strided(SIZE, 6, 32)], **heads)[0],
    }
    if "taylor" in MIXERS:
        found["taylor"] = Layer("taylor", {**heads, "feature_dim": 16})
        found["gated-convolution"] = Layer("gated-convolution", {})
    if "superlinear" in MIXERS:
        found["superlinear"] = Layer("superlinear", {**heads, "sw_index": 15})
    return found


def make(name: str, dim: int, longest: int) -> Mixer:
    """The mixer to measure; those of one seed share their weights."""
    import torch

    from fovea.models.language import make_mixer

    torch.manual_seed(0)
    if name == BASELINE:
        return _sdpa(dim, longest)
    return make_mixer(layers(longest)[name], dim).eval()


def _sdpa(dim: int, longest: int) -> Mixer:
    import torch
    from torch.nn.functional import scaled_dot_product_attention

    from fovea.nn.language_attention import FullAttention
    from fovea.nn.mixer import State

    class Dense(FullAttention):
        """Full attention as PyTorch computes it, with room for all keys from the start."""

        def start(self, batch: int, like: torch.Tensor) -> State:
            room = like.new_zeros(2, batch, self.kv_heads, longest + 64, self.head_dim)
            return State(torch.zeros(batch, dtype=torch.int64), {"key": room[0], "value": room[1]})

        def prefill(self, x: torch.Tensor, state: State, lengths: torch.Tensor | None = None) -> torch.Tensor:
            begin = int(state.position[0])
            end = begin + x.shape[1]
            query, key, value = self._projected(x, torch.arange(begin, end)[None])
            held = (state.tensors["key"][:, :, :end], state.tensors["value"][:, :, :end])
            for cache, new in zip(held, (key, value), strict=True):
                cache[:, :, begin:] = new.transpose(1, 2)
            out = scaled_dot_product_attention(query.transpose(1, 2), *held, is_causal=x.shape[1] > 1)
            state.position += x.shape[1]
            return self.project(out.transpose(1, 2).flatten(-2))

    return Dense(dim, HEADS).eval()


def resident(field: str) -> int:
    """``VmRSS`` (now) or ``VmHWM`` (peak) of this process, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"no {field} in /proc/self/status")


def clocked(call: Callable[[], Any]) -> tuple[float, float]:
    """Seconds that a call takes, by the clock and of all processors together."""
    begin, busy = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - begin, time.process_time() - busy


def measure(name: str, dim: int, length: int, seconds: float, steps: int) -> dict[str, Any]:
    """One mixer at one length, in this process."""
    import torch

    mixer = make(name, dim, length)
    x = torch.randn(1, length + steps, dim)
    with torch.inference_mode():
        warm = mixer.start(1, x)
        mixer.prefill(x[:, : min(length, 1024)], warm)
        for at in range(3):
            mixer.step(x[:, at : at + 1], warm)
        del warm
        gc.collect()
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        before = resident("VmRSS")
        prefills: list[tuple[float, float]] = []
        while True:
            state = mixer.start(1, x)
            prefills.append(clocked(lambda state=state: mixer.prefill(x[:, :length], state)))
            if sum(wall for wall, _ in prefills) >= seconds:
                break
        taken = [clocked(lambda at=at: mixer.step(x[:, at : at + 1], state)) for at in range(length, length + steps)]
    walls, processors = (sorted(times) for times in zip(*taken, strict=True))
    return {
        "prefill_s": min(wall for wall, _ in prefills),
        "prefill_cpu_s": min(processor for _, processor in prefills),
        "step_ms": 1e3 * walls[steps // 2],
        "step_cpu_ms": 1e3 * processors[steps // 2],
        "state_mb": state.bytes / 2**20,
        "peak_mb": max(0, resident("VmHWM") - before) / 2**20,
    }


def elsewhere(name: str, length: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """:func:`measure` in a process of its own."""
    words = [sys.executable, __file__, "--one", name, "--at", str(length), "--dim", str(arguments.dim)]
    words += ["--threads", str(arguments.threads), "--seconds", str(arguments.seconds), "--steps", str(arguments.steps)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(arguments.threads)}
    done = subprocess.run(words, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        return {"error": done.stderr.strip().splitlines()[-1]}
    return json.loads(done.stdout)


def main() -> None:
    """Measure, print a table, and write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mixers", nargs="+", help="all but those of the baseline, if not given")
    parser.add_argument("--prefill", nargs="+", type=int, default=[4096, 16384, 65536])
    parser.add_argument("--decode", nargs="+", type=int, default=[1024, 16384, 65536])
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=3.0, help="prefills are repeated for so long")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--at", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    import torch

    if arguments.one:
        torch.set_num_threads(arguments.threads)
        print(json.dumps(measure(arguments.one, arguments.dim, arguments.at, arguments.seconds, arguments.steps)))
        return
    names = [BASELINE, *(arguments.mixers or layers(65536))]
    lengths = sorted({*arguments.prefill, *arguments.decode})
    found: dict[str, dict[str, Any]] = {name: {} for name in names}
    columns = ("prefill s", "x sdpa", "x cpu", "step ms", "x sdpa", "x cpu", "state MB", "peak MB")
    print(f"{'mixer':18} {'tokens':>7}", *(f"{column:>9}" for column in columns))
    for length in lengths:
        for name in names:
            result = found[name][str(length)] = elsewhere(name, length, arguments)
            if "error" in result:
                print(f"{name:18} {length:7} {result['error']}", flush=True)
                continue
            base = found[BASELINE][str(length)]
            for what, unit in (("prefill", "s"), ("step", "ms")):
                result[f"{what}_speedup"] = base[f"{what}_{unit}"] / result[f"{what}_{unit}"]
                result[f"{what}_cpu_speedup"] = base[f"{what}_cpu_{unit}"] / result[f"{what}_cpu_{unit}"]
            times = [f"{what}{kind}" for what in ("prefill", "step") for kind in ("", "_speedup", "_cpu_speedup")]
            keys = (times[0] + "_s", *times[1:3], times[3] + "_ms", *times[4:], "state_mb", "peak_mb")
            print(f"{name:18} {length:7}", *(f"{result[key]:9.3f}" for key in keys), flush=True)
        write(arguments, found)


def write(arguments: argparse.Namespace, found: dict[str, dict[str, Any]]) -> None:
    """What has been measured so far, into the file as a whole."""
    import torch

    settings = {key: getattr(arguments, key) for key in ("dim", "threads", "seconds", "steps", "prefill", "decode")}
    machine = {
        "cpu": platform.processor() or platform.machine(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    part = arguments.out.with_name(arguments.out.name + ".part")
    part.write_text(json.dumps({"settings": settings, "machine": machine, "measured": found}, indent=1) + "\n")
    part.replace(arguments.out)


if __name__ == "__main__":
    main()
