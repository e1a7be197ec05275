from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from fovea.errors import UsageError, UserError
from fovea.tasks.fit import NotFiniteError, _derived, fit
from fovea.tasks.optimisation import Hardware, Optimisation
from fovea.tasks.run import RunDirectory
from tasks.lesson import Lesson, Settings, optimisation

CPU = Hardware(accelerator="cpu")


def start(path: Path, *, resume: bool = False) -> RunDirectory:
    run = RunDirectory(path, quiet=True)
    run.start(Settings(), seed=1, resume=resume)
    return run


def lesson(path: Path, steps: int, *words: str) -> subprocess.Popen[str]:
    script = Path(__file__).parent / "lesson.py"
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "error"}
    return subprocess.Popen(
        [sys.executable, str(script), str(path), str(steps), *words], text=True, stderr=subprocess.PIPE, env=environment
    )


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 240
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def end(process: subprocess.Popen[str]) -> tuple[int, str]:
    errors = process.communicate(timeout=120)[1]
    return process.returncode, errors


def assert_same(one: dict, other: dict) -> None:
    assert one.keys() == other.keys()
    for key, value in one.items():
        if isinstance(value, dict):
            assert_same(value, other[key])
        elif isinstance(value, torch.Tensor):
            assert torch.equal(value, other[key]), key
        else:
            assert value == other[key], key


def test_a_killed_and_resumed_run_ends_bit_identical_to_an_unbroken_one(tmp_path: Path) -> None:
    unbroken, broken = lesson(tmp_path / "unbroken", 40), lesson(tmp_path / "broken", 40, "slow")
    wait_for(tmp_path / "broken" / "last.ckpt", broken)
    os.kill(broken.pid, signal.SIGKILL)
    assert end(broken)[0] == -signal.SIGKILL
    assert end(unbroken) == (0, "")
    killed = torch.load(tmp_path / "broken" / "last.ckpt", weights_only=True)["step"]
    assert 5 <= killed < 40
    assert end(lesson(tmp_path / "broken", 40, "resume")) == (0, "")

    contents = [torch.load(tmp_path / name / "last.ckpt", weights_only=True) for name in ("unbroken", "broken")]
    assert contents[0]["step"] == 40
    assert_same(*contents)
    assert_same(*(load_file(tmp_path / name / "checkpoint" / "model.safetensors") for name in ("unbroken", "broken")))
    lines = [RunDirectory(tmp_path / name).measurements() for name in ("unbroken", "broken")]
    timeless = [[{key: line[key] for key in line if key != "seconds"} for line in run] for run in lines]
    assert timeless[0] == timeless[1]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_a_checkpoint_and_status_130(tmp_path: Path, number: signal.Signals) -> None:
    process = lesson(tmp_path / "run", 4000, "slow")
    wait_for(tmp_path / "run" / "metrics.jsonl", process)
    process.send_signal(number)
    status, errors = end(process)
    assert status == 130
    assert number.name in errors
    assert "goes on from there" in errors
    assert len(errors.splitlines()) == 1
    step = torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)["step"]
    assert 0 < step < 4000
    assert f"step {step} of 4000" in errors
    assert (tmp_path / "run" / "checkpoint" / "model.safetensors").is_file()


def test_training_learns_and_measures(tmp_path: Path) -> None:
    run = start(tmp_path / "run")
    network = fit(Lesson(), optimisation(60), run, seed=1, hardware=CPU, quiet=True)
    assert not network.training
    errors = [line["error"] for line in run.measurements() if "error" in line]
    assert len(errors) == 60 // 7 + 1
    assert errors[-1] < 0.5 * errors[0]
    assert [line["step"] for line in run.measurements() if "loss" in line] == list(range(1, 61))


def test_the_average_is_the_moving_average_of_the_weights(tmp_path: Path) -> None:
    path: list[nn.Module] = []

    class Watched(Lesson):
        def validate(self, network: nn.Module) -> dict[str, float]:
            path.append({key: value.clone() for key, value in self.players["network"].state_dict().items()})
            return {}

    watched = Watched()
    mean = {key: value.clone() for key, value in watched.players["network"].state_dict().items()}
    averaged = fit(watched, optimisation(6, validate_every=1), start(tmp_path / "r"), seed=1, hardware=CPU, quiet=True)
    for step, weights in enumerate(path, 1):
        decay = min(0.9, (1 + step) / (10 + step))
        for key, value in mean.items():
            mean[key] = decay * value + (1 - decay) * weights[key] if value.is_floating_point() else weights[key]
    for key, value in averaged.state_dict().items():
        torch.testing.assert_close(value, mean[key])


def test_a_loss_that_is_no_number_stops_and_keeps_the_good_checkpoint(tmp_path: Path) -> None:
    run = start(tmp_path / "run")
    with pytest.raises(NotFiniteError, match="loss is nan at step 8.*earlier, good state"):
        fit(Lesson(poison=8), optimisation(20), run, seed=1, hardware=CPU, quiet=True)
    content = torch.load(run.last, weights_only=True)
    assert content["step"] == 5
    assert all(torch.isfinite(value).all() for value in content["players"]["network"].values())


def test_a_weight_that_is_no_number_is_not_saved(tmp_path: Path) -> None:
    class Poisoned(Lesson):
        def validate(self, network: nn.Module) -> dict[str, float]:
            with torch.no_grad():
                next(self.players["network"].parameters()).fill_(float("inf"))
            return {}

    with pytest.raises(NotFiniteError, match=r"weight 0\.weight of network is not finite after step 2; no checkpoint"):
        fit(
            Poisoned(),
            optimisation(5, validate_every=2, checkpoint_every=2),
            start(tmp_path / "run"),
            seed=1,
            hardware=CPU,
            quiet=True,
        )


def test_a_full_disk_keeps_the_old_checkpoint(tmp_path: Path) -> None:
    """The limit on the size of files makes the operating system itself refuse the write."""
    run = start(tmp_path / "run")
    fit(Lesson(), optimisation(5), run, seed=1, hardware=CPU, quiet=True)
    before = run.last.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, limits[1]))
    try:
        with pytest.raises(OSError, match="checkpoint of step 10 could not be written.*earlier step is kept"):
            fit(Lesson(), optimisation(10), run, seed=1, hardware=CPU, quiet=True, resume=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert run.last.read_bytes() == before
    assert not [path for path in run.path.iterdir() if path.name.startswith(".")]


def test_a_checkpoint_of_other_networks_or_a_broken_one_is_refused(tmp_path: Path) -> None:
    run = start(tmp_path / "run")
    fit(Lesson(), optimisation(5), run, seed=1, hardware=CPU, quiet=True)
    with pytest.raises(UserError, match="cannot be taken up"):
        fit(Lesson(duel=True), optimisation(9), run, seed=1, hardware=CPU, quiet=True, resume=True)
    run.last.write_bytes(run.last.read_bytes()[:500])
    with pytest.raises(UserError, match="cannot be taken up"):
        fit(Lesson(), optimisation(9), run, seed=1, hardware=CPU, quiet=True, resume=True)


def test_clipping_bounds_the_step_and_reports_the_norm(tmp_path: Path) -> None:
    run = start(tmp_path / "run")
    fit(Lesson(), optimisation(3, gradient_clip=1e-12), run, seed=1, hardware=CPU, quiet=True)
    assert all(line["gradient_norm"] > 1e-3 for line in run.measurements() if "loss" in line)


def test_processes_that_prepare_examples_change_nothing(tmp_path: Path) -> None:
    networks = [
        fit(
            Lesson(),
            optimisation(6),
            start(tmp_path / str(workers)),
            seed=1,
            hardware=Hardware(accelerator="cpu", workers=workers),
            quiet=True,
        )
        for workers in (0, 1)
    ]
    assert_same(*(network.state_dict() for network in networks))


def test_wrong_hardware_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="hardware: "):
        fit(
            Lesson(),
            optimisation(1),
            start(tmp_path / "a"),
            seed=1,
            hardware=Hardware(accelerator="abacus"),
            quiet=True,
        )


def test_the_rate_is_a_function_of_the_step() -> None:
    stairs = Optimisation(lr=1.0, steps=100, warmup=10, milestones=(50, 80))
    assert [stairs.rate(step) for step in (1, 5, 10, 50, 51, 80, 81)] == [0.1, 0.5, 1.0, 1.0, 0.5, 0.5, 0.25]
    wave = Optimisation(lr=2.0, steps=100, schedule="cosine", floor=0.1)
    assert wave.rate(50) == pytest.approx(1.1)
    assert wave.rate(100) == pytest.approx(0.2)
    with pytest.raises(UsageError, match=r"optimisation\.ema=1"):
        Optimisation(ema=1.0)


def test_derived_seeds_do_not_collide() -> None:
    seeds = {_derived(seed, step, rank) for seed in range(20) for step in range(200) for rank in range(3)}
    assert len(seeds) == 20 * 200 * 3
    assert all(0 <= seed < 2**63 for seed in seeds)
