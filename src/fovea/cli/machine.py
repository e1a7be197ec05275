"""``fovea doctor`` and ``fovea cache``: what runs on this machine, and what is remembered of it."""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from typing import Any

import typer

from fovea.cli import words
from fovea.cli.output import show, show_json, show_table

OPTIONAL = {
    "matplotlib": "draw",
    "lightning": "train",
    "PIL": "restoration",
    "scipy": "restoration",
    "skimage": "restoration",
}


def register(app: typer.Typer) -> None:
    app.command()(doctor)
    cache = typer.Typer(no_args_is_help=True, help="What fovea remembers of this machine.")
    cache.command("show")(show_cache)
    cache.command("forget")(forget_cache)
    app.add_typer(cache, name="cache")


def doctor(json: words.Json = False) -> None:
    """What runs on this machine, and why something does not: versions, devices, backends, compiler, cache."""
    found = examine()
    if json:
        show_json(found)
        return
    for title in ("versions", "machine"):
        show_table((title, ""), [(name, str(value)) for name, value in found[title].items()])
    show_table(("backend", "runs here", "why not"), [_row(entry) for entry in found["backends"]])
    rows = [(name, "yes" if entry["installed"] else "no", entry["remedy"]) for name, entry in found["optional"].items()]
    show_table(("optional package", "installed", "remedy"), rows)
    show_table(("cache", ""), [(name, str(value)) for name, value in found["cache"].items()])


def examine() -> dict[str, Any]:
    """All that ``fovea doctor`` tells."""
    import torch

    from fovea.kernels import registry
    from fovea.tasks.run import versions

    known = versions()
    machine = {name: known.pop(name) for name in ("system", "processor", "cores", "threads") if name in known}
    machine["devices"] = _devices()
    machine["compiler"] = next(
        (path for name in ("c++", "g++", "clang++") if (path := shutil.which(name))), "none found"
    )
    machine["matrix library"] = "MKL" if torch.backends.mkl.is_available() else "not MKL"
    return {
        "versions": known,
        "machine": machine,
        "backends": [{"name": name, "missing": backend.missing()} for name, backend in registry.backends().items()],
        "optional": {
            module: {
                "installed": find_spec(module) is not None,
                "remedy": "" if find_spec(module) is not None else f"pip install 'fovea[{extra}]'",
            }
            for module, extra in OPTIONAL.items()
        },
        "cache": _cache(),
    }


def _row(entry: dict[str, Any]) -> tuple[str, str, str]:
    return entry["name"], "yes" if entry["missing"] is None else "no", entry["missing"] or ""


def _devices() -> str:
    import torch

    names = ["cpu"]
    if torch.cuda.is_available():
        names += [f"cuda:{index} {torch.cuda.get_device_name(index)}" for index in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        names.append("mps")
    return ", ".join(names)


def show_cache(json: words.Json = False) -> None:
    """Where the cache is and what it holds."""
    found = _cache()
    if json:
        show_json(found)
    else:
        show_table(("cache", ""), [(name, str(value)) for name, value in found.items()])


def forget_cache() -> None:
    """Forget what was measured of this machine; it is measured anew when next needed."""
    from fovea.kernels import planner

    files = planner.forget()
    show(f"forgotten: {files} measurements" if files else "nothing was remembered")


def _cache() -> dict[str, Any]:
    from fovea.kernels import calibration

    measured = sorted(file.stem.removeprefix("prices-") for file in calibration.folder().glob("prices-*.json"))
    return {"folder": str(calibration.folder()), "measured": ", ".join(measured) or "nothing yet"}
