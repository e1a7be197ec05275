"""Linear attention with a tiny exact window (arXiv 2402.18668)."""

from __future__ import annotations

from fovea.models.language_config import LanguageConfig, Layer
from fovea.systems.system import Card, Claim, System, View
from fovea.tasks.language.config import RecallConfig, TextData

CONVOLUTION = Layer("gated-convolution")
LINEAR = Layer("taylor", {"heads": 4, "feature_dim": 16})
WINDOW = Layer("window", {"heads": 4, "window": 65})
DEMO = RecallConfig(
    network=LanguageConfig(
        257, 128, (CONVOLUTION, LINEAR, WINDOW, CONVOLUTION, CONVOLUTION, CONVOLUTION, LINEAR, WINDOW), hidden=256
    ),
    data=TextData(length=512),
)
"""Recall for what is kept; ``fovea train`` takes the small network that learns text with all three layers."""

SYSTEM = System(
    card=Card(
        slug="based",
        title="Simple linear attention language models balance the recall-throughput tradeoff",
        about="Linear attention with a tiny exact window",
        year=2024,
        authors=9,
        paper="arXiv:2402.18668",
        code="HazyResearch/based",
        licence="Apache-2.0",
        area="language",
        idea="Joins a small second-order Taylor expansion of softmax, which remembers everything in a state of "
        "fixed size, with exact attention in a tiny sliding window.",
        carried_by=("kernels", "nn", "models", "tasks"),
    ),
    presets={"demo": DEMO},
    task="fovea.tasks.language.recall_study",
    claims=(
        Claim(
            "recall-against-state",
            "The larger the memory, the more is recalled: linear attention of 4, 8 and 16 features comes closer to "
            "attention, which keeps everything; a window forgets.",
            "recall tasks: 6.22 points above the strongest models of sub-quadratic cost; SWDE 25.7 % at 360 million "
            "parameters, attention 56.3 %",
            "fovea.tasks.language.recall_claims:frontier",
        ),
        Claim(
            "recall-of-many-pairs",
            "With more pairs than a memory of fixed size holds, linear attention falls behind attention.",
            None,
            "fovea.tasks.language.recall_claims:harder",
        ),
        Claim(
            "cost-by-length",
            "Reading costs in proportion to the length, and a further token costs the same after any.",
            "24 times the generation throughput of FlashAttention-2 (1.3 billion parameters, 1024 new tokens)",
            "fovea.tasks.language.recall_claims:cost",
        ),
    ),
    views=(View("sliding window of 64 tokens", "sliding:left=63", (256,)),),
)
