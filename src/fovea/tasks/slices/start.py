"""Where weights come from: a checkpoint of ours or an official one, ImageNet for the encoder, or chance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from fovea import checkpoints
from fovea.checkpoints.reading import read
from fovea.checkpoints.swin import load_encoder
from fovea.errors import UserError
from fovea.models.hbformer import HBFormer
from fovea.models.unet import UNet
from fovea.tasks import configuration
from fovea.tasks.slices.config import Data, SlicesConfig


@dataclass(frozen=True)
class Start:
    """A network with the preparation of slices that it was trained with, and its classes' names, where known."""

    network: HBFormer | UNet
    data: Data
    classes: tuple[str, ...]


def load(checkpoint: Path | None, config: SlicesConfig) -> Start:
    """The network to use: from a run, a checkpoint of ours, or an official file (``.pth``).

    A checkpoint of ours says itself how slices are prepared; for official ones ``config.data`` counts.

    Raises ``UserError`` when there is none, or when it is damaged or no network for slices.
    """
    if checkpoint is None:
        raise UserError("no checkpoint is given, and no weights come with this system: --checkpoint RUN_OR_FOLDER")
    if not checkpoint.exists():
        raise UserError(f"there is no checkpoint {checkpoint}")
    if (checkpoint / "checkpoint").is_dir():
        checkpoint = checkpoint / "checkpoint"
    data, classes = config.data, ()
    if checkpoint.is_file() and checkpoint.suffix in (".pth", ".pt"):
        network = checkpoints.load_official("hbformer", read(checkpoint))
    else:
        found = checkpoints.load(checkpoint)
        network = found.network
        if "data" in found.extra:
            data = configuration.from_dict(Data, found.extra["data"])
            classes = tuple(found.extra["classes"])
    if not isinstance(network, HBFormer | UNet):
        raise UserError(f"{checkpoint} holds a {type(network).__name__}; slices need an HBFormer or a UNet")
    for name, tensor in network.state_dict().items():
        if not bool(torch.isfinite(tensor).all()):
            raise UserError(f"{checkpoint} is damaged: weight {name} holds values that are not finite")
    count = network.config.num_classes
    if len(classes) != count:
        classes = ("background", *(f"class {number}" for number in range(1, count)))
    return Start(network, data, classes)


def begin(config: SlicesConfig, checkpoint: Path | None) -> tuple[HBFormer | UNet, str]:
    """A network to train, and what is to be said of its weights: new ones by the seed (the encoder's from ImageNet
    where a file is named), or those of a checkpoint."""
    torch.manual_seed(config.seed)
    network = made(config)
    if checkpoint is not None:
        source = load(checkpoint, config).network
        given, wanted = source.state_dict(), network.state_dict()
        rows = [
            (name, _shape(wanted, name), _shape(given, name))
            for name in {**wanted, **given}
            if name not in given or name not in wanted or given[name].shape != wanted[name].shape
        ]
        if rows:
            raise checkpoints.CheckpointMismatch(f"the network that was asked for (from {checkpoint})", rows)
        network.load_state_dict(given)
        return network, f"starting from {checkpoint}"
    if config.encoder is not None:
        if not isinstance(network, HBFormer):
            raise UserError("encoder: a plain U-Net has no encoder to load ImageNet weights into")
        return network, f"encoder from {config.encoder}: {load_encoder(network.encoder, read(config.encoder))}"
    return network, ""


def made(config: SlicesConfig) -> HBFormer | UNet:
    """The network that is configured, new."""
    if config.model == "hbformer":
        return HBFormer(config.network)
    return UNet(replace(config.unet, num_classes=config.num_classes))


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def _shape(state: Mapping[str, Tensor], name: str) -> str:
    return str(tuple(state[name].shape)) if name in state else "-"
