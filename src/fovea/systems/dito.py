"""Open-vocabulary detection from captions (arXiv 2310.00161)."""

from __future__ import annotations

from fovea.systems.system import Card, System, View

SYSTEM = System(
    card=Card(
        slug="dito",
        title="Detection-Oriented Image-Text Pretraining for Open-Vocabulary Detection",
        about="Open-vocabulary detection from captions",
        year=2023,
        authors=3,
        paper="arXiv:2310.00161",
        code="google-research/google-research",
        licence="Apache-2.0",
        area="detection",
        idea="Teaches the detector's own pyramid and region head from captions alone, and averages two passes "
        "over shifted windows so that no window border shows in the features.",
        carried_by=("models", "tasks"),
    ),
    views=(
        View("windows", "window:size=8", (32, 32)),
        View("the second pass, half a window later", "window:size=8,shift=4", (32, 32)),
    ),
)
