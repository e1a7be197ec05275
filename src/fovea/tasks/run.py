"""The folder in which a run leaves everything needed to read it, repeat it and go on with it.

config.yaml     the full configuration        checkpoint/    the network as it would be published (averaged weights)
seed            the seed                      last.ckpt      everything that going on needs
versions.json   software, machine, commit     metrics.jsonl  one line a measurement: step and numbers
log.txt         what was said, with times     metrics.json   the final numbers
                                              report.html    the numbers and pictures for reading
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

from fovea import __version__
from fovea.errors import UsageError, UserError
from fovea.tasks import configuration

Config = TypeVar("Config")
PACKAGES = ("torch", "lightning", "numpy", "safetensors", "pillow", "scikit-image", "scipy")


class RunDirectory:
    """One run's folder. Making the object touches nothing; ``start`` makes the folder or takes up an earlier run, and
    says the ``announcement`` if there is one.

    >>> RunDirectory("runs/first").report
    PosixPath('runs/first/report.html')
    """

    def __init__(self, path: Path | str, *, quiet: bool = False) -> None:
        self.path = Path(path)
        self.quiet = quiet
        self.announcement: str | None = None

    @property
    def checkpoint(self) -> Path:
        return self.path / "checkpoint"

    @property
    def last(self) -> Path:
        return self.path / "last.ckpt"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    def start(self, config: Any, *, seed: int, resume: bool = False, changeable: Sequence[str] = ()) -> None:
        """Make the folder and write configuration, seed and versions; with ``resume`` go on in that of an earlier run.

        Raises ``UserError`` when the folder holds something already (and ``resume`` is not set), when it cannot be
        written, or when an earlier run's configuration differs in a key that begins with none of ``changeable``.
        """
        if not _is_first_process():
            return
        self.check(config, resume=resume, changeable=changeable)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self.write("config.yaml", lambda path: configuration.save(config, path))
            self.write("seed", lambda path: path.write_text(f"{seed}\n"))
            self.write("versions.json", lambda path: path.write_text(json.dumps(versions(), indent=2) + "\n"))
        except PermissionError as error:
            raise UserError(f"no permission to write in {self.path}") from error
        if self.announcement is not None:
            self.say(self.announcement)

    def check(self, config: Any, *, resume: bool = False, changeable: Sequence[str] = ()) -> None:
        """Raise what ``start`` would raise for the folder as it is, and touch nothing."""
        occupied = self.path.is_dir() and any(self.path.iterdir())
        if self.path.exists() and not self.path.is_dir():
            raise UsageError(f"{self.path} is a file; a run needs a folder")
        if resume and (self.path / "config.yaml").is_file():
            self._compare(config, changeable)
        elif occupied:
            hint = "it holds no earlier run to resume" if resume else "choose another folder, or go on with --resume"
            raise UsageError(f"{self.path} is not empty; {hint}")
        above = next(folder for folder in (self.path, *self.path.absolute().parents) if folder.exists())
        if not os.access(above, os.W_OK):
            raise UserError(f"no permission to write in {above}")

    def config(self, kind: type[Config]) -> Config:
        """The configuration that the run was started with."""
        return configuration.load(kind, self.path / "config.yaml")

    def say(self, message: str, *, quiet: bool = False) -> None:
        """Write one line to ``log.txt`` and, unless the line or the run is quiet, to the terminal's error stream."""
        if not _is_first_process():
            return
        with (self.path / "log.txt").open("a") as log:
            log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {message}\n")
        if not (quiet or self.quiet):
            print(message, file=sys.stderr, flush=True)

    def measure(self, *, step: int, **values: float) -> None:
        """Append one line to ``metrics.jsonl``."""
        if not (values and _is_first_process()):
            return
        with (self.path / "metrics.jsonl").open("a") as lines:
            lines.write(json.dumps({"step": step, **values}) + "\n")

    def measurements(self) -> list[dict[str, float]]:
        """All lines of ``metrics.jsonl``; a last line that a kill cut short is left out."""
        path = self.path / "metrics.jsonl"
        if not path.is_file():
            return []
        lines = path.read_text().split("\n")[:-1]
        return [json.loads(line) for line in lines if line]

    def forget_after(self, step: int) -> None:
        """Drop measurements later than ``step``: a resumed run makes them again."""
        kept = [line for line in self.measurements() if line["step"] <= step]
        text = "".join(json.dumps(line) + "\n" for line in kept)
        self.write("metrics.jsonl", lambda path: path.write_text(text))

    def finish(self, values: dict[str, float]) -> None:
        """Write the final numbers as ``metrics.json``."""
        self.write("metrics.json", lambda path: path.write_text(json.dumps(values, indent=2) + "\n"))

    def write(self, name: str, writer: Callable[[Path], Any]) -> None:
        """Write one file so that a crash or a full disk leaves the old one whole."""
        if not _is_first_process():
            return
        with replacing(self.path / name) as temporary:
            writer(temporary)

    def _compare(self, config: Any, changeable: Sequence[str]) -> None:
        before = dict(configuration.flat(self.config(type(config))))
        changed = [
            f"{key} {before[key]} -> {value}"
            for key, value in configuration.flat(config)
            if before.get(key) != value and not any(key.startswith(name) for name in changeable)
        ]
        if changed:
            raise UsageError(f"{self.path} was run with another configuration: {', '.join(changed)}")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary file beside ``path`` that takes its place when the block ends well and vanishes otherwise."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def versions() -> dict[str, Any]:
    """Software, machine and commit, for ``versions.json`` and reports."""
    installed: dict[str, Any] = {"python": platform.python_version(), "fovea": __version__}
    for package in PACKAGES:
        try:
            installed[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    if "torch" in sys.modules:
        import torch

        installed["threads"] = torch.get_num_threads()
        if torch.cuda.is_available():
            installed["device"] = torch.cuda.get_device_name()
    machine = {"system": platform.platform(), "processor": _processor(), "cores": os.cpu_count()}
    commit = _commit()
    return installed | machine | ({"commit": commit} if commit else {})


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    if information.is_file():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _commit() -> str | None:
    """The commit of the working tree that this package is imported from, marked when files differ from it."""
    root = Path(__file__).resolve().parents[3]
    if not (root / ".git").exists():
        return None
    try:
        command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def _is_first_process() -> bool:
    """False in the processes that Lightning or torchrun start beside the first one; those write nothing."""
    return all(os.environ.get(name, "0") == "0" for name in ("RANK", "LOCAL_RANK", "NODE_RANK"))


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
