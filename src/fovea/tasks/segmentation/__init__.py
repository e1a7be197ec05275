"""Segmentation of volumes: brain tumours in several MRI contrasts, organs in CT and MRI. ``TASK`` runs it."""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:
    # Configurations are read without torch; the task itself needs it.
    if name == "TASK":
        from fovea.tasks.segmentation.task import VolumeSegmentation

        return VolumeSegmentation()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
