"""How the CPU kernels became faster: one version's figures, added to those of earlier versions.

    PYTHONPATH=<a checkout>/src python benchmarks/cpu_versions.py "what is new in it"

One thread and its processor time, so that a busy machine disturbs little; shortest of several runs. Written to
``benchmarks/results/cpu_versions.json``, one entry for each description.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from cpu_attention import SHAPES, inputs, machine, passes, product

import fovea
from fovea.kernels.problem import describe
from fovea.patterns import SlidingWindow

RESULTS = Path(__file__).parent / "results" / "cpu_versions.json"
NAMES = ("2-D 56x56 k7", "2-D 64x64 k13", "2-D 128x128 k7 batch 4", "windows 8x8 bias 112x112", "1-D causal w256 n8192")


def shortest(run: Callable[[], object], seconds: float = 2.0) -> float:
    """Processor seconds of the shortest of several runs."""
    run()
    found, began, rounds = float("inf"), time.thread_time(), 0
    while rounds < 4 or (rounds < 300 and time.thread_time() - began < seconds):
        start = time.thread_time()
        run()
        found, rounds = min(found, time.thread_time() - start), rounds + 1
    return found


def measure() -> dict[str, Any]:
    """Milliseconds of each shape, and of one query against a long cache."""
    rate = 2 * 2048**3 / shortest(product())
    rows: dict[str, Any] = {}
    for shape in (shape for shape in SHAPES if shape.name in NAMES):
        tensors = inputs(shape)
        bias = torch.randn(shape.heads, *shape.pattern.bias_shape(shape.grid)) if shape.bias else None  # type: ignore[attr-defined]
        query, key, value = tensors
        exact = describe(shape.pattern, query, key, value, bias, None, None, None).pairs * shape.batch * shape.heads
        runs = passes(
            lambda q, k, v, s=shape, b=bias: fovea.attention(q, k, v, s.pattern, bias=b, backend="native"), tensors
        )
        times = {name: shortest(run) for name, run in runs.items()}
        floor = 4 * exact * shape.head_dim / rate
        rows[shape.name] = {"floor": floor, **times, "share_of_floor": floor / times["forward"]}
        print(shape.name, rows[shape.name], flush=True)
    query, key, value = torch.randn(1, 1, 8, 64), torch.randn(1, 65536, 8, 64), torch.randn(1, 65536, 8, 64)
    with torch.no_grad():
        window = SlidingWindow(1023)
        taken = shortest(lambda: fovea.attention(query, key, value, window, backend="native"), 0.3)
    rows["one query, window 1024 of 65536"] = {"forward": taken}
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("version", help="what is new in it")
    version = parser.parse_args().version
    torch.set_num_threads(1)
    about = machine()
    home = Path(fovea.__file__).parent
    about["commit"] = subprocess.run(
        ["git", "rev-parse", "HEAD"], capture_output=True, text=True, cwd=home, check=True
    ).stdout.strip()
    entries = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    entries = [entry for entry in entries if entry["version"] != version]
    entries.append({"version": version, "machine": about, "rows": measure()})
    RESULTS.write_text(json.dumps(entries, indent=1) + "\n")


if __name__ == "__main__":
    main()
