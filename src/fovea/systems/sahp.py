"""What happens next, and when (arXiv 1907.07561)."""

from __future__ import annotations

from fovea.systems.system import Card, System, View

SYSTEM = System(
    card=Card(
        slug="sahp",
        title="Self-Attentive Hawkes Processes",
        about="What happens next, and when",
        year=2019,
        authors=4,
        paper="arXiv:1907.07561",
        code="QiangAIResearcher/sahp_repo",
        licence=None,
        area="events",
        idea="Predicts what happens next and when: attention over past events sets, for each kind, where its "
        "rate starts, where it settles, and how fast it gets there.",
        carried_by=("models", "tasks"),
    ),
    views=(View("causal", "causal", (50,)),),
)
