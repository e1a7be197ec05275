"""The block patterns of PowerAttention and its baselines: masks, and what is reached through layers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from fovea.patterns import Blocks

pytestmark = pytest.mark.parity

Golden = tuple[dict[str, Any], dict[str, Tensor]]


@pytest.fixture(scope="module")
def vector(golden) -> Golden:
    return golden("power-attention")


def named(kind: str, size: int, settings: dict[str, Any]) -> Blocks:
    match kind:
        case "sliding":
            return Blocks.sliding(size, settings["window"])
        case "stride":
            return Blocks.strided(size, settings["window"], settings["stride"])
        case "dilated":
            return Blocks.dilated(size, settings["window"])
        case "longnet":
            return Blocks.longnet(size, tuple((length, rate) for length, rate in settings["segments"]))
        case "power":
            return Blocks.power(size, settings["window"])
    raise ValueError(f"kind={kind!r} is no pattern of the paper")


def test_block_masks_and_reach(vector: Golden):
    description, tensors = vector
    for kind, settings in description["paper_patterns"].items():
        blocks, reach = tensors[f"output.blocks128.{kind}"], tensors[f"output.reach128.{kind}"]
        pattern, count = named(kind, 1, settings), len(blocks)
        assert torch.equal(torch.from_numpy(pattern.mask(count)), blocks.bool()), kind
        field = pattern.receptive_field(count, count - 1, depth=len(reach))
        assert torch.equal(torch.from_numpy(field.counts), reach), kind


def test_token_masks(vector: Golden):
    description, tensors = vector
    small = description["small"]
    for kind, settings in description["small_patterns"].items():
        mask = named(kind, small["block"], settings).mask(small["length"])
        assert torch.equal(torch.from_numpy(mask), tensors[f"output.small.{kind}.mask"].bool()), kind
