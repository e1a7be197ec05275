"""Gaze from object to object while searching (arXiv 2407.13335)."""

from __future__ import annotations

from fovea.systems.system import Card, System, View

SYSTEM = System(
    card=Card(
        slug="oat",
        title="OAT: Object-Level Attention Transformer for Gaze Scanpath Prediction",
        about="Gaze from object to object while searching",
        year=2024,
        authors=5,
        paper="arXiv:2407.13335",
        code="HKUST-NISL/oat_eccv24",
        licence=None,
        area="human attention",
        idea="Predicts which objects a person looks at, one after the other, when searching a crowded shelf, by "
        "pointing at the objects of that very scene until it points at the one sought.",
        carried_by=("models", "human"),
    ),
    views=(View("decoder, over the objects looked at so far", "causal", (24,)),),
)
