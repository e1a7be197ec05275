"""What restoration networks learn: to match the clean image, and in the GAN stage to pass for one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fovea import checkpoints
from fovea.models.hat import HAT
from fovea.models.unet_discriminator import UNetDiscriminator
from fovea.tasks.fit import Batch, Learner
from fovea.tasks.restoration.config import Adversary
from fovea.tasks.restoration.examples import Examples

Prepare = Callable[[Batch], Batch]
Validate = Callable[[nn.Module], dict[str, float]]


class Restorer(Learner):
    """The mean absolute difference to the clean image (arXiv 2309.05239, section 4.1).

    Args:
        network: learns to map ``low`` to ``high``.
        examples: training pairs; see ``Examples``.
        measure: numbers of a network on the validation images.
        degrade: makes ``low`` (and ``sharp``) from ``high`` on the device, where that is not done with the example.
    """

    def __init__(self, network: HAT, examples: Examples, measure: Validate, degrade: Prepare | None = None) -> None:
        super().__init__({"network": network})
        self._examples, self._measure, self._degrade = examples, measure, degrade
        self.config = network.config

    def example(self, step: int, position: int) -> Batch:
        return self._examples(step, position)

    def prepare(self, batch: Batch) -> Batch:
        return self._degrade(batch) if self._degrade else batch

    def loss(self, player: str, networks: dict[str, nn.Module], batch: Batch) -> dict[str, Tensor]:
        return {"loss": F.l1_loss(networks["network"](batch["low"]), batch.get("sharp", batch["high"]))}

    def validate(self, network: nn.Module) -> dict[str, float]:
        return self._measure(network)

    def save(self, network: nn.Module, folder: Path) -> None:
        checkpoints.save(folder, network, self.config)


class AdversarialRestorer(Restorer):
    """Pixels, features and an adversary (Real-HAT-GAN; official ``realhatgan_model.py``).

    In each step the network moves first, then the discriminator. Pixel and perceptual loss compare with the sharpened
    image where there is one; the discriminator learns from the image as it is.

    Args:
        perceptual: distance of two batches of images in the features of a frozen network, or none.
    """

    def __init__(
        self,
        network: HAT,
        examples: Examples,
        measure: Validate,
        degrade: Prepare | None,
        adversary: Adversary,
        perceptual: nn.Module | None,
    ) -> None:
        super().__init__(network, examples, measure, degrade)
        self.players["discriminator"] = UNetDiscriminator(network.config.in_chans, adversary.num_feat)
        self.perceptual = perceptual
        self.weights = adversary

    def loss(self, player: str, networks: dict[str, nn.Module], batch: Batch) -> dict[str, Tensor]:
        discriminator, high = networks["discriminator"], batch["high"]
        if player == "discriminator":
            real, restored = discriminator(high), discriminator(batch["restored"])
            return {"loss": _adversarial(real, real=True) + _adversarial(restored, real=False)}
        restored = networks["network"](batch["low"])
        batch["restored"] = restored.detach()
        truth = batch.get("sharp", high) if self.weights.sharpen else high
        parts = {"pixel": self.weights.pixel * F.l1_loss(restored, truth)}
        if self.perceptual is not None:
            parts["perceptual"] = self.weights.perceptual_weight * self.perceptual(restored, truth)
        parts["adversarial"] = self.weights.weight * _adversarial(discriminator(restored), real=True)
        return {"loss": torch.stack(list(parts.values())).sum(), **parts}


def _adversarial(logits: Tensor, *, real: bool) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, float(real)))
