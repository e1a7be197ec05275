"""How the program starts and ends."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import fovea as package
from fovea.cli import main
from fovea.errors import UserError

HEAVY = "{'torch', 'lightning', 'matplotlib', 'scipy', 'numpy'}"


@pytest.mark.parametrize("words", [["--help"], ["list"], ["show", "--help"], ["run", "--help"], ["--version"]])
def test_light_commands_import_nothing_heavy(words: list[str]):
    code = (
        f"import sys; from fovea.cli.main import call; call({words!r}); print('heavy:', *({HEAVY} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip().endswith("heavy:")


def test_importing_the_package_imports_nothing_heavy():
    code = f"import sys, fovea, fovea.cli; print('heavy:', *({HEAVY} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "heavy:"


def test_version(process: Callable):
    result = process("--version")
    assert result.returncode == 0
    assert result.stdout == f"fovea {package.__version__}\n"


@pytest.mark.parametrize("words", [[], ["cache"]])
def test_without_words_there_is_help(fovea: Callable, words: list[str]):
    result = fovea(*words)
    assert "Usage: fovea" in result.out
    assert result.err == ""


def test_every_command_has_help_with_an_example(fovea: Callable):
    names = re.findall(r"^│ ([a-z]+) ", fovea("--help").out.partition("Commands")[2], flags=re.MULTILINE)
    assert {"list", "show", "run", "train", "evaluate", "predict", "claims", "convert"} <= set(names)
    assert {"plan", "draw", "simulate", "bench", "doctor", "cache"} <= set(names)
    for name in names:
        result = fovea(name, "--help")
        assert result.status == 0
        assert name in ("doctor", "cache") or re.search(rf"fovea {name}\b", result.out.partition("Example")[2]), name


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["lis"], "did you mean 'list'"),
        (["draw"], "missing argument 'PATTERN' (see: fovea draw --help)"),
        (["draw", "causal"], "missing option '--grid' (see: fovea draw --help)"),
        (["list", "--nonsense"], "no such option"),
        (["show", "hta"], "unknown system 'hta'; did you mean hat?"),
        (["list", "--area", "langage"], "unknown area 'langage'; did you mean language?"),
        (["draw", "neighbourhood:window=7", "--grid", "32"], "did you mean 'neighborhood'"),
        (["draw", "neighborhood:windw=7", "--grid", "32"], "did you mean 'window'"),
        (["draw", "neighborhood:window=7", "--grid", "5"], "must fit in the 5 keys"),
        (["draw", "neighborhood:window=7x7", "--grid", "32"], "made for 2 axes"),
        (["draw", "causal", "--grid", "3x"], "--grid '3x' is no grid"),
        (["draw", "causal", "--grid", "0"], "at least one token"),
        (["convert", "hat", "missing.pth", "-o", "x"], "checkpoint 'missing.pth' does not exist"),
    ],
)
def test_wrong_words_are_answered_with_one_line(fovea: Callable, words: list[str], message: str):
    result = fovea(*words)
    assert result.status == 2
    assert message.lower() in result.err.lower()
    assert result.err.startswith("fovea: ")
    assert result.err.count("\n") == 1
    assert result.out == ""


def test_what_is_planned_does_not_pretend(fovea: Callable):
    result = fovea("run", "sahp")
    assert result.status == 1
    assert "sahp is planned and cannot be run yet" in result.err


def test_debug_shows_the_traceback_wherever_it_stands(fovea: Callable):
    for words in (["--debug", "show", "hta"], ["show", "hta", "--debug"]):
        result = fovea(*words)
        assert result.status == 2
        assert "Traceback" in result.err
        assert result.err.rstrip().splitlines()[-1].startswith("fovea: unknown system")


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (UserError("no weights"), 1, "fovea: no weights"),
        (ValueError("bad"), 1, "fovea: bad (fovea --debug shows where)"),
        (
            FileNotFoundError(2, "No such file or directory", "photo.png"),
            1,
            "fovea: No such file or directory: photo.png",
        ),
        (OSError(28, "No space left on device"), 1, "fovea: No space left on device"),
        (PermissionError(13, "Permission denied", "/x"), 1, "fovea: Permission denied: /x"),
        (KeyboardInterrupt(), 130, "fovea: interrupted"),
        (KeyboardInterrupt("stopped; go on with --resume"), 130, "fovea: stopped; go on with --resume"),
        (
            ModuleNotFoundError("No module named 'skimage.io'", name="skimage.io"),
            1,
            "fovea: this needs skimage, which is not installed: pip install 'fovea[restoration]'",
        ),
        (MemoryError("7 GiB"), 1, "fovea: out of memory: 7 GiB"),
        (RuntimeError("can't allocate memory: 9 bytes"), 1, "fovea: out of memory: can't allocate memory: 9 bytes"),
        (RuntimeError("several\nlines"), 1, "fovea: RuntimeError: several lines (a bug of fovea? --debug shows where)"),
    ],
)
def test_errors_of_commands_end_in_one_line(fovea: Callable, monkeypatch, error: BaseException, status: int, line: str):
    def fail(slug: str) -> None:
        raise error

    monkeypatch.setattr("fovea.systems.catalogue.get", fail)
    result = fovea("show", "hat")
    assert result.status == status
    assert result.err.rstrip("\n") == line


def test_a_value_error_in_our_words_stands_alone(fovea: Callable, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("fovea.systems.catalogue.get", lambda slug: package.parse("nonsense"))
    result = fovea("show", "hat")
    assert result.status == 1
    assert result.err.startswith("fovea: 'nonsense' is no pattern")
    assert "--debug" not in result.err


def test_every_optional_module_has_its_extra():
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    for extra in set(main.EXTRAS.values()):
        assert re.search(rf"^{extra} = \[", text, flags=re.MULTILINE)


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_reader_that_leaves_is_no_error():
    command = f"{sys.executable} -m fovea list --json | head -n 1; echo ${{PIPESTATUS[0]}}"
    big = f"{sys.executable} -m fovea draw causal --grid 64 | true; echo ${{PIPESTATUS[0]}}"
    for line in (command, big):
        result = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=240)
        assert result.stderr == ""
        assert result.stdout.splitlines()[-1] in ("0", "141")


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_ctrl_c_ends_with_130():
    code = (
        "import fovea.systems.catalogue as c, time, sys\n"
        "def slow(slug):\n    print('begun', flush=True)\n    time.sleep(60)\n"
        "c.get = slow\n"
        "from fovea.cli.main import call\n"
        "sys.exit(call(['show', 'hat']))"
    )
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "begun\n"
    time.sleep(0.1)
    os.kill(child.pid, signal.SIGINT)
    _, err = child.communicate(timeout=240)
    assert child.returncode == 130
    assert err.strip() == "fovea: interrupted"
