"""Label maps to what networks learn, and logits back to label maps (spec of BraTS and of the Decathlon)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fovea.errors import UserError
from fovea.tasks.segmentation.config import Coding

Labels = NDArray[np.uint8]
Masks = NDArray[np.bool_]

REGIONS: dict[str, dict[str, tuple[int, ...]]] = {
    "brats": {"TC": (1, 4), "WT": (1, 2, 4), "ET": (4,)},
    "msd-brats": {"TC": (2, 3), "WT": (1, 2, 3), "ET": (3,)},
}
"""The codes of each overlapping region, in the order of the channels."""
WRITTEN = {"brats": {"WT": 2, "TC": 1, "ET": 4}, "msd-brats": {"WT": 1, "TC": 2, "ET": 3}}
"""The code that a region's voxels get, later ones over earlier ones."""


@dataclass(frozen=True)
class Coded:
    """How the labels of one data set are coded; ``names`` are those of what is measured."""

    coding: Coding
    names: tuple[str, ...]

    @property
    def regions(self) -> bool:
        """Whether channels overlap (a sigmoid each); else they are exclusive (softmax), the first the background."""
        return self.coding != "classes"

    def target(self, labels: Labels, name: str) -> Labels:
        """``[regions, *size]`` of 0 and 1, or ``[1, *size]`` class numbers.

        Raises:
            UserError: a label is none of the coding's; ``name`` says whose.
        """
        classes = len(self.names) + 1
        codes = REGIONS[self.coding]["WT"] if self.regions else tuple(range(1, classes))
        if strange := sorted({int(code) for code in np.unique(labels)} - {0, *codes}):
            known = f"0, {', '.join(map(str, codes))}"
            raise UserError(f"{name}: label {strange[0]} is out of range; coding {self.coding} has {known}")
        if not self.regions:
            return labels[None]
        return np.stack([np.isin(labels, codes) for codes in REGIONS[self.coding].values()]).astype(np.uint8)

    def truth(self, labels: Labels, name: str) -> Masks:
        """``[names, *size]``: the mask of each region, or of each class but the background."""
        target = self.target(labels, name)
        if self.regions:
            return target.astype(np.bool_)
        return np.stack([target[0] == number for number in range(1, len(self.names) + 1)])

    def predicted(self, logits: Tensor) -> Masks:
        """The masks that logits ``[channels, *size]`` say: above one half, or the class with the largest."""
        if self.regions:
            return (logits > 0).numpy()
        best = logits.argmax(0)
        return torch.stack([best == number for number in range(1, len(self.names) + 1)]).numpy()

    def label_map(self, masks: Masks) -> Labels:
        """One code a voxel, as files hold them."""
        labels = np.zeros(masks.shape[1:], np.uint8)
        if self.regions:
            order = list(REGIONS[self.coding])
            for region, code in WRITTEN[self.coding].items():
                labels[masks[order.index(region)]] = code
        else:
            for number, mask in enumerate(masks, 1):
                labels[mask] = number
        return labels


def coded(coding: Coding, channels: int, names: dict[int, str] | None = None) -> Coded:
    """The coding of a data set whose dictionary of names, if any, tells the classes.

    Raises:
        UserError: the data have more or fewer classes than the network.
    """
    if coding != "classes":
        return Coded(coding, tuple(REGIONS[coding]))
    if names and len(names) != channels:
        raise UserError(f"the data have {len(names)} classes with the background; network.out_channels={channels}")
    known = names or {}
    return Coded(coding, tuple(known.get(number, f"class {number}") for number in range(1, channels)))
