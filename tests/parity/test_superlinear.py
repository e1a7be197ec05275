"""Superlinear attention against the plain-torch parts of the official release: indices, scores, outputs, gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from fovea.kernels.span_search import find, superlinear_attention, superlinear_attention_naive
from fovea.patterns.search import SpanSearch

pytestmark = pytest.mark.parity

NAMES = ("q_search", "q_attn", "k", "v")


def search_of(case: dict[str, Any]) -> SpanSearch:
    power = case["search_power"]
    return SpanSearch(
        sw_index=case["sw_index"],
        num_spans=case["num_spans"],
        backward_factor=case["backward_factor"],
        forward_factor=case["forward_factor"],
        search_power=1 / case["inv_search_power_int"] if power is None else power,
        span_power=case["span_power"],
    )


def beginnings(case: dict[str, Any]) -> Tensor | None:
    first = case["key_mask_first_valid"]
    return None if first is None else torch.tensor(first)[:, None].expand(-1, case["length"])


def close(ours: Tensor, theirs: Tensor, what: str) -> None:
    error = (ours - theirs).abs().max() / theirs.abs().max()
    assert error <= 1e-5, f"{what}: relative error {error:.2e}"


@pytest.mark.parametrize("dense", [True, False], ids=["fallback", "spans"])
def test_cases(golden, subtests, dense: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    description, tensors = golden("superlinear")
    if not dense:
        monkeypatch.setattr(SpanSearch, "visits", lambda self, count: 0)
    for name, case in description["cases"].items():
        with subtests.test(name):
            search, first = search_of(case), beginnings(case)
            assert search.window == case["window"]
            inputs = [tensors[f"input.{name}.{each}"].transpose(1, 2).clone().requires_grad_() for each in NAMES]
            output = {
                key.removeprefix(f"output.{name}."): tensor.transpose(1, 2)
                for key, tensor in tensors.items()
                if key.startswith(f"output.{name}.")
            }
            naive, per_span, defined = superlinear_attention_naive(*inputs, search, first=first)
            close(per_span, output["per_span"], "per span")
            close(naive, output["out"], "definition")
            for found in (defined, find(inputs[0], inputs[2], search, 0, first)):
                for ours, theirs in (("anchor", "anchor"), ("start", "span_start"), ("end", "span_end")):
                    assert torch.equal(getattr(found, ours), output[theirs].long()), theirs
                known = found.anchor >= 0
                close(found.score[known], output["search_scores"][known], "scores")
                assert (found.score[~known] == -torch.inf).all()
                assert (output["search_scores"][~known] <= -1e29).all()
            out = superlinear_attention(*inputs, search, first=first)
            close(out, output["out"], "output")
            weights = tensors[f"input.{name}.loss_weights"].transpose(1, 2)
            for each, gradient in zip(NAMES, torch.autograd.grad((out * weights).sum(), inputs), strict=True):
                close(gradient, tensors[f"grad.{name}.{each}"].transpose(1, 2), f"gradient of {each}")
            with torch.no_grad():
                last = None if first is None else first[:, -1:]
                decoded = superlinear_attention(inputs[0][:, -1:], inputs[1][:, -1:], *inputs[2:], search, first=last)
            close(decoded, output["decode_last"], "last token decoded")


def test_stripes_that_are_scored(golden, subtests) -> None:
    description, tensors = golden("superlinear")
    for name, case in description["cases"].items():
        with subtests.test(name):
            search, first = search_of(case), beginnings(case)
            mask = tensors[f"output.{name}.search_mask"][:, 0].bool()  # [batch, queries, keys]
            for row in range(case["batch"]):
                begin = 0 if first is None else int(first[row, 0])
                for position in range(case["length"]):
                    anchors = position - search.distances(max(position - begin + 1, 0))
                    assert mask[row, position].nonzero()[:, 0].tolist() == anchors[::-1].tolist()


@pytest.mark.parametrize(("name", "power"), [("p2", 1 / 2), ("p3", 1 / 3), ("p055", 0.55)])
def test_integers(golden, name: str, power: float) -> None:
    _, tensors = golden("superlinear")
    search = SpanSearch(search_power=power)
    positions, stripes = tensors["input.table.positions"], tensors[f"output.table.max_stripe_{name}"]
    for position, stripe in zip(positions.tolist(), stripes.tolist(), strict=True):
        assert (search.distances(position) + 1 <= position).sum() == stripe, position
    windows = [SpanSearch(sw_index=index, search_power=power).window for index in range(70)]
    assert windows == tensors[f"output.table.window_{name}"].tolist()
