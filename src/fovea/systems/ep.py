"""Probing frozen encoders with attentive pooling (arXiv 2506.10178)."""

from __future__ import annotations

from fovea.systems.system import Card, System

SYSTEM = System(
    card=Card(
        slug="ep",
        title="Attention, Please! Revisiting Attentive Probing for Masked Image Modeling",
        about="Probing frozen encoders with attentive pooling",
        year=2025,
        authors=9,
        paper="arXiv:2506.10178",
        code="billpsomas/efficient-probing",
        licence="Apache-2.0",
        area="recognition",
        idea="Judges a frozen encoder by a handful of learned queries that weigh its patch tokens directly, "
        "each pooling its own slice of the values, before a linear classifier.",
        carried_by=("nn", "tasks"),
    ),
)
