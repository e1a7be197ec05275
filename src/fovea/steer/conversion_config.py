"""How a finished language model is given constant memory, as plain data (AllMem, arXiv 2602.13680, training)."""

from __future__ import annotations

from dataclasses import dataclass, field

from fovea.errors import UsageError
from fovea.steer.plan import Plan
from fovea.tasks.optimisation import Hardware, Optimisation


@dataclass(frozen=True)
class Conversion:
    """The recipe: replace what layers see, distil the model as it was into it, fine-tune; only memories learn.

    Rates, steps and lengths are not published; those here are ours.
    """

    pattern: str | None = None
    """A pattern of the past instead of a window: nothing is learned."""
    window: int | None = 4096
    """With which the converted model runs; so ``sinks`` and ``chunk``."""
    sinks: int = 128
    chunk: int = 2048
    memory: str | None = "allmem"
    """Kind of memory; none: the window alone, nothing is learned."""
    hidden: int | None = None
    rate: float = 0.001
    """Step size of the memory that tokens start with."""
    share_out: bool = False
    layers: tuple[int, ...] | None = None
    """Which layers are converted; all if none are named."""
    windows: tuple[int, int] = (512, 8192)
    """Drawn for each batch between these, as are the other two, independently."""
    sinks_drawn: tuple[int, int] = (0, 256)
    chunks: tuple[int, int] = (512, 4096)
    length: int = 16384
    """Tokens a sequence."""
    fine_tuning: int = 0
    """Steps after the distillation that learn from the text alone."""
    ce_weight: float = 0.0
    """Weight of the text's own cross entropy beside the divergence from the model as it was."""
    responses: int = 0
    """Sequences whose second half the converted model writes itself before it learns; drawn half of the time."""
    gate_lr: float = 1e-3
    """Rate of gates, step sizes, momentum and ``alpha``; ``optimisation.lr`` is that of the rest."""
    held_out: int = 4
    """Sequences at the end of the text that are measured and not learned from."""
    optimisation: Optimisation = field(
        default_factory=lambda: Optimisation(
            steps=1000,
            batch=1,
            algorithm="adamw",
            lr=3e-4,
            betas=(0.9, 0.95),
            warmup=200,
            schedule="cosine",
            gradient_clip=1.0,
            ema=0.0,
            validate_every=200,
            checkpoint_every=100,
        )
    )
    hardware: Hardware = field(default_factory=Hardware)
    seed: int = 0

    def __post_init__(self) -> None:
        if self.pattern is not None:
            for name in ("window", "memory"):
                object.__setattr__(self, name, None)
            object.__setattr__(self, "sinks", 0)
        for name, least in (("windows", 1), ("sinks_drawn", 0), ("chunks", 1)):
            low, high = getattr(self, name)
            if not least <= low <= high:
                raise UsageError(f"{name}={low},{high}; it must be two rising numbers from {least} on")
        for name, least in (("length", 2), ("fine_tuning", 0), ("responses", 0), ("held_out", 1)):
            if getattr(self, name) < least:
                raise UsageError(f"{name}={getattr(self, name)}; it must be at least {least}")
        if self.ce_weight < 0 or self.gate_lr < 0:
            raise UsageError(f"ce_weight={self.ce_weight}, gate_lr={self.gate_lr}; they must be at least 0")
        if not 0 <= self.fine_tuning <= self.optimisation.steps:
            raise UsageError(f"fine_tuning={self.fine_tuning}; it must be 0 to optimisation.steps")
        if self.optimisation.ema:
            raise UsageError(f"optimisation.ema={self.optimisation.ema}; memories are not averaged: it must be 0")
        if self.hardware.devices not in (1, "1"):
            raise UsageError(f"hardware.devices={self.hardware.devices}; the conversion runs on 1")
        _ = self.plan

    @property
    def plan(self) -> Plan:
        """What the converted model's layers follow."""
        return Plan(
            pattern=self.pattern,
            window=self.window,
            sinks=self.sinks,
            memory=self.memory,
            hidden=self.hidden,
            chunk=self.chunk,
            rate=self.rate,
            share_out=self.share_out,
            layers=self.layers,
        )
