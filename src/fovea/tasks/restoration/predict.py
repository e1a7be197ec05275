"""Photographs in, restored photographs out: any size, grey or colour, 8 or 16 bits, with or without alpha."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor

from fovea.data.images import SUFFIXES, list_images, read, write_like
from fovea.errors import UsageError, UserError
from fovea.models.hat import HAT
from fovea.tasks.progress import bar
from fovea.tasks.restoration.inference import Mode, Tiles, automatic, restore

Tile = int | Literal["auto", "whole"]
OPTIONS = ("tile", "overlap", "mode", "compare")
"""What may be set where photographs are restored."""


def predict(
    network: HAT,
    inputs: Sequence[Path],
    output: Path,
    *,
    tile: Tile = "auto",
    overlap: int = 32,
    mode: Mode = "blend",
    compare: bool = False,
    quiet: bool = False,
) -> list[Path]:
    """Restore files and write them to ``output``: a file for one input, else a folder. Returns what was written.

    Args:
        inputs: image files, or folders of them.
        tile: side of the tiles in pixels of the input; ``auto`` cuts only what would not fit into memory.
        overlap: what each tile is computed with beyond its sides.
        mode: ``blend``, or ``official`` for tiles pasted side by side.
        compare: also compute every image whole, and tell by how much the tiles differ from it.
    """
    if not isinstance(compare, bool):
        raise UsageError(f"compare={compare}; it must be true or false")
    if isinstance(overlap, bool) or not isinstance(overlap, int) or overlap < 0:
        raise UsageError(f"overlap={overlap}; it must be a number of pixels, at least 0")
    if tile not in ("auto", "whole") and (isinstance(tile, bool) or not isinstance(tile, int) or tile < 1):
        raise UsageError(f"tile={tile}; it must be a side in pixels, auto or whole")
    if mode not in get_args(Mode):
        raise UsageError(f"mode={mode}; it must be {' or '.join(get_args(Mode))}")
    files = [file for path in inputs for file in (list_images(path, nested=False) if path.is_dir() else [path])]
    targets = _targets(files, output, network.scale)
    written = []
    for file, target in zip(files, targets, strict=True):
        picture = read(file)
        height, width = picture.size
        tiles = _tiles(network, height, width, tile, overlap, mode)
        count = tiles.count(height, width) if tiles else 1
        passes = picture.pixels.shape[0] if network.config.in_chans == 1 else 1
        with bar(file.name, count * passes, quiet=quiet) as progress:
            pixels, disagreement = restored(network, picture.pixels, tiles, progress)
        written.append(write_like(target, pixels, picture))
        if not quiet:
            facts = [f"{pixels.shape[2]} x {pixels.shape[1]}"]
            if count > 1:
                facts.append(f"{count} tiles that disagree by {disagreement:.2f} of 255 where they overlap")
            if compare and tiles:
                facts.append(difference(pixels, restored(network, picture.pixels)[0]))
            print(f"{file} ({width} x {height}) -> {target} ({', '.join(facts)})", file=sys.stderr)
    return written


def difference(tiled: Tensor, whole: Tensor) -> str:
    """In words, how far an image computed in tiles is from the one computed whole; both in [0, 1]."""
    apart = (tiled - whole).abs() * 255
    square = float(apart.square().mean())
    decibels = f"{10 * math.log10(255**2 / square):.1f} dB" if square else "equal"
    return f"against the whole image: mean {apart.mean():.3f}, most {apart.max():.2f} of 255, PSNR {decibels}"


def restored(
    network: HAT, pixels: Tensor, tiles: Tiles | None = None, progress: Callable[[], None] = lambda: None
) -> tuple[Tensor, float]:
    """``[C, H, W]`` restored with as many channels, in [0, 1], and how much overlapping tiles disagreed.

    Grey goes through a network for RGB as three equal channels; colour goes through one for grey channel by channel.
    """
    device = next(network.parameters()).device
    parts = pixels.split(1) if network.config.in_chans == 1 else (pixels.expand(3, -1, -1),)
    results = [
        restore(
            network, part.to(device), scale=network.scale, multiple=network.multiple, tiles=tiles, progress=progress
        )
        for part in parts
    ]
    image = torch.cat([result.image for result in results]).clamp(0, 1).cpu()
    if len(pixels) < len(image):
        image = image.mean(0, keepdim=True)
    return image, max(result.disagreement for result in results)


def _targets(files: Sequence[Path], output: Path, scale: int) -> list[Path]:
    into_folder = len(files) > 1 or output.is_dir() or output.suffix.lower() not in SUFFIXES
    if into_folder and len(files) == 1 and output.suffix and not output.is_dir():
        raise UsageError(f"output {output}: a file must end in {', '.join(SUFFIXES)}, and there is no such folder")
    if not into_folder:
        targets = [output]
    else:
        if output.is_file():
            raise UsageError(f"output {output} is a file; {len(files)} images need a folder")
        ending = f"-x{scale}" if scale > 1 else "-restored"
        targets = [output / f"{file.stem}{ending}.png" for file in files]
    if len(set(targets)) < len(targets):
        raise UsageError("two inputs have the same name and would be written to the same file")
    for file, target in zip(files, targets, strict=True):
        _writable(target)
        if target.exists() and file.exists() and target.samefile(file):
            raise UsageError(f"output {target} is the input itself; choose another name")
    return targets


def _writable(target: Path) -> None:
    """Raises ``UserError`` where the file could not be written, before anything is computed for it."""
    folder = next(parent for parent in target.absolute().parents if parent.exists())
    if not folder.is_dir():
        raise UserError(f"output {target}: {folder} is a file, not a folder")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"output {target}: no permission to write in {folder}")
    if target.is_dir():
        raise UsageError(f"output {target} is a folder; a file is to be written there")


def _tiles(network: HAT, height: int, width: int, tile: Tile, overlap: int, mode: Mode) -> Tiles | None:
    window = network.multiple
    if tile == "whole":
        return None
    if tile == "auto":
        device = next(network.parameters()).device
        tiles = automatic(
            height,
            width,
            channels=network.config.embed_dim,
            scale=network.scale,
            multiple=window,
            device=device,
            overlap=overlap,
        )
        return tiles and replace(tiles, mode=mode)
    return Tiles(-(-tile // window) * window, -(-overlap // window) * window, mode)
