from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from fovea.errors import UserError


def test_run_uses_the_demo_preset_and_a_folder_of_its_own(fovea: Callable, recorder):
    result = fovea("run", "fake", "steps=20", "hardware.devices=2")
    assert result.status == 0, result.err
    name, what = recorder.calls[0]
    assert name == "run"
    assert (what["config"].steps, what["config"].hardware.devices) == (20, 2)
    assert what["path"] == Path("runs/fake")
    assert "31.2500" in result.out
    assert "Report: runs/fake/report.html" in result.out


def test_a_second_run_takes_the_next_folder(fovea: Callable, recorder):
    for _ in range(3):
        assert fovea("run", "fake").status == 0
    assert [what["path"].name for _, what in recorder.calls] == ["fake", "fake-2", "fake-3"]


def test_resume_takes_up_the_latest_run(fovea: Callable, recorder):
    assert fovea("run", "fake").status == 0
    assert fovea("run", "fake").status == 0
    assert fovea("run", "fake", "--resume").status == 0
    assert recorder.calls[-1][1]["path"].name == "fake-2"
    assert recorder.calls[-1][1]["resume"] is True


def test_resume_of_nothing(fovea: Callable, recorder):
    result = fovea("run", "fake", "--resume")
    assert result.status == 2
    assert "there is no run of fake in ./runs to resume" in result.err


def test_a_folder_in_use_is_not_overwritten(fovea: Callable, recorder, tmp_path: Path):
    assert fovea("run", "fake", "--out", "here").status == 0
    result = fovea("run", "fake", "--out", "here")
    assert result.status == 2
    assert "not empty" in result.err
    (tmp_path / "file").write_text("")
    assert fovea("run", "fake", "--out", "file").status == 2


def test_quiet_prints_the_result_alone(fovea: Callable, recorder):
    for words in (["--quiet", "run", "fake", "--json"], ["run", "fake", "--json", "-q"]):
        result = fovea(*words)
        assert result.err == ""
        assert json.loads(result.out) == {"psnr": 31.25, "steps": 10}
        assert recorder.calls[-1][1]["quiet"] is True


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "fake", "stesp=3"], "unknown key 'stesp'; did you mean steps?"),
        (["run", "fake", "steps=many"], "steps=many does not fit; steps takes a whole number"),
        (["run", "fake", "steps"], "'steps' sets nothing; write key=value"),
        (["run", "fake", "--preset", "papr"], "unknown preset of fake 'papr'; did you mean paper?"),
        (["train", "fake", "--data", "nowhere"], "--data 'nowhere' does not exist"),
        (["train", "fake", "--checkpoint", "nowhere"], "--checkpoint 'nowhere' does not exist"),
        (["evaluate", "fake"], "missing option '--data'"),
        (["evaluate", "fake", "--data", "nowhere"], "--data 'nowhere' does not exist"),
        (["predict", "fake"], "fovea predict fake INPUT... -o OUTPUT"),
        (["predict", "fake", "nowhere.png", "-o", "x.png"], "input 'nowhere.png' does not exist"),
        (["predict", "fake", "photo.png"], "say where to write: -o photo-fake.png"),
        (["predict", "fake", "photo.png", "other.png", "-o", "photo.png"], "is a file; 2 inputs need a folder"),
        (["predict", "fake", "photo.png", "-o", "x.png", "tiel=3"], "fake has no option 'tiel'"),
        (["claims", "fake", "--only", "bettr"], "unknown claim 'bettr'; did you mean better?"),
    ],
)
def test_wrong_words(fovea: Callable, recorder, tmp_path: Path, words: list[str], message: str):
    for name in ("photo.png", "other.png"):
        (tmp_path / name).write_text("")
    result = fovea(*words)
    assert result.status == 2, result.err
    assert message.lower() in result.err.lower()
    assert result.err.count("\n") == 1


def test_train(fovea: Callable, recorder, tmp_path: Path):
    (tmp_path / "data").mkdir()
    (tmp_path / "start").mkdir()
    words = [
        "--preset",
        "paper",
        "--data",
        "data",
        "--devices",
        "8",
        "--checkpoint",
        "start",
        "--out",
        "out",
        "rate=0.1",
    ]
    result = fovea("train", "fake", *words)
    assert result.status == 0, result.err
    name, what = recorder.calls[0]
    assert name == "train"
    assert (what["config"].steps, what["config"].rate, what["config"].hardware.devices) == (1000, 0.1, 8)
    assert (what["path"], what["data"], what["checkpoint"]) == (Path("out"), Path("data"), Path("start"))
    assert "0.1250" in result.out


def test_evaluate(fovea: Callable, recorder, tmp_path: Path):
    (tmp_path / "data").mkdir()
    result = fovea("evaluate", "fake", "--data", "data", "--json")
    assert json.loads(result.out) == {"psnr": 30.0}
    assert recorder.calls[0][1]["run"] is None
    assert fovea("evaluate", "fake", "--data", "data", "--out", "report").status == 0
    assert recorder.calls[1][1]["run"].path == Path("report")


def test_predict_tells_files_from_settings(fovea: Callable, recorder, tmp_path: Path):
    for name in ("photo.png", "a=b.png"):
        (tmp_path / name).write_text("")
    result = fovea("predict", "fake", "photo.png", "tile=256", "a=b.png", "-o", "restored")
    assert result.status == 0, result.err
    what = recorder.calls[0][1]
    assert what["inputs"] == [Path("photo.png"), Path("a=b.png")]
    assert what["tile"] == 256
    assert result.out == "restored\n"


def test_claims_write_the_ledger(fovea: Callable, recorder, tmp_path: Path):
    result = fovea("claims", "fake", "--out", "ledger")
    assert result.status == 0
    assert "    ours 2.5000\n" in result.out
    assert json.loads((tmp_path / "ledger" / "fake.json").read_text())["claims"]["better"]["measured"] == {"ours": 2.5}


def test_claims_of_a_system_without_any(fovea: Callable):
    result = fovea("claims", "sahp")
    assert result.status == 1
    assert "no claim to measure of sahp yet" in result.err


def test_an_error_of_the_task_is_one_line(fovea: Callable, recorder):
    recorder.raises = UserError("the loss is no number at step 3")
    result = fovea("run", "fake", "-q")
    assert (result.status, result.err) == (1, "fovea: the loss is no number at step 3\n")


def test_an_interrupted_run_says_how_to_go_on(fovea: Callable, recorder, tmp_path: Path):
    recorder.raises = KeyboardInterrupt("stopped at step 7")
    assert fovea("run", "fake", "-q").err == "fovea: stopped at step 7\n"  # it left nothing to go on from
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "last.ckpt").write_text("")
    (tmp_path / "here" / "config.yaml").write_text("steps: 20\n")
    words = ["run", "fake", "steps=20", "--preset", "paper", "--out", "here", "--resume"]
    result = fovea(*words, "-q")
    assert result.status == 130
    assert result.err == f"fovea: stopped at step 7: fovea {' '.join(words)}\n"


def test_an_interrupted_training_says_how_to_go_on(fovea: Callable, recorder, tmp_path: Path):
    recorder.raises = KeyboardInterrupt()
    for name in ("data", "start", "out"):
        (tmp_path / name).mkdir()
    (tmp_path / "out" / "last.ckpt").write_text("")
    given = ["--data", "data", "--checkpoint", "start", "--devices", "2"]
    result = fovea("train", "fake", *given, "--out", "out", "-q")
    assert (
        result.err
        == f"fovea: interrupted; go on with: fovea train fake {' '.join(given)} --preset demo --out out --resume\n"
    )


@pytest.fixture
def official(tmp_path: Path) -> Path:
    """An official checkpoint of a tiny HAT."""
    import torch

    from fovea.checkpoints import to_official
    from fovea.models.hat import HAT
    from fovea.models.hat_config import HATConfig

    config = HATConfig(upscale=2, embed_dim=8, depths=(2,), num_heads=(2,), window_size=4, squeeze_factor=4)
    path = tmp_path / "official.pth"
    torch.save({"params_ema": to_official("hat", HAT(config), config)}, path)
    return path


def test_convert(fovea: Callable, official: Path, tmp_path: Path):
    from fovea import checkpoints

    result = fovea("convert", "hat", official, "-o", tmp_path / "ours")
    assert (result.status, result.out) == (0, f"{tmp_path / 'ours'}\n")
    assert checkpoints.load(tmp_path / "ours").config.embed_dim == 8


def test_convert_of_another_variant_shows_what_differs(fovea: Callable, official: Path, tmp_path: Path):
    result = fovea("convert", "hat", official, "-o", tmp_path / "ours", "embed_dim=12")
    assert result.status == 1
    assert "(12, 3, 3, 3)" in result.err
    assert not (tmp_path / "ours").exists()


def test_convert_needs_to_know_a_variant(fovea: Callable, official: Path, tmp_path: Path):
    result = fovea("convert", "fna", official, "-o", tmp_path / "ours")
    assert "DiNAT-Tiny" in result.err
    result = fovea("convert", "fna", official, "-o", tmp_path / "ours", "DiNAT-Tony")
    assert "DiNAT-Tiny" in result.err
    assert result.err.count("\n") == 1


@pytest.mark.parametrize("content", [b"", b"junk\n", b"PK\x03\x04", b"\x80\x02}."])
def test_convert_of_no_checkpoint(fovea: Callable, tmp_path: Path, content: bytes):
    path = tmp_path / "junk.pth"
    path.write_bytes(content)
    result = fovea("convert", "hat", path, "-o", tmp_path / "ours")
    assert result.status == 1
    assert result.err.count("\n") == 1
    assert "a bug of fovea" not in result.err
