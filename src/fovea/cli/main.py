"""The program: its commands, its global options, and how it ends.

Exit status: 0 done; 1 could not be done; 2 asked for wrongly; 130 interrupted; 141 the reader of a pipe has gone.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated

import typer

from fovea import __version__
from fovea.cli import browse, convert_llm, geometry, machine, speed, work
from fovea.cli.output import SETTINGS, console
from fovea.errors import MissingExtra, UserError

EXTRAS = {
    "matplotlib": "draw",
    "lightning": "train",
    "PIL": "restoration",
    "scipy": "restoration",
    "skimage": "restoration",
    "sklearn": "spectral",
    "tifffile": "spectral",
    "transformers": "language",
    "tokenizers": "language",
}
"""Which extra of fovea brings an optional module."""

app = typer.Typer(
    name="fovea",
    help="Attention that looks only where it must: patterns, an operator that computes them, and systems built on it.",
    epilog="Start with: fovea list · fovea show hat · fovea run hat · fovea draw causal --grid 16",
    no_args_is_help=True,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)
for room in (browse, work, convert_llm, geometry, speed, machine):
    room.register(app)


def _version(asked: bool) -> None:
    if asked:
        print(f"fovea {__version__}")
        raise typer.Exit


@app.callback()
def options(
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print results only.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    SETTINGS.quiet, SETTINGS.debug = quiet, debug


def call(arguments: Sequence[str]) -> int:
    """Run the command line with these arguments; returns the exit status, and prints errors as one line."""
    SETTINGS.quiet = SETTINGS.debug = False
    console.cache_clear()
    words = _globals_first(list(arguments))
    debug = "--debug" in words[:2]
    try:
        _invoke(words)
        sys.stdout.flush()
        return 0
    except typer.Exit as end:
        return end.exit_code
    except (KeyboardInterrupt, typer.Abort) as error:
        return _fail(_line(error) or "interrupted", 130, debug)
    except BrokenPipeError:
        # Python flushes standard output once more at its end; let that go nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except UserError as error:
        return _fail(str(error), error.exit_status, debug)
    except ModuleNotFoundError as error:
        module = (error.name or "").partition(".")[0]
        if module not in EXTRAS:
            return _fail(f"{error} (fovea --debug shows where)", 1, debug)
        return _fail(str(MissingExtra("this", module, EXTRAS[module])), 1, debug)
    except OSError as error:
        return _fail(_os_error(error), 1, debug)
    except ValueError as error:
        return _fail(f"{error}{'' if _is_ours(error) else ' (fovea --debug shows where)'}", 1, debug)
    except Exception as error:
        if hasattr(error, "format_message"):  # what typer and click raise for a mistake of usage
            message, status = _usage(error), getattr(error, "exit_code", 2)
            return _fail(message, status, debug) if message else status
        if isinstance(error, MemoryError) or "allocate" in str(error):
            return _fail(f"out of memory: {_line(error)}", 1, debug)
        return _fail(f"{type(error).__name__}: {_line(error)} (a bug of fovea? --debug shows where)", 1, debug)


def _invoke(words: list[str]) -> None:
    command = typer.main.get_command(app)
    if "_FOVEA_COMPLETE" in os.environ:
        command.main(words, prog_name="fovea")
    # Not command.main: it would end the process at an interrupt or a closed pipe without letting us say a word.
    with command.make_context("fovea", words) as context:
        command.invoke(context)


def _globals_first(words: list[str]) -> list[str]:
    """Global options may stand anywhere before ``--``; typer wants them in front."""
    end = words.index("--") if "--" in words else len(words)
    front = [word for word in words[:end] if word in ("--quiet", "-q", "--debug")]
    return front[::-1] + [word for word in words[:end] if word not in front] + words[end:]


def _fail(message: str, status: int, debug: bool) -> int:
    if debug and status != 130:
        traceback.print_exc()
    print(f"fovea: {message}", file=sys.stderr)
    return status


def _is_ours(error: Exception) -> bool:
    """Whether the error was raised in fovea's own words; a library's may need a traceback."""
    frames = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
    return not frames or frames[-1].startswith(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def _usage(error: Exception) -> str:
    """What was wrong with the words, and where to read on; empty where help has been printed already."""
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "fovea"
    message = _line(error.format_message()).rstrip(".")  # type: ignore[attr-defined]
    return f"{message[0].lower()}{message[1:]} (see: {command} --help)" if message else ""


def _os_error(error: OSError) -> str:
    if error.strerror is None:
        return _line(error)
    return f"{error.strerror}: {error.filename}" if error.filename is not None else error.strerror


def _line(text: object) -> str:
    return " ".join(str(text).split())
