"""Where weights come from: a checkpoint of ours, an official file, a self-supervised encoder, or chance."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from fovea import checkpoints
from fovea.checkpoints.reading import read, weights
from fovea.checkpoints.swin_unetr import load_encoder, renamed
from fovea.errors import UserError
from fovea.models.swin_unetr import SwinUNETR
from fovea.models.volume_unet import VolumeUNet
from fovea.tasks import configuration
from fovea.tasks.segmentation.coding import Coded, coded
from fovea.tasks.segmentation.config import Data, VolumesConfig

OFFICIAL = (".pth", ".pt")


@dataclass(frozen=True)
class Start:
    """A network with the preparation of volumes that it was trained with, and what its channels mean."""

    network: SwinUNETR | VolumeUNet
    data: Data
    coding: Coded


def load(checkpoint: Path | None, config: VolumesConfig) -> Start:
    """The network to use: from a run, a checkpoint of ours, or an official file (``.pt``).

    A checkpoint of ours says itself how volumes are prepared; for official ones ``config.data`` counts, with exclusive
    classes where they have not three channels.

    Raises:
        UserError: there is none, or it is damaged or no network for volumes.
    """
    if checkpoint is None:
        raise UserError("no checkpoint is given, and no weights come with this system: --checkpoint RUN_OR_FILE")
    if not checkpoint.exists():
        raise UserError(f"there is no checkpoint {checkpoint}")
    if (checkpoint / "checkpoint").is_dir():
        checkpoint = checkpoint / "checkpoint"
    data, names = config.data, None
    if checkpoint.is_file() and checkpoint.suffix in OFFICIAL:
        network = checkpoints.load_official("swin-unetr", read(checkpoint))
    else:
        found = checkpoints.load(checkpoint)
        network = found.network
        if "data" in found.extra:
            data = configuration.from_dict(Data, found.extra["data"])
            names = dict(enumerate(["background", *found.extra["names"]]))
    if not isinstance(network, SwinUNETR | VolumeUNet):
        raise UserError(f"{checkpoint} holds a {type(network).__name__}; volumes need a SwinUNETR or a VolumeUNet")
    for name, tensor in network.state_dict().items():
        if not bool(torch.isfinite(tensor).all()):
            raise UserError(f"{checkpoint} is damaged: weight {name} holds values that are not finite")
    channels = network.config.out_channels
    if data.coding != "classes" and channels != 3:
        data = replace(data, coding="classes")
    return Start(network, data, coded(data.coding, channels, names if data.coding == "classes" else None))


def begin(config: VolumesConfig, checkpoint: Path | None) -> tuple[SwinUNETR | VolumeUNet, str]:
    """A network to train, and what is to be said of its weights.

    ``checkpoint`` may be a network like the configured one, or a self-supervised file that holds the way down alone.

    Raises:
        CheckpointMismatch, UserError: the weights are those of another network.
    """
    torch.manual_seed(config.seed)
    if config.model == "unet":
        network: SwinUNETR | VolumeUNet = VolumeUNet(
            replace(config.unet, in_channels=config.network.in_channels, out_channels=config.network.out_channels)
        )
    else:
        network = SwinUNETR(config.network)
    if checkpoint is None:
        return network, ""
    if checkpoint.is_file() and checkpoint.suffix in OFFICIAL and isinstance(network, SwinUNETR):
        state = weights(read(checkpoint))
        if not any(name.startswith("out.") for name in renamed(state)):
            new = load_encoder(network, state)
            return network, f"the way down starts from {checkpoint}; {len(new)} weights of the way up are new"
        source: nn.Module = checkpoints.load_official("swin-unetr", state)
    else:
        source = load(checkpoint, config).network
    if getattr(source, "config", None) != network.config:
        theirs, ours = dict(configuration.flat(source.config)), dict(configuration.flat(network.config))
        differing = [f"{key} {theirs.get(key)} -> {value}" for key, value in ours.items() if theirs.get(key) != value]
        shapes = {name: tensor.shape for name, tensor in source.state_dict().items()}
        if shapes != {name: tensor.shape for name, tensor in network.state_dict().items()}:
            raise UserError(f"{checkpoint} holds another network: {'; '.join(differing) or type(source).__name__}")
        orders = [net.config.merging for net in (source, network) if isinstance(net, SwinUNETR)]
        if len(set(orders)) > 1:
            raise UserError(
                f"{checkpoint} was trained with network.merging={orders[0]}; its weights are useless with {orders[1]}: "
                f"set network.merging={orders[0]}"
            )
    network.load_state_dict(source.state_dict())
    return network, f"starting from {checkpoint}"


def parameters(network: nn.Module) -> int:
    """How many numbers a network learns."""
    return sum(parameter.numel() for parameter in network.parameters())
