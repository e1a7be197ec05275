"""Windows that learn their size and place (arXiv 2204.08446)."""

from __future__ import annotations

from fovea.systems.system import Card, System, View

SYSTEM = System(
    card=Card(
        slug="vsa",
        title="VSA: Learning Varied-Size Window Attention in Vision Transformers",
        about="Windows that learn their size and place",
        year=2022,
        authors=4,
        paper="arXiv:2204.08446",
        code="ViTAE-Transformer/ViTAE-VSA",
        licence=None,
        area="recognition",
        idea="Lets each head stretch and move the window its keys are sampled from, as regressed from the "
        "content, while queries stay in their regular partition.",
        carried_by=("models",),
    ),
    views=(View("the partition of the queries", "window:size=7", (28, 28)),),
)
