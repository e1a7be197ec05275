"""The support vector machine beside the networks, and in which order their libraries are loaded."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from fovea.data.synthetic.spectra import scene
from fovea.tasks.spectral.baselines import SupportVectors
from fovea.tasks.spectral.metrics import confusion

WATCHED = """
import sys

class Order:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "sklearn" and "torch" not in sys.modules:
            raise AssertionError("scikit-learn before torch")

sys.meta_path.insert(0, Order())
import numpy as np
spectra = np.random.default_rng(0).random((40, 12))
"""
USES = {
    "components": "from fovea.data.hyperspectral.features import fit; fit(spectra, 3); fit(spectra, 3, 'bands')",
    "machine": "from fovea.data.synthetic.spectra import scene\n"
    "from fovea.tasks.spectral.baselines import SupportVectors\n"
    "made = scene((20, 20), 2, 12, 8); SupportVectors(made, np.flatnonzero(made.labels), 1.0)",
    "task": "from fovea.tasks.spectral import TASK",
}


@pytest.mark.parametrize("use", USES)
def test_torch_is_loaded_before_scikit_learn(use: str) -> None:
    code = f"{WATCHED}{USES[use]}\nprint('sklearn' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(use != "task")


def test_the_machine_tells_spectra_apart() -> None:
    made = scene((24, 24), 3, 20, 12)
    assert made.labels is not None
    labelled = np.flatnonzero(made.labels)
    learned, tested = labelled[::3], labelled[1::3]
    found = SupportVectors(made, learned, 100.0).classes(tested)
    matrix = confusion(made.labels.ravel()[tested] - 1, found, 3)
    assert matrix.shape == (3, 3)
    assert np.trace(matrix) > 0.6 * len(tested)
