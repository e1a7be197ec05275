"""What a language model has read, on the disk: a safetensors file that only the model that wrote it takes back."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from fovea.errors import UserError
from fovea.models.language import LanguageModel, ModelState
from fovea.nn.mixer import State

_KIND = "fovea state of a language model"


def fingerprint(model: LanguageModel) -> str:
    """A digest of the model's configuration and weights: equal for models that read alike."""
    digest = hashlib.sha256(json.dumps(asdict(model.config), sort_keys=True, default=str).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def save_state(path: str | Path, model: LanguageModel, state: ModelState) -> None:
    """Write ``state``, which ``model`` has read, to the file ``path``; a file that is there is replaced as a whole."""
    path = Path(path)
    tensors: dict[str, Tensor] = {}
    for layer, held in enumerate(state.layers):
        for name, tensor in (("position", held.position), *((f"tensors.{n}", t) for n, t in held.tensors.items())):
            tensors[f"layers.{layer}.{name}"] = tensor.detach().cpu().contiguous().clone()
    part = path.with_name(path.name + ".part")
    try:
        save_file(tensors, part, metadata={"kind": _KIND, "model": fingerprint(model)})
        os.replace(part, path)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        part.unlink(missing_ok=True)


def load_state(path: str | Path, model: LanguageModel) -> ModelState:
    """The state saved in ``path``, on the device of ``model``.

    Raises:
        UserError: where the file is no state, is damaged, or was read by a model with other weights or another
            configuration.
    """
    device = model.embedding.weight.device
    try:
        with safe_open(Path(path), "pt", device=str(device)) as opened:
            metadata = opened.metadata() or {}
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - not a mapping
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist") from error
    except SafetensorError as error:
        raise UserError(f"{path} is damaged or cut short: {error}") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error
    if metadata.get("kind") != _KIND:
        raise UserError(f"{path} holds no state of a language model")
    if metadata["model"] != fingerprint(model):
        raise UserError(
            f"{path} was read by another model; a state fits only the weights and configuration it came from"
        )
    states = []
    for layer in range(len(model.blocks)):
        prefix = f"layers.{layer}.tensors."
        held = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
        states.append(State(tensors[f"layers.{layer}.position"], held))
    return ModelState(states, model.config)
