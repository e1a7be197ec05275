"""Magnifying a scene where the model dwells (arXiv 2412.01292)."""

from __future__ import annotations

from fovea.systems.system import Card, System

SYSTEM = System(
    card=Card(
        slug="lscenellm",
        title="LSceneLLM: Enhancing Large 3D Scene Understanding Using Adaptive Visual Preferences",
        about="Magnifying a scene where the model dwells",
        year=2024,
        authors=9,
        paper="arXiv:2412.01292",
        code="Hoyyyaard/LSceneLLM",
        licence="MIT",
        area="agents",
        idea="Lets a language model look at fine details of a large 3-D scene only at the coarse tokens on "
        "which its own previous layer dwelt.",
        carried_by=("nn", "agents"),
    ),
)
