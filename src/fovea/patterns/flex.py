"""Patterns in the form that PyTorch's FlexAttention takes: a ``mask_mod`` and a ``BlockMask``.

Both come from the tables of each axis; the block mask is classified without evaluating a single pair.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from math import prod
from typing import TYPE_CHECKING, Any

from fovea.patterns.blocks import BlockPattern, Blocks, BlockTable
from fovea.patterns.compose import PerHead, Union
from fovea.patterns.order import Order, RowMajor
from fovea.patterns.pattern import Grid, GridPattern, Pattern, as_grids
from fovea.patterns.spans import Spans
from fovea.patterns.states import FULL, PARTIAL, block_states, orders

if TYPE_CHECKING:
    import torch
    from torch.nn.attention.flex_attention import BlockMask

MaskMod = Callable[[Any, Any, Any, Any], Any]
"""``(batch, head, query, key) -> attends``, on scalar integer tensors."""

Sees = Callable[[tuple[Any, ...], tuple[Any, ...]], Any]


def mask_mod(
    pattern: Pattern | BlockTable,
    query_grid: int | Grid | None = None,
    key_grid: int | Grid | None = None,
    *,
    query_tile: Grid | None = None,
    key_tile: Grid | None = None,
    device: torch.device | str | None = None,
) -> MaskMod:
    """The pattern as a FlexAttention ``mask_mod`` of flattened tokens.

    Tokens are in row-major order, or ordered by tiles (see :func:`~fovea.patterns.states.block_states`). Zero keys
    that a pattern puts around the grid are keys of the flattened (padded) key grid: the caller pads keys and values
    with zeros. Grid patterns index one small integer table an axis, on ``device``; block patterns are closed forms.
    """
    if isinstance(pattern, BlockTable):
        sees = _table_sees(pattern, device)
        return lambda b, h, q, k: sees((q,), (k,))
    if query_grid is None:
        raise ValueError("query_grid is missing; only a BlockTable knows its own")
    query_grid, key_grid = as_grids(query_grid, key_grid)
    pattern.check(query_grid, key_grid)
    query, key = orders(pattern, query_grid, key_grid, query_tile, key_tile)
    if isinstance(pattern, PerHead):
        return _by_head(pattern, query, key, query_grid, key_grid, device)
    sees = _sees(pattern, query_grid, key_grid, device)
    return lambda b, h, q, k: _real(query, q) & _real(key, k) & sees(_inside(query, q), _inside(key, k))


def _by_head(
    pattern: PerHead, query: Order, key: Order, query_grid: Grid, key_grid: Grid, device: torch.device | str | None
) -> MaskMod:
    import torch

    parts = list(dict.fromkeys(pattern.parts))
    part_of_head = torch.tensor([parts.index(part) for part in pattern.parts], dtype=torch.int32, device=device)
    sees = [_sees(part, query_grid, key_grid, device) for part in parts]

    def attends(b: Any, h: Any, q: Any, k: Any) -> Any:
        part, at, to = part_of_head[h], _inside(query, q), _inside(key, k)
        seen = reduce(lambda a, c: a | c, ((part == i) & see(at, to) for i, see in enumerate(sees)))
        return _real(query, q) & _real(key, k) & seen

    return attends


def _real(order: Order, place: Any) -> Any:
    """Whether a place holds a token."""
    if isinstance(order, RowMajor):
        return place >= 0
    coordinates = order.coordinates(place)
    return reduce(lambda a, c: a & c, (c < size for c, size in zip(coordinates, order.grid, strict=True)))


def _inside(order: Order, place: Any) -> tuple[Any, ...]:
    """Coordinates of a place; where it holds no token, any that can be looked up."""
    coordinates = order.coordinates(place)
    if isinstance(order, RowMajor):
        return coordinates
    return tuple(c.clamp(max=size - 1) for c, size in zip(coordinates, order.grid, strict=True))


def _sees(pattern: Pattern, query_grid: Grid, key_grid: Grid, device: torch.device | str | None) -> Sees:
    if isinstance(pattern, GridPattern):
        return _product_sees([spans.padded() for spans in pattern.spans(query_grid, key_grid)], device)
    if isinstance(pattern, Blocks):
        position = key_grid[0] - query_grid[0]
        return lambda at, to: pattern.sees(at[0] + position, to[0])
    if isinstance(pattern, BlockPattern):
        return _table_sees(pattern.table(query_grid[0], key_grid[0]), device)
    if isinstance(pattern, Union):
        parts = [_sees(part, query_grid, key_grid, device) for part in pattern.parts]
        return lambda at, to: reduce(lambda a, c: a | c, (part(at, to) for part in parts))
    raise TypeError(f"{type(pattern).__name__} has no mask_mod")


def _product_sees(axes: list[Spans], device: torch.device | str | None) -> Sees:
    import torch

    tables = [
        (
            torch.tensor(spans.start, dtype=torch.int32, device=device),
            torch.tensor(spans.stop, dtype=torch.int32, device=device),
            spans.step,
        )
        for spans in axes
    ]
    whole = [bool((spans.start <= 0).all() and (spans.stop >= spans.keys).all()) and spans.step == 1 for spans in axes]

    def sees(at: tuple[Any, ...], to: tuple[Any, ...]) -> Any:
        seen = to[0] >= 0
        for (start, stop, step), query, key, all_keys in zip(tables, at, to, whole, strict=True):
            if all_keys:
                continue
            first = start[query]
            seen = seen & (key >= first) & (key < stop[query])
            if step > 1:
                seen = seen & ((key - first) % step == 0)
        return seen

    return sees


def _table_sees(table: BlockTable, device: torch.device | str | None) -> Sees:
    import torch

    seen = torch.from_numpy(table.blocks()).to(device)

    def sees(at: tuple[Any, ...], to: tuple[Any, ...]) -> Any:
        query, key = at[0] + table.position, to[0]
        attends = seen[query // table.size - table.first_row, key // table.size]
        return attends & (key <= query) if table.causal else attends

    return sees


def block_mask(
    pattern: Pattern | BlockTable,
    query_grid: int | Grid | None = None,
    key_grid: int | Grid | None = None,
    *,
    block_size: int | tuple[int, int] = 128,
    query_tile: Grid | None = None,
    key_tile: Grid | None = None,
    device: torch.device | str | None = None,
) -> BlockMask:
    """The FlexAttention ``BlockMask`` of a pattern, its full blocks split off, on ``device``.

    Equal to ``create_block_mask(mask_mod(...), ...)``, but computed from the tables of each axis. ``block_size`` is one
    for queries and keys, or ``(queries, keys)``; where tiles are given, the tiles are the blocks. The heads axis has
    length 1, or one entry a head for a pattern by heads. In a union of parts that cover a block only together, the
    block stays partial.
    """
    import torch
    from torch.nn.attention.flex_attention import BlockMask

    mod = mask_mod(pattern, query_grid, key_grid, query_tile=query_tile, key_tile=key_tile, device=device)
    blocks = (block_size, block_size) if isinstance(block_size, int) else block_size
    if isinstance(pattern, BlockTable):
        lengths = (pattern.queries, pattern.keys)
    else:
        query, key = orders(pattern, *as_grids(query_grid or 0, key_grid), query_tile, key_tile)
        lengths = (query.length, key.length)
        if query_tile is not None and key_tile is not None:
            blocks = (prod(query_tile), prod(key_tile))
    states = block_states(
        pattern,
        query_grid,
        key_grid,
        query_block=blocks[0],
        key_block=blocks[1],
        query_tile=query_tile,
        key_tile=key_tile,
    )
    states = states.reshape(1, -1, *states.shape[-2:])

    def lists(state: int) -> tuple[torch.Tensor, torch.Tensor]:
        found = torch.from_numpy(states == state).to(device)
        index = found.to(torch.uint8).argsort(dim=-1, descending=True, stable=True)
        return found.sum(-1, dtype=torch.int32), index.to(torch.int32)

    return BlockMask.from_kv_blocks(*lists(PARTIAL), *lists(FULL), BLOCK_SIZE=blocks, mask_mod=mod, seq_lengths=lengths)
