"""Attention inside clusters of content (arXiv 2003.05997)."""

from __future__ import annotations

from fovea.systems.system import Card, System

SYSTEM = System(
    card=Card(
        slug="routing-transformer",
        title="Efficient Content-Based Sparse Attention with Routing Transformers",
        about="Attention inside clusters of content",
        year=2020,
        authors=4,
        paper="arXiv:2003.05997",
        code="google-research/google-research",
        licence="Apache-2.0",
        area="language",
        idea="Sends queries and keys to centroids learned online by k-means, so that some heads look only among "
        "tokens of like content while the others look nearby.",
        carried_by=("nn", "models"),
    ),
)
