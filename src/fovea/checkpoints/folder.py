"""Our own checkpoints: a folder with ``model.safetensors`` and, for people to read, ``config.json``.

The safetensors file carries the same description in its metadata. It is what :func:`load` reads, so that weights and
configuration are always those of one save: a single file, renamed into place once it is whole on the disk.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from fovea import __version__
from fovea.errors import UserError, unknown
from fovea.models.dinat import DiNAT
from fovea.models.dinat_config import DiNATConfig
from fovea.models.hat import HAT
from fovea.models.hat_config import HATConfig
from fovea.models.hbformer import HBFormer
from fovea.models.hbformer_config import HBFormerConfig
from fovea.models.language import LanguageModel
from fovea.models.language_config import LanguageConfig
from fovea.models.lola_specvit import LoLASpecViT, SpectralCNN
from fovea.models.lola_specvit_config import LoLASpecViTConfig
from fovea.models.swin_unetr import SwinUNETR
from fovea.models.swin_unetr_config import SwinUNETRConfig
from fovea.models.unet import UNet
from fovea.models.unet_config import UNetConfig
from fovea.models.unet_discriminator import UNetDiscriminator
from fovea.models.volume_unet import VolumeUNet
from fovea.models.volume_unet_config import VolumeUNetConfig

WEIGHTS, DESCRIPTION = "model.safetensors", "config.json"

NETWORKS: dict[str, Callable[[dict[str, Any]], tuple[nn.Module, Any]]] = {
    "HAT": lambda words: _built(HAT, HATConfig(**words)),
    "DiNAT": lambda words: _built(DiNAT, DiNATConfig(**words)),
    "HBFormer": lambda words: _built(HBFormer, HBFormerConfig(**words)),
    "SwinUNETR": lambda words: _built(SwinUNETR, SwinUNETRConfig(**words)),
    "UNet": lambda words: _built(UNet, UNetConfig(**words)),
    "VolumeUNet": lambda words: _built(VolumeUNet, VolumeUNetConfig(**words)),
    "LanguageModel": lambda words: _built(LanguageModel, LanguageConfig(**words)),
    "LoLASpecViT": lambda words: _built(LoLASpecViT, LoLASpecViTConfig(**words)),
    "SpectralCNN": lambda words: _built(SpectralCNN, LoLASpecViTConfig(**words)),
    "UNetDiscriminator": lambda words: (UNetDiscriminator(**words), words),
}
"""How a network is made again from its class name and the words of its configuration."""


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint folder holds: the network in evaluation mode, its configuration, and what was saved with it."""

    network: nn.Module
    config: Any
    extra: dict[str, Any]


def save(path: str | Path, module: nn.Module, config: Any, extra: Mapping[str, Any] | None = None) -> None:
    """Write ``module`` and its configuration to the folder ``path``.

    Until everything is on the disk, an older checkpoint in the folder stays as it is; when the disk is full or the
    process dies, it is still there.

    Args:
        module: one of the networks named in ``NETWORKS``.
        config: its configuration, a dataclass or a mapping.
        extra: anything else JSON can hold, such as the step or the metrics.
    """
    if type(module).__name__ not in NETWORKS:
        raise unknown("network", type(module).__name__, NETWORKS)
    folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    description = {
        "network": type(module).__name__,
        "config": dataclasses.asdict(config) if dataclasses.is_dataclass(config) else dict(config),  # type: ignore[arg-type]
        "extra": dict(extra or {}),
        "fovea": __version__,
    }
    text = json.dumps(description, indent=2)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()}
    parts: dict[Path, Callable[[Path], Any]] = {
        folder / f"{WEIGHTS}.part": lambda part: save_file(tensors, part, metadata={"fovea": text}),
        folder / f"{DESCRIPTION}.part": lambda part: part.write_text(text + "\n"),
    }
    try:
        for part, write in parts.items():
            write(part)
            _flush(part)
        for part in parts:
            os.replace(part, part.with_suffix(""))
        _flush(folder)
    finally:
        for part in parts:
            part.unlink(missing_ok=True)


def load(path: str | Path, *, device: str | torch.device = "cpu") -> Checkpoint:
    """The network saved in the folder ``path``, in evaluation mode.

    Raises:
        UserError: when the folder holds no checkpoint of ours, or one that is damaged.
    """
    file = Path(path) / WEIGHTS if Path(path).is_dir() else Path(path)
    if not file.is_file():
        raise UserError(f"no checkpoint in {path}: there is no {WEIGHTS}")
    try:
        with safe_open(file, "pt", device=str(device)) as opened:
            metadata = opened.metadata() or {}
            state = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - not a mapping
    except SafetensorError as error:
        raise UserError(f"{file} is damaged or cut short: {error}") from error
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror or error}") from error
    if "fovea" not in metadata:
        raise UserError(f"{file} was not written by fovea; `fovea convert` reads official checkpoints")
    description = json.loads(metadata["fovea"])
    if description["network"] not in NETWORKS:
        raise unknown("network", description["network"], NETWORKS)
    network, config = NETWORKS[description["network"]](description["config"])
    network.load_state_dict(state)
    return Checkpoint(network.to(device).eval(), config, description["extra"])


def _built(build: Callable[[Any], nn.Module], config: Any) -> tuple[nn.Module, Any]:
    return build(config), config


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
