"""Where fovea remembers what it measured of this machine."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def folder() -> Path:
    """The environment variable ``FOVEA_CACHE``, else the platform's folder for caches; it need not exist."""
    if chosen := os.environ.get("FOVEA_CACHE"):
        return Path(chosen)
    home = Path.home()
    if sys.platform == "darwin":
        return home / "Library" / "Caches" / "fovea"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", home / "AppData" / "Local")) / "fovea" / "Cache"
    return Path(os.environ.get("XDG_CACHE_HOME", home / ".cache")) / "fovea"
