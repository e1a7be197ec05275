"""Maps of classes as pictures: colours, a legend, the scene in false colours, and a majority filter."""

from __future__ import annotations

import colorsys
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fovea.data.hyperspectral import tiff
from fovea.data.hyperspectral.georeference import Georeference
from fovea.data.hyperspectral.scene import Scene
from fovea.errors import UsageError
from fovea.tasks.run import replacing

Pixels = NDArray[np.uint8]
Map = NDArray[np.int64]
UNLABELLED: tuple[int, int, int] = (24, 26, 30)
SUFFIXES = (".png", ".tif", ".tiff")


def palette(classes: int) -> Pixels:
    """``[classes + 1, 3]``: one colour a class, far from its neighbours' in hue and lightness; 0 is nearly black."""
    colours = [UNLABELLED]
    for number in range(classes):
        hue, light = (0.58 + number * 0.618034) % 1, (0.62, 0.4, 0.78, 0.5, 0.3)[number % 5]
        red, green, blue = colorsys.hls_to_rgb(hue, light, 0.72)
        colours.append((round(255 * red), round(255 * green), round(255 * blue)))
    return np.array(colours, dtype=np.uint8)


def coloured(classes: Map, count: int) -> Pixels:
    """A map of classes (0 to ``count``) in its colours: ``[rows, columns, 3]``."""
    return palette(count)[classes]


def false_colours(scene: Scene) -> Pixels:
    """Three bands, at five, three and one sixth of the spectrum, as red, green and blue; each is stretched so that all
    but the darkest and brightest fiftieth of its pixels are told apart."""
    bands = scene.cube.shape[2]
    chosen = [min(bands - 1, bands * sixth // 6) for sixth in (5, 3, 1)]
    image = np.asarray(scene.cube[:, :, chosen], dtype=np.float64)
    low, high = np.percentile(image, [2, 98], axis=(0, 1))
    return (255 * np.clip((image - low) / np.maximum(high - low, 1e-12), 0, 1)).round().astype(np.uint8)


def majority(classes: Map, side: int = 3) -> Map:
    """Each pixel takes the class that most pixels of the square around it have; its own, where that is one of them.
    Unlabelled pixels stay so and do not count."""
    from scipy import ndimage

    count = int(classes.max())
    votes = np.stack([ndimage.uniform_filter((classes == k).astype(np.float64), side) for k in range(1, count + 1)])
    own = np.take_along_axis(votes, np.maximum(classes - 1, 0)[None], 0)[0]
    winner = votes.argmax(0) + 1
    kept = np.where(votes.max(0) > own + 1e-9, winner, classes)
    return np.where(classes > 0, kept, 0)


def legend(names: Sequence[str], shares: Sequence[float] | None = None, *, height: int = 26) -> Pixels:
    """A column of colours and names (and what share of the map each class has), black on white."""
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(15)
    words = list(names)
    if shares is not None:
        words = [f"{name}  {100 * share:.1f}%" for name, share in zip(names, shares, strict=True)]
    width = 50 + max(int(font.getlength(word)) for word in words)
    image = Image.new("RGB", (width, height * len(words) + 10), "white")
    draw = ImageDraw.Draw(image)
    for row, (word, colour) in enumerate(zip(words, palette(len(words))[1:].tolist(), strict=True)):
        top = 5 + row * height
        draw.rectangle((8, top + 4, 28, top + height - 5), fill=tuple(colour), outline="black")
        draw.text((36, top + 3), word, fill="black", font=font)
    return np.asarray(image)


def with_legend(classes: Map, names: Sequence[str]) -> Pixels:
    """The map, its pixels enlarged where it is small, with the legend at its right."""
    rows, columns = classes.shape
    factor = max(1, 640 // max(rows, columns))
    picture = coloured(classes, len(names)).repeat(factor, 0).repeat(factor, 1)
    labelled = max(int((classes > 0).sum()), 1)
    beside = legend(names, [float((classes == k).sum()) / labelled for k in range(1, len(names) + 1)])
    height = max(picture.shape[0], beside.shape[0])
    page = np.full((height, picture.shape[1] + beside.shape[1], 3), 255, np.uint8)
    page[: picture.shape[0], : picture.shape[1]] = picture
    page[: beside.shape[0], picture.shape[1] :] = beside
    return page


def write(
    path: Path, classes: Map, names: Sequence[str], numbers: Sequence[int], place: Georeference | None = None
) -> Path:
    """A map of classes as a file, whole or not at all.

    ``.png`` is a picture with the legend; ``.tif`` holds the classes' numbers as their label map has them (0 where
    nothing was predicted), their colours and, in its description, their names; it lies where ``place`` says.

    Raises:
        UsageError: the ending is none of these.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"output {path}; a map ends in {', '.join(SUFFIXES)}")
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        if path.suffix.lower() == ".png":
            from PIL import Image

            Image.fromarray(with_legend(classes, names)).save(temporary, "PNG")
        else:
            meaning = json.dumps({str(number): name for number, name in zip(numbers, names, strict=True)})
            table = np.array([0, *numbers])
            save = partial(tiff.write, temporary, table[classes], place, f'{{"classes": {meaning}}}')
            if table.max() < 256:
                colours = np.zeros((256, 3), np.uint8)
                colours[table] = palette(len(names))
                save(colours=colours)
            else:
                save()
    return path
