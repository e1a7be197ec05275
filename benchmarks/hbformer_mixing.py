"""HBFormer's dynamic convolutions: kernels mixed once for each image, against every expert run and mixed after.

    python benchmarks/hbformer_mixing.py [--channels 48 --size 128 --batch 4] [--threads 1] [--device cpu]

Without channels and size, the four levels of the published decoder at 256 x 256 pixels. Times are the median of
``--repeats`` calls taken in turn, forward alone and with the backward pass.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

RESULT = Path(__file__).parent / "results" / "hbformer_mixing.json"
LEVELS = ((384, 16), (192, 32), (96, 64), (48, 128))
"""Channels and side of the grids at 256 x 256."""


def measure(channels: int, size: int, words: argparse.Namespace) -> dict[str, Any]:
    """Both ways on one random map: median seconds, the ratio, the largest relative difference."""
    import torch

    from fovea.nn.dilated_mixture import DilatedMixture

    torch.manual_seed(0)
    layer = DilatedMixture(channels).to(words.device).eval()
    z = torch.randn(words.batch, channels, size, size, device=words.device)
    ways: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
        "mixed kernels": layer,
        "expert by expert": layer.expert_by_expert,
    }

    def forward(way: str) -> torch.Tensor:
        with torch.inference_mode():
            return ways[way](z)

    def both(way: str) -> None:
        x = z.clone().requires_grad_()
        ways[way](x).square().sum().backward()

    def timed(call: Callable[[str], Any], way: str) -> float:
        start = time.perf_counter()
        call(way)
        if words.device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    ours, theirs = forward("mixed kernels"), forward("expert by expert")
    found: dict[str, Any] = {
        "channels": channels,
        "size": size,
        "largest relative difference": float((ours - theirs).abs().max() / theirs.abs().max()),
    }
    for name, call in (("forward", forward), ("forward and backward", both)):
        seconds: dict[str, list[float]] = {way: [] for way in ways}
        for repeat in range(words.repeats + 1):
            for way in ways:
                elapsed = timed(call, way)
                if repeat:
                    seconds[way].append(elapsed)
        medians = {way: median(times) for way, times in seconds.items()}
        found[name] = medians | {"ratio": medians["expert by expert"] / medians["mixed kernels"]}
    return found


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
    parser.add_argument("--channels", type=int)
    parser.add_argument("--size", type=int)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--result", type=Path, default=RESULT)
    words = parser.parse_args()
    if (words.channels is None) != (words.size is None):
        parser.error("give both --channels and --size, or neither")
    import torch

    torch.set_num_threads(words.threads)
    levels = LEVELS if words.channels is None else ((words.channels, words.size),)
    result = {
        "problem": {"batch": words.batch, "dilations": [1, 4, 8], "experts": 4},
        "measured": [measure(channels, size, words) for channels, size in levels],
        "where": circumstances(words),
    }
    words.result.parent.mkdir(parents=True, exist_ok=True)
    words.result.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
