"""Swin UNETR beside MONAI's own, with the same weights: time, peak memory, and how far the outputs are apart.

    python benchmarks/swin_unetr.py [--size 96] [--features 24 48] [--threads 2] [--repeats 3]

Times are taken in one process, the two in turn, the best of ``--repeats``. Peak memory is the growth of a process of
its own over what was resident before, so that it holds everything, also buffers inside of kernels.
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
from typing import Any

RESULT = Path(__file__).parent / "results" / "swin_unetr.json"
WAYS = ("monai", "fovea")


def resident(field: str) -> int:
    """``VmRSS`` (now) or ``VmHWM`` (peak) of this process, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"no {field} in /proc/self/status")


def networks(features: int, ways: tuple[str, ...] = WAYS) -> dict[str, Any]:
    """The networks by their way, all with the weights that MONAI drew."""
    import warnings

    import torch
    from monai.networks.nets import SwinUNETR

    from fovea.checkpoints import load_official

    torch.manual_seed(0)
    words = {"in_channels": 4, "out_channels": 3, "feature_size": features}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = SwinUNETR(**words)
    for name, parameter in theirs.named_parameters():
        if parameter.ndim == 1 and "norm" not in name:
            torch.nn.init.normal_(parameter, std=0.02)  # biases of zero would hide the filled tokens
    found = {"monai": theirs}
    if "fovea" in ways:
        found["fovea"] = load_official("swin-unetr", theirs.state_dict(), words)
    return {way: found[way] for way in ways}


def forward(network: Any, x: Any) -> Any:
    """Logits, without gradients."""
    import torch

    with torch.inference_mode():
        return network.eval()(x)


def training(network: Any, x: Any) -> Any:
    """Gradients of a step of training; they are dropped again."""
    network.train()
    out = network(x)
    out.square().mean().backward()
    network.zero_grad(set_to_none=True)
    return out.detach()


PASSES: dict[str, Callable[[Any, Any], Any]] = {"forward": forward, "training": training}


def timed(features: int, size: int, repeats: int) -> dict[str, Any]:
    """Seconds of both ways in turn, and the relative difference of their logits."""
    import torch

    nets = networks(features)
    x = torch.randn(1, 4, size, size, size, generator=torch.Generator().manual_seed(1))
    for network in nets.values():
        forward(network, x[..., :32, :32, :32])  # code and thread pools are loaded
    outs = {way: forward(network, x) for way, network in nets.items()}
    scale = float(outs["monai"].abs().max())
    found: dict[str, Any] = {"difference": float((outs["monai"] - outs["fovea"]).abs().max()) / scale}
    del outs
    for name, run in PASSES.items():
        seconds: dict[str, list[float]] = {way: [] for way in WAYS}
        for _ in range(repeats):
            for way, network in nets.items():
                gc.collect()
                begun = time.perf_counter()
                run(network, x)
                seconds[way].append(time.perf_counter() - begun)
        best = {way: min(times) for way, times in seconds.items()}
        found[name] = {f"{way}_seconds": best[way] for way in WAYS} | {"speedup": best["monai"] / best["fovea"]}
    return found


def peak(way: str, name: str, features: int, size: int) -> int:
    """Bytes by which one pass grows this process."""
    import torch

    network = networks(features)[way] if way == "fovea" else networks(features, ("monai",))[way]
    x = torch.randn(1, 4, size, size, size)
    PASSES[name](network, x[..., :32, :64, :32])
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts from what is resident now
    before = resident("VmRSS")
    PASSES[name](network, x)
    return resident("VmHWM") - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--features", type=int, nargs="+", default=[24, 48])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--peak", nargs=2, metavar=("WAY", "PASS"), help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=RESULT)
    words = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(words.threads)
    import torch

    torch.set_num_threads(words.threads)
    if words.peak:
        print(peak(*words.peak, words.features[0], words.size))
        return
    from fovea.tasks.run import versions

    found: dict[str, Any] = {"size": words.size, "threads": words.threads, "networks": {}}
    for features in words.features:
        entry = timed(features, words.size, words.repeats)
        for name in PASSES:
            for way in WAYS:
                command = [sys.executable, __file__, "--peak", way, name, "--features", str(features)]
                command += ["--size", str(words.size), "--threads", str(words.threads)]
                said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
                entry[name][f"{way}_peak_bytes"] = int(said.split()[-1])
            entry[name]["memory"] = entry[name]["fovea_peak_bytes"] / entry[name]["monai_peak_bytes"]
        found["networks"][str(features)] = entry
        print(features, json.dumps(entry), flush=True)
        found |= {"versions": versions(), "machine": platform.platform(), "date": time.strftime("%Y-%m-%d")}
        words.out.parent.mkdir(exist_ok=True)
        words.out.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
