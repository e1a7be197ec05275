"""A network applied to many pixels of a scene, in batches and tiles, so that memory stays bounded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fovea.data.hyperspectral.features import Components, standardised_patches
from fovea.data.hyperspectral.patches import Patches
from fovea.data.hyperspectral.scene import Scene

BATCH = 256
"""Patches that go through the network together."""
TILE = 128
"""Side of the tiles of a scene."""


@dataclass(frozen=True, eq=False)
class Reader:
    """What turns spectra into classes: components, how patches are standardised, the network, and whether its answers
    are averaged over the ways to turn a patch."""

    network: nn.Module
    components: Components
    patch: int
    standardise: Literal["scene", "patch"]
    average_turns: bool = False

    def patches(self, scene: Scene) -> Patches:
        """Patches of a scene that fits into memory."""
        image = np.concatenate([self.components(rows) for _, rows in scene.strips()])
        return Patches(image, self.patch)

    @torch.inference_mode()
    def classes(
        self, patches: Patches, places: NDArray[np.integer], progress: Callable[[int], None] = lambda count: None
    ) -> NDArray[np.int64]:
        """Classes, from 0, of the pixels at these places."""
        network = self.network.eval()
        device = next(network.parameters()).device
        found = np.empty(len(places), np.int64)
        for first in range(0, len(places), BATCH):
            part = places[first : first + BATCH]
            batch = torch.from_numpy(patches(part)).to(device)
            if self.standardise == "patch":
                batch = standardised_patches(batch)
            ways = _turned(batch) if self.average_turns else [batch]
            likely = torch.stack([network(way).softmax(1) for way in ways]).mean(0)
            found[first : first + BATCH] = likely.argmax(1).cpu().numpy()
            progress(len(part))
        return found


def _turned(batch: Tensor) -> Iterator[Tensor]:
    """The eight ways to turn and mirror patches."""
    for quarters in range(4):
        turned = batch.rot90(quarters, (2, 3))
        yield turned
        yield turned.flip(3)


def classify(
    reader: Reader,
    scene: Scene,
    *,
    tile: int = TILE,
    wanted: NDArray[np.bool_] | None = None,
    progress: Callable[[int], None] = lambda count: None,
) -> NDArray[np.int64]:
    """Classes, from 1, of all pixels of a scene (or of those ``wanted``; 0 elsewhere): ``[rows, columns]``.

    Only one tile and what its border patches reach into are in memory, whatever the size of the scene. The result does
    not depend on the tiles.
    """
    rows, columns = scene.size
    out = np.zeros(scene.size, np.int64)
    for top, left in corners(rows, columns, tile):
        bottom, right = min(top + tile, rows), min(left + tile, columns)
        inner = np.ones((bottom - top, right - left), np.bool_) if wanted is None else wanted[top:bottom, left:right]
        if not inner.any():
            continue
        reach = reader.patch // 2
        above, before = min(top, reach), min(left, reach)
        around = np.asarray(scene.cube[top - above : bottom + reach, left - before : right + reach], dtype=np.float32)
        patches = Patches(reader.components(around), reader.patch)
        row, column = np.nonzero(inner)
        places = np.ravel_multi_index((row + above, column + before), patches.size)
        out[top + row, left + column] = reader.classes(patches, places, progress) + 1
    return out


def corners(rows: int, columns: int, tile: int) -> Iterator[tuple[int, int]]:
    """Top left corners of the tiles, row by row."""
    return ((top, left) for top in range(0, rows, tile) for left in range(0, columns, tile))
