from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from fovea.tasks.slices.losses import losses


def test_the_three_parts_by_their_formulas() -> None:
    logits, labels = torch.randn(2, 4, 5, 6).double(), torch.randint(0, 4, (2, 5, 6))
    found = losses(logits, labels, (0.3, 0.4, 0.3))
    p = logits.float().softmax(1)
    pt = p.gather(1, labels[:, None])[:, 0]
    dice = 0.0
    for c in range(4):
        g = (labels == c).float()
        dice += 1 - (2 * (p[:, c] * g).sum() + 1e-5) / ((p[:, c] ** 2).sum() + g.sum() + 1e-5)
    torch.testing.assert_close(found["ce"], -pt.log().mean())
    torch.testing.assert_close(found["focal"], ((1 - pt) ** 2 * -pt.log()).mean())
    torch.testing.assert_close(found["dice"], dice / 4)
    torch.testing.assert_close(found["loss"], 0.3 * found["ce"] + 0.4 * found["dice"] + 0.3 * found["focal"])


@pytest.mark.parametrize("ignored", [255, -1])
def test_pixels_that_are_not_known_do_not_count(ignored: int) -> None:
    logits, labels = torch.randn(1, 3, 4, 8), torch.randint(0, 3, (1, 4, 8))
    masked = labels.clone()
    masked[..., 4:] = ignored
    logits.requires_grad_()
    found = losses(logits, masked, (1.0, 1.0, 1.0))
    expected = losses(logits[..., :4], labels[..., :4], (1.0, 1.0, 1.0))
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value)
    (gradient,) = torch.autograd.grad(found["loss"], logits)
    assert not gradient[..., 4:].any()
    nothing = losses(logits, torch.full_like(labels, ignored), (1.0, 1.0, 1.0))
    assert all(bool(value.isfinite()) for value in nothing.values())


def test_perfect_is_near_zero_and_confidently_wrong_is_finite() -> None:
    labels = torch.randint(0, 3, (1, 4, 4))
    sure = 100 * F.one_hot(labels, 3).movedim(-1, 1).float()
    assert float(losses(sure, labels, (1.0, 1.0, 1.0))["loss"]) < 1e-4
    assert bool(losses(-sure, labels, (1.0, 1.0, 1.0))["loss"].isfinite())
