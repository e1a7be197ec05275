"""Hyperspectral classification: what each pixel is, from its spectrum and its neighbours'. ``TASK`` runs it."""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:
    # Configurations are read without torch; the task itself needs it.
    if name == "TASK":
        from fovea.tasks.spectral.task import Spectral

        return Spectral()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
