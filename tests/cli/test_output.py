from __future__ import annotations

import json

import pytest

from fovea.cli import output


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (31.25, "31.2500"),
        (0.0, "0.0000"),
        (1234567, "1,234,567"),
        (1.5e-7, "1.500e-07"),
        (float("inf"), "inf"),
        ("x", "x"),
    ],
)
def test_numbers_as_people_read_them(value: object, text: str):
    assert output.number(value) == text


@pytest.mark.parametrize(("value", "text"), [(2.0, "2 s"), (0.01234, "12.3 ms"), (3e-6, "3 us"), (2e-9, "2 ns")])
def test_durations_in_the_unit_that_suits(value: float, text: str):
    assert output.seconds(value) == text


def test_json_is_json_even_of_an_infinite_psnr(capsys: pytest.CaptureFixture[str]):
    output.show_json({"psnr": float("inf"), "all": [float("nan"), 1.0]})
    assert json.loads(capsys.readouterr().out) == {"psnr": "inf", "all": ["nan", 1.0]}


def test_a_table_in_a_pipe_is_plain(capsys: pytest.CaptureFixture[str]):
    output.console.cache_clear()
    output.show_table(("name", "value"), [("long name", "1"), ("b", "[22]")], right=("value",), title="what")
    assert capsys.readouterr().out == "what\nname       value\nlong name      1\nb           [22]\n\n"


def test_ways_that_were_compared_are_rows(capsys: pytest.CaptureFixture[str]):
    seeds = {"mean": 31.5, "deviation": 0.0312, "seeds": [31.47, 31.53]}
    output.show_measured({"steps": 400, "ours": {"psnr": seeds, "parameters": 1200}, "without": {"psnr": 30.0}})
    facts, header, ours, without = capsys.readouterr().out.rstrip().splitlines()
    assert facts == "    steps 400"
    assert header.split() == ["psnr", "parameters"]
    assert ours.split() == ["ours", "31.5000", "±", "0.031", "1,200"]
    assert without.split() == ["without", "30.0000"]
