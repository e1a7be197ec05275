"""The official layout of Real-HAT's discriminator (XPixelGroup/HAT, ``discriminator_arch.py``)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from fovea.checkpoints.layout import Layout, Rule, require

NORMED = {1: "down.0", 2: "down.1", 3: "down.2", 4: "up.0", 5: "up.1", 6: "up.2", 7: "refine.0", 8: "refine.1"}
"""Number of the official convolution and our name, for those under spectral norm."""


def layout() -> Layout:
    """The rules, the same for every width."""
    normed = (
        rule
        for number, ours in NORMED.items()
        for rule in (
            Rule(f"conv{number}.weight_orig", f"{ours}.parametrizations.weight.original"),
            Rule(f"conv{number}.weight_u", f"{ours}.parametrizations.weight.0._u"),
            Rule(f"conv{number}.weight_v", f"{ours}.parametrizations.weight.0._v"),
        )
    )
    return Layout("Real-HAT's discriminator", (Rule("conv0.*", "first.*"), *normed, Rule("conv9.*", "last.*")))


def infer(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Width and input channels, from the first convolution."""
    require(state, ("conv0.weight",), "Real-HAT's discriminator")
    features, channels = state["conv0.weight"].shape[:2]
    return {"in_chans": channels, "num_feat": features}
