"""The command line. Commands import what they need when they run, so that ``fovea --help`` is light."""

from __future__ import annotations

from typing import NoReturn


def main() -> NoReturn:
    """The ``fovea`` program: runs the command line and ends the process with its exit status."""
    import sys

    from fovea.cli.main import call

    sys.exit(call(sys.argv[1:]))
