"""PowerAttention's claims at a size that two processor cores can hold (arXiv 2503.03588).

Models are trained from random weights on generated sequences. What one seed and pattern measured is kept in the user's
cache, so that what was interrupted goes on. The functions return numbers and no verdicts.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from dataclasses import asdict
from statistics import mean, stdev
from typing import Any

import torch

import fovea
from fovea.data.synthetic.relay import Relay
from fovea.kernels.cache import folder
from fovea.models.language_config import Layer
from fovea.patterns import Blocks, Causal, Local, Offsets, Pattern, Sink
from fovea.patterns.power import one_power_each, searched
from fovea.patterns.reach import receptive_field
from fovea.tasks.language.relay import RelayTraining, by_band, measure, pattern_of, rivals

SEEDS = 3
DEPTH, SIZE, BLOCKS = 2, 4, 16
LENGTHS = (4096, 8192, 16384, 32768)


def relay(*, quiet: bool = False) -> dict[str, Any]:
    """Two layers, 16 blocks of 4 tokens: the accuracy of each pattern inside and outside of what it reaches, and in
    five bands of distance, the nearest first; key blocks that the last block of the last layer sees."""
    measured: dict[str, Any] = {
        "layers": DEPTH,
        "blocks": BLOCKS,
        "block": SIZE,
        "chance": 1 / Relay(SIZE * BLOCKS).values,
    }
    for name, layers in rivals(DEPTH, size=SIZE, blocks=BLOCKS).items():
        runs = [_kept(name, layers, seed, quiet) for seed in range(SEEDS)]
        seen = pattern_of(layers[-1])
        outside = [run["outside"] for run in runs]
        measured[name] = {
            "key_blocks": len(seen.row(BLOCKS - 1)) if isinstance(seen, Blocks) else BLOCKS,
            "reached": runs[0]["reached"],
            "inside": _spread([run["inside"] for run in runs]),
            "outside": None if None in outside else _spread(outside),
            "bands": [round(mean(band), 3) for band in zip(*map(by_band, runs), strict=True)],
        }
    return measured


def reach(*, quiet: bool = False) -> dict[str, Any]:
    """Of 128 blocks, how many the last one reaches through 1 to 8 layers, and the key blocks that this costs."""
    window = (Local(5), Sink(1))
    layers: dict[str, list[Pattern]] = {
        "sliding": [Blocks.sliding(1, 9)],
        "stride slash": [Blocks.strided(1, 6, 32)],
        "dilated": [Blocks.dilated(1, 20)],
        "LongNet": [Blocks.longnet(1, ((8, 1), (16, 2), (32, 4), (64, 8), (128, 16)))],
        "power": [Blocks.power(1)],
        "one power a layer": list(one_power_each(1, 8, blocks=128)),
        "searched": [searched(1, blocks=128)],
        "searched, window of 3": [searched(1, blocks=128, window=3, count=6)],
        "offsets 12, 29, 47, 61": [Blocks(1, (*window, Offsets((12, 29, 47, 61))))],
    }
    found = {}
    for name, patterns in layers.items():
        field = receptive_field(patterns, 128, depth=8)
        blocks = [len(pattern.row(127)) for pattern in patterns if isinstance(pattern, Blocks)]
        found[name] = {
            "key_blocks": mean(blocks),
            "reached": field.counts.tolist(),
            "complete_after": field.complete_after,
            "cache_blocks": _cache_blocks(patterns),
        }
    return found


def slopes(*, quiet: bool = False) -> dict[str, Any]:
    """Seconds of attention to 4096 to 32768 tokens (4 heads of 64, blocks of 64), and its exponent in the length:
    fitted to the times, and to the numbers of pairs by the formula of each pattern."""
    patterns: dict[str, Pattern] = {
        "full": Causal(),
        "sliding": Blocks.sliding(64, 9),
        "power": Blocks.power(64),
        "one power": one_power_each(64, 4, blocks=LENGTHS[-1] // 64)[-1],
    }
    found: dict[str, Any] = {"lengths": list(LENGTHS)}
    source = torch.Generator().manual_seed(0)
    for name, pattern in patterns.items():
        seconds, pairs = [], []
        for length in LENGTHS:
            query, key, value = torch.randn(3, 1, length, 4, 64, generator=source)
            seconds.append(_shortest(query, key, value, pattern))
            pairs.append(fovea.plan(pattern, length, heads=4, head_dim=64).problem.pairs)
            if not quiet:
                print(f"{name}, {length} tokens: {seconds[-1]:.3f} s")
        found[name] = {
            "seconds": [round(s, 4) for s in seconds],
            "exponent": round(_exponent(LENGTHS, seconds), 3),
            "exponent_of_pairs": round(_exponent(LENGTHS, pairs), 3),
        }
    return found


def _kept(name: str, layers: tuple[Layer, ...], seed: int, quiet: bool) -> dict[str, Any]:
    """What :func:`fovea.tasks.language.relay.measure` found for one pattern and seed, now or before."""
    kind, training = Relay(SIZE * BLOCKS), RelayTraining(seed=seed)
    words = json.dumps([asdict(kind), asdict(training), [asdict(layer) for layer in layers]])
    place = folder() / "claims" / f"relay-{hashlib.sha256(words.encode()).hexdigest()[:16]}.json"
    if place.is_file():
        return json.loads(place.read_text())
    if not quiet:
        print(f"relay: {name}, seed {seed}")
    found = measure(layers, kind, training)
    place.parent.mkdir(parents=True, exist_ok=True)
    part = place.with_suffix(".part")
    part.write_text(json.dumps(found))
    os.replace(part, place)
    return found


def _cache_blocks(patterns: list[Pattern]) -> float | None:
    """Blocks that a layer's cache must hold, the mean over layers; none where all must be kept."""
    kept = [(pattern.memory, pattern.sinks) for pattern in patterns if isinstance(pattern, Blocks)]
    return mean(m + s for m, s in kept if m is not None) if all(m is not None for m, _ in kept) else None


def _spread(values: list[float]) -> dict[str, Any]:
    return {
        "mean": round(mean(values), 4),
        "deviation": round(stdev(values), 4) if len(values) > 1 else 0.0,
        "seeds": [round(value, 4) for value in values],
    }


@torch.no_grad()
def _shortest(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, pattern: Pattern) -> float:
    times = []
    for _ in range(3):
        begin = time.perf_counter()
        fovea.attention(query, key, value, pattern)
        times.append(time.perf_counter() - begin)
    return min(times)


def _exponent(lengths: tuple[int, ...], values: list[Any]) -> float:
    """Slope of the least-squares line through the logarithms."""
    x = [math.log(length) for length in lengths]
    y = [math.log(value) for value in values]
    across = sum((a - mean(x)) * (b - mean(y)) for a, b in zip(x, y, strict=True))
    return across / sum((a - mean(x)) ** 2 for a in x)
