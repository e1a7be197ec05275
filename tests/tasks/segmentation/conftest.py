"""Small networks and folders of generated cases."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fovea.data.synthetic.phantoms import CONTRASTS, phantom
from fovea.models.swin_unetr_config import SwinUNETRConfig
from fovea.models.volume_unet_config import VolumeUNetConfig
from fovea.tasks.optimisation import Hardware
from fovea.tasks.segmentation.config import Data, VolumesConfig, WarmCosine

SIZE = (20, 18, 16)
AFFINE = np.diag([1.0, 1.0, 2.0, 1.0])


@pytest.fixture
def config() -> VolumesConfig:
    """Two steps of a tiny network."""
    return VolumesConfig(
        network=SwinUNETRConfig(feature_size=4, depths=(2, 1, 1, 1), num_heads=(1, 1, 2, 2), window_size=2),
        unet=VolumeUNetConfig(width=2, levels=3),
        data=Data(roi=(16, 16, 16), size=SIZE, train_cases=2, test_cases=2, held_out=1, foreground=0.5),
        optimisation=WarmCosine(
            steps=2, batch=1, lr=1e-3, schedule="cosine", validate_every=2, checkpoint_every=1, report_every=1, ema=0.0
        ),
        hardware=Hardware(accelerator="cpu"),
    )


def write_case(folder: Path, seed: int) -> Path:
    """A phantom as a BraTS folder."""
    nibabel = pytest.importorskip("nibabel")
    image, labels = phantom(SIZE, seed)
    case = folder / f"BraTS_{seed:03d}"
    case.mkdir(parents=True)
    for name, channel in zip(CONTRASTS, image, strict=True):
        nibabel.save(nibabel.Nifti1Image(channel, AFFINE), case / f"{case.name}_{name}.nii.gz")
    nibabel.save(nibabel.Nifti1Image(labels, AFFINE), case / f"{case.name}_seg.nii.gz")
    return case


@pytest.fixture
def brats(tmp_path: Path) -> Path:
    """A folder of three cases."""
    for seed in range(3):
        write_case(tmp_path / "data", seed)
    return tmp_path / "data"


@pytest.fixture
def quick(config: VolumesConfig) -> VolumesConfig:
    """One step."""
    return replace(config, optimisation=replace(config.optimisation, steps=1, validate_every=1))
