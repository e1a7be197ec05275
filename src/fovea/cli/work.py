"""Running systems: ``run``, ``train``, ``evaluate``, ``predict``, ``claims`` and ``convert``."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fovea.cli import words
from fovea.cli.output import SETTINGS, say, show, show_json, show_measured, show_numbers
from fovea.errors import UsageError, UserError

if TYPE_CHECKING:
    from fovea.systems.system import System
    from fovea.tasks.run import RunDirectory
    from fovea.tasks.task import Task

RunOut = Annotated[Path | None, typer.Option("--out", "-o", help="Folder of the run; runs/SYSTEM if not given.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the interrupted run in that folder.")]
Preset = Annotated[
    str, typer.Option("--preset", "-p", help="Which configuration to start from; 'fovea show' lists them.")
]
Checkpoint = Annotated[
    Path | None,
    typer.Option("--checkpoint", "-c", help="A checkpoint folder; the weights that come with fovea if not given."),
]
Data = Annotated[Path, typer.Option("--data", "-d", help="Folder of your data.")]


def register(app: typer.Typer) -> None:
    for command in (run, train, evaluate, predict, claims, convert):
        app.command()(command)


def run(
    name: words.SystemName,
    settings: words.Settings = None,
    preset: Preset = "demo",
    out: RunOut = None,
    resume: Resume = False,
    json: words.Json = False,
) -> None:
    """A system's demonstration, end to end: data, training, evaluation, a report with pictures.

    \b
    Examples:
      fovea run hat
      fovea run hat optimisation.steps=200 --out runs/short
      fovea run hat --resume
    """
    system = words.system(name)
    task = _task(system)
    config = _configured(system, preset, settings)
    directory = _directory(system, out, resume)
    directory.announcement = f"{system.card.slug}: preset {preset}, into {directory.path}"
    with _resumable("run", system, settings, preset, directory):
        measured = task.run(config, directory, resume=resume, quiet=SETTINGS.quiet)
    _finished(measured, directory.path, json)


def train(
    name: words.SystemName,
    settings: words.Settings = None,
    preset: Preset = "demo",
    data: Annotated[
        Path | None, typer.Option("--data", "-d", help="Folder of your data; what comes with the system if not given.")
    ] = None,
    out: RunOut = None,
    devices: Annotated[int | None, typer.Option(min=1, help="How many devices to train on.")] = None,
    checkpoint: Annotated[Path | None, typer.Option("--checkpoint", "-c", help="Weights to start from.")] = None,
    resume: Resume = False,
    json: words.Json = False,
) -> None:
    """Train a system on your data.

    \b
    Example:
      fovea train hat --preset paper-hat-x2 --data DF2K --devices 8 --out runs/hat-x2 optimisation.lr=1e-4
    """
    system = words.system(name)
    task = _task(system)
    chosen = [*(settings or []), *([f"hardware.devices={devices}"] if devices is not None else [])]
    config = _configured(system, preset, chosen)
    if data is not None:
        words.existing(data, "--data")
    if checkpoint is not None:
        words.existing(checkpoint, "--checkpoint")
    directory = _directory(system, out, resume)
    directory.announcement = f"{system.card.slug}: preset {preset}, into {directory.path}"
    again = [
        *(["--data", str(data)] if data is not None else []),
        *(["--checkpoint", str(checkpoint)] if checkpoint is not None else []),
        *(["--devices", str(devices)] if devices is not None else []),
    ]
    with _resumable("train", system, [*(settings or []), *again], preset, directory):
        measured = task.train(config, directory, data, checkpoint=checkpoint, resume=resume, quiet=SETTINGS.quiet)
    _finished(measured, directory.path, json)


def evaluate(
    name: words.SystemName,
    data: Data,
    settings: words.Settings = None,
    checkpoint: Checkpoint = None,
    preset: Preset = "demo",
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder for a report and the numbers.")] = None,
    json: words.Json = False,
) -> None:
    """Measure a checkpoint on your data.

    \b
    Example:
      fovea evaluate hat --checkpoint runs/hat/checkpoint --data Set5
    """
    system = words.system(name)
    task = _task(system)
    config = _configured(system, preset, settings)
    words.existing(data, "--data")
    if checkpoint is not None:
        words.existing(checkpoint, "--checkpoint")
    directory = _directory(system, out, resume=False) if out is not None else None
    measured = task.evaluate(config, checkpoint, data, run=directory, quiet=SETTINGS.quiet)
    if json:
        show_json(measured)
    else:
        show_numbers(measured, f"{system.card.slug} on {data}")


def predict(
    name: words.SystemName,
    inputs: Annotated[
        list[str] | None,
        typer.Argument(metavar="INPUT", help="Files or folders; also options of the task, as KEY=VALUE."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "--out", "-o", help="A file for one input, a folder for several.")
    ] = None,
    checkpoint: Checkpoint = None,
    preset: Preset = "demo",
    json: words.Json = False,
) -> None:
    """Apply a system to files of yours.

    \b
    Examples:
      fovea predict hat photo.png -o large.png
      fovea predict hat *.png -o restored/ tile=256
    """
    system = words.system(name)
    task = _task(system)
    files, settings = words.split(inputs or [])
    if not files:
        raise UsageError(
            f"what shall {system.card.slug} be applied to? fovea predict {system.card.slug} INPUT... -o OUTPUT"
        )
    for file in files:
        words.existing(file, "input")
    if output is None:
        example = f"{files[0].stem}-{system.card.slug}{files[0].suffix}" if len(files) == 1 else "restored/"
        raise UsageError(f"say where to write: -o {example}")
    if len(files) > 1 and output.exists() and not output.is_dir():
        raise UsageError(f"-o {str(output)!r} is a file; {len(files)} inputs need a folder")
    if checkpoint is not None:
        words.existing(checkpoint, "--checkpoint")
    config = _configured(system, preset, None)
    options = _options(settings)
    if taken := sorted({"config", "checkpoint", "inputs", "output", "quiet"} & set(options)):
        raise UsageError(f"{system.card.slug} has no option {taken[0]!r}")
    try:
        written = task.predict(config, checkpoint, files, output, quiet=SETTINGS.quiet, **options)
    except TypeError as error:
        refused = re.search(r"unexpected keyword argument '(\w+)'", str(error))
        if refused is None or refused[1] not in options:
            raise
        raise UsageError(f"{system.card.slug} has no option {refused[1]!r}") from error
    if json:
        show_json([str(path) for path in written])
    else:
        for path in written:
            print(path)


def claims(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="SYSTEM", help="All that have claims if not given.")
    ] = None,
    only: Annotated[str | None, typer.Option(help="Only the claim of this name.")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder of the ledger; benchmarks/ledger if not given.")
    ] = None,
    json: words.Json = False,
) -> None:
    """Measure what the papers claim and write it into the ledger.

    \b
    Example:
      fovea claims hat
    """
    from fovea.errors import unknown
    from fovea.systems import ledger
    from fovea.systems.catalogue import catalogue

    systems = [words.system(name) for name in names or [slug for slug, found in catalogue().items() if found.claims]]
    chosen = [(system, claim) for system in systems for claim in system.claims if only in (None, claim.name)]
    if not chosen:
        if only is not None:
            raise unknown("claim", only, [claim.name for system in systems for claim in system.claims])
        raise UserError(f"no claim to measure{' of ' + ', '.join(names) if names else ''} yet")
    where = out or ledger.folder()
    entries = {}
    for system, claim in chosen:
        say(f"{system.card.slug}: {claim.name}")
        entry = ledger.measure(system.card.slug, claim, where, quiet=SETTINGS.quiet)
        entries.setdefault(system.card.slug, {})[claim.name] = entry
        if not json:
            show(f" {claim.name}: {claim.sentence}", heading=system.card.slug)
            show(f"  paper: {claim.paper_number or 'no number given'}")
            show_measured(entry["measured"])
    if json:
        show_json(entries)
    say(f"written to {where}")


def convert(
    name: Annotated[
        str,
        typer.Argument(
            metavar="SYSTEM",
            help="Whose official checkpoint it is: allmem, based, fna, hat, hat-real, hbformer, "
            "lola-specvit, swin-unetr.",
        ),
    ],
    official: Annotated[Path, typer.Argument(metavar="OFFICIAL", help="The file: .pth, .pt, .ckpt or .safetensors.")],
    output: Annotated[Path, typer.Option("--output", "--out", "-o", metavar="FOLDER", help="Folder to write.")],
    settings: Annotated[
        list[str] | None,
        typer.Argument(metavar="VARIANT|KEY=VALUE", help="Where the file does not tell: which network it is."),
    ] = None,
) -> None:
    """Turn an official checkpoint into one of ours.

    \b
    Examples:
      fovea convert hat HAT_SRx4.pth -o checkpoints/hat-x4
      fovea convert fna dinat_tiny.pth -o checkpoints/dinat-tiny DiNAT-Tiny
      fovea convert hbformer best_dice.pth -o checkpoints/hbformer-synapse
    """
    words.existing(official, "checkpoint")
    if output.exists() and not output.is_dir():
        raise UsageError(f"-o {str(output)!r} is a file; a checkpoint is a folder")
    from fovea import checkpoints

    variant = settings[0] if settings and len(settings) == 1 and "=" not in settings[0] else None
    config = variant or _options(settings or []) or None
    print(checkpoints.convert(name, official, output, config))


def _task(system: System) -> Task:
    from importlib import import_module

    if system.task is None:
        from fovea.systems.catalogue import catalogue

        ready = [slug for slug, found in catalogue().items() if found.task is not None]
        those = f"what runs: {', '.join(ready)}" if ready else "no system runs yet"
        raise UserError(f"{system.card.slug} is planned and cannot be run yet; {those}")
    return import_module(system.task).TASK


def _configured(system: System, preset: str, settings: Sequence[str] | None) -> Any:
    from fovea.tasks import configuration

    with words.usage():
        return configuration.override(words.preset(system, preset), settings or [])


def _directory(system: System, out: Path | None, resume: bool) -> RunDirectory:
    """The run's folder: the one named; else ``runs/SYSTEM``, numbered when a new run finds it taken."""
    from fovea.tasks.run import RunDirectory

    if out is None:
        taken = sorted(Path("runs").glob(f"{system.card.slug}*"), key=lambda path: path.stat().st_mtime)
        taken = [
            path
            for path in taken
            if path.name.removeprefix(system.card.slug).lstrip("-").isdigit() or path.name == system.card.slug
        ]
        if resume:
            if not taken:
                raise UsageError(
                    f"there is no run of {system.card.slug} in ./runs to resume; name its folder with --out"
                )
            out = taken[-1]
        else:
            numbers = [int(path.name.rpartition("-")[2]) if path.name != system.card.slug else 1 for path in taken]
            out = Path("runs", f"{system.card.slug}-{max(numbers) + 1}" if numbers else system.card.slug)
    return RunDirectory(out, quiet=SETTINGS.quiet)


@contextmanager
def _resumable(
    command: str, system: System, given: Sequence[str] | None, preset: str, directory: RunDirectory
) -> Iterator[None]:
    """An interrupt that leaves something to resume says with which words."""
    try:
        yield
    except KeyboardInterrupt as error:
        if not directory.last.is_file():
            raise
        words = ["fovea", command, system.card.slug, *(given or []), "--preset", preset, "--out", str(directory.path)]
        what = f"{error}: " if str(error) else "interrupted; go on with: "
        raise KeyboardInterrupt(what + shlex.join([*words, "--resume"])) from error


def _options(settings: Sequence[str]) -> dict[str, Any]:
    """``["tile=256"] -> {"tile": 256}``."""
    import yaml

    options = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals:
            raise UsageError(f"{setting!r} sets nothing; write key=value")
        try:
            options[key] = yaml.safe_load(text)
        except yaml.YAMLError:
            options[key] = text
    return options


def _finished(measured: dict[str, float], folder: Path, json: bool) -> None:
    if json:
        show_json(measured)
        return
    show_numbers(measured)
    report = folder / "report.html"
    if report.is_file():
        show(f"Report: {report}")
