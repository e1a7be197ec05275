"""The next item, asked for with short and long queries (arXiv 2311.01056)."""

from __future__ import annotations

from fovea.systems.system import Card, System, View

SYSTEM = System(
    card=Card(
        slug="mqsa-ted",
        title="Collaboration and Transition: Distilling Item Transitions into Multi-Query Self-Attention for "
        "Sequential Recommendation",
        about="The next item, asked for with short and long queries",
        year=2023,
        authors=6,
        paper="arXiv:2311.01056",
        code="zhuty16/MQSA-TED",
        licence=None,
        area="recommendation",
        idea="Recommends the next item by asking a history both with its latest item and with the mean of its "
        "last few, and teaches the item table which items tend to follow which.",
        carried_by=("nn", "models", "tasks"),
    ),
    views=(View("causal, both branches", "causal", (50,)),),
)
