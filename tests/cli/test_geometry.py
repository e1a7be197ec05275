from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fovea.cli.sketch import HALF_BLOCKS, seen_by, sketch
from fovea.patterns import Pattern, parse

CELLS = {text: halves for halves, text in HALF_BLOCKS.items()}


def read(lines: list[str], rows: int) -> np.ndarray:
    """The picture that a sketch draws, ``Q`` being seen."""
    inside = [line.strip("│") for line in lines[1:-1]]
    halves = [[CELLS.get(cell, (True, True)) for cell in line] for line in inside]
    return np.array(halves).transpose(0, 2, 1).reshape(-1, len(inside[0]))[:rows]


@given(
    st.sampled_from(
        ["causal", "sliding:left=3,right=1", "window:size=5,shift=2", "blocks:size=4,terms=local(2)+powers"]
    ),
    st.integers(1, 64),
)
def test_a_sketch_of_a_sequence_is_its_mask(text: str, tokens: int):
    pattern = parse(text)
    np.testing.assert_array_equal(read(sketch(pattern, (tokens,)), tokens), pattern.mask(tokens))


@pytest.mark.parametrize(
    "text", ["neighborhood:window=7,dilation=2", "window:size=5,shift=2", "halo:block=4,halo=2,border=zero"]
)
def test_a_sketch_of_a_plane_is_a_row_of_its_mask(text: str):
    pattern, grid, query = parse(text), (17, 20), (5, 2)
    lines = sketch(pattern, grid, query)
    assert sum(line.count("Q") for line in lines) == 1
    assert lines[1 + query[0] // 2][1 + query[1]] == "Q"
    seen = seen_by(pattern, grid, query)
    drawn = read(lines, 17)
    other = np.ones(grid, bool)
    other[query[0] // 2 * 2 : query[0] // 2 * 2 + 2, query[1]] = False
    np.testing.assert_array_equal(drawn[other], seen[other])
    if "zero" not in text:
        row = pattern.mask(grid)[query[0] * 20 + query[1]].reshape(grid)
        np.testing.assert_array_equal(seen, row)


@pytest.mark.parametrize(
    ("text", "grid"),
    [
        ("causal", (100_000,)),
        ("neighborhood:window=64x64", (1000, 700)),
        ("neighborhood:window=3", (20, 30, 300)),
        ("perhead(causal; full)", (40,)),
        ("perhead(window:size=2; neighborhood:window=3)", (6, 6)),
        ("union(window:size=2; full)", (3, 3, 3)),
    ],
)
def test_a_sketch_fits_a_terminal(text: str, grid: tuple[int, ...]):
    lines = sketch(parse(text), grid)
    assert max(map(len, lines)) <= 78
    assert len(lines) <= 36


def test_a_cell_of_many_tokens_is_seen_where_any_is():
    pattern: Pattern = parse("sliding:left=0")
    drawn = read(sketch(pattern, (640,)), 64)
    np.testing.assert_array_equal(drawn, np.eye(64, dtype=bool))


def test_draw_prints_text(fovea: Callable):
    result = fovea("draw", "causal", "--grid", "4")
    assert result.out.splitlines() == ["┌────┐", "│█▄  │", "│███▄│", "└────┘"]


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_draw_writes_a_picture(fovea: Callable, tmp_path: Path, suffix: str):
    path = tmp_path / f"out{suffix}"
    words = ["neighborhood:window=5", "--grid", "12x12", "--query", "0x3", "--tile", "4x4", "-o", path]
    result = fovea("draw", *words)
    assert (result.status, result.out) == (0, "")
    assert path.stat().st_size > 1000


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--query", "12x0"], "is no token of this grid; they go from 0x0 to 11x11"),
        (["--query", "1"], "is no token of this grid"),
        (["--query", "-1x2"], "is no token of this grid"),
        (["--tile", "4", "-o", "a.png"], "--tile '4' has 1 axes; the grid has 2"),
        (["--tile", "4x4"], "--tile shows in pictures only"),
        (["--depth", "3"], "--depth shows in pictures only"),
        (["-o", "a.gif"], "must end in .png or .svg or .pdf"),
        (["-o", "missing/a.png"], "there is no folder 'missing'"),
        (["-o", "."], "-o '.' is a folder"),
    ],
)
def test_draw_refuses(fovea: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], message: str):
    monkeypatch.chdir(tmp_path)
    result = fovea("draw", "neighborhood:window=5", "--grid", "12x12", *words)
    assert result.status == 2
    assert message in result.err
    assert list(tmp_path.iterdir()) == []


def test_simulate(fovea: Callable):
    words = ["neighborhood:window=80x80", "--grid", "256x256", "--q-tile", "16x16", "--kv-tile", "16x8"]
    assert "6.10x" in fovea("simulate", *words).out
    numbers = json.loads(fovea("simulate", *words, "--json").out)
    assert numbers["worst_tile_bound"] == pytest.approx(6.0952, abs=1e-4)
    assert numbers["block_sparse"] is False


def test_simulate_searches_strides(fovea: Callable):
    words = ["neighborhood:window=16x16", "--grid", "64x64", "--q-tile", "16x16", "--kv-tile", "16x16", "--search"]
    first = json.loads(fovea("simulate", *words, "--json").out)[0]
    assert first["pattern"] == "neighborhood:window=16x16,stride=16x16"
    assert first["block_sparse"] is True
    assert "stride=16x16" in fovea("simulate", *words).out.splitlines()[1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["blocks:size=4,terms=powers", "--grid", "64", "--q-tile", "4", "--kv-tile", "4"], "is no pattern on a grid"),
        (
            ["causal", "--grid", "64", "--q-tile", "4", "--kv-tile", "4", "--search"],
            "chooses the stride of a neighborhood",
        ),
        (["causal", "--grid", "64", "--q-tile", "4x4", "--kv-tile", "4"], "--q-tile '4x4' has 2 axes"),
        (["causal", "--grid", "64", "--q-tile", "4"], "missing option '--kv-tile'"),
    ],
)
def test_simulate_refuses(fovea: Callable, words: list[str], message: str):
    result = fovea("simulate", *words)
    assert result.status == 2
    assert message in result.err
