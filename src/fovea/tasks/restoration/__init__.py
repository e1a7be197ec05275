"""Image restoration: super-resolution, denoising, JPEG artefacts, photographs as they are. ``TASK`` runs it."""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:
    # Configurations are read without torch; the task itself needs it.
    if name == "TASK":
        from fovea.tasks.restoration.task import Restoration

        return Restoration()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
