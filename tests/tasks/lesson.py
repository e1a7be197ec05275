"""A lesson of a second for the training loop's tests; as a script it trains until it is done or killed.

python lesson.py FOLDER STEPS [resume] [slow]
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from fovea.tasks.fit import Batch, Interrupted, Learner, fit
from fovea.tasks.optimisation import Optimisation
from fovea.tasks.run import RunDirectory


@dataclass(frozen=True)
class Settings:
    name: str = "lesson"


class Lesson(Learner):
    """A convolution with dropout learns to blur; as a duel a second network learns to judge it."""

    def __init__(self, *, duel: bool = False, slow: bool = False, poison: int | None = None) -> None:
        torch.manual_seed(5)
        network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Dropout(0.2), nn.BatchNorm2d(8), nn.Conv2d(8, 3, 1))
        judge = {"judge": nn.Conv2d(3, 1, 3)} if duel else {}
        super().__init__({"network": network, **judge})
        self.slow, self.poison = slow, poison

    def example(self, step: int, position: int) -> Batch:
        generator = torch.Generator().manual_seed(1000 * step + position)
        image = torch.rand(3, 8, 8, generator=generator)
        return {"image": image, "blurred": nn.functional.avg_pool2d(image, 3, 1, 1), "step": step}

    def prepare(self, batch: Batch) -> Batch:
        return batch | {"image": batch["image"] + 0.01 * torch.randn_like(batch["image"])}

    def loss(self, player: str, networks: dict[str, nn.Module], batch: Batch) -> dict[str, Tensor]:
        if self.slow:
            time.sleep(0.02)
        if player == "judge":
            real, false = networks["judge"](batch["blurred"]), networks["judge"](batch["output"])
            return {"loss": (false - real).mean() + (real**2).mean()}
        output = networks["network"](batch["image"])
        batch["output"] = output.detach()
        loss = (output - batch["blurred"]).abs().mean()
        if int(batch["step"][0]) == self.poison:
            loss = loss * float("nan")
        if "judge" in networks:
            loss = loss - 0.1 * networks["judge"](output).mean()
        return {"loss": loss}

    def validate(self, network: nn.Module) -> dict[str, float]:
        with torch.no_grad():
            batch = self.example(0, 0)
            output = network(batch["image"][None])
        return {"error": float((output - batch["blurred"]).abs().mean())}

    def save(self, network: nn.Module, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        save_file(network.state_dict(), folder / "model.safetensors")


def optimisation(steps: int, **changes: object) -> Optimisation:
    defaults = {"lr": 1e-2, "ema": 0.9, "validate_every": 7, "checkpoint_every": 5, "report_every": 1}
    return Optimisation(steps=steps, **(defaults | changes))  # type: ignore[arg-type]


if __name__ == "__main__":
    target = RunDirectory(sys.argv[1], quiet=True)
    target.start(Settings(), seed=1, resume="resume" in sys.argv)
    try:
        fit(
            Lesson(duel=True, slow="slow" in sys.argv),
            optimisation(int(sys.argv[2])),
            target,
            seed=1,
            resume="resume" in sys.argv,
            quiet=True,
        )
    except Interrupted as stopped:
        print(stopped, file=sys.stderr)
        sys.exit(130)
