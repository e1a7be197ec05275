"""What language models learn: the next token of packed text."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fovea import checkpoints
from fovea.data.text.packing import IGNORED
from fovea.data.text.tokenizer import Trained
from fovea.models.language import LanguageModel
from fovea.tasks.fit import Batch, Learner
from fovea.tasks.language.config import TextConfig
from fovea.tasks.language.sources import TOKENIZER, Source
from fovea.tasks.optimisation import Optimisation

Validate = Callable[[nn.Module], dict[str, float]]


class NextToken(Learner):
    """Cross-entropy of the next token within its document, and what mixers add to it.

    Weights that are matrices decay; embeddings, norms, gains and biases do not.

    Args:
        network: learns, and is saved with ``extra``.
        source: what it learns from.
        measure: numbers of a network on text held out.
    """

    def __init__(
        self, network: LanguageModel, source: Source, config: TextConfig, measure: Validate, extra: dict[str, Any]
    ) -> None:
        super().__init__({"network": network})
        self._source, self._measure, self._config, self.extra = source, measure, config, extra

    def example(self, step: int, position: int) -> Batch:
        batch = self._config.optimisation.batch
        return self._source.training.drawn((step - 1) * batch + position, self._config.seed)

    def loss(self, player: str, networks: dict[str, nn.Module], batch: Batch) -> dict[str, Tensor]:
        network = self.players[player]
        assert isinstance(network, LanguageModel)
        documents = batch["documents"] if bool((batch["documents"] != 0).any()) else None
        logits = networks[player](batch["tokens"], documents)
        nats = F.cross_entropy(logits.flatten(0, 1).float(), batch["targets"].flatten(), ignore_index=IGNORED)
        added = network.auxiliary_losses()
        return {"loss": nats + sum(added.values(), torch.zeros_like(nats)), "nats": nats, **added}

    def groups(self, player: str) -> list[dict[str, Any]]:
        matrices, others = [], []
        for name, parameter in self.players[player].named_parameters():
            if parameter.requires_grad:
                (matrices if parameter.ndim > 1 and "embedding" not in name else others).append(parameter)
        return [{"params": matrices}, {"params": others, "weight_decay": 0.0}]

    def rates(self, player: str, optimisation: Optimisation, step: int) -> list[float]:
        return [optimisation.rate(step)] * 2

    def validate(self, network: nn.Module) -> dict[str, float]:
        return self._measure(network)

    def save(self, network: nn.Module, folder: Path) -> None:
        checkpoints.save(folder, network, network.config, self.extra)
        if isinstance(self._source.tokenizer, Trained):
            self._source.tokenizer.save(folder / TOKENIZER)
