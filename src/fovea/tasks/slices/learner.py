"""What networks for slices learn."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from fovea import checkpoints
from fovea.tasks import configuration
from fovea.tasks.fit import Batch, Learner
from fovea.tasks.slices.best import Best
from fovea.tasks.slices.config import SlicesConfig
from fovea.tasks.slices.losses import losses
from fovea.tasks.slices.sources import Examples, Source

Validate = Callable[[nn.Module], dict[str, float]]


class Segmenter(Learner):
    """The weighted sum of cross-entropy, Dice and focal loss of every pixel's class.

    Args:
        network: HBFormer or a U-Net; its ``config`` is saved with it.
        source: what it learns from.
        measure: numbers of a network on the cases to validate on, ``dice`` among them.
        best: keeps the best weights by it and ends the training; none for neither.
    """

    def __init__(
        self, network: nn.Module, source: Source, config: SlicesConfig, measure: Validate, best: Best | None = None
    ) -> None:
        super().__init__({"network": network})
        self._examples, self._measure, self._best = Examples(source, config), measure, best
        self.weights = config.loss.weights
        self.config: Any = network.config
        self.extra = {"data": configuration.to_dict(source.data), "classes": list(source.classes)}

    def example(self, step: int, position: int) -> Batch:
        return self._examples(step, position)

    def loss(self, player: str, networks: dict[str, nn.Module], batch: Batch) -> dict[str, Tensor]:
        parts = losses(networks["network"](batch["image"]), batch["labels"], self.weights)
        return {name if name == "loss" else f"loss_{name}": value for name, value in parts.items()}

    def validate(self, network: nn.Module) -> dict[str, float]:
        measured = self._measure(network)
        if self._best is not None:
            self._best.validated(measured["dice"], lambda folder: self.save(network, folder))
        return measured

    def enough(self) -> bool:
        return self._best is not None and self._best.enough()

    def save(self, network: nn.Module, folder: Path) -> None:
        checkpoints.save(folder, network, self.config, self.extra)
