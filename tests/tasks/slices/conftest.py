"""A configuration of seconds, and data sets of every layout that are as small."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pytest
import torch
from PIL import Image

from fovea import checkpoints
from fovea.data.synthetic.slices import micro_tumours, volume
from fovea.models.hbformer import HBFormer
from fovea.models.hbformer_config import HBFormerConfig
from fovea.models.unet_config import UNetConfig
from fovea.tasks import configuration
from fovea.tasks.optimisation import Hardware
from fovea.tasks.slices.config import Data, Epochs, SlicesConfig

NETWORK = HBFormerConfig(
    img_size=32, num_classes=3, embed_dim=16, depths=(1, 1, 1, 1), num_heads=(1, 1, 2, 2), mlp_ratio=1.0, feature_size=8
)
TINY = SlicesConfig(
    network=NETWORK,
    unet=UNetConfig(width=4, levels=3),
    data=Data(size=32, test_slices=3),
    optimisation=Epochs(
        steps=4, batch=2, lr=1e-3, algorithm="adamw", validate_every=2, checkpoint_every=2, report_every=1
    ),
    hardware=Hardware(accelerator="cpu"),
)
AFFINE = np.diag([-1.0, 2.0, 3.0, 1.0])


@pytest.fixture
def tiny() -> SlicesConfig:
    return TINY


@pytest.fixture(scope="session")
def decathlon(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five volumes of 40 x 36 x 3 voxels in the Decathlon's layout."""
    folder = tmp_path_factory.mktemp("decathlon")
    entries = []
    for number in range(5):
        image, labels = volume(3, 40, number)
        for inside, stack in (("imagesTr", image * 1000), ("labelsTr", labels)):
            (folder / inside).mkdir(exist_ok=True)
            array = np.moveaxis(stack[..., :36], 0, 2)
            nibabel.save(nibabel.Nifti1Image(array, AFFINE), folder / inside / f"a_{number}.nii.gz")
        entries.append({"image": f"./imagesTr/a_{number}.nii.gz", "label": f"./labelsTr/a_{number}.nii.gz"})
    described = {"modality": {"0": "MRI"}, "labels": {"0": "background", "1": "organ", "2": "tumour"}}
    (folder / "dataset.json").write_text(json.dumps({**described, "training": entries}))
    return folder


@pytest.fixture(scope="session")
def synapse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four slices and one volume in TransUNet's layout."""
    folder = tmp_path_factory.mktemp("synapse")
    for inside in ("train_npz", "test_vol_h5", "lists/lists_Synapse"):
        (folder / inside).mkdir(parents=True)
    names = [f"case0001_slice00{number}" for number in range(4)]
    for number, name in enumerate(names):
        image, labels = micro_tumours(48, number)
        np.savez(folder / "train_npz" / f"{name}.npz", image=image, label=labels.astype(np.float32))
    image, labels = volume(3, 48, 9)
    with h5py.File(folder / "test_vol_h5" / "case0002.npy.h5", "w") as file:
        file["image"], file["label"] = image, labels.astype(np.float32)
    (folder / "lists/lists_Synapse/train.txt").write_text("\n".join(names) + "\n")
    (folder / "lists/lists_Synapse/test_vol.txt").write_text("case0002\n")
    return folder


@pytest.fixture(scope="session")
def lits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five pairs of PNGs with grey masks."""
    folder = tmp_path_factory.mktemp("lits")
    for number in range(5):
        image, labels = micro_tumours(48, number)
        pictures = {"Image": (image * 255).astype(np.uint8), "Mask": np.array([0, 150, 255], np.uint8)[labels]}
        for what, picture in pictures.items():
            (folder / f"train{what}_lits2017_png").mkdir(exist_ok=True)
            Image.fromarray(picture).save(folder / f"train{what}_lits2017_png" / f"volume-{number}.png")
    return folder


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that was never trained, prepared for slices in [0, 1]."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("checkpoint")
    data = configuration.to_dict(Data(size=32, intensity="unit"))
    classes = ["background", "organ", "tumour"]
    checkpoints.save(folder, HBFormer(NETWORK), NETWORK, {"data": data, "classes": classes})
    return folder
