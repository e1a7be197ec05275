"""What networks for volumes learn."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from fovea import checkpoints
from fovea.tasks import configuration
from fovea.tasks.fit import Batch, Learner
from fovea.tasks.segmentation.config import VolumesConfig
from fovea.tasks.segmentation.losses import loss
from fovea.tasks.segmentation.sources import Source

Validate = Callable[[nn.Module], dict[str, float]]


class Segmenter(Learner):
    """The Dice loss (with cross-entropy) of training crops.

    Args:
        network: its ``config`` is saved with it, and how volumes are prepared.
        source: what it learns from.
        measure: numbers of a network on the cases held out.
    """

    def __init__(self, network: nn.Module, source: Source, config: VolumesConfig, measure: Validate) -> None:
        super().__init__({"network": network})
        self.source, self._config, self._measure = source, config, measure
        self._loss = loss(config.loss, regions=source.coding.regions)
        self.config: Any = network.config
        self.extra = {"data": configuration.to_dict(config.data), "names": list(source.coding.names)}

    def example(self, step: int, position: int) -> Batch:
        return dict(self.source.example(self._config, step, position))

    def loss(self, player: str, networks: dict[str, nn.Module], batch: Batch) -> dict[str, Tensor]:
        return {"loss": self._loss(networks["network"](batch["image"]), batch["target"])}

    def validate(self, network: nn.Module) -> dict[str, float]:
        return self._measure(network)

    def save(self, network: nn.Module, folder: Path) -> None:
        checkpoints.save(folder, network, self.config, self.extra)
