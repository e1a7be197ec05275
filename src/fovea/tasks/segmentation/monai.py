"""MONAI, imported where it is used, without its warnings about itself."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from fovea.errors import MissingExtra


def monai(name: str) -> Any:
    """A module of MONAI, say ``monai("losses")``."""
    with quietly():
        try:
            return import_module(f"monai.{name}")
        except ImportError as error:
            raise MissingExtra("segmentation of volumes", "monai", "segmentation") from error


@contextmanager
def quietly() -> Iterator[None]:
    """Leaves out what MONAI warns of: its own deprecations, and empty masks, which we count ourselves."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
