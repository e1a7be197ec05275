"""Guidance by spoiling chosen heads (arXiv 2506.10978)."""

from __future__ import annotations

from fovea.systems.system import Card, System, View

SYSTEM = System(
    card=Card(
        slug="headhunter",
        title="Fine-Grained Perturbation Guidance via Attention Head Selection",
        about="Guidance by spoiling chosen heads",
        year=2025,
        authors=10,
        paper="arXiv:2506.10978",
        code="cvlab-kaist/HeadHunter",
        licence=None,
        area="generation",
        idea="Guides a diffusion model away from a copy with a few spoiled attention heads, and searches "
        "greedily which heads to spoil for what one wants to see.",
        carried_by=("steer",),
    ),
    views=(View("a perturbed head: each token sees itself alone", "sliding:left=0", (16, 16)),),
)
