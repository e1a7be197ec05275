"""The command line. Commands import what they need when they run, so that ``fovea --help`` is light."""

from __future__ import annotations

from typing import NoReturn


def main() -> NoReturn:
    """The ``fovea`` program: runs the command line and ends the process with its exit status."""
    import os
    import sys

    # Read by OpenMP when torch loads. Threads that spin while they wait make a busy machine several times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

    from fovea.cli.main import call

    sys.exit(call(sys.argv[1:]))
