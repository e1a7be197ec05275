"""The training loop of every task: steps, averaging, measurements, checkpoints that survive anything, exact resumption.

Each step depends on nothing but the weights, the optimisers' state, the seed and the step's number: examples are drawn
by ``(seed, step)``, the random state is set from them before the step, the rate is a function of the step. So a run
that was killed and taken up again computes what the unbroken run would have computed, bit for bit (on the same machine,
with as many threads).

Devices, precision and distribution are Lightning's (``Fabric``); the loop is ours so that it can be read.
"""

from __future__ import annotations

import copy
import math
import signal
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, default_collate

from fovea.errors import MissingExtra, UsageError, UserError
from fovea.tasks.optimisation import Hardware, Optimisation
from fovea.tasks.progress import bar, words
from fovea.tasks.run import RunDirectory, replacing

Batch = dict[str, Any]


class Learner(nn.Module, ABC):
    """A learning problem as the loop sees it: whose weights move, by which loss, on which examples.

    ``players`` are the networks that learn, each with an optimiser of its own, in the order of their turns; the first
    is the one whose weights are averaged, validated and saved. Frozen parts of a loss are ordinary submodules beside
    them.
    """

    def __init__(self, players: dict[str, nn.Module]) -> None:
        super().__init__()
        self.players = nn.ModuleDict(players)

    @abstractmethod
    def example(self, step: int, position: int) -> Batch:
        """The example at ``position`` of the batch of ``step``: a pure function of the two and the task's seed."""

    def prepare(self, batch: Batch) -> Batch:
        """What is done to a whole batch on its device before the turns (degradations, say)."""
        return batch

    @abstractmethod
    def loss(self, player: str, networks: dict[str, nn.Module], batch: Batch) -> dict[str, Tensor]:
        """Scalars of this player's turn; it minimises ``loss``. Later turns see what earlier ones put in ``batch``."""

    def groups(self, player: str) -> list[dict[str, Any]]:
        """The parameter groups of the player's optimiser; all that learns in one, unless they differ in their rates."""
        return [{"params": [parameter for parameter in self.players[player].parameters() if parameter.requires_grad]}]

    def rates(self, player: str, optimisation: Optimisation, step: int) -> list[float]:
        """The learning rate of each of these groups at a step, the first step being 1."""
        return [optimisation.rate(step)] * len(self.groups(player))

    @abstractmethod
    def validate(self, network: nn.Module) -> dict[str, float]:
        """Measure the (averaged) network."""

    @abstractmethod
    def save(self, network: nn.Module, folder: Path) -> None:
        """Write the (averaged) network as a checkpoint that can be used without the run."""


class Interrupted(KeyboardInterrupt):
    """Training was stopped by a signal after leaving a checkpoint; its text says where."""


class NotFiniteError(UserError):
    """The loss or a weight became NaN or infinite."""


def rehearse(learner: Learner, hardware: Hardware) -> None:
    """Try what could be refused, the hardware and an example, before anything is written for a training."""
    _made(hardware)
    learner.example(1, 0)


def fit(
    learner: Learner,
    optimisation: Optimisation,
    run: RunDirectory,
    *,
    seed: int,
    hardware: Hardware | None = None,
    resume: bool = False,
    quiet: bool = False,
    title: str = "training",
) -> nn.Module:
    """Train ``learner`` for ``optimisation.steps`` steps and return its averaged first network, in eval mode.

    With ``resume`` the run's ``last.ckpt`` is taken up where it is; without one the training starts from the beginning.

    Raises:
        Interrupted: after SIGINT or SIGTERM.
        NotFiniteError: the loss is not a number; the last good checkpoint stays.
        OSError: a checkpoint cannot be written; the old one stays.
    """
    hardware = hardware or Hardware()
    fabric = _fabric(hardware)
    torch.manual_seed(_derived(seed, 0))
    state = _State(learner, optimisation, fabric)
    first = 1
    if resume and run.last.is_file():
        first = state.load(run.last) + 1
        run.forget_after(first - 1)
        run.say(f"resuming after step {first - 1} of {optimisation.steps}")
    if first > optimisation.steps:
        return state.averaged.eval()
    names = list(learner.players)
    batches = _loader(learner, optimisation, hardware, fabric, range(first, optimisation.steps + 1))
    started = time.perf_counter()
    hidden = quiet or not fabric.is_global_zero
    with _signals() as received, bar(title, optimisation.steps, done=first - 1, quiet=hidden) as advance:
        for step, batch in zip(range(first, optimisation.steps + 1), batches, strict=True):
            torch.manual_seed(_derived(seed, step, fabric.global_rank))
            values = state.step(step, fabric.to_device(batch), names)
            if (bad := [name for name, value in values.items() if not math.isfinite(value)]) != []:
                kept = f"; {run.last} holds an earlier, good state" if run.last.is_file() else ""
                raise NotFiniteError(f"{', '.join(bad)} is {values[bad[0]]} at step {step}; training stops here{kept}")
            last = step == optimisation.steps
            advance({name: value for name, value in values.items() if name.endswith("loss")})
            if step % optimisation.report_every == 0 or last:
                elapsed = round(time.perf_counter() - started, 3)
                rate = learner.rates(names[0], optimisation, step)[0]
                run.measure(step=step, lr=rate, seconds=elapsed, **values)
            if step % optimisation.validate_every == 0 or last:
                measured = learner.validate(state.averaged.eval()) if fabric.is_global_zero else {}
                run.measure(step=step, **measured)
                advance(measured, steps=0)
                run.say(f"step {step}: {words(values | measured)}", quiet=True)
            if step % optimisation.checkpoint_every == 0 or last or received:
                state.save(step, run)
                if fabric.is_global_zero:
                    learner.save(state.averaged, run.checkpoint)
            if received and not last:
                message = (
                    f"stopped at step {step} of {optimisation.steps} by {received[0]}; {run.last} goes on from there"
                )
                run.say(message, quiet=True)
                raise Interrupted(message)
    return state.averaged.eval()


class _State:
    """The networks, their optimisers and the average: all that a checkpoint has to hold."""

    def __init__(self, learner: Learner, optimisation: Optimisation, fabric: Any) -> None:
        self.learner = learner
        self.optimisation = optimisation
        self.fabric = fabric
        learner.to(fabric.device)
        first = next(iter(learner.players.values()))
        self.averaged = copy.deepcopy(first).requires_grad_(False) if optimisation.ema else first
        self.networks: dict[str, nn.Module] = {}
        self.optimisers: dict[str, torch.optim.Optimizer] = {}
        for name, network in learner.players.items():
            optimiser = _optimiser(learner.groups(name), optimisation)
            self.networks[name], self.optimisers[name] = fabric.setup(network, optimiser)

    def step(self, step: int, batch: Batch, names: list[str]) -> dict[str, float]:
        """One turn of every player, then the average moves."""
        values: dict[str, float] = {}
        with torch.no_grad():
            batch = self.learner.prepare(batch)
        for name in names:
            for other, network in self.networks.items():
                network.train()
                if len(names) > 1:
                    network.requires_grad_(other == name)
            optimiser = self.optimisers[name]
            rates = self.learner.rates(name, self.optimisation, step)
            for group, rate in zip(optimiser.param_groups, rates, strict=True):
                group["lr"] = rate
            losses = self.learner.loss(name, self.networks, batch)
            loss = losses["loss"]
            prefix = "" if name == names[0] else f"{name}_"
            values |= {prefix + key: float(value.detach()) for key, value in losses.items()}
            if not math.isfinite(values[f"{prefix}loss"]):
                return values
            optimiser.zero_grad(set_to_none=True)
            self.fabric.backward(loss)
            if self.optimisation.gradient_clip is not None:
                clip = self.optimisation.gradient_clip
                norm = self.fabric.clip_gradients(
                    self.networks[name], optimiser, max_norm=clip, error_if_nonfinite=False
                )
                values[f"{prefix}gradient_norm"] = float(norm)
            optimiser.step()
        self._average(names[0], step)
        return values

    @torch.no_grad()
    def _average(self, name: str, step: int) -> None:
        decay = self.optimisation.averaging(step)
        if not decay:
            return
        live = self.learner.players[name].state_dict()
        for key, mean in self.averaged.state_dict().items():
            value = live[key].detach()
            if mean.is_floating_point():
                mean.lerp_(value.to(mean.dtype), 1 - decay)
            else:
                mean.copy_(value)

    def save(self, step: int, run: RunDirectory) -> None:
        """Write ``last.ckpt``; the old file stays whole until the new one is on the disk."""
        weights = {name: player.state_dict() for name, player in self.learner.players.items()}
        for name, tensors in weights.items():
            for key, tensor in tensors.items():
                if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                    kept = "the checkpoint before it is kept" if run.last.is_file() else "no checkpoint is written"
                    raise NotFiniteError(f"weight {key} of {name} is not finite after step {step}; {kept}")
        content = {
            "step": step,
            "players": weights,
            "averaged": self.averaged.state_dict(),
            "optimisers": {name: optimiser.state_dict() for name, optimiser in self.optimisers.items()},
        }
        try:
            with replacing(run.last) as temporary:
                self.fabric.save(temporary, content)
        except (OSError, RuntimeError) as error:
            kept = f"{run.last} of an earlier step is kept" if run.last.is_file() else "no checkpoint was left"
            raise OSError(
                f"the checkpoint of step {step} could not be written ({_first_line(error)}); {kept}"
            ) from error
        self.fabric.barrier()

    def load(self, path: Path) -> int:
        """Take up ``last.ckpt`` and return its step."""
        try:
            content = torch.load(path, map_location=self.fabric.device, weights_only=True)
            for name, player in self.learner.players.items():
                player.load_state_dict(content["players"][name])
                self.optimisers[name].load_state_dict(content["optimisers"][name])
            self.averaged.load_state_dict(content["averaged"])
        except (RuntimeError, KeyError, ValueError, EOFError) as error:
            raise UserError(f"{path} cannot be taken up: {_first_line(error)}") from error
        return content["step"]


class _Batches(Dataset[Batch]):
    """The batches of a run by the number of their step; each of ``world`` devices takes every ``world``-th example."""

    def __init__(self, example: Callable[[int, int], Batch], batch: int, rank: int, world: int) -> None:
        self.example, self.batch, self.rank, self.world = example, batch, rank, world

    def __getitem__(self, step: int) -> Batch:
        return default_collate([self.example(step, position) for position in range(self.rank, self.batch, self.world)])


def _loader(
    learner: Learner, optimisation: Optimisation, hardware: Hardware, fabric: Any, steps: range
) -> DataLoader[Batch]:
    if optimisation.batch % fabric.world_size:
        raise UsageError(f"optimisation.batch={optimisation.batch} cannot be shared by {fabric.world_size} devices")
    data = _Batches(learner.example, optimisation.batch, fabric.global_rank, fabric.world_size)
    workers = {"num_workers": hardware.workers, "persistent_workers": hardware.workers > 0}
    return DataLoader(data, sampler=steps, batch_size=None, pin_memory=fabric.device.type == "cuda", **workers)


def _fabric(hardware: Hardware) -> Any:
    fabric = _made(hardware)
    fabric.launch()
    return fabric


def _made(hardware: Hardware) -> Any:
    try:
        from lightning.fabric import Fabric
    except ImportError as error:
        raise MissingExtra("training", "lightning", "train") from error
    try:
        return Fabric(
            accelerator=hardware.accelerator,
            devices=hardware.devices,
            strategy=hardware.strategy,
            precision=hardware.precision,  # type: ignore[arg-type]
        )
    except (ValueError, RuntimeError, TypeError) as error:
        raise UsageError(f"hardware: {_first_line(error)}") from error


def _optimiser(groups: list[dict[str, Any]], optimisation: Optimisation) -> torch.optim.Optimizer:
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[optimisation.algorithm]
    return kind(groups, lr=optimisation.lr, betas=optimisation.betas, weight_decay=optimisation.weight_decay)


def _derived(*numbers: int) -> int:
    """One 63-bit seed from several numbers; near numbers give unrelated seeds (SplitMix64's mixing)."""
    state = 0
    for number in numbers:
        state = (state + number + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
        state = ((state ^ state >> 30) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
        state = ((state ^ state >> 27) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
        state ^= state >> 31
    return state >> 1


@contextmanager
def _signals() -> Iterator[list[str]]:
    """Collects the names of SIGINT and SIGTERM instead of dying of them; the second SIGINT interrupts at once."""
    received: list[str] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return

    def handle(number: int, _frame: object) -> None:
        if received and number == signal.SIGINT:
            raise KeyboardInterrupt
        received.append(signal.Signals(number).name)

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
