"""Weights from files and dictionaries as people publish them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fovea.errors import UserError

CONTAINERS = ("params_ema", "params", "state_dict", "model_state_dict", "model")
"""Under which key training codes keep the weights; the first that is there counts, so averaged weights come first."""

PREFIX = "module."
"""What data-parallel training puts before every name."""


def read(path: str | Path) -> dict[str, Any]:
    """The dictionary in a ``.safetensors`` file, or in a ``.pth``/``.pt`` file that holds tensors and nothing else.

    Raises:
        UserError: when the file cannot be read as either.
        FileNotFoundError: when there is none.
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return dict(load_file(path))
        except SafetensorError as error:
            raise UserError(f"{path} is not a safetensors file, or is cut short: {error}") from error
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # what is no pickle fails in any way that its bytes happen to ask for
        reason = str(error).strip().partition("\n")[0]
        reason = reason.partition(". In PyTorch")[0]  # what follows is advice to run whatever the file holds
        raise UserError(
            f"{path} cannot be read as weights: it is damaged, or holds objects other than tensors, which fovea never "
            f"runs ({reason or type(error).__name__})"
        ) from error
    if not isinstance(content, dict):
        raise UserError(f"{path} holds a {type(content).__name__}; it must hold a dictionary of tensors")
    return content


def weights(content: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors by name, whatever they were packed in.

    Raises:
        UserError: when something is no tensor, or a tensor holds NaN or infinity.
    """
    for key in CONTAINERS:
        if isinstance(content.get(key), Mapping):
            content = content[key]
            break
    strangers = [name for name, value in content.items() if not isinstance(value, Tensor)]
    if strangers or not content:
        keys = ", ".join(map(str, strangers[:5])) or "nothing"
        raise UserError(
            f"no state dict: it must hold tensors alone, or under one of {', '.join(CONTAINERS)}; it has {keys}"
        )
    state = {str(name): value for name, value in content.items()}
    if all(name.startswith(PREFIX) for name in state):
        state = {name.removeprefix(PREFIX): value for name, value in state.items()}
    for name, value in state.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise UserError(f"the checkpoint is broken: {name} holds values that are not finite")
    return state
