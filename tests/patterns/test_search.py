"""Stripes, windows and spans of a search: integers by definition, and that no key is out of reach."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from fovea.patterns.search import SpanSearch

COVERING = [
    SpanSearch(),
    SpanSearch(sw_index=3),
    SpanSearch(sw_index=2, backward_factor=3.0, forward_factor=1.0),
    SpanSearch(sw_index=65, num_spans=3, backward_factor=3.0, forward_factor=1.0, search_power=0.55, span_power=0.55),
    SpanSearch(sw_index=4, search_power=0.55, span_power=0.45, backward_factor=1.9),
    SpanSearch(search_power=1 / 3, span_power=2 / 3, backward_factor=3.0),
    SpanSearch(search_power=2 / 3, span_power=0.5, backward_factor=1.5),
]


@pytest.mark.parametrize("search", COVERING, ids=str)
def test_every_key_is_in_reach_of_every_query(search: SpanSearch) -> None:
    for position in range(3000):
        assert search.seen(position).all(), position


def test_shorter_spans_leave_gaps() -> None:
    search = SpanSearch(span_power=0.4)
    assert not all(search.seen(position).all() for position in range(3000))


@pytest.mark.parametrize("search", COVERING, ids=str)
def test_there_is_no_gap_between_window_and_stripes(search: SpanSearch) -> None:
    assert search.distances(5000)[0] == search.window


@pytest.mark.parametrize("power", [0.5, 0.55, 1 / 3, 0.25, 2 / 3, 0.501])
def test_distances_are_exact_powers(power: float) -> None:
    exact = Fraction(power).limit_denominator(1000)
    found = SpanSearch(search_power=power).distances(10**7)
    assert len(found) == len(set(found.tolist()))
    for stripe in {1, 2, 3, 7, 8, 27, len(found) // 2, len(found) - 1, len(found)}:
        n = int(found[stripe - 1]) + 1
        top, bottom = exact.denominator, exact.numerator
        assert n**bottom <= stripe**top < (n + 1) ** bottom, stripe
    assert (len(found) + 1) ** exact.denominator >= (10**7) ** exact.numerator


def test_squares_far_out() -> None:
    stripes = np.arange(1, 2001)
    assert np.array_equal(SpanSearch().distances(2000**2), stripes**2 - 1)


def test_reach_is_an_exact_power() -> None:
    back, ahead = SpanSearch(backward_factor=3.0, forward_factor=0.1, span_power=0.5).reach(70_000)
    counts = range(0, 70_001, 7)
    for count in counts:
        assert back[count] ** 2 >= 9 * count > max(back[count] - 1, 0) ** 2 - (count == 0)
        assert 100 * ahead[count] ** 2 >= count
        assert not ahead[count] or 100 * (ahead[count] - 1) ** 2 < count
    assert back[250_000 // 4] == 750


def test_spans_end_before_the_window() -> None:
    search = SpanSearch(sw_index=2, backward_factor=3.0, forward_factor=1.0)
    start, last = search.candidates(100)
    assert last.max() == 100 - search.window
    assert start[0] == 92 - 31 and start[-1] == 0
    assert SpanSearch(forward_factor=1.0).candidates(50)[1].max() == 50


def test_a_later_beginning_shifts_everything() -> None:
    search = SpanSearch(sw_index=3, search_power=0.55, span_power=0.55)
    for one, other in zip(search.candidates(200, first=60), search.candidates(140), strict=True):
        assert np.array_equal(one - 60, other)


def test_visits_bound_what_a_query_reads() -> None:
    search = SpanSearch(sw_index=2)
    for position in (0, 3, 20, 500):
        start, last = search.candidates(position)
        longest = np.sort(last - start + 1)[-search.num_spans :].sum() if len(start) else 0
        assert search.visits(position + 1) >= len(start) + longest + min(search.window, position + 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sw_index": -1}, "sw_index=-1"),
        ({"num_spans": 0}, "num_spans=0"),
        ({"backward_factor": 0.0}, "backward_factor=0.0"),
        ({"forward_factor": -1.0}, "forward_factor=-1.0"),
        ({"search_power": 1.0}, "search_power=1.0"),
        ({"span_power": 0.123456}, "span_power=0.123456"),
    ],
)
def test_what_it_refuses(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SpanSearch(**options)  # type: ignore[arg-type]
