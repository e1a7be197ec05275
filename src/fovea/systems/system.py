"""What a system is to its user: a card, presets, claims and the patterns that it looks with."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, is_dataclass
from typing import Any, Literal, get_args

Status = Literal["ready", "planned"]
Area = Literal[
    "kernels",
    "recognition",
    "detection",
    "self-supervision",
    "restoration",
    "segmentation",
    "hyperspectral",
    "language",
    "interpretability",
    "recommendation",
    "events",
    "generation",
    "human attention",
    "agents",
]
AREAS: tuple[str, ...] = get_args(Area)


@dataclass(frozen=True)
class Card:
    """The facts of one published system.

    Attributes:
        slug: its name on the command line and in addresses: lower case, digits, hyphens.
        title: the paper's title.
        about: what it is about in a few words, for lists.
        year: of the paper's first submission.
        authors: how many.
        paper: ``"arXiv:2309.05239"``, ``"doi:..."``, or none where neither is known to us.
        code: the official repository as ``owner/name`` (or a web address), or none where nothing was published.
        licence: the licence of that code (SPDX name), or none where it states none.
        area: what it is about; one of :data:`AREAS`.
        idea: what it does, in one sentence and in our words.
        carried_by: the rooms of fovea that hold it: ``("models", "tasks")``.
        status: ``"ready"`` when it works from end to end, else ``"planned"``.
    """

    slug: str
    title: str
    about: str
    year: int
    authors: int
    paper: str | None
    code: str | None
    licence: str | None
    area: Area
    idea: str
    carried_by: tuple[str, ...]
    status: Status = "planned"

    def __post_init__(self) -> None:
        if re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", self.slug) is None:
            raise ValueError(f"slug={self.slug!r}; it must be lower-case words joined by hyphens")
        if self.area not in AREAS:
            raise ValueError(f"{self.slug}: area={self.area!r}; it must be one of {', '.join(AREAS)}")
        if self.status not in get_args(Status):
            raise ValueError(f"{self.slug}: status={self.status!r}; it must be 'ready' or 'planned'")
        if self.paper is not None and re.fullmatch(r"arXiv:\d{4}\.\d{4,5}|doi:10\.\S+", self.paper) is None:
            raise ValueError(f"{self.slug}: paper={self.paper!r}; write 'arXiv:2309.05239' or 'doi:10...'")
        if self.authors < 1 or not self.carried_by:
            raise ValueError(f"{self.slug}: a system has at least one author and one room that carries it")

    @property
    def paper_address(self) -> str | None:
        """Where the paper is on the web."""
        if self.paper is None:
            return None
        kind, _, name = self.paper.partition(":")
        return f"https://arxiv.org/abs/{name}" if kind == "arXiv" else f"https://doi.org/{name}"

    @property
    def code_address(self) -> str | None:
        """Where the official code is on the web."""
        if self.code is None or "://" in self.code:
            return self.code
        return f"https://github.com/{self.code}"


@dataclass(frozen=True)
class Claim:
    """One sentence of the paper that can be measured.

    Attributes:
        name: short, unique in its system: ``"psnr-against-bicubic"``.
        sentence: what is claimed, in our words.
        paper_number: the paper's own figure with its unit and setting, as text; none where it gives none.
        measure: ``"fovea.tasks.restoration.claims:psnr_against_bicubic"``; the function is called as
            ``measure(quiet=...)``, measures ours against the baselines, and returns what it measured as a dictionary
            that JSON can hold. It returns numbers, never a verdict.
    """

    name: str
    sentence: str
    paper_number: str | None
    measure: str

    def __post_init__(self) -> None:
        if re.fullmatch(r"[\w.]+:\w+", self.measure) is None:
            raise ValueError(f"{self.name}: measure={self.measure!r}; it must be 'package.module:function'")


@dataclass(frozen=True)
class View:
    """One pattern that a system looks with, at a size that can be drawn.

    Attributes:
        name: what it is in the system: ``"overlapping cross-attention"``.
        pattern: its text form (``fovea.patterns.parse`` reads it).
        grid: the grid on which it is shown.
    """

    name: str
    pattern: str
    grid: tuple[int, ...]


@dataclass(frozen=True)
class System:
    """A published system as a user meets it.

    Attributes:
        card: its facts.
        presets: named configurations (dataclasses); ``"demo"`` runs in minutes on a laptop with data that is at hand.
        task: dotted name of the task package whose ``TASK`` runs it, or none while it is planned.
        claims: what of the paper is measured.
        views: patterns to draw.
    """

    card: Card
    presets: Mapping[str, Any] = field(default_factory=dict)
    task: str | None = None
    claims: tuple[Claim, ...] = ()
    views: tuple[View, ...] = ()

    def __post_init__(self) -> None:
        for name, preset in self.presets.items():
            if not is_dataclass(preset) or isinstance(preset, type):
                raise ValueError(
                    f"{self.card.slug}: preset {name!r} is {preset!r}; it must be an instance of a dataclass"
                )
        names = [claim.name for claim in self.claims]
        if len(set(names)) < len(names):
            raise ValueError(f"{self.card.slug}: claims must have names of their own; they have {names}")
        if self.card.status == "ready" and (self.task is None or "demo" not in self.presets):
            raise ValueError(f"{self.card.slug}: a ready system has a task and a preset named 'demo'")
