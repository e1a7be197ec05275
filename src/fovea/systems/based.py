"""Linear attention with a tiny exact window (arXiv 2402.18668)."""

from __future__ import annotations

from fovea.systems.system import Card, System, View

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
        carried_by=("kernels", "nn", "models"),
    ),
    views=(View("sliding window of 64 tokens", "sliding:left=63", (256,)),),
)
