"""The weights of the best validation, beside those of the last step; when a training has seen enough."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fovea.tasks.run import RunDirectory

FOLDER = "best"


class Best:
    """What a run's validations say of its weights. It remembers nothing itself, so a resumed run goes on with it.

    Args:
        run: its ``metrics.jsonl`` holds the mean Dice of every validation, its folder ``best`` the best weights.
        patience: validations in a row without a better Dice that are enough; 0 for never.
    """

    def __init__(self, run: RunDirectory, patience: int) -> None:
        self.run, self.patience = run, patience

    @property
    def folder(self) -> Path:
        return self.run.path / FOLDER

    @property
    def step(self) -> int:
        """Of the best validation."""
        return max(self._validations(), key=lambda found: found[1])[0]

    def validated(self, dice: float, save: Callable[[Path], None]) -> None:
        """Save the weights if none before had as good a Dice; to be called before it is written down."""
        if dice > max((before for _, before in self._validations()), default=-1.0):
            save(self.folder)

    def enough(self) -> bool:
        """Whether ``patience`` validations have passed since the best."""
        dices = [dice for _, dice in self._validations()]
        return bool(self.patience and dices) and len(dices) - 1 - dices.index(max(dices)) >= self.patience

    def _validations(self) -> list[tuple[int, float]]:
        """Step and mean Dice of each."""
        return [(int(line["step"]), line["dice"]) for line in self.run.measurements() if "dice" in line]
