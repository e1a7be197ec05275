"""What a search for spans reads and takes as sequences grow, beside full attention (arXiv 2601.18401).

The paper has ``O(L ** 1.5)`` for a search over square roots, and full attention faster up to about 60 thousand tokens
on its GPU; here both are measured on the processor that there is.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from fovea.kernels.span_search import find, superlinear_attention
from fovea.patterns.search import SpanSearch

LENGTHS = (4096, 8192, 16384, 32768, 65536)
SEARCH = SpanSearch(sw_index=15, num_spans=2)
HEADS, HEAD_DIM = 4, 64
"""One group of query heads over one head of keys."""


@torch.no_grad()
def measure(
    lengths: Sequence[int] = LENGTHS,
    search: SpanSearch = SEARCH,
    *,
    repeats: int = 3,
    steps: int = 20,
    tell: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Keys read and processor time of one attention layer without its projections, at each length.

    Times are those of the processor, all threads together, so that other work on the machine counts little: of a
    prefill the best of ``repeats``, of a token read alone the median of ``steps``.

    Returns a dictionary that JSON can hold: by length, ``keys`` (stripes, spans and window, summed over all queries of
    a head) beside the ``most`` that they may be and those of full attention, ``prefill_s`` and ``step_ms`` of both; the
    exponents with which they grow; and ``crossing``, the length from which a prefill takes less than full attention
    (``None`` where it never does).
    """
    rows: dict[str, dict[str, float]] = {}
    for length in lengths:
        torch.manual_seed(length)
        search_query, query = (torch.randn(1, length, HEADS, HEAD_DIM) for _ in range(2))
        key, value = (torch.randn(1, length, 1, HEAD_DIM) for _ in range(2))
        dense = [tensor.transpose(1, 2).contiguous() for tensor in (query, key, value)]
        last = [tensor[:, -1:] for tensor in (search_query, query)]
        ours = partial(superlinear_attention, search_query, query, key, value, search)
        ours_step = partial(superlinear_attention, *last, key, value, search)
        full = partial(scaled_dot_product_attention, *dense, is_causal=True, enable_gqa=True)
        full_step = partial(scaled_dot_product_attention, dense[0][:, :, -1:], *dense[1:], enable_gqa=True)
        row = {
            "keys": visited(search_query, key, search) / HEADS,
            "most": float(sum(search.visits(count) for count in range(1, length + 1))),
            "keys of full attention": length * (length + 1) / 2,
            "prefill_s": min(_time(ours, repeats)),
            "prefill_s of full attention": min(_time(full, repeats)),
            "step_ms": 1e3 * float(np.median(_time(ours_step, steps))),
            "step_ms of full attention": 1e3 * float(np.median(_time(full_step, steps))),
        }
        rows[str(length)] = row
        if tell is not None:
            tell(", ".join([f"{length} tokens", *(f"{name} {number:.4g}" for name, number in row.items())]))
    return {
        "search": asdict(search),
        "threads": torch.get_num_threads(),
        "lengths": rows,
        "exponents": {name: _exponent(rows, name) for name in next(iter(rows.values()))},
        "crossing": _crossing(rows),
    }


def visited(search_query: Tensor, key: Tensor, search: SpanSearch) -> int:
    """Keys that all queries of one row and all heads read, each stripe, span and window counted for itself."""
    found = find(search_query, key, search, 0, None)
    inside = torch.where(found.anchor >= 0, found.end - found.start + 1, 0).sum()
    tokens = search_query.shape[1]
    stripes = sum(tokens - int(distance) for distance in search.distances(tokens))
    window = sum(min(search.window, count) for count in range(1, tokens + 1))
    return int(inside) + search_query.shape[2] * (stripes + window)


def growth(*, quiet: bool = False) -> dict[str, Any]:
    """The claim: keys and times from 4 to 64 thousand tokens."""
    return measure(tell=None if quiet else lambda message: print(message, file=sys.stderr, flush=True))


def _time(run: Callable[[], object], repeats: int) -> list[float]:
    run()
    taken = []
    for _ in range(repeats):
        begin = time.process_time()
        run()
        taken.append(time.process_time() - begin)
    return taken


def _exponent(rows: dict[str, dict[str, float]], name: str) -> float | None:
    """The slope of a number against length, both in logarithms; none where a time is too short to be told."""
    numbers = [row[name] for row in rows.values()]
    if len(rows) < 2 or min(numbers) <= 0:
        return None
    return float(np.polyfit(np.log([int(length) for length in rows]), np.log(numbers), 1)[0])


def _crossing(rows: dict[str, dict[str, float]]) -> int | None:
    """The shortest length from which on a prefill takes less time than full attention."""
    faster = [row["prefill_s"] < row["prefill_s of full attention"] for row in rows.values()]
    later = [all(faster[place:]) for place in range(len(faster))]
    return next((int(length) for length, always in zip(rows, later, strict=True) if always), None)
