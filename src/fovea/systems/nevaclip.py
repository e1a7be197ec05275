"""Scanpaths from a moving sharp spot (arXiv 2305.12380)."""

from __future__ import annotations

from fovea.systems.system import Card, System

SYSTEM = System(
    card=Card(
        slug="nevaclip",
        title="Contrastive Language-Image Pretrained Models are Zero-Shot Human Scanpath Predictors",
        about="Scanpaths from a moving sharp spot",
        year=2023,
        authors=7,
        paper="arXiv:2305.12380",
        code="dario-zanca/NevaClip",
        licence=None,
        area="human attention",
        idea="Guesses where people look, with nothing trained: a sharp spot moves over a blurred picture until "
        "what a frozen image-text model sees fits the caption best.",
        carried_by=("human",),
    ),
)
