"""Where a search for spans looks: the stripes it scores, the window it always sees, the spans that it opens.

The one place for this arithmetic (Superlinear attention, arXiv 2601.18401): powers are those of fractions, and whatever
lies near a whole number is decided in integers, so that window, search and decoding never differ by one.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, lru_cache
from typing import ClassVar

import numpy as np

from fovea.patterns.spans import BoolArray, IntArray

_DENOMINATOR = 1000
_NEAR = 1e-6
"""Double precision decides a power unless it is relatively so near to a whole number."""


@dataclass(frozen=True)
class SpanSearch:
    """Attention to ``window`` tokens and to spans around the best of about the square root of all positions.

    The query at position ``t`` scores the keys at ``t - floor(i ** (1 / search_power)) + 1`` for ``i > sw_index``
    (stripes, from near to far); the best ``num_spans`` are its anchors. The span of an anchor reaches
    ``ceil(backward_factor c ** span_power)`` tokens back and ``ceil(forward_factor c ** span_power)`` forward, ``c``
    being the number of tokens up to ``t``, and ends before the window. Stripe 1 is the token itself.

    Attributes:
        sw_index: the window is all that lies nearer than stripe ``sw_index + 1``; 0 for no window.
        num_spans: spans of a query.
        backward_factor, forward_factor, span_power: length of a span.
        search_power: the number of stripes is about ``c ** search_power``.

    Every key is in the window or in the span of some stripe if ``search_power + span_power >= 1`` and
    ``backward_factor >= 1 / search_power``.

    >>> SpanSearch(sw_index=2).window
    8
    >>> SpanSearch(sw_index=2).distances(30)
    array([ 8, 15, 24])
    """

    sw_index: int = 0
    num_spans: int = 2
    backward_factor: float = 2.0
    forward_factor: float = 0.0
    search_power: float = 0.5
    span_power: float = 0.5
    name: ClassVar[str] = "span search"

    def __post_init__(self) -> None:
        if self.sw_index < 0 or self.num_spans < 1:
            raise ValueError(
                f"sw_index={self.sw_index}, num_spans={self.num_spans}; they must be at least 0 and at least 1"
            )
        if not self.backward_factor > 0 or not self.forward_factor >= 0:
            raise ValueError(
                f"backward_factor={self.backward_factor}, forward_factor={self.forward_factor}; "
                "they must be above 0 and at least 0"
            )
        for name in ("search_power", "span_power"):
            power = getattr(self, name)
            if not 0 < power < 1:
                raise ValueError(f"{name}={power}; it must lie between 0 and 1")
            _fraction(power, name)

    @cached_property
    def window(self) -> int:
        """Tokens of the window, the query's own included."""
        return self._distance(self.sw_index + 1)

    def distances(self, length: int) -> IntArray:
        """How far back each stripe lies, near ones first, for queries at positions below ``length``."""
        return _distances(self, length)

    def reach(self, length: int) -> tuple[IntArray, IntArray]:
        """``[length + 1]``: tokens that a span reaches back and forward where the query has ``c`` tokens up to it."""
        return _reach(self, length)

    def _distance(self, stripe: int) -> int:
        return int(_powers(np.array([stripe]), 1 / _fraction(self.search_power), Fraction(1), up=False)[0]) - 1

    def spans(self, position: int, anchor: IntArray, first: int = 0) -> tuple[IntArray, IntArray]:
        """First and last key of the spans at these anchors, for the query at ``position`` of a sequence that begins at
        ``first``."""
        back, ahead = (int(table[position - first + 1]) for table in self.reach(position - first + 1))
        last = np.minimum(anchor + ahead, position)
        if self.window:
            last = np.minimum(last, max(first, position - self.window + 1) - 1)
        return np.maximum(anchor - back, first), last

    def candidates(self, position: int, first: int = 0) -> tuple[IntArray, IntArray]:
        """First and last key of all spans among which the query at ``position`` chooses."""
        return self.spans(position, position - self.distances(position - first + 1), first)

    def seen(self, position: int) -> BoolArray:
        """``[position + 1]``: whether a key is in the window of a query or in the span of some stripe of it."""
        edges = np.zeros(position + 2, np.int64)
        start, last = self.candidates(position)
        np.add.at(edges, start, 1)
        np.add.at(edges, last + 1, -1)
        seen = edges[:-1].cumsum() > 0
        seen[max(0, position - self.window + 1) :] |= self.window > 0
        return seen

    def visits(self, count: int) -> int:
        """The most keys that a query with ``count`` tokens up to it reads: stripes, spans and window."""
        back, ahead = (int(table[count]) for table in self.reach(count))
        span = min(back + ahead + 1, count)
        stripes = len(self.distances(count))
        return stripes + min(self.num_spans, stripes) * span + min(self.window, count)


def _fraction(power: float, name: str = "power") -> Fraction:
    found = Fraction(power).limit_denominator(_DENOMINATOR)
    if abs(float(found) - power) > 1e-12:
        raise ValueError(f"{name}={power}; it must be a fraction whose denominator is at most {_DENOMINATOR}")
    return found


def _powers(base: IntArray, exponent: Fraction, factor: Fraction, *, up: bool) -> IntArray:
    """``factor * base ** exponent``, rounded down (or up) exactly."""
    value = float(factor) * base.astype(np.float64) ** float(exponent)
    found = (np.ceil if up else np.floor)(value).astype(np.int64)
    nearest = np.rint(value)
    top, bottom = exponent.numerator, exponent.denominator
    for at in np.flatnonzero(np.abs(value - nearest) <= _NEAR * np.maximum(value, 1)).tolist():
        n = int(nearest[at])
        exact = factor.numerator**bottom * int(base[at]) ** top  # compared with n ** bottom, both over the same
        bound = (n * factor.denominator) ** bottom
        if up:
            found[at] = n if bound >= exact else n + 1
        else:
            found[at] = n if bound <= exact else n - 1
    return found


def _room(length: int) -> int:
    """Tables are made for so many tokens, so that one serves many lengths."""
    return 1 << max(6, length.bit_length())


@lru_cache(maxsize=64)
def _stripes(search: SpanSearch, room: int) -> IntArray:
    power = _fraction(search.search_power)
    most = int(room ** float(power)) + 2
    stripes = np.arange(search.sw_index + 1, max(most, search.sw_index + 1) + 1)
    back = _powers(stripes, 1 / power, Fraction(1), up=False) - 1
    back.flags.writeable = False
    return back


def _distances(search: SpanSearch, length: int) -> IntArray:
    back = _stripes(search, _room(length))
    return back[: np.searchsorted(back, length)]


@lru_cache(maxsize=64)
def _tables(search: SpanSearch, size: int) -> tuple[IntArray, IntArray]:
    counts, power = np.arange(size + 1), _fraction(search.span_power)
    factors = (search.backward_factor, search.forward_factor)
    back, ahead = (_powers(counts, power, Fraction(str(factor)), up=True) for factor in factors)
    back.flags.writeable = ahead.flags.writeable = False
    return back, ahead


def _reach(search: SpanSearch, length: int) -> tuple[IntArray, IntArray]:
    back, ahead = _tables(search, _room(length))
    return back[: length + 1], ahead[: length + 1]
