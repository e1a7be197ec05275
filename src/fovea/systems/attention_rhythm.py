"""Rewarding the tokens where a model plans and anchors (arXiv 2510.13554)."""

from __future__ import annotations

from fovea.systems.system import Card, System

SYSTEM = System(
    card=Card(
        slug="attention-rhythm",
        title="Attention Illuminates LLM Reasoning: The Preplan-and-Anchor Rhythm Enables Fine-Grained Policy "
        "Optimization",
        about="Rewarding the tokens where a model plans and anchors",
        year=2025,
        authors=12,
        paper="arXiv:2510.13554",
        code=None,
        licence=None,
        area="language",
        idea="Reads from a model's own attention where it looks far back to plan and which tokens later ones "
        "keep returning to, and weighs the reward of reinforcement learning towards them.",
        carried_by=("inspect", "tasks"),
    ),
)
