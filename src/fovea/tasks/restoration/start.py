"""Where weights come from: a checkpoint, those that come with fovea, the x2 network before x4, or chance."""

from __future__ import annotations

from dataclasses import fields
from importlib import resources
from pathlib import Path

import torch
from torch import nn

from fovea import checkpoints
from fovea.checkpoints.reading import read
from fovea.errors import UserError, unknown
from fovea.models.hat import HAT
from fovea.models.hat_start import start_as_interpolation
from fovea.tasks.restoration.config import RestorationConfig
from fovea.tasks.run import RunDirectory


def shipped() -> dict[str, Path]:
    """The weights that come with fovea: name and folder."""
    folder = Path(str(resources.files("fovea"))) / "systems" / "weights"
    return {path.name: path for path in sorted(folder.iterdir())} if folder.is_dir() else {}


def load(checkpoint: Path | None, config: RestorationConfig) -> HAT:
    """The network to use: from a run, a checkpoint of fovea's, an official file, or (``None``) the shipped one.

    Raises ``UserError`` when there is none, when it is damaged, or when it does not fit the scale and channels.
    """
    if checkpoint is None:
        if config.weights is None:
            raise UserError("no checkpoint is given, and no weights come with this preset")
        if config.weights not in shipped():
            raise unknown("weights", config.weights, shipped())
        checkpoint = shipped()[config.weights]
    network = _read(checkpoint)
    for name, wanted in (("upscale", config.network.upscale), ("in_chans", config.network.in_chans)):
        found = getattr(network.config, name)
        if found != wanted:
            raise UserError(f"{checkpoint} holds a network with {name}={found}; network.{name}={wanted} was asked for")
    for name, tensor in network.state_dict().items():
        if not bool(torch.isfinite(tensor).all()):
            raise UserError(f"{checkpoint} is damaged: weight {name} holds values that are not finite")
    return network


def begin(config: RestorationConfig, checkpoint: Path | None, run: RunDirectory) -> HAT:
    """A network to train: new weights by the seed, or those of ``checkpoint``.

    From a network of another scale everything is taken but the layers that enlarge, as x4 is trained from x2.
    """
    torch.manual_seed(config.seed)
    network = HAT(config.network)
    if checkpoint is None and config.beginning != "weights":
        return start_as_interpolation(network) if config.beginning == "interpolation" else network
    source = _read(checkpoint) if checkpoint is not None else load(None, config)
    differing = [
        f"{field.name} {getattr(source.config, field.name)} -> {getattr(config.network, field.name)}"
        for field in fields(config.network)
        if getattr(source.config, field.name) != getattr(config.network, field.name)
    ]
    new = transfer(network, source, "; ".join(differing) or "the same configuration")
    if differing:
        run.say(f"starting from {checkpoint or config.weights} ({'; '.join(differing)})")
    if new:
        run.say(f"new weights, with no source in the checkpoint: {', '.join(new)}")
    return network


def transfer(network: nn.Module, source: nn.Module, difference: str) -> list[str]:
    """Copy all weights that fit; returns the names of those that do not, which must all belong to the upsampler."""
    given, wanted = source.state_dict(), network.state_dict()
    new = [name for name, value in wanted.items() if name not in given or given[name].shape != value.shape]
    if outside := [name for name in new if not name.startswith("upsampler.")]:
        shapes = [
            (name, tuple(wanted[name].shape), tuple(given[name].shape) if name in given else "-") for name in outside
        ]
        rows = [(name, str(expected), str(found)) for name, expected, found in shapes]
        raise checkpoints.CheckpointMismatch(f"the network that was asked for ({difference})", rows)
    network.load_state_dict({name: value if name in new else given[name] for name, value in wanted.items()})
    return new


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
    return network
