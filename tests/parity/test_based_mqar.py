"""The MQAR generator against the published one, bit for bit."""

from __future__ import annotations

import pytest
import torch

from fovea.data.synthetic.recall import Segment, generate

pytestmark = pytest.mark.parity


def test_same_bits(golden, subtests) -> None:
    description, tensors = golden("based-mqar")
    for place, case in enumerate(description["cases"]):
        with subtests.test(**case):
            found = generate(
                Segment(case["num_examples"], case["input_seq_len"], case["num_kv_pairs"]),
                case["vocab_size"],
                case["seed"],
                power=case.get("power_a", 0.01),
                filler_seed=case["torch_seed"] if case["random_non_queries"] else None,
            )
            assert torch.equal(found.inputs, tensors[f"output.case{place}.inputs"].long())
            assert torch.equal(found.labels, tensors[f"output.case{place}.labels"].long())
