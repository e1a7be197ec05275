"""Based's claims at a size that two processor cores can hold (arXiv 2402.18668).

Models are trained from random weights on generated sequences. What one seed and mixer measured is kept in the user's
cache, so that what was interrupted goes on. The functions return numbers and no verdicts.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from fovea.data.synthetic.recall import Recall
from fovea.kernels.cache import folder
from fovea.models.language_config import Layer
from fovea.nn.taylor_attention import TaylorAttention
from fovea.tasks.language.lessons import HARDER, RecallTraining
from fovea.tasks.language.recall import RIVALS, lessons, measure

SEEDS = 3
READ = (4096, 16384)
DECODED = (1024, 16384, 65536)
DIM, HEADS = 512, 8
STEPS = 60


def frontier(*, quiet: bool = False) -> dict[str, Any]:
    """Two layers, a convolution and the mixer in question: the share of values said right by length and pairs, and the
    bytes kept of a sequence."""
    return _frontier(RecallTraining(), quiet)


def harder(*, quiet: bool = False) -> dict[str, Any]:
    """The same with up to 64 pairs in 256 tokens, which tell a memory of fixed size from attention."""
    return _frontier(HARDER, quiet)


def cost(*, quiet: bool = False) -> dict[str, Any]:
    """One layer of 512 channels and 8 heads in float32: seconds to read sequences of 4096 and 16384 tokens, and
    milliseconds for one further token after 1024, 16384 and 65536, of linear attention (16 features) and of full
    attention by PyTorch's fused kernel, its keys and values lying ready in a cache; bytes of their states."""
    torch.manual_seed(0)
    layer = TaylorAttention(DIM, HEADS).eval()
    full = [torch.nn.Linear(DIM, DIM, bias=False) for _ in range(4)]
    found: dict[str, Any] = {"based": {"read_s": {}, "token_ms": {}, "bytes": {}}}
    found["attention"] = {"read_s": {}, "token_ms": {}, "bytes": {}}
    with torch.inference_mode():
        for length in READ:
            x = torch.randn(1, length, DIM)
            seconds = {
                "based": _times(lambda x=x: layer.prefill(x, layer.start(1, x)), 3),
                "attention": _times(lambda x=x: _attention(full, x, None), 1),
            }
            for name, times in seconds.items():
                found[name]["read_s"][str(length)] = round(min(times), 4)
        token = torch.randn(1, 1, DIM)
        states = {length: layer.start(1, token) for length in DECODED}
        caches = {length: torch.randn(2, 1, HEADS, length, DIM // HEADS) for length in DECODED}
        for length, state in states.items():
            layer.prefill(torch.randn(1, length, DIM), state)
            found["based"]["bytes"][str(length)] = state.bytes
            found["attention"]["bytes"][str(length)] = 4 * caches[length].numel()
        steps: dict[str, Callable[[int], Any]] = {
            "based": lambda length: layer.step(token, states[length]),
            "attention": lambda length: _attention(full, token, caches[length]),
        }
        for name, step in steps.items():
            for length, seconds in _by_turns(step, DECODED).items():
                found[name]["token_ms"][str(length)] = round(1e3 * seconds, 4)
    if not quiet:
        print(json.dumps(found, indent=1))
    return found


def _frontier(training: RecallTraining, quiet: bool) -> dict[str, Any]:
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in RIVALS}
    for seed in range(SEEDS):
        seeded, taught = replace(training, seed=seed), None
        for name, layer in RIVALS.items():
            place = _place(layer, seeded)
            if not place.is_file():
                taught = lessons(seeded) if taught is None else taught
                if not quiet:
                    print(f"recall: {name}, seed {seed}")
                _measured(place, layer, seeded, taught)
            runs[name].append(json.loads(place.read_text()))
    measured: dict[str, Any] = {"chance": round(2 / training.vocabulary, 4)}
    for name, found in runs.items():
        asked = {at: _spread([run["accuracy"][at] for run in found]) for at in found[0]["accuracy"]}
        measured[name] = {**found[0], "accuracy": asked}
    return measured


def _place(layer: Layer, training: RecallTraining) -> Path:
    words = json.dumps([asdict(layer), asdict(training)])
    return folder() / "claims" / f"recall-{hashlib.sha256(words.encode()).hexdigest()[:16]}.json"


def _measured(place: Path, layer: Layer, training: RecallTraining, taught: list[Recall]) -> None:
    found = measure(layer, training, taught)
    place.parent.mkdir(parents=True, exist_ok=True)
    part = place.with_suffix(".part")
    part.write_text(json.dumps(found))
    os.replace(part, place)


def _attention(maps: list[torch.nn.Linear], x: Tensor, cache: Tensor | None) -> Tensor:
    """Full attention of ``[1, tokens, dim]``; ``cache`` ``[2, 1, heads, length, head_dim]`` ends with the last one."""
    query, key, value = (each(x).unflatten(-1, (HEADS, -1)).transpose(1, 2) for each in maps[:3])
    if cache is None:
        out = scaled_dot_product_attention(query, key, value, is_causal=True)
    else:
        cache[0, :, :, -1:], cache[1, :, :, -1:] = key, value
        out = scaled_dot_product_attention(query, cache[0], cache[1])
    return maps[3](out.transpose(1, 2).flatten(2))


def _times(work: Callable[[], Any], repeats: int) -> list[float]:
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        work()
        times.append(time.perf_counter() - begin)
    return times


def _by_turns(work: Callable[[int], Any], lengths: Sequence[int]) -> dict[int, float]:
    """The median seconds at each length; they take turns, so that a slow moment of the machine meets all alike."""
    times = [[_times(lambda length=length: work(length), 1)[0] for length in lengths] for _ in range(STEPS)]
    return {length: median(column) for length, column in zip(lengths, zip(*times, strict=True), strict=True)}


def _spread(values: list[float]) -> dict[str, Any]:
    return {
        "mean": round(mean(values), 4),
        "deviation": round(stdev(values), 4) if len(values) > 1 else 0.0,
        "seeds": [round(value, 4) for value in values],
    }
