"""Memory of HAT's overlapping cross-attention: through the operator, and by unfolding keys and values as published.

    python benchmarks/ocab_memory.py [--size 128] [--channels 180] [--heads 6] [--window 16] [--halo 4]
        [--backend auto]

Each measurement runs in a process of its own. On the CPU it is the growth of the process's peak resident memory over
what it was just before, so it holds everything, also buffers inside of kernels; on CUDA the allocator's peak. Times are
the best of ``--repeats``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

RESULT = Path(__file__).parent / "results" / "ocab_memory.json"
WAYS = ("operator", "unfold")


def resident(field: str) -> int:
    """``VmRSS`` (now) or ``VmHWM`` (peak) of this process, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"no {field} in /proc/self/status")


def measure(way: str, backward: bool, words: argparse.Namespace) -> dict[str, Any]:
    """One way's peak memory and time, and its output's digest."""
    import torch
    from torch import Tensor

    from fovea.nn import GridAttention
    from fovea.nn.unfolded import unfolded
    from fovea.patterns import Halo

    torch.manual_seed(0)
    device = words.device
    layer = GridAttention(
        words.channels,
        words.heads,
        Halo(words.window, words.halo, "zero"),
        bias_grid=(words.window,) * 2,
        backend=words.backend,
    ).to(device)
    run: Callable[[Tensor], Tensor] = layer if way == "operator" else lambda x: unfolded(layer, x)

    def once(size: int) -> Tensor:
        x = torch.randn(1, size, size, words.channels, device=device, requires_grad=backward)
        if not backward:
            with torch.inference_mode():
                return run(x)
        out = run(x)
        out.square().sum().backward()
        return out.detach()

    def synchronise() -> None:
        if device == "cuda":
            torch.cuda.synchronize()

    once(2 * words.window)  # code, thread pools and kernels are loaded
    synchronise()
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    else:
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts from what is resident now
        before = resident("VmRSS")
    torch.manual_seed(1)
    out = once(words.size)
    synchronise()
    peak = torch.cuda.max_memory_allocated() if device == "cuda" else resident("VmHWM")
    seconds = []
    for _ in range(words.repeats):
        start = time.perf_counter()
        once(words.size)
        synchronise()
        seconds.append(time.perf_counter() - start)
    torch.save(out.cpu(), words.output)
    return {"peak_bytes": peak - before, "seconds": min(seconds)}


def compared(words: argparse.Namespace) -> dict[str, Any]:
    import tempfile

    import torch

    measured: dict[str, Any] = {}
    for backward in (False, True):
        name = "forward and backward" if backward else "forward"
        measured[name] = {}
        with tempfile.TemporaryDirectory() as folder:
            outputs = []
            for way in WAYS:
                output = Path(folder) / f"{way}.pt"
                command = [sys.executable, __file__, "--measure", way, *(["--backward"] if backward else [])]
                for word in ("size", "channels", "heads", "window", "halo", "repeats", "device", "backend"):
                    command += [f"--{word}", str(getattr(words, word))]
                printed = subprocess.run(
                    [*command, "--output", str(output)], check=True, stdout=subprocess.PIPE, text=True
                ).stdout
                measured[name][way] = json.loads(printed.splitlines()[-1])
                outputs.append(torch.load(output, weights_only=True))
        ours, theirs = outputs
        measured[name]["largest relative difference"] = float((ours - theirs).abs().max() / theirs.abs().max())
        measured[name]["memory ratio"] = (
            measured[name]["unfold"]["peak_bytes"] / measured[name]["operator"]["peak_bytes"]
        )
    return measured


def circumstances(words: argparse.Namespace) -> dict[str, Any]:
    import torch

    import fovea

    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return {
        "device": torch.cuda.get_device_name()
        if words.device == "cuda"
        else platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "fovea": fovea.__version__,
        "commit": commit.stdout.strip(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for word, value in {"size": 128, "channels": 180, "heads": 6, "window": 16, "halo": 4, "repeats": 3}.items():
        parser.add_argument(f"--{word}", type=int, default=value)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--backend", default="auto", help="of the operator")
    parser.add_argument("--result", type=Path, default=RESULT)
    parser.add_argument("--measure", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--backward", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--output", help=argparse.SUPPRESS)
    words = parser.parse_args()
    if words.measure:
        print(json.dumps(measure(words.measure, words.backward, words)))
        return
    problem = {word: getattr(words, word) for word in ("size", "channels", "heads", "window", "halo", "backend")}
    result = {"problem": problem, "measured": compared(words), "where": circumstances(words)}
    words.result.parent.mkdir(parents=True, exist_ok=True)
    words.result.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
