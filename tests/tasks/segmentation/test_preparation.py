"""Crops, augmentation and normalisation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from fovea.tasks.segmentation.config import Data, WarmCosine
from fovea.tasks.segmentation.preparation import bounded, example, normalised

DATA = Data(roi=(4, 4, 4), augment=False)


def drawn(number: int) -> np.random.Generator:
    return np.random.default_rng(number)


def test_normalisation_leaves_zeros() -> None:
    image = np.random.default_rng(0).normal(5, 3, (2, 6, 6, 6)).astype(np.float32)
    image[:, :3] = 0
    found = normalised(image)
    assert not found[:, :3].any()
    assert np.abs(found[:, 3:].mean((1, 2, 3))).max() < 1e-5 and np.abs(found[:, 3:].std((1, 2, 3)) - 1).max() < 1e-4


def test_bounding_box_is_no_smaller_than_the_crop() -> None:
    image, target = np.zeros((1, 10, 8, 3), np.float32), np.zeros((1, 10, 8, 3), np.uint8)
    image[0, 6, 2:8, 1] = 1
    target[0, 6, 3, 1] = 1
    cut, there = bounded(image, target, (4, 4, 4))
    assert cut.shape == (1, 4, 6, 3) and cut.sum() == 6 and there.sum() == 1
    empty, _ = bounded(np.zeros_like(image), target, (4, 4, 4))
    assert empty.shape == image.shape


def test_crops_follow_from_what_they_draw() -> None:
    image = np.random.default_rng(0).normal(size=(2, 9, 8, 7)).astype(np.float32)
    target = (image[:1] > 1).astype(np.uint8)
    data = replace(DATA, augment=True)
    first, again, other = (example(image, target, data, drawn(n)) for n in (1, 1, 2))
    assert first["image"].shape == (2, 4, 4, 4) and first["target"].shape == (1, 4, 4, 4)
    assert torch.equal(first["image"], again["image"]) and not torch.equal(first["image"], other["image"])


def test_image_and_target_are_flipped_alike() -> None:
    image = np.random.default_rng(0).normal(size=(1, 6, 6, 6)).astype(np.float32)
    target = (image > 0.5).astype(np.uint8)
    for number in range(12):
        found = example(image, target, replace(DATA, roi=(6, 6, 6), augment=True), drawn(number))
        inside = found["image"][found["target"] > 0]
        outside = found["image"][found["target"] == 0]
        assert inside.min() > outside.max()  # scaling and shifting keep the order of values


def test_crops_find_the_foreground() -> None:
    target = np.zeros((1, 20, 20, 20), np.uint8)
    target[0, 15, 3, 10] = 1
    image = np.ones((1, 20, 20, 20), np.float32)
    found = [example(image, target, replace(DATA, foreground=1.0), drawn(n))["target"].any() for n in range(20)]
    blind = [example(image, target, DATA, drawn(n))["target"].any() for n in range(20)]
    assert sum(map(bool, found)) == 20 and sum(map(bool, blind)) < 5


def test_small_volumes_are_filled_up() -> None:
    found = example(np.ones((1, 3, 5, 2), np.float32), np.ones((1, 3, 5, 2), np.uint8), DATA, drawn(0))
    assert found["image"].shape == (1, 4, 4, 4) and 0 < found["image"].sum() < 64


def test_the_rate_rises_then_falls_as_a_cosine() -> None:
    lesson = WarmCosine(steps=100, warmup=20, lr=1.0, schedule="cosine")
    assert [lesson.rate(step) for step in (10, 20, 60, 100)] == [0.5, 1.0, 0.5, 0.0]
    assert WarmCosine(steps=100, lr=1.0, milestones=(50,)).rate(60) == 0.5
