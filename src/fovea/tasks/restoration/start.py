"""Where weights come from: a checkpoint, those that come with fovea, the x2 network before x4, or chance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from importlib import resources
from pathlib import Path

import torch
from torch import Tensor, nn

from fovea import checkpoints
from fovea.checkpoints.reading import read
from fovea.errors import UsageError, UserError, unknown
from fovea.models.hat import HAT
from fovea.models.hat_start import start_as_interpolation
from fovea.tasks.restoration.config import RestorationConfig


def shipped() -> dict[str, Path]:
    """The weights that come with fovea: name and folder."""
    folder = Path(str(resources.files("fovea"))) / "systems" / "weights"
    return {path.name: path for path in sorted(folder.iterdir())} if folder.is_dir() else {}


def load(checkpoint: Path | None, config: RestorationConfig) -> HAT:
    """The network to use: from a run, a checkpoint of fovea's, an official file, or (``None``) the shipped one.

    A checkpoint says itself which network it holds, of what scale; ``config`` only names the shipped weights.

    Raises ``UserError`` when there is none, when it is damaged, or when the shipped one does not fit ``config``.
    """
    if checkpoint is None:
        if config.weights is None:
            raise UserError("no checkpoint is given, and no weights come with this preset")
        if config.weights not in shipped():
            raise unknown("weights", config.weights, shipped())
        network = _read(shipped()[config.weights])
        for name in ("upscale", "in_chans"):
            found, wanted = getattr(network.config, name), getattr(config.network, name)
            if found != wanted:
                raise UserError(
                    f"no checkpoint is given, and the weights that come with fovea ({config.weights}) have "
                    f"{name}={found}; network.{name}={wanted} was asked for"
                )
        return network
    return _read(checkpoint)


def begin(config: RestorationConfig, checkpoint: Path | None) -> tuple[HAT, list[str]]:
    """A network to train, and what is to be said of it: new weights by the seed, or those of ``checkpoint``.

    From a network of another scale everything is taken but the layers that enlarge, as x4 is trained from x2.

    Raises ``UsageError`` when the training goes on from an earlier stage and no checkpoint is given.
    """
    torch.manual_seed(config.seed)
    network = HAT(config.network)
    if checkpoint is None and config.beginning == "checkpoint":
        raise UsageError(
            "this training goes on from the weights of the stage before it: give them with --checkpoint, "
            "or set beginning=random"
        )
    if checkpoint is None and config.beginning != "weights":
        return (start_as_interpolation(network) if config.beginning == "interpolation" else network), []
    source = _read(checkpoint) if checkpoint is not None else load(None, config)
    differing = [
        f"{field.name} {getattr(source.config, field.name)} -> {getattr(config.network, field.name)}"
        for field in fields(config.network)
        if getattr(source.config, field.name) != getattr(config.network, field.name)
    ]
    new = transfer(network, source, "; ".join(differing) or "the same configuration")
    told = []
    if differing:
        told.append(f"starting from {checkpoint or config.weights} ({'; '.join(differing)})")
    if new:
        told.append(f"new weights, with no source in the checkpoint: {', '.join(new)}")
    return network, told


def transfer(network: nn.Module, source: nn.Module, difference: str) -> list[str]:
    """Copy all weights that fit; returns the names of the new ones. What differs must all belong to the upsampler."""
    given, wanted = source.state_dict(), network.state_dict()
    new = [name for name, value in wanted.items() if name not in given or given[name].shape != value.shape]
    left = [name for name in given if name not in wanted]
    if outside := [name for name in [*new, *left] if not name.startswith("upsampler.")]:
        rows = [(name, _shape(wanted, name), _shape(given, name)) for name in outside]
        raise checkpoints.CheckpointMismatch(f"the network that was asked for ({difference})", rows)
    network.load_state_dict({name: value if name in new else given[name] for name, value in wanted.items()})
    return new


def _shape(state: Mapping[str, Tensor], name: str) -> str:
    return str(tuple(state[name].shape)) if name in state else "-"


def _read(path: Path) -> HAT:
    if not path.exists():
        raise UserError(f"there is no checkpoint {path}")
    if (path / "checkpoint").is_dir():
        path = path / "checkpoint"
    if path.is_file() and path.suffix in (".pth", ".pt"):
        network = checkpoints.load_official("hat", read(path))
    else:
        network = checkpoints.load(path).network
    if not isinstance(network, HAT):
        raise UserError(f"{path} holds a {type(network).__name__}; restoration needs a HAT")
    for name, tensor in network.state_dict().items():
        if not bool(torch.isfinite(tensor).all()):
            raise UserError(f"{path} is damaged: weight {name} holds values that are not finite")
    return network
