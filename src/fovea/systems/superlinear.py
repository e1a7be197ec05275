"""Attention as a search for spans (arXiv 2601.18401)."""

from __future__ import annotations

from fovea.models.language_config import LanguageConfig, Layer
from fovea.systems.system import Card, Claim, System, View
from fovea.tasks.language.config import NeedleConfig, TextData

SEARCH = Layer("superlinear", {"heads": 4, "sw_index": 7, "num_spans": 2})
DEMO = NeedleConfig(
    network=LanguageConfig(257, 128, (Layer("gated-convolution"), SEARCH) * 2, hidden=256), data=TextData(length=1024)
)
"""Needles by distance; ``fovea train`` takes the small network that learns text by searches over short convolutions."""

SYSTEM = System(
    card=Card(
        slug="superlinear",
        title="Superlinear Multi-Step Attention",
        about="Attention as a search for spans",
        year=2026,
        authors=1,
        paper="arXiv:2601.18401",
        code="concavity-ai/superlinear",
        licence="Apache-2.0",
        area="language",
        idea="Scores about the square root of the positions as anchors for each query, opens a run of keys at "
        "the best two or three, and mixes what they say by their scores, so that choosing is learned.",
        carried_by=("patterns", "kernels", "nn", "models"),
    ),
    presets={"demo": DEMO},
    task="fovea.tasks.language.needle_study",
    claims=(
        Claim(
            "needles-by-distance",
            "A search for spans, trained end to end, finds what full attention finds, anywhere in a sequence.",
            "needles in a haystack up to 256 thousand tokens: strong (no figures)",
            "fovea.tasks.language.needles:by_distance",
        ),
        Claim(
            "growth",
            "Work grows with the power 1.5 of the length; from some length on it takes less time than full attention.",
            "O(L^1.5); FlashAttention-2 is faster below about 60 thousand tokens on a GPU",
            "fovea.tasks.language.span_growth:growth",
        ),
    ),
    views=(View("the window, beside which spans are chosen", "sliding:left=14", (256,)),),
)
