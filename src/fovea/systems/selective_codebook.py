"""A bottleneck that keeps what the goal needs (arXiv 2311.04193)."""

from __future__ import annotations

from fovea.systems.system import Card, System

SYSTEM = System(
    card=Card(
        slug="selective-codebook",
        title="Selective Visual Representations Improve Convergence and Generalization for Embodied AI",
        about="A bottleneck that keeps what the goal needs",
        year=2023,
        authors=6,
        paper="arXiv:2311.04193",
        code="allenai/procthor-rl",
        licence="Apache-2.0",
        area="agents",
        idea="Hands an embodied agent only a soft mixture of a few learned codes, chosen by what it sees and "
        "seeks, so that it learns to ignore what does not serve the goal.",
        carried_by=("nn", "agents"),
    ),
)
