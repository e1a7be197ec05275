"""What one attention layer learns from regression prompts (arXiv 2503.12734)."""

from __future__ import annotations

from fovea.systems.system import Card, System

SYSTEM = System(
    card=Card(
        slug="icl-regression",
        title="In-Context Linear Regression Demystified: Training Dynamics and Mechanistic Interpretability of "
        "Multi-Head Softmax Attention",
        about="What one attention layer learns from regression prompts",
        year=2025,
        authors=4,
        paper="arXiv:2503.12734",
        code="XintianPan/ICL_linear",
        licence=None,
        area="interpretability",
        idea="Trains one softmax attention layer on prompts of linear regression and shows its heads settling, "
        "some for and some against, into a single step of debiased gradient descent.",
        carried_by=("inspect", "models"),
    ),
)
