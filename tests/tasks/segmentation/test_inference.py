"""Sliding windows: flips, and a network that sees each window alone."""

from __future__ import annotations

import torch
from torch import Tensor

from fovea.tasks.segmentation.inference import slide, windows


def test_a_pointwise_network_is_itself_whatever_the_windows() -> None:
    volume = torch.randn(1, 2, 9, 12, 7)
    for roi, overlap in (((4, 5, 6), 0.5), ((16, 4, 4), 0.25), ((9, 12, 7), 0.0)):
        found = slide(lambda x: 2 * x + 1, volume, roi, overlap=overlap)
        torch.testing.assert_close(found, 2 * volume + 1)


def test_flips_are_averaged_where_they_belong() -> None:
    """A network that adds a ramp along each axis: over all flips the ramps cancel to their mean."""
    size = (4, 6, 5)
    ramp = sum(
        torch.arange(float(n)).reshape([-1 if a == axis else 1 for a in range(3)]) for axis, n in enumerate(size)
    )
    assert isinstance(ramp, Tensor)
    volume = torch.randn(1, 1, *size)
    seen: list[int] = []
    found = slide(lambda x: x + ramp, volume, size, flips=True, progress=lambda: seen.append(1))
    torch.testing.assert_close(found, volume + ramp.mean())
    assert len(seen) == 8 and windows(size, size, 0.5) == 1
