"""Segmentation of slices from end to end, at a size of seconds."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import nibabel
import numpy as np
import pytest
import torch
from PIL import Image

from fovea import checkpoints
from fovea.checkpoints import CheckpointMismatch, to_official
from fovea.checkpoints.layout import Layout
from fovea.checkpoints.swin import rules
from fovea.data.synthetic.slices import micro_tumours, volume
from fovea.errors import UsageError, UserError
from fovea.models.hbformer import HBFormer
from fovea.models.swin import SwinEncoder
from fovea.models.unet import UNet
from fovea.tasks.run import RunDirectory
from fovea.tasks.slices import TASK, measure, sources, start
from fovea.tasks.slices.config import Data, Epochs, SlicesConfig
from fovea.tasks.slices.sources import Examples


def run_in(folder: Path) -> RunDirectory:
    return RunDirectory(folder, quiet=True)


def test_the_demonstration_trains_both_and_shows_them(tmp_path: Path, tiny: SlicesConfig) -> None:
    run = run_in(tmp_path / "run")
    measured = TASK.run(tiny, run, quiet=True)
    assert measured == json.loads((run.path / "metrics.json").read_text())
    for name in ("dice", "hd95", "dice_official", "hd95_official", "dice_tumour", "recall", "baseline_dice_organ"):
        assert name in measured
    report = run.report.read_text()
    for words in ("HBFormer", "plain U-Net", "truth", "tumour", "found", "HD95 official", "How they learned"):
        assert words in report
    assert report.count("<img") == 3 * 4
    assert isinstance(checkpoints.load(run.checkpoint).network, HBFormer)
    assert isinstance(checkpoints.load(run.path / "baseline" / "checkpoint").network, UNet)


def test_an_interrupted_demonstration_goes_on_to_the_same_end(tmp_path: Path, tiny: SlicesConfig) -> None:
    whole = TASK.run(tiny, run_in(tmp_path / "whole"), quiet=True)
    short = replace(tiny, optimisation=replace(tiny.optimisation, steps=2))
    run = run_in(tmp_path / "parts")
    TASK.run(short, run, quiet=True)
    assert TASK.run(tiny, run, resume=True, quiet=True) == whole


@pytest.mark.parametrize("layout", ["decathlon", "synapse", "lits"])
@pytest.mark.parametrize("fit", ["zoom", "pad"])
def test_training_and_evaluation_agree_in_every_layout(
    tmp_path: Path, tiny: SlicesConfig, layout: str, fit: str, request: pytest.FixtureRequest
) -> None:
    data = request.getfixturevalue(layout)
    size = 48 if fit == "pad" and layout == "synapse" else 32
    config = replace(tiny, data=Data(size=size, fit=fit, foreground=0.5))
    if layout == "synapse":
        config = replace(config, network=replace(tiny.network, num_classes=9))
    run = run_in(tmp_path / "run")
    measured = TASK.train(config, run, data, quiet=True)
    again = TASK.evaluate(tiny, run.path, data, run=run_in(tmp_path / "evaluated"), quiet=True)
    assert again == measured
    assert (tmp_path / "evaluated" / "report.html").is_file()
    assert ("slice_dice" in measured) == (layout != "lits")
    named = {"decathlon": "dice_organ", "synapse": "dice_aorta", "lits": "dice_liver"}[layout]
    assert named in measured
    assert ("hd_foreground_official" in measured) == (layout == "lits")
    saved = checkpoints.load(run.checkpoint).extra["data"]
    assert saved["intensity"] == {"decathlon": "percentiles", "synapse": "unit", "lits": "unit"}[layout]


def test_epochs_are_counted_and_the_cosine_ends_with_them(tmp_path: Path, tiny: SlicesConfig, decathlon: Path) -> None:
    epochs = Epochs(epochs=3, batch=4, lr=1.0, schedule="cosine", floor=0.1, validate_every=100, checkpoint_every=100)
    run = run_in(tmp_path / "run")
    TASK.train(replace(tiny, optimisation=replace(epochs, lr=1e-3)), run, decathlon, quiet=True)
    assert run.config(SlicesConfig).optimisation.steps == 3 * (12 // 4)
    counted = epochs.counted(12)
    assert [round(counted.rate(step), 3) for step in (1, 3, 4, 7, 9)] == [1.0, 1.0, 0.775, 0.325, 0.325]
    official = replace(counted, epochs=100, t_max=300, steps=300)
    assert official.rate(300) == pytest.approx(0.1 + 0.9 * 0.5 * (1 + np.cos(np.pi * 99 / 300)))


def test_an_epoch_sees_every_slice_once(tiny: SlicesConfig, decathlon: Path) -> None:
    config = replace(tiny, data=Data(size=40, fit="pad", augment=False))
    source = sources.folder(config, decathlon)
    optimisation = replace(config.optimisation, epochs=2, batch=4).counted(len(source.training))
    examples = Examples(source, replace(config, optimisation=optimisation))
    seen = [examples(step, position)["image"][0].sum().item() for step in (1, 2, 3) for position in range(4)]
    assert len(set(seen)) == 12 == len(source.training)
    other = [examples(step, position)["image"][0].sum().item() for step in (4, 5, 6) for position in range(4)]
    assert sorted(other) == sorted(seen) and other != seen
    assert examples(2, 1)["image"][0].sum().item() == seen[5]


def test_foreground_slices_are_drawn_more_often(tiny: SlicesConfig, decathlon: Path, tmp_path: Path) -> None:
    shutil.copytree(decathlon, tmp_path / "data")
    for path in sorted((tmp_path / "data" / "labelsTr").iterdir())[:3]:
        empty = nibabel.Nifti1Image(np.zeros((40, 36, 3), np.uint8), np.eye(4))
        nibabel.save(empty, path)
    counts = {}
    for share in (0.0, 1.0):
        config = replace(tiny, data=Data(size=40, fit="pad", augment=False, foreground=share))
        examples = Examples(sources.folder(config, tmp_path / "data"), config)
        counts[share] = sum(bool(examples(step, 0)["labels"].any()) for step in range(40))
    assert counts[1.0] == 40
    assert 2 <= counts[0.0] <= 20


def test_every_slice_comes_back_at_its_own_size(tmp_path: Path) -> None:
    class Bright(torch.nn.Module):
        """Says class 1 where it is bright."""

        def __init__(self) -> None:
            super().__init__()
            self.level = torch.nn.Parameter(torch.tensor(0.5))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.stack([self.level.expand_as(x[:, 0]), x[:, 0]], 1)

    image = np.zeros((11, 30, 50), np.float32)
    image[:, 10:20, 5:35] = 1
    for data in (Data(size=64, fit="zoom"), Data(size=64, fit="pad"), Data(size=32, fit="pad")):
        found = measure.segmented(Bright(), image, data)
        assert found.shape == image.shape
        wrong = (found != (image > 0.5)).mean()
        assert wrong == 0 if data.fit == "pad" else wrong < 0.02


def test_prediction_keeps_format_affine_and_header(tmp_path: Path, checkpoint: Path, tiny: SlicesConfig) -> None:
    stack, _ = volume(3, 40, 1)
    affine = np.array([[0, -1.5, 0, 3], [2, 0, 0, 5], [0, 0, 4, 6], [0, 0, 0, 1.0]])
    source = nibabel.Nifti1Image(np.moveaxis(stack[..., :33], 0, 2), affine)
    source.header["descrip"] = b"slices of nothing"
    nibabel.save(source, tmp_path / "v.nii.gz")
    (out,) = TASK.predict(tiny, checkpoint, [tmp_path / "v.nii.gz"], tmp_path / "seg.nii.gz", quiet=True)
    found = nibabel.load(out)
    assert found.shape == (40, 33, 3)
    assert np.array_equal(found.affine, affine)
    assert found.header["descrip"] == source.header["descrip"]
    assert set(np.unique(np.asanyarray(found.dataobj))) <= {0, 1, 2}
    image, _ = micro_tumours(41, 0)
    np.savez(tmp_path / "s.npz", image=image)
    with h5py.File(tmp_path / "w.npy.h5", "w") as file:
        file["image"] = stack
    Image.fromarray((image * 255).astype(np.uint8)).save(tmp_path / "p.png")
    inputs = [tmp_path / name for name in ("s.npz", "w.npy.h5", "p.png")]
    written = TASK.predict(tiny, checkpoint, inputs, tmp_path / "out", quiet=True)
    assert [path.name for path in written] == ["s-seg.npz", "w-seg.npy.h5", "p-seg.png"]
    assert np.load(written[0])["label"].shape == (41, 41)
    with h5py.File(written[1]) as file:
        assert file["label"].shape == (3, 40, 40)
    with Image.open(written[2]) as picture:
        assert picture.size == (41, 41)


def test_an_official_file_is_a_checkpoint_too(tmp_path: Path, tiny: SlicesConfig) -> None:
    network = HBFormer(tiny.network).eval()
    torch.save({"model_state_dict": to_official("hbformer", network, tiny.network)}, tmp_path / "best.pth")
    found = start.load(tmp_path / "best.pth", tiny).network
    x = torch.rand(1, 3, 32, 32)
    assert isinstance(found, HBFormer)
    torch.testing.assert_close(found(x), network(x))


def test_imagenet_weights_for_the_encoder(tmp_path: Path, tiny: SlicesConfig) -> None:
    state = Layout("", rules(tiny.network.encoder)).to_official(SwinEncoder(tiny.network.encoder).state_dict())
    torch.save({"model": state}, tmp_path / "swin.pth")
    network, words = start.begin(replace(tiny, encoder=tmp_path / "swin.pth"), None)
    assert "0 of merging layers moved" in words
    name = "layers.1.downsample.reduction.weight"
    assert torch.equal(network.get_submodule("encoder.stages.1.merging.reduce").weight, state[name])
    TASK.train(replace(tiny, encoder=tmp_path / "swin.pth"), run_in(tmp_path / "run"), None, quiet=True)
    assert "tensors taken as they are" in (tmp_path / "run" / "log.txt").read_text()


def test_training_goes_on_from_a_checkpoint_of_the_same_network_only(
    tmp_path: Path, checkpoint: Path, tiny: SlicesConfig
) -> None:
    network, _ = start.begin(tiny, checkpoint)
    expected = checkpoints.load(checkpoint).network.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in network.state_dict().items())
    with pytest.raises(CheckpointMismatch, match="head.weight"):
        start.begin(replace(tiny, network=replace(tiny.network, num_classes=4)), checkpoint)


def broken_copy(folder: Path, decathlon: Path) -> Path:
    return Path(shutil.copytree(decathlon, folder / "data"))


def test_bad_data_is_one_line_and_leaves_no_run(tmp_path: Path, tiny: SlicesConfig, decathlon: Path) -> None:
    data = broken_copy(tmp_path, decathlon)
    image, label = (data / inside / "a_1.nii.gz" for inside in ("imagesTr", "labelsTr"))
    whole = image.read_bytes(), label.read_bytes()

    def refused(words: str) -> None:
        with pytest.raises(UserError, match=words) as caught:
            TASK.train(tiny, run_in(tmp_path / "run"), data, quiet=True)
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "run").exists()
        image.write_bytes(whole[0])
        label.write_bytes(whole[1])

    nibabel.save(nibabel.Nifti1Image(np.zeros((40, 30, 3), np.uint8), np.eye(4)), label)
    refused(r"a_1\.nii\.gz is 3 x 40 x 36 \(slices first\) and its labels .*a_1\.nii\.gz are 3 x 40 x 30")
    nibabel.save(nibabel.Nifti1Image(np.full((40, 36, 3), 7, np.uint8), np.eye(4)), label)
    refused(r"labelsTr/a_1\.nii\.gz: label 7 is out of range; it must be 0 to 2")
    image.write_bytes(whole[0][:700])
    refused(r"imagesTr/a_1\.nii\.gz cannot be read, it is damaged or cut short")
    nibabel.save(nibabel.Nifti1Image(np.full((40, 36, 3), np.nan, np.float32), np.eye(4)), image)
    refused(r"imagesTr/a_1\.nii\.gz: 4320 of 4320 voxels are NaN")
    label.unlink()
    refused(r"names files that are not there: .*labelsTr/a_1\.nii\.gz")


def test_an_unfinished_prediction_leaves_nothing(
    tmp_path: Path, checkpoint: Path, tiny: SlicesConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, _ = micro_tumours(40, 0)
    np.savez(tmp_path / "s.npz", image=image)
    out = tmp_path / "out"
    out.mkdir()

    def full(*_: object, **__: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("fovea.data.images.os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        TASK.predict(tiny, checkpoint, [tmp_path / "s.npz"], out / "seg.npz", quiet=True)
    assert not list(out.iterdir())


def test_mistakes_are_one_line(tmp_path: Path, checkpoint: Path, tiny: SlicesConfig, synapse: Path) -> None:
    image, _ = micro_tumours(40, 0)
    np.savez(tmp_path / "s.npz", image=image)
    np.savez(tmp_path / "h.npz", image=image * 500)
    (tmp_path / "text.txt").write_text("")
    slice_, out = tmp_path / "s.npz", tmp_path / "o.npz"
    nine = replace(tiny, network=replace(tiny.network, num_classes=9))
    calls = {
        "no weights come with this system": lambda: TASK.predict(tiny, None, [slice_], out, quiet=True),
        "there is no checkpoint": lambda: TASK.predict(tiny, tmp_path / "none", [slice_], out, quiet=True),
        "is the input itself": lambda: TASK.predict(tiny, checkpoint, [slice_], slice_, quiet=True),
        "a file must end in": lambda: TASK.predict(tiny, checkpoint, [slice_], tmp_path / "o.jpg", quiet=True),
        "input .*text.txt: it must end in": lambda: TASK.predict(
            tiny, checkpoint, [tmp_path / "text.txt"], out, quiet=True
        ),
        "the network was trained on \\[0, 1\\]": lambda: TASK.predict(
            tiny, checkpoint, [tmp_path / "h.npz"], out, quiet=True
        ),
        "unknown option 'tile'": lambda: TASK.predict(tiny, checkpoint, [slice_], out, quiet=True, tile=3),
        "axis=7": lambda: TASK.predict(tiny, checkpoint, [slice_], out, quiet=True, axis=7),
        "a PNG holds one slice": lambda: TASK.predict(
            tiny, checkpoint, [synapse / "test_vol_h5" / "case0002.npy.h5"], tmp_path / "o.png", quiet=True
        ),
        "generated slices have 3: background, organ, tumour": lambda: TASK.run(
            nine, run_in(tmp_path / "r"), quiet=True
        ),
        "there is no folder": lambda: TASK.train(tiny, run_in(tmp_path / "r"), tmp_path / "none", quiet=True),
        "is a file; it must be a folder": lambda: TASK.train(tiny, run_in(tmp_path / "r"), slice_, quiet=True),
    }
    for words, call in calls.items():
        with pytest.raises(UserError, match=words) as caught:
            call()
        assert "\n" not in str(caught.value)
    assert not out.exists()
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"size": 16}, "data.size=16; it must be at least 32"),
        ({"low": 3.0, "high": 3.0}, "the window must have a width"),
        ({"foreground": 2.0}, "data.foreground=2"),
        ({"structures": 5}, "data.structures=5; it must be a class"),
        ({"axis": 3}, "data.axis=3; it must be 0, 1 or 2"),
    ],
)
def test_impossible_configurations(tiny: SlicesConfig, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        replace(tiny, data=replace(tiny.data, **changes))
