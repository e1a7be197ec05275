"""Photographs that come with scikit-image: real images for demonstrations, nothing to download."""

from __future__ import annotations

from importlib import resources

import numpy as np
import torch
from numpy.typing import NDArray

from fovea.data.resize import downscale
from fovea.errors import MissingExtra, unknown

FILES = {
    "astronaut": "astronaut.png",
    "brick": "brick.png",
    "camera": "camera.png",
    "chelsea": "chelsea.png",
    "coffee": "coffee.png",
    "coins": "coins.png",
    "grass": "grass.png",
    "gravel": "gravel.png",
    "hubble": "hubble_deep_field.jpg",
    "ihc": "ihc.png",
    "moon": "moon.png",
    "motorcycle": "motorcycle_left.png",
    "page": "page.png",
    "retina": "retina.jpg",
    "rocket": "rocket.jpg",
    "text": "text.png",
}
PHOTOGRAPHS = tuple(FILES)


def photograph(name: str) -> NDArray[np.uint8]:
    """``[H, W, 3]`` bytes. Those stored as JPEG are halved, which takes away the marks of the compression."""
    if name not in FILES:
        raise unknown("photograph", name, FILES)
    try:
        from PIL import Image
        from skimage import data
    except ImportError as error:
        raise MissingExtra("a photograph", "scikit-image", "restoration") from error
    with resources.as_file(resources.files(data) / FILES[name]) as path, Image.open(path) as file:
        image = np.array(file.convert("RGB"))
    if not FILES[name].endswith(".jpg"):
        return image
    pixels = torch.from_numpy(image).movedim(-1, 0).double()[:, : image.shape[0] // 2 * 2, : image.shape[1] // 2 * 2]
    return (downscale(pixels / 255, 2) * 255).round().byte().movedim(0, -1).numpy()
