"""Self-supervision that mines its views (arXiv 2102.10106)."""

from __future__ import annotations

from fovea.systems.system import Card, System

SYSTEM = System(
    card=Card(
        slug="myow",
        title="Mine Your Own vieW: Self-Supervised Learning Through Across-Sample Prediction",
        about="Self-supervision that mines its views",
        year=2021,
        authors=13,
        paper="arXiv:2102.10106",
        code="nerdslab/myow",
        licence="Apache-2.0",
        area="self-supervision",
        idea="Learns without labels by predicting, besides another augmentation of a sample, a different sample "
        "that lies near it just now; made for recordings of neurons.",
        carried_by=("tasks",),
    ),
)
