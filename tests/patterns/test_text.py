from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fovea.patterns import Blocks, Causal, Halo, Neighborhood, PerHead, Product, SlidingWindow, Window, parse
from patterns.strategies import patterns


@given(patterns())
def test_text_is_read_back(case):
    pattern, _ = case
    assert parse(str(pattern)) == pattern
    assert str(parse(str(pattern))) == str(pattern)


@given(st.integers(1, 3), st.data())
def test_parameters_of_each_axis_are_read_back(axes, data):
    window = tuple(data.draw(st.integers(3, 9)) for _ in range(axes))
    stride = data.draw(st.one_of(st.integers(1, 3), st.tuples(*[st.integers(1, 3)] * axes)))
    causal = data.draw(st.one_of(st.booleans(), st.tuples(*[st.booleans()] * axes)))
    pattern = Neighborhood(window, stride, causal=causal)
    assert parse(str(pattern)) == pattern


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("causal", Causal()),
        (" sliding:left=255 ", SlidingWindow(255)),
        ("window:size=8x8,shift=4", Window((8, 8), 4)),
        ("window:size=8x", Window((8,))),
        ("halo:block=8,halo=3,border=zero", Halo(8, 3, "zero")),
        ("neighborhood:window=3x4x5,causal=1x0x0", Neighborhood((3, 4, 5), causal=(True, False, False))),
        ("neighborhood:window=3,causal=true", Neighborhood(3, causal=True)),
        ("product(causal; neighborhood:window=7)", Product((Causal(), Neighborhood(7)))),
        ("blocks:size=256,terms=local(5)+sink+powers", Blocks.power(256)),
        ("perhead(causal*2; sliding:left=3)", PerHead((Causal(), Causal(), SlidingWindow(3)))),
    ],
)
def test_what_texts_mean(text, pattern):
    assert parse(text) == pattern


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "'' is no pattern"),
        ("neighbourhood:window=3", "did you mean 'neighborhood'"),
        ("neighborhood", "needs window"),
        ("neighborhood:windw=3", "has no 'windw'; did you mean 'window'"),
        ("neighborhood:window=three", "window='three' must be a whole number"),
        ("neighborhood:window=3,causal=2", "causal='2' must be 0 or 1"),
        ("neighborhood:window=3,stride=4", "stride must be 1 to 3"),
        ("neighborhood(window=3)", "follow a colon"),
        ("union", "write the parts in parentheses"),
        ("union(causal; strange)", "'strange' is no pattern"),
        ("blocks:size=4,terms=locl(3)", "'locl(3)' is no term; terms are local"),
        ("blocks:size=4,terms=local(1,2,3)", r"has 3 values; local takes \(window, dilation\)"),
    ],
)
def test_errors_say_what_was_wrong_and_what_there_is(text, message):
    with pytest.raises(ValueError, match=message.replace("(3)", r"\(3\)")):
        parse(text)
