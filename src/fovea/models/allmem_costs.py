"""What a model with windows and memories computes and keeps, counted from its sizes (AllMem, arXiv 2602.13680).

A multiplication with its addition counts as two operations; norms, softmax and positions are left out, and so is the
output over the vocabulary, which a prefill needs once. Memories are those of the gated unit, ``3 m d`` weights each.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from fovea.models.allmem_config import AllMemConfig


def pairs(config: AllMemConfig, length: int, *, causal: bool = True) -> int:
    """Pairs of query and key of one head over a sequence: exactly (``causal``), or as dense products that are masked
    afterwards would compute them, ``n ** 2`` for full attention and ``n (W + S)`` for windows."""
    if config.window is None:
        return length * (length + 1) // 2 if causal else length * length
    seen = config.window + config.sinks
    if not causal:
        return length * min(length, seen)
    return sum(min(place + 1, seen) for place in range(min(length, seen))) + max(0, length - seen) * seen


def flops(config: AllMemConfig, length: int, *, causal: bool = True) -> dict[str, int]:
    """Operations to read ``length`` tokens, by part: ``projections`` and ``mlp`` of the base model, ``attention``,
    ``memory`` (reads, inner gradients, writes, output map), and their ``total``."""
    heads, kv_heads, d = config.heads, config.kv_heads, config.head_dim
    found = {
        "projections": config.layers * length * 2 * config.dim * d * (2 * heads + 2 * kv_heads),
        "mlp": config.layers * length * 2 * 3 * config.dim * config.mlp,
        "attention": config.layers * 2 * 2 * d * heads * pairs(config, length, causal=causal),
    }
    if config.memory is not None:
        weights = 3 * _units(config) * d
        read = heads * 2 * weights
        # The chunk's own forward pass, then du = w1' e (a third of the weights) and three weight gradients.
        learn = kv_heads * (2 * weights + 2 * weights // 3 + 2 * weights)
        out = 2 * heads * d * config.dim
        written = length // config.chunk * config.chunk
        found["memory"] = config.layers * (length * (read + out) + written * learn)
    return found | {"total": sum(found.values())}


def cache(config: AllMemConfig, length: int) -> dict[str, int]:
    """Numbers that a sequence keeps after ``length`` tokens, all layers: ``keys`` and values, and the ``memory``:
    weights, last steps and the unfinished chunk, at any length."""
    kept = length if config.window is None else min(length, config.window + config.sinks)
    found = {"keys": config.layers * 2 * config.kv_heads * config.head_dim * kept}
    if config.memory is not None:
        weights = 3 * _units(config) * config.head_dim
        chunk = config.chunk * (2 * config.head_dim + 2)
        found["memory"] = config.layers * (config.kv_heads * (2 * weights + chunk) + 1)
    return found | {"total": sum(found.values())}


def parameters(config: AllMemConfig) -> dict[str, int]:
    """Of the ``base`` model (an output tied to the embedding counts once) and of the ``memories``."""
    heads, kv_heads, d, dim = config.heads, config.kv_heads, config.head_dim, config.dim
    layer = dim * d * (2 * heads + 2 * kv_heads) + 3 * dim * config.mlp + 2 * dim
    layer += 2 * d if config.head_norm else 0
    layer += d * (heads + 2 * kv_heads) if config.bias else 0
    base = config.vocabulary * dim * (1 if config.tied else 2) + config.layers * layer + dim
    if config.memory is None:
        return {"base": base, "memories": 0}
    memory = kv_heads * 3 * _units(config) * d + 3 * d + 2 * kv_heads * (dim + 1) + dim
    memory += 0 if config.share_out else heads * d * dim
    return {"base": base, "memories": config.layers * memory}


def against_full(
    config: AllMemConfig, length: int, what: Literal["total", "attention", "mixer"] = "total", *, causal: bool = True
) -> float:
    """How many times the operations of full attention are those of windows and memories: of everything, of attention
    alone, or of attention and memory (``mixer``)."""
    full = flops(replace(config, window=None, memory=None), length, causal=causal)
    ours = flops(config, length, causal=causal)
    if what == "mixer":
        return full["attention"] / (ours["attention"] + ours.get("memory", 0))
    return full[what] / ours[what]


def _units(config: AllMemConfig) -> int:
    return 2 * config.head_dim if config.memory_hidden is None else config.memory_hidden
