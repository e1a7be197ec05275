from __future__ import annotations

import pytest

from fovea.systems.hat import SYSTEM
from fovea.tasks.restoration import measure, sources, start

DEMO = SYSTEM.presets["demo"]


def test_the_weights_that_come_with_fovea_fit_the_demonstration_and_beat_bicubic() -> None:
    assert DEMO.weights is not None
    folder = start.shipped()[DEMO.weights]
    assert sum(path.stat().st_size for path in folder.iterdir()) < 2_000_000
    network = start.load(None, DEMO)
    assert network.config == DEMO.network
    pairs = [
        sources.Pair(pair.name, pair.low[40:88, 60:108], pair.high[80:176, 120:216])
        for pair in sources.validation(DEMO)
    ]
    for result in measure.restored(network, pairs, DEMO):
        assert result.measured["psnr"] > result.measured["baseline_psnr"] + 0.5


@pytest.mark.parametrize(
    ("name", "steps", "lr", "batch"),
    [
        ("paper-hat-x2", 500_000, 2e-4, 32),
        ("paper-hat-s-x4", 250_000, 1e-4, 32),
        ("paper-hat-l-x3-pretrain", 800_000, 2e-4, 32),
        ("paper-hat-l-x3-finetune", 250_000, 1e-5, 32),
        ("paper-real-mse", 1_000_000, 1e-4, 32),
        ("paper-real-gan", 400_000, 1e-4, 32),
        ("paper-denoise-large-patches", 500_000, 2e-4, 8),
    ],
)
def test_the_papers_trainings_are_the_papers(name: str, steps: int, lr: float, batch: int) -> None:
    optimisation = SYSTEM.presets[name].optimisation
    assert (optimisation.steps, optimisation.rate(1), optimisation.batch) == (steps, lr, batch)
    assert optimisation.gradient_clip is None
    assert optimisation.ema == 0.999
    after_another = name.endswith(("finetune", "gan", "large-patches")) or name == "paper-hat-s-x4"
    assert SYSTEM.presets[name].beginning == ("checkpoint" if after_another else "random")
