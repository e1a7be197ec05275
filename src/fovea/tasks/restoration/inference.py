"""A network that wants multiples of its window, applied to images of any size, whole or in tiles.

Whole images are padded at the right and bottom by reflection to the next multiple and the result is cropped (arXiv
2309.05239, official ``hat_model.py``). Tiles come in two modes:

* ``official``: cores of ``tile`` pixels, each computed with ``overlap`` more on every side and pasted without blending;
* ``blend``: the same tiles, but where they overlap their results are mixed with weights that fall linearly towards a
  tile's edge, so that no seam shows; how much neighbouring tiles disagree is measured on the way.

Neither equals the whole image exactly: channel attention averages over what it is given, and stacked windows see
further than any overlap.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from fovea.errors import UsageError

Mode = Literal["blend", "official"]


@dataclass(frozen=True)
class Tiles:
    """How an image is cut: cores of ``size`` pixels (input side), computed with ``overlap`` more on every side."""

    size: int
    overlap: int = 32
    mode: Mode = "blend"

    def __post_init__(self) -> None:
        if self.size < 1 or self.overlap < 0:
            raise UsageError(f"tile={self.size}, overlap={self.overlap}; they must be positive and not negative")
        if self.mode not in ("blend", "official"):
            raise UsageError(f"mode={self.mode}; it must be blend or official")

    @property
    def reach(self) -> float:
        """How far on either side of the border between two cores both tiles have a say."""
        return min(self.overlap, self.size / 2) if self.mode == "blend" else 0

    def count(self, height: int, width: int) -> int:
        return math.ceil(height / self.size) * math.ceil(width / self.size)


@dataclass(frozen=True)
class Restored:
    """The result ``[C, scale H, scale W]``, and by how much overlapping tiles disagreed: root mean square in levels of
    255 over the overlaps, 0 where there was nothing to compare."""

    image: Tensor
    disagreement: float = 0.0


def reflect(image: Tensor, multiple: int) -> Tensor:
    """``[..., H, W]`` grown at the right and bottom to multiples of ``multiple``, mirrored at its last row and column.

    Where the mirror image is too short it is mirrored again, so that any size from 1x1 works.
    """
    for axis in (-2, -1):
        size = image.shape[axis]
        if (total := -(-size // multiple) * multiple) != size:
            image = image.index_select(axis, _mirrored(size, total).to(image.device))
    return image


def _mirrored(size: int, total: int) -> Tensor:
    period = max(1, 2 * (size - 1))
    position = torch.arange(total) % period
    return torch.where(position < size, position, period - position)


@torch.inference_mode()
def restore(
    network: nn.Module,
    image: Tensor,
    *,
    scale: int,
    multiple: int,
    tiles: Tiles | None = None,
    progress: Callable[[], None] = lambda: None,
) -> Restored:
    """Apply ``network`` (``[1, C, H, W] -> [1, C, scale H, scale W]``) to one image ``[C, H, W]`` of any size.

    Args:
        multiple: what the network's input sides must be multiples of.
        tiles: how to cut the image, or none to compute it whole; its lengths must be multiples of ``multiple``.
        progress: called after each tile.
    """
    height, width = image.shape[-2:]
    padded = reflect(image[None], multiple)
    if tiles is None:
        result = Restored(network(padded)[0])
        progress()
    else:
        if tiles.size % multiple or tiles.overlap % multiple:
            raise UsageError(
                f"tile={tiles.size}, overlap={tiles.overlap}; they must be multiples of {multiple}, "
                "the network's window"
            )
        result = _tiled(network, padded, scale, tiles, progress)
    cropped = result.image[..., : height * scale, : width * scale]
    return Restored(cropped.clone(), result.disagreement)


def _tiled(network: nn.Module, image: Tensor, scale: int, tiles: Tiles, progress: Callable[[], None]) -> Restored:
    height, width = image.shape[-2:]
    total = square = weights = None
    for top in range(0, height, tiles.size):
        for left in range(0, width, tiles.size):
            rows, columns = _grown(top, tiles, height), _grown(left, tiles, width)
            output = network(image[..., rows, columns])[0]
            if total is None:
                total = output.new_zeros(output.shape[0], height * scale, width * scale)
                square, weights = torch.zeros_like(total[0]), torch.zeros_like(total[0])
            assert square is not None
            assert weights is not None
            ramp = _weight(top, rows, tiles, height, scale)[:, None] * _weight(left, columns, tiles, width, scale)[None]
            ramp = ramp.to(output)
            place = (_scaled(rows, scale), _scaled(columns, scale))
            total[:, *place] += ramp * output
            square[place] += ramp * output.square().mean(0)
            weights[place] += ramp
            progress()
    assert total is not None
    assert square is not None
    assert weights is not None
    mean = total / weights
    variance = (square / weights - mean.square().mean(0)).clamp_min(0)
    overlap = variance[_shared(height, width, scale, tiles).to(variance.device)]
    return Restored(mean, float(overlap.mean().sqrt() * 255) if overlap.numel() else 0.0)


def _grown(start: int, tiles: Tiles, size: int) -> slice:
    return slice(max(0, start - tiles.overlap), min(size, start + tiles.size + tiles.overlap))


def _scaled(part: slice, scale: int) -> slice:
    return slice(part.start * scale, part.stop * scale)


def _weight(start: int, part: slice, tiles: Tiles, size: int, scale: int) -> Tensor:
    """The weight of a tile's output along one axis; over all tiles the weights of a pixel sum to one."""
    stop = min(size, start + tiles.size)
    position = (torch.arange(part.start * scale, part.stop * scale) + 0.5) / scale
    if tiles.reach == 0:
        return ((position > start) & (position < stop)).float()
    width = 2 * tiles.reach
    weight = torch.ones_like(position)
    if start > 0:
        weight = weight.minimum((position - start) / width + 0.5)
    if stop < size:
        weight = weight.minimum((stop - position) / width + 0.5)
    return weight.clamp(0, 1)


def _shared(height: int, width: int, scale: int, tiles: Tiles) -> Tensor:
    """Where more than one tile has a say."""

    def along(size: int) -> Tensor:
        position = (torch.arange(size * scale) + 0.5) / scale
        shared = torch.zeros(size * scale, dtype=torch.bool)
        for edge in range(tiles.size, size, tiles.size):
            shared |= (position - edge).abs() < tiles.reach
        return shared

    return along(height)[:, None] | along(width)[None]


def automatic(
    height: int, width: int, *, channels: int, scale: int, multiple: int, device: torch.device, overlap: int = 32
) -> Tiles | None:
    """The largest tiles that fit into the memory free on ``device``; none where the whole image fits.

    ``channels`` is the width of the network; the working set is estimated from it (see ``working_set``).
    """
    available = free_memory(device)
    per_pixel = working_set(channels, scale)
    if height * width * per_pixel <= available:
        return None
    overlap = -(-overlap // multiple) * multiple
    side = math.isqrt(int(available / per_pixel)) - 2 * overlap
    return Tiles(max(multiple, side // multiple * multiple), overlap)


def working_set(channels: int, scale: int) -> int:
    """Bytes a pixel of the input needs while the network runs: token features, then the features being enlarged."""
    return 4 * (16 * channels + 2 * 64 * scale * scale)


def free_memory(device: torch.device) -> int:
    """Bytes that may be used: two thirds of what is free now."""
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0]
    else:
        # Where the system does not tell what is free, half of what there is.
        names = os.sysconf_names
        pages = os.sysconf("SC_AVPHYS_PAGES" if "SC_AVPHYS_PAGES" in names else "SC_PHYS_PAGES")
        free = pages * os.sysconf("SC_PAGE_SIZE") / (1 if "SC_AVPHYS_PAGES" in names else 2)
    return int(free * 2 / 3)
