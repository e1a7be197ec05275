"""What networks for slices learn."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from fovea import checkpoints
from fovea.tasks import configuration
from fovea.tasks.fit import Batch, Learner
from fovea.tasks.slices.config import SlicesConfig
from fovea.tasks.slices.losses import losses
from fovea.tasks.slices.sources import Examples, Source

Validate = Callable[[nn.Module], dict[str, float]]


class Segmenter(Learner):
    """The weighted sum of cross-entropy, Dice and focal loss of every pixel's class.

    Args:
        network: HBFormer or a U-Net; its ``config`` is saved with it.
        source: what it learns from.
        measure: numbers of a network on the cases held out.
    """

    def __init__(self, network: nn.Module, source: Source, config: SlicesConfig, measure: Validate) -> None:
        super().__init__({"network": network})
        self._examples, self._measure = Examples(source, config), measure
        self.weights = config.loss.weights
        self.config: Any = network.config
        self.extra = {"data": configuration.to_dict(source.data), "classes": list(source.classes)}

    def example(self, step: int, position: int) -> Batch:
        return self._examples(step, position)

    def loss(self, player: str, networks: dict[str, nn.Module], batch: Batch) -> dict[str, Tensor]:
        return losses(networks["network"](batch["image"]), batch["labels"], self.weights)

    def validate(self, network: nn.Module) -> dict[str, float]:
        return self._measure(network)

    def save(self, network: nn.Module, folder: Path) -> None:
        checkpoints.save(folder, network, self.config, self.extra)
