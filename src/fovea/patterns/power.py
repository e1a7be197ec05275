"""PowerAttention layer by layer (arXiv 2503.03588): besides the paper's powers of two in every layer, two schedules of
ours that reach as far for less.

Through layers, what a token reaches is what its blocks reach: a step back by an offset, taken once a layer. So offsets
may differ from layer to layer, and need not be powers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache

import numpy as np

from fovea.patterns.blocks import Blocks, Local, Offsets, Sink


def reached(blocks: int, layers: Sequence[Iterable[int]], sink: int = 1) -> list[int]:
    """How many of ``blocks`` blocks the last one reaches through its last 1, 2, ... layers.

    Args:
        layers: the offsets of each layer in blocks, from the first to the last; 0 is taken to be among them.
        sink: first blocks that every layer sees.

    >>> reached(8, [[1, 2, 4]] * 3, sink=0)
    [4, 7, 8]
    """
    seen, counts, whole = 1, [], (1 << blocks) - 1  # bit d: the block d back
    for offsets in reversed(layers):
        new = seen | (whole & ~(whole >> min(sink, blocks)))
        for offset in offsets:
            new |= seen << offset
        seen = new & whole
        counts.append(seen.bit_count())
    return counts


def one_power_each(size: int, layers: int, *, blocks: int, window: int = 5, sink: int = 1) -> tuple[Blocks, ...]:
    """Each layer sees a single power of two beyond its window: the last layer the largest below ``blocks``, the layers
    before it the next smaller ones, in turn.

    A layer then costs ``window + sink + 1`` blocks a query, and needs to keep only as many blocks as it looks back.
    """
    powers = [1 << k for k in range(blocks.bit_length()) if window <= 1 << k < blocks]
    if not powers:
        raise ValueError(f"window={window}, blocks={blocks}; no power of two lies between them")
    local = (Local(window), *([Sink(sink)] if sink else []))
    chosen = [powers[-1 - back % len(powers)] for back in reversed(range(layers))]
    return tuple(Blocks(size, (*local, Offsets((power,)))) for power in chosen)


def searched(
    size: int, *, blocks: int, window: int = 5, count: int = 4, depth: int = 4, sink: int = 1, seed: int = 0
) -> Blocks:
    """The window, the sinks, and ``count`` offsets with which ``depth`` layers reach the most of ``blocks`` blocks."""
    offsets = search_offsets(blocks, window, count, depth, sink, seed)
    return Blocks(size, (Local(window), *([Sink(sink)] if sink else []), Offsets(offsets)))


@lru_cache(maxsize=64)
def search_offsets(
    blocks: int, window: int, count: int, depth: int, sink: int = 1, seed: int = 0, starts: int = 24
) -> tuple[int, ...]:
    """``count`` offsets of at least ``window`` blocks whose reach is largest after ``depth`` layers, then before it.

    Found by climbing from ``starts`` random choices, one offset changed at a time; the same for the same arguments.

    Raises ``ValueError`` where there are not so many offsets.

    >>> search_offsets(16, 2, 2, 3)
    (4, 6)
    """
    possible = range(window, blocks)
    if not 1 <= count <= len(possible):
        raise ValueError(f"count={count}; there are {len(possible)} offsets from window={window} to {blocks - 1}")
    near = tuple(range(window))
    source = np.random.default_rng(seed)

    def worth(offsets: tuple[int, ...]) -> tuple[int, ...]:
        counts = reached(blocks, [(*near, *offsets)] * depth, sink)
        return counts[-1], sum(counts)

    best: tuple[tuple[int, ...], tuple[int, ...]] = ((), ())
    for _ in range(starts):
        found = tuple(sorted(source.choice(np.asarray(possible), count, replace=False).tolist()))
        value, climbing = worth(found), True
        while climbing:
            climbing = False
            for place in source.permutation(count).tolist():
                rest = found[:place] + found[place + 1 :]
                tried = max((tuple(sorted((*rest, o))) for o in possible if o not in rest), key=worth)
                if worth(tried) > value:
                    found, value, climbing = tried, worth(tried), True
                    break
        best = max(best, (value, found))
    return best[1]
