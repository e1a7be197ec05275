from __future__ import annotations

import subprocess
import sys

import pytest

from fovea.systems.lola_specvit import SYSTEM

DEMO = SYSTEM.presets["demo"]


def test_the_demonstration_has_its_baseline_and_both_splits() -> None:
    assert "svm" in DEMO.compare
    assert DEMO.split.kinds == ("random", "disjoint")
    assert DEMO.features.fit == "training"
    assert 7 * DEMO.cycle == DEMO.optimisation.steps, "the last cycle of the rate ends with the training"


@pytest.mark.parametrize(
    ("name", "variant", "adapter", "trained", "cycle"),
    [("paper", "paper", "standard", "all", 1000), ("official", "official", "gated", "adapters", None)],
)
def test_the_published_sizes(name: str, variant: str, adapter: str, trained: str, cycle: int | None) -> None:
    config = SYSTEM.presets[name]
    network = config.network
    assert (network.variant, network.adapter, config.trained, config.cycle) == (variant, adapter, trained, cycle)
    assert (network.dim, network.depths, network.num_heads, network.spatial_size) == (96, (3, 4, 19), (4, 8, 16), 15)
    assert (config.optimisation.lr, config.optimisation.batch, config.smoothing) == (2e-5, 64, 0.1)
    assert (config.features.patches == "patch") == (name == "official")


def test_presets_need_no_torch() -> None:
    code = "import sys, fovea.systems.lola_specvit; print(*({'torch', 'numpy', 'sklearn'} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == ""
