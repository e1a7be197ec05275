"""Phantoms: the same from the same seed, nested lesions of all sizes, several contrasts needed."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from fovea.data.synthetic.phantoms import phantom

SIZE = (36, 40, 32)


def test_a_pure_function_of_the_seed() -> None:
    first, second, other = phantom(SIZE, 3), phantom(SIZE, 3), phantom(SIZE, (3, 1))
    assert all((a == b).all() for a, b in zip(first, second, strict=True))
    assert (first[0] != other[0]).any()


def test_what_it_holds() -> None:
    sizes = []
    for seed in range(12):
        image, labels = phantom(SIZE, seed)
        assert image.shape == (4, *SIZE) and image.dtype == np.float32 and np.isfinite(image).all()
        assert set(np.unique(labels)) <= {0, 1, 2, 4} and labels.any()
        brain = image.any(0)
        assert 0.15 < brain.mean() < 0.7 and not labels[~brain].any() and not image[:, ~brain].any()
        whole, count = ndimage.label(labels > 0)  # type: ignore[misc]
        sizes += [int((whole == n).sum()) for n in range(1, count + 1)]
        core = ndimage.binary_dilation(labels == 1) & brain
        assert (labels[core] > 0).all()  # necrosis lies inside a lesion
    assert min(sizes) < 30 and max(sizes) > 500
