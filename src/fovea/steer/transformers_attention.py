"""The attention and mask functions that are registered with transformers under the name ``fovea``.

transformers calls the mask function once a forward pass and hands what it returns, here a small :class:`Seen`, to the
attention function of every layer; no mask of queries by keys is built. Which plan a layer follows is an attribute of
its attention module; modules without one are computed as transformers' ``sdpa`` does.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

import fovea
from fovea.errors import UserError
from fovea.patterns import SlidingWindow
from fovea.steer.plan import ATTRIBUTE, Plan

NAME = "fovea"


@dataclass(frozen=True, eq=False)
class Seen:
    """What a forward pass reads, in place of a mask.

    Attributes:
        offset: tokens read before, padding included.
        length: tokens read now.
        attention_mask: ``[batch, offset + length]``, 0 for padding; none where there is no padding.
        arguments: what transformers' own mask functions would be called with.
    """

    offset: int
    length: int
    batch: int
    attention_mask: Tensor | None = None
    arguments: dict[str, Any] = field(default_factory=dict)
    _masks: dict[int, Tensor | None] = field(default_factory=dict, init=False, repr=False)

    @cached_property
    def padding(self) -> Tensor:
        """``[batch]``: the padding that each row begins with."""
        if self.attention_mask is None:
            return torch.zeros(self.batch, dtype=torch.int64)
        return leading_padding(self.attention_mask)

    def dense(self, keys: int) -> Tensor | None:
        """The mask that ``sdpa`` would get for the last so many tokens."""
        from transformers.masking_utils import sdpa_mask

        if keys not in self._masks:
            spans = {"kv_length": keys, "kv_offset": self.offset + self.length - keys}
            arguments: dict[str, Any] = self.arguments | spans
            self._masks[keys] = sdpa_mask(**arguments)
        return self._masks[keys]

    def rows(self) -> Iterator[tuple[Any, int]]:
        """Rows that begin with equally much padding, and how much."""
        padding = self.padding.tolist()
        for amount in sorted(set(padding)):
            rows = [row for row, each in enumerate(padding) if each == amount]
            yield slice(None) if len(rows) == len(padding) else rows, amount


def leading_padding(attention_mask: Tensor) -> Tensor:
    """How many zeros each row of ``[batch, tokens]`` begins with; ``UserError`` where zeros stand between ones or a row
    has no one."""
    mask = attention_mask.bool()
    if not bool(mask.any(1).all()):
        row = int((~mask.any(1)).nonzero()[0])
        raise UserError(f"attention_mask: row {row} is padding throughout; it must have at least one token")
    if bool((mask.int().diff(dim=1) == 1).sum(1).add(mask[:, 0]).gt(1).any()):
        raise UserError("attention_mask: padding stands between tokens; rows may be padded at their ends only")
    return mask.int().argmax(1)


def mask_function(
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset: int = 0,
    kv_offset: int = 0,
    attention_mask: Tensor | None = None,
    **others: Any,
) -> Seen:
    """What transformers calls for its mask."""
    arguments = {
        "batch_size": batch_size,
        "q_length": q_length,
        "kv_length": kv_length,
        "q_offset": q_offset,
        "kv_offset": kv_offset,
        "attention_mask": attention_mask,
        **others,
    }
    return Seen(int(q_offset), q_length, batch_size, attention_mask, arguments)


def attention_function(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Any,
    dropout: float = 0.0,
    scaling: float | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """What transformers calls for attention; heads come before tokens, and go out behind them."""
    plan: Plan | None = getattr(module, ATTRIBUTE, None)
    if plan is None:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        mask = attention_mask.dense(key.shape[2]) if isinstance(attention_mask, Seen) else attention_mask
        return sdpa_attention_forward(module, query, key, value, mask, dropout=dropout, scaling=scaling, **others)  # type: ignore[return-value]
    if not isinstance(attention_mask, Seen):
        raise UserError("attention_mask: a mask of queries by keys cannot be joined with a plan; give [batch, tokens]")
    if dropout:
        raise UserError(f"attention_dropout={dropout}; layers that follow a plan have no dropout: set it to 0")
    for name in ("softcap", "s_aux", "position_bias"):
        if others.get(name) is not None:
            raise UserError(f"this model's attention has {name}, which no plan can have")
    query, key, value = (tensor.transpose(1, 2) for tensor in (query, key, value))
    out = query.new_zeros(*query.shape[:-1], value.shape[-1])
    for rows, padding in attention_mask.rows():
        before = max(0, padding - attention_mask.offset)
        if before < attention_mask.length:
            asked = query[rows][:, before:]
            found = _look(plan, asked, key[rows], value[rows], padding, attention_mask, scaling)
            if isinstance(rows, slice) and not before:
                return found, None
            out = out.index_put(_places(rows, before, out), found)
    return out, None


def _places(rows: Any, before: int, out: Tensor) -> tuple[Tensor, Tensor]:
    row = torch.arange(len(out), device=out.device)[rows]
    return row[:, None], torch.arange(before, out.shape[1], device=out.device)[None]


def _look(
    plan: Plan, query: Tensor, key: Tensor, value: Tensor, padding: int, seen: Seen, scale: float | None
) -> Tensor:
    """Attention of rows that begin with equally much padding."""
    everything = key.shape[1] == seen.offset + seen.length
    if plan.window is None:
        if not everything:
            raise UserError(
                f"the cache holds {key.shape[1]} of {seen.offset + seen.length} tokens; a pattern needs them all: "
                "leave the cache to the model, or take that of the handle"
            )
        assert plan.pattern is not None
        return fovea.attention(query, key[:, padding:], value[:, padding:], plan.pattern, scale=scale)
    real, sinks = seen.offset + seen.length - padding, plan.sinks
    if key.shape[1] == seen.length:  # no cache
        first, rest = padding, padding + sinks
    else:  # sinks, what the window holds from a token on, and the new tokens
        first = 0
        oldest = seen.offset - (key.shape[1] - seen.length - sinks)
        rest = sinks + max(0, padding + sinks - oldest)
    parts = [(t[:, first : first + min(sinks, real)], t[:, rest:]) for t in (key, value)]
    (first_key, late_key), (first_value, late_value) = parts
    return windowed(query, first_key, first_value, late_key, late_value, real, plan.window, sinks, scale=scale)


def windowed(
    query: Tensor,
    first_key: Tensor,
    first_value: Tensor,
    late_key: Tensor,
    late_value: Tensor,
    length: int,
    window: int,
    sinks: int,
    *,
    scale: float | None = None,
) -> Tensor:
    """The last tokens of ``length``: each sees the ``window`` up to itself and the first ``sinks`` tokens.

    Args:
        query: ``[batch, queries, heads, head_dim]``.
        first_key, first_value: the first tokens, up to ``sinks`` of them.
        late_key, late_value: the last tokens from those behind the sinks, at least all that the windows reach.
    """
    queries = query.shape[1]
    early = min(max(sinks - (length - queries), 0), queries)
    outs = []
    if early:
        seen = length - queries + early
        outs.append(
            fovea.attention(query[:, :early], first_key[:, :seen], first_value[:, :seen], "causal", scale=scale)
        )
    if early < queries:
        held = min(late_key.shape[1], window - 1 + queries - early)
        outs.append(
            fovea.attention(
                query[:, early:],
                late_key[:, late_key.shape[1] - held :],
                late_value[:, late_value.shape[1] - held :],
                SlidingWindow(window - 1),
                extra_key=first_key if sinks else None,
                extra_value=first_value if sinks else None,
                scale=scale,
            )
        )
    return outs[0] if len(outs) == 1 else torch.cat(outs, 1)


def register() -> None:
    """Make both functions known to transformers; doing so again changes nothing."""
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(NAME, attention_function)
    AttentionMaskInterface.register(NAME, mask_function)
