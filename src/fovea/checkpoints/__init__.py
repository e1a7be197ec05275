"""Checkpoints: official ones read, converted and written; our own folders, which survive a full disk."""

from fovea.checkpoints.folder import Checkpoint, load, save
from fovea.checkpoints.layout import CheckpointMismatch, Layout, Rule
from fovea.checkpoints.official import convert, layout_of, load_official, to_official

__all__ = [
    "Checkpoint",
    "CheckpointMismatch",
    "Layout",
    "Rule",
    "convert",
    "layout_of",
    "load",
    "load_official",
    "save",
    "to_official",
]
