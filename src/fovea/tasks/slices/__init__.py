"""Segmentation of slices: organs and small tumours in CT and MRI, slice by slice. ``TASK`` runs it."""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:
    # Configurations are read without torch; the task itself needs it.
    if name == "TASK":
        from fovea.tasks.slices.task import Segmentation

        return Segmentation()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
