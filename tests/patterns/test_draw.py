from __future__ import annotations

import io

import matplotlib.colors
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fovea.patterns import Blocks, Causal, Full, Halo, Neighborhood, PerHead, SlidingWindow, Window
from fovea.patterns.draw import QUERY, SEEN, UNSEEN, ZERO, draw
from patterns.strategies import patterns


def shown(axis) -> np.ndarray:
    return np.asarray(axis.images[0].get_array())


def of(image: np.ndarray, colour: str) -> np.ndarray:
    return np.isclose(image, matplotlib.colors.to_rgb(colour)).all(-1)


def legend(figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def panels(figure) -> list:
    return [axis for axis in figure.axes if axis.get_visible()]


@settings(max_examples=12)
@given(patterns(), st.booleans())
def test_every_pattern_can_be_drawn(case, tiled):
    pattern, grid = case
    figure = draw(pattern, grid, tiles=((2,) * len(grid), (3,) * len(grid)) if tiled else None)
    figure.savefig(io.BytesIO(), dpi=20)
    assert figure.get_suptitle().replace("\n", "").replace(" ", "") == str(pattern).replace(" ", "")


def test_colours_are_the_keys_of_the_query():
    pattern = Neighborhood((3, 5), dilation=(2, 1))
    image = shown(panels(pattern.draw((9, 10), (4, 5)))[0])
    keys = pattern.keys((4, 5), (9, 10))
    assert of(image, QUERY)[4, 5]
    assert (of(image, SEEN) | of(image, QUERY) == keys).all()
    assert (of(image, UNSEEN) == ~keys).all()


def test_zero_keys_have_their_own_colour():
    figure = draw(Halo(4, 2, "zero"), (8, 8), (0, 7))
    image = shown(panels(figure)[0])
    assert image.shape[:2] == (12, 12)
    assert of(image, ZERO).sum() == 64 - 36
    assert "zero key seen" in legend(figure)


def test_masks_of_sequences():
    figure = draw(Causal(), 24, 5)
    assert (of(shown(panels(figure)[0]), SEEN) == Causal().mask(24)).all()
    assert legend(figure) == ["query", "key seen", "not seen"]
    tiled = draw(Causal(), 24, tiles=(8, 4))
    assert legend(tiled) == ["tile: full, no mask", "tile: partial, masked", "computed in vain", "not visited"]


def test_tiles_are_outlined_by_class():
    figure = draw(Neighborhood((8, 8), stride=4), (16, 16), (5, 6), tiles=((4, 4), (4, 4)))
    labels = {"tile of the query", "tile: full, no mask", "tile: partial, masked"}
    assert labels <= set(legend(figure))
    assert len(panels(figure)[0].patches) == 9 + 1


def test_long_sequences_and_large_grids_stay_small():
    image = shown(panels(draw(Blocks.power(256), 32768))[0])
    assert image.shape[:2] == (256, 256)
    figure = draw(Neighborhood((18, 24, 24), stride=(16, 8, 8)), (30, 48, 80), tiles=((4, 8, 8), (2, 8, 8)))
    assert len(panels(figure)) == 8
    assert any(axis.get_title() == "slice 15" for axis in panels(figure))


def test_heads_have_panels():
    figure = draw(PerHead((Causal(), Causal(), SlidingWindow(3), Causal())), 16)
    titles = [axis.get_title(loc="left") for axis in panels(figure)]
    assert titles == ["heads 0-1, 3: causal", "head 2: sliding:left=3"]


def test_layers_have_shades():
    figure = draw(Neighborhood((3, 3)), (16, 16), depth=4)
    assert legend(figure) == ["query", "not seen", "layer 1", "layer 2", "layer 3", "layer 4"]


def test_what_has_no_picture_is_refused():
    with pytest.raises(ValueError, match="depth=2 needs queries and keys on one grid"):
        draw(SlidingWindow(3), 8, key_grid=16, depth=2)
    with pytest.raises(ValueError, match="depth and tiles"):
        draw(Full(), 8, tiles=(2, 2), depth=2)
    with pytest.raises(ValueError, match="tiles="):
        draw(Window(4), (8, 8), tiles=(4, 4))
