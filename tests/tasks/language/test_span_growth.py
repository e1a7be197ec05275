"""What grows how fast: counts by definition, exponents and crossing of given numbers."""

from __future__ import annotations

import json

import pytest
import torch

from fovea.kernels.span_search import find
from fovea.patterns.search import SpanSearch
from fovea.tasks.language import span_growth


def test_visits_are_counted_one_by_one() -> None:
    search = SpanSearch(sw_index=2, backward_factor=3.0, forward_factor=1.0)
    search_query, key = torch.randn(1, 150, 2, 4), torch.randn(1, 150, 1, 4)
    found = find(search_query, key, search, 0, None)
    count = 0
    for position in range(150):
        for head in range(2):
            count += len(search.distances(position + 1)) + min(search.window, position + 1)
            for span in range(2):
                if found.anchor[0, position, head, span] >= 0:
                    count += int(found.end[0, position, head, span] - found.start[0, position, head, span]) + 1
    assert span_growth.visited(search_query, key, search) == count


def test_a_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    found = span_growth.measure((256, 512, 1024), SpanSearch(sw_index=2), repeats=1, steps=2)
    json.dumps(found)
    for row in found["lengths"].values():
        assert 0 < row["keys"] <= row["most"] < row["keys of full attention"]
    assert found["exponents"]["most"] == pytest.approx(1.5, abs=0.05)
    assert found["exponents"]["keys of full attention"] == pytest.approx(2, abs=0.01)


def test_crossing_and_exponents() -> None:
    def rows(ours: list[float]) -> dict[str, dict[str, float]]:
        return {
            str(4**place): {"prefill_s": time, "prefill_s of full attention": 16.0**place}
            for place, time in enumerate(ours)
        }

    assert span_growth._crossing(rows([2, 20, 100])) == 16
    assert span_growth._crossing(rows([2, 20, 300])) is None
    assert span_growth._crossing(rows([0.5, 20, 100])) == 16
    assert span_growth._exponent(rows([2, 16, 128]), "prefill_s") == pytest.approx(1.5)
    assert span_growth._exponent(rows([0, 16, 128]), "prefill_s") is None
