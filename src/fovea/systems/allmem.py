"""Language models with a memory that learns while reading (arXiv 2602.13680)."""

from __future__ import annotations

from fovea.models.language_config import LanguageConfig, Layer
from fovea.systems.system import Card, Claim, System, View
from fovea.tasks.language.memory_config import MemoryConfig

LAYER = Layer("memory", {"heads": 4, "window": 128, "sinks": 4, "chunk": 64, "rate": 0.1})
DEMO = MemoryConfig(network=LanguageConfig(257, 128, (LAYER,) * 4, hidden=256))
"""Recall beyond the window; ``fovea train`` takes the small network that learns text with it."""

SYSTEM = System(
    card=Card(
        slug="allmem",
        title="AllMem: A Memory-centric Recipe for Efficient Long-context Modeling",
        about="Language models with a memory that learns while reading",
        year=2026,
        authors=8,
        paper="arXiv:2602.13680",
        code=None,
        licence=None,
        area="language",
        idea="Turns a finished language model into one of constant memory: a sliding window with sinks, and "
        "beside it a small network whose weights are learned while reading.",
        carried_by=("kernels", "nn", "models", "tasks", "steer"),
    ),
    presets={"demo": DEMO},
    task="fovea.tasks.language.memory_study",
    claims=(
        Claim(
            "beyond-the-window",
            "A memory beside the window gives back what the window cannot see, and AllMem's more than a linear one.",
            "LongBench, 0.6B, window 4k: full 28.16, window and sinks 25.71, AllMem 27.33",
            "fovea.steer.allmem_claims:beyond_the_window",
        ),
        Claim(
            "costs",
            "Reading 128k tokens takes a ninth of the operations of full attention, and what is kept does not grow.",
            "about 1/9 of the operations at 128k",
            "fovea.steer.allmem_claims:costs",
        ),
    ),
    views=(View("sliding window with sinks", "blocks:size=4,terms=local(8)+sink(1)", (256,)),),
)
