"""What hyperspectral networks learn: the class of a patch's middle pixel."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from fovea import checkpoints
from fovea.data.hyperspectral.features import standardised_patches
from fovea.data.hyperspectral.patches import Patches
from fovea.nn.lora import adapters
from fovea.tasks.fit import Batch, Learner
from fovea.tasks.optimisation import Optimisation
from fovea.tasks.spectral.config import SpectralConfig
from fovea.tasks.spectral.schedule import CyclicalSchedule


class PixelClassifier(Learner):
    """Cross entropy with smoothed labels over the pixels that are learned from, each once before any comes again.

    Args:
        network: patches to logits.
        patches: of the whole scene's components.
        places: the pixels to learn from.
        classes: their classes, from 0.
        measure: numbers of a network on the validation pixels.
        extra: what is saved beside the weights.
    """

    def __init__(
        self,
        network: nn.Module,
        patches: Patches,
        places: NDArray[np.int64],
        classes: NDArray[np.int64],
        config: SpectralConfig,
        seed: int,
        measure: Callable[[nn.Module], dict[str, float]],
        extra: Mapping[str, Any],
    ) -> None:
        super().__init__({"network": network})
        self._patches, self._places, self._classes = patches, places, classes
        self._measure, self._extra = measure, extra
        self.config, self.seed = config, seed
        self._order = lru_cache(maxsize=4)(
            lambda turn: np.random.default_rng([seed, 20, turn]).permutation(len(places))
        )

    def example(self, step: int, position: int) -> Batch:
        turn, place = divmod((step - 1) * self.config.optimisation.batch + position, len(self._places))
        chosen = self._order(turn)[place]
        patch = self._patches(self._places[chosen : chosen + 1])[0]
        if self.config.turns:
            way = int(np.random.default_rng([self.seed, 21, step, position]).integers(8))
            patch = np.rot90(patch, way % 4, (1, 2))
            patch = patch[:, :, ::-1] if way >= 4 else patch
        return {"patch": torch.from_numpy(np.ascontiguousarray(patch)), "class": int(self._classes[chosen])}

    def prepare(self, batch: Batch) -> Batch:
        if self.config.features.patches == "patch":
            batch["patch"] = standardised_patches(batch["patch"])
        return batch

    def groups(self, player: str) -> list[dict[str, Any]]:
        """Adapters first, then what else learns; one that is empty is left out."""
        network = self.players[player]
        own = {id(parameter) for parameter in adapters(network).values()}
        learning = [parameter for parameter in network.parameters() if parameter.requires_grad]
        parts = ([p for p in learning if id(p) in own], [p for p in learning if id(p) not in own])
        return [{"params": part} for part in parts if part]

    def rates(self, player: str, optimisation: Optimisation, step: int) -> list[float]:
        if self.config.cycle is None:
            return super().rates(player, optimisation, step)
        schedule = CyclicalSchedule(self.config.cycle)
        rising = min(1.0, step / optimisation.warmup) if optimisation.warmup else 1.0
        own = {id(parameter) for parameter in adapters(self.players[player]).values()}
        return [
            rising * schedule.rate(optimisation.lr, step - 1, adapter=id(group["params"][0]) in own)
            for group in self.groups(player)
        ]

    def loss(self, player: str, networks: dict[str, nn.Module], batch: Batch) -> dict[str, Tensor]:
        logits = networks["network"](batch["patch"])
        return {"loss": F.cross_entropy(logits, batch["class"], label_smoothing=self.config.smoothing)}

    def validate(self, network: nn.Module) -> dict[str, float]:
        return self._measure(network)

    def save(self, network: nn.Module, folder: Path) -> None:
        checkpoints.save(folder, network, self.config.network, self._extra)
