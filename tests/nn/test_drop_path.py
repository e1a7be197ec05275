from __future__ import annotations

import pytest
import torch

from fovea.nn import DropPath, rising_rates


def test_drops_whole_samples_and_keeps_the_mean() -> None:
    out = DropPath(0.25)(torch.ones(4000, 2, 3))
    kept = out[:, 0, 0] > 0
    assert ((out == out[:, :1, :1]).all(dim=(1, 2))).all()
    torch.testing.assert_close(out[kept], torch.full_like(out[kept], 1 / 0.75))
    assert out.mean().item() == pytest.approx(1, abs=0.05)


def test_changes_nothing_in_evaluation() -> None:
    x = torch.randn(3, 2)
    assert DropPath(0.5).eval()(x) is x


@pytest.mark.parametrize("rate", [-0.1, 1.0])
def test_impossible_rates(rate: float) -> None:
    with pytest.raises(ValueError, match=f"rate={rate}"):
        DropPath(rate)


def test_rates_rise_over_all_blocks() -> None:
    rates = rising_rates(0.1, (6, 6))
    assert [len(stage) for stage in rates] == [6, 6]
    torch.testing.assert_close(torch.tensor(rates).flatten(), torch.linspace(0, 0.1, 12))
    assert rising_rates(0.1, (1,)) == [[0.0]]
