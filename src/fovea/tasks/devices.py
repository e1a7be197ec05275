"""The device that a network stands on when it is used, not trained."""

from __future__ import annotations

import torch

from fovea.tasks.optimisation import Hardware


def device_of(hardware: Hardware) -> torch.device:
    """The first device of the accelerator that the configuration names; ``auto`` takes a GPU where there is one."""
    chosen = hardware.accelerator
    if chosen == "auto":
        chosen = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device({"gpu": "cuda"}.get(chosen, chosen))
