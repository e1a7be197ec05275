"""What the layers of a finished language model shall look at, as plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from fovea.errors import UsageError, unknown

ATTRIBUTE = "fovea_plan"
"""Where an attention module has its plan."""


@dataclass(frozen=True)
class Plan:
    """What some layers see: a ``pattern`` of the past, or a ``window`` with ``sinks``, and beside it a ``memory``.

    Attributes:
        pattern: the text of a causal pattern on sequences, such as ``"blocks:size=64,terms=local(5)+sink(1)+powers"``
            (PowerAttention).
        window: each token sees the last so many tokens, itself included,
        sinks: and the first so many.
        memory: kind of memory beside the window (:data:`fovea.kernels.memory.RULES`), or none.
        hidden, chunk, rate, share_out: of :class:`fovea.nn.memory.Memory`.
        layers: numbers of the layers; all if none are given.
    """

    pattern: str | None = None
    window: int | None = None
    sinks: int = 0
    memory: str | None = None
    hidden: int | None = None
    chunk: int = 512
    rate: float = 0.001
    share_out: bool = False
    layers: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.layers is not None:
            object.__setattr__(self, "layers", tuple(self.layers))
        if (self.pattern is None) == (self.window is None):
            raise UsageError(f"pattern={self.pattern}, window={self.window}; give one of the two")
        if self.window is not None and self.window < 1:
            raise UsageError(f"window={self.window}; it must be at least 1 token")
        if self.sinks < 0 or (self.sinks and self.window is None):
            raise UsageError(f"sinks={self.sinks}; they stand beside a window, and are at least 0")
        if self.memory is not None and self.window is None:
            raise UsageError(f"memory={self.memory}; a memory stands beside a window: set window too")
        if self.chunk < 1:
            raise UsageError(f"chunk={self.chunk}; it must be at least 1 token")
        if self.pattern is not None:
            self._check_pattern(self.pattern)

    def _check_pattern(self, text: str) -> None:
        from fovea.patterns import Blocks, Causal, PerHead, SlidingWindow, Union, parse

        try:
            found = parse(text)
        except ValueError as error:
            raise UsageError(str(error)) from error
        parts = found.parts if isinstance(found, PerHead | Union) else (found,)
        for part in parts:
            ahead = isinstance(part, SlidingWindow) and part.right != 0
            if ahead or not isinstance(part, Blocks | Causal | SlidingWindow):
                raise UsageError(f"pattern {text!r} is not causal; it may be blocks, causal, sliding without right")


def to_words(plans: Sequence[Plan]) -> list[dict[str, Any]]:
    """The plans as JSON can hold them."""
    return [asdict(plan) for plan in plans]


def from_words(words: Sequence[Mapping[str, Any]]) -> tuple[Plan, ...]:
    """The inverse of :func:`to_words`."""
    names = [field.name for field in fields(Plan)]
    for each in words:
        for name in each:
            if name not in names:
                raise unknown("word in a plan", name, names)
    return tuple(Plan(**each) for each in words)
