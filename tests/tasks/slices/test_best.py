"""The best weights of a training, and trainings that end early."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

from fovea import checkpoints
from fovea.errors import UsageError, UserError
from fovea.tasks.run import RunDirectory
from fovea.tasks.slices import TASK, sources, start
from fovea.tasks.slices.best import Best
from fovea.tasks.slices.config import Data, Epochs, SlicesConfig


def run_in(folder: Path) -> RunDirectory:
    return RunDirectory(folder, quiet=True)


def scripted(patch: pytest.MonkeyPatch, dices: dict[int, float], *, after: int = 0) -> None:
    """Validations, those after a step, are made to have the Dices of their steps; the end is measured as it is."""
    left = iter([dice for step, dice in dices.items() if step > after])

    def validated(self: Best, _: float, save: Callable[[Path], None]) -> None:
        real(self, next(left), save)

    def measure(self: RunDirectory, *, step: int, **values: float) -> None:
        write(self, step=step, **values | ({"dice": dices[step]} if "dice" in values else {}))

    real, write = Best.validated, RunDirectory.measure
    patch.setattr(Best, "validated", validated)
    patch.setattr(RunDirectory, "measure", measure)


def validating(tiny: SlicesConfig, *, steps: int = 8, patience: int = 0, every: int = 1) -> SlicesConfig:
    optimisation = replace(tiny.optimisation, steps=steps, validate_every=every, checkpoint_every=2, patience=patience)
    return replace(tiny, data=replace(tiny.data, cases_validated=2), optimisation=optimisation)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return checkpoints.load(folder).network.state_dict()


def test_the_weights_of_the_best_validation_are_kept_measured_and_used(
    tmp_path: Path, tiny: SlicesConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted(monkeypatch, {1: 0.1, 2: 0.3, 3: 0.2, 4: 0.3})
    run = run_in(tmp_path / "run")
    TASK.train(validating(tiny, steps=4), run, None, quiet=True)
    short = run_in(tmp_path / "short")
    monkeypatch.undo()
    TASK.train(replace(tiny, optimisation=replace(tiny.optimisation, steps=2)), short, None, quiet=True)
    best, last, two = (weights(folder) for folder in (run.path / "best", run.checkpoint, short.checkpoint))
    assert all(torch.equal(best[name], two[name]) for name in two)
    assert any(not torch.equal(best[name], last[name]) for name in last)
    assert "Trained for 4 steps, of which step 2 was the best on 2 cases kept back" in run.report.read_text()
    used = start.load(run.path, tiny).network.state_dict()
    assert all(torch.equal(used[name], best[name]) for name in best)


def test_patience_ends_a_training(tmp_path: Path, tiny: SlicesConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    scripted(monkeypatch, {1: 0.2, 2: 0.3, 3: 0.3, 4: 0.1, 5: 0.2, 6: 0.9})
    run = run_in(tmp_path / "run")
    TASK.train(validating(tiny, steps=6, patience=3), run, None, quiet=True)
    assert [line["step"] for line in run.measurements() if "dice" in line] == [1, 2, 3, 4, 5]
    assert torch.load(run.last, weights_only=True)["step"] == 5
    assert run.report.is_file()


def test_a_training_that_was_interrupted_ends_as_early_and_with_the_same_weights(
    tmp_path: Path, tiny: SlicesConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    dices, config = {1: 0.2, 2: 0.5, 3: 0.1, 4: 0.2, 5: 0.9}, validating(tiny, steps=5, patience=2)
    measured = {}
    with monkeypatch.context() as patch:
        scripted(patch, dices)
        measured["whole"] = TASK.train(config, run_in(tmp_path / "whole"), None, quiet=True)
    with monkeypatch.context() as patch:
        scripted(patch, dices)
        short = replace(config, optimisation=replace(config.optimisation, steps=3))
        TASK.train(short, run_in(tmp_path / "parts"), None, quiet=True)
    with monkeypatch.context() as patch:
        scripted(patch, dices, after=3)
        measured["parts"] = TASK.train(config, run_in(tmp_path / "parts"), None, resume=True, quiet=True)
    assert measured["parts"] == measured["whole"]
    whole, parts = (weights(tmp_path / name / "best") for name in ("whole", "parts"))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    steps = [line["step"] for line in run_in(tmp_path / "parts").measurements() if "dice" in line]
    assert steps == [1, 2, 3, 4]


def test_what_has_ended_early_does_not_go_on(
    tmp_path: Path, tiny: SlicesConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = validating(tiny, steps=8, patience=1)
    run = run_in(tmp_path / "run")
    scripted(monkeypatch, {1: 0.5, 2: 0.4})
    first = TASK.train(config, run, None, quiet=True)
    assert TASK.train(config, run, None, resume=True, quiet=True) == first
    assert max(line["step"] for line in run.measurements()) == 2


def test_validation_cases_are_kept_from_training(tiny: SlicesConfig, decathlon: Path, synapse: Path) -> None:
    def parts(data: Path, count: int, classes: int = 3) -> tuple[int, list[str], list[str]]:
        network = replace(tiny.network, num_classes=classes)
        source = sources.folder(
            replace(tiny, network=network, data=Data(size=40, fit="pad", cases_validated=count)), data
        )
        return (
            len(source.training),
            [scan.name for scan in source.kept_back()],
            [scan.name for scan in source.held_out()],
        )

    assert parts(decathlon, 0) == (12, [], ["a_4"])
    assert parts(decathlon, 2) == (6, ["a_2", "a_3"], ["a_4"])
    with pytest.raises(UserError, match="data.cases_validated=4 leaves nothing to learn from of 4 training cases"):
        parts(decathlon, 4)
    with pytest.raises(UserError, match="data.cases_validated=1 leaves nothing to learn from"):
        parts(synapse, 1, 9)  # all slices are of one patient


def test_slices_of_a_patient_stay_together(tmp_path: Path, tiny: SlicesConfig, synapse: Path) -> None:
    names = [f"case000{patient}_slice00{number}" for patient in (1, 2, 3) for number in range(3)]
    (tmp_path / "train_npz").mkdir()
    for name in names:
        source = synapse / "train_npz" / "case0001_slice000.npz"
        (tmp_path / "train_npz" / f"{name}.npz").write_bytes(source.read_bytes())
    (tmp_path / "train.txt").write_text("\n".join(names))
    config = replace(
        tiny, network=replace(tiny.network, num_classes=9), data=Data(size=48, fit="pad", cases_validated=1)
    )
    source = sources.folder(config, tmp_path)
    assert [scan.name for scan in source.kept_back()] == names[6:]
    assert [scan.name for scan in source.held_out()] == names[3:6]
    assert len(source.training) == 3


def test_without_a_test_part_the_last_patient_is_held_out(tmp_path: Path, tiny: SlicesConfig, synapse: Path) -> None:
    shutil.copytree(synapse / "train_npz", tmp_path / "train_npz")
    other = tmp_path / "train_npz" / "case0000_slice000.npz"
    other.write_bytes((tmp_path / "train_npz" / "case0001_slice000.npz").read_bytes())
    names = sorted(path.stem for path in (tmp_path / "train_npz").iterdir())
    (tmp_path / "train.txt").write_text("\n".join(names))
    source = sources.folder(replace(tiny, network=replace(tiny.network, num_classes=9)), tmp_path)
    assert len(source.training) == 1
    assert [scan.name for scan in source.held_out()] == names[1:]


def test_cases_with_nothing_to_segment_choose_no_weights(tmp_path: Path, tiny: SlicesConfig, decathlon: Path) -> None:
    data = Path(shutil.copytree(decathlon, tmp_path / "data"))
    label = data / "labelsTr" / "a_3.nii.gz"
    nibabel.save(nibabel.Nifti1Image(np.zeros((40, 36, 3), np.uint8), nibabel.load(label).affine), label)
    kept = replace(tiny, data=replace(tiny.data, cases_validated=1))
    with pytest.raises(UserError, match=r"cases_validated=1: .*a_3\.nii\.gz has nothing to segment"):
        sources.folder(kept, data)


def test_generated_slices_to_validate_on_are_neither_held_out_nor_learned(tiny: SlicesConfig) -> None:
    source = sources.generated(replace(tiny, data=replace(tiny.data, cases_validated=2, test_slices=2)))
    kept, held = ([scan.image for scan in scans] for scans in (source.kept_back(), source.held_out()))
    assert len(kept) == len(held) == 2
    assert not any(np.array_equal(one, other) for one in kept for other in held)


def test_validations_every_few_epochs() -> None:
    counted = Epochs(epochs=100, batch=15, validate_epochs=20).counted(2211)
    assert (counted.batches, counted.validate_every) == (147, 20 * 147)
    assert Epochs(epochs=3, batch=2, validate_every=7).counted(10).validate_every == 7


def test_patience_without_cases_to_validate_on_is_refused(tiny: SlicesConfig) -> None:
    with pytest.raises(UsageError, match="patience=2 needs data.cases_validated"):
        replace(tiny, optimisation=replace(tiny.optimisation, patience=2))
