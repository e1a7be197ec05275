"""Look-alike categories and re-identification (arXiv 2205.02151)."""

from __future__ import annotations

from fovea.systems.system import Card, System

SYSTEM = System(
    card=Card(
        slug="dcal",
        title="Dual Cross-Attention Learning for Fine-Grained Visual Categorization and Object Re-Identification",
        about="Look-alike categories and re-identification",
        year=2022,
        authors=6,
        paper="arXiv:2205.02151",
        code=None,
        licence=None,
        area="recognition",
        idea="Trains a plain vision transformer to tell look-alikes apart with two more branches: the most "
        "telling patches query the whole image, and a second image's keys distract the first.",
        carried_by=("models", "tasks"),
    ),
)
