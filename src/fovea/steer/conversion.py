"""Giving a finished language model constant memory (AllMem, arXiv 2602.13680): replace, distil, fine-tune.

Teacher and student are the same weights, with the plan paused and in force; both read the same tokens. The loss is the
divergence of the student's next-token distributions from the teacher's; window, sinks and chunk are drawn anew for each
batch, so that the memory learns to serve any of them. Everything but the memories is frozen.
"""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fovea.errors import MissingExtra, UsageError, UserError
from fovea.steer.conversion_config import Conversion
from fovea.steer.language_models import MEMORY_FILE, PLAN_FILE, Handle, install, load
from fovea.steer.texts import encode, tokens_of
from fovea.tasks.fit import Batch, Learner, fit, rehearse
from fovea.tasks.optimisation import Optimisation
from fovea.tasks.run import RunDirectory, replacing

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TRAINING = "training"
"""The folder in a converted model's folder that holds its training's log, numbers and last state."""
GATES = ("eta", "theta", "decay", "gate", "alpha")
"""Parts of a memory that learn at the gates' rate."""


class Distillation(Learner):
    """Memories learn to make the model say what it said before.

    Args:
        handle: the model with its plan.
        tokens: ``[tokens]`` of text, or ``[sequences, length]``.
        config: the recipe.
    """

    def __init__(self, handle: Handle, tokens: Tensor, config: Conversion) -> None:
        super().__init__({"memory": nn.ModuleDict({str(n): memory for n, memory in handle.memories.items()})})
        handle.model.requires_grad_(False)
        self.players.requires_grad_(True)
        self.handle, self.model, self.config = handle, handle.model, config
        rows = tokens if tokens.ndim == 2 else _rows(tokens, config)
        if len(rows) <= config.held_out:
            raise UserError(
                f"the text makes {len(rows)} sequences of {rows.shape[1]} tokens; {config.held_out} are held out and "
                "at least 1 must be left: give more text, or a smaller length or held_out"
            )
        self.rows, self.held = rows[: -config.held_out], rows[-config.held_out :]
        self.responses: Tensor | None = None

    def example(self, step: int, position: int) -> Batch:
        draw = random.Random(f"{self.config.seed} {step} {position}")
        source = self.rows
        if self.responses is not None and draw.random() < 0.5:
            source = self.responses
        return {"tokens": source[draw.randrange(len(source))], "step": torch.tensor(step)}

    def loss(self, player: str, networks: dict[str, nn.Module], batch: Batch) -> dict[str, Tensor]:
        tokens, step = batch["tokens"], int(batch["step"][0])
        self.handle.change(**self.drawn(step))
        student = self.model(tokens, use_cache=False).logits
        text = cross_entropy(student, tokens)
        if step > self.config.optimisation.steps - self.config.fine_tuning:
            return {"loss": text}
        with torch.no_grad(), self.handle.paused() as teacher:
            wanted = teacher(tokens, use_cache=False).logits
        distance = kl(wanted, student)
        return {"loss": distance + self.config.ce_weight * text, "kl": distance, "text": text}

    def drawn(self, step: int) -> dict[str, int]:
        """The window, sinks and chunk of a step."""
        config = self.config
        draw = random.Random(f"{config.seed} {step} sizes")
        ranges = {"window": config.windows, "sinks": config.sinks_drawn, "chunk": config.chunks}
        return {name: draw.randint(*limits) for name, limits in ranges.items()}

    def groups(self, player: str) -> list[dict[str, Any]]:
        """First weights of the memories, which do not decay; gates; and the rest."""
        fast = {f"{n}.{name}" for n, memory in self.handle.memories.items() for name in memory.weights}
        parts: dict[str, list[nn.Parameter]] = {"fast": [], "gates": [], "rest": []}
        for name, parameter in self.players[player].named_parameters():
            part = "fast" if name in fast else "gates" if name.split(".")[1] in GATES else "rest"
            parts[part].append(parameter)
        return [{"params": parts["fast"], "weight_decay": 0.0}, {"params": parts["gates"]}, {"params": parts["rest"]}]

    def rates(self, player: str, optimisation: Optimisation, step: int) -> list[float]:
        rate = optimisation.rate(step)
        gates = rate * self.config.gate_lr / optimisation.lr if optimisation.lr else 0.0
        return [rate, gates, rate]

    @torch.no_grad()
    def validate(self, network: nn.Module) -> dict[str, float]:
        self.settle()
        return {f"held_out_{name}": value for name, value in self.compare(self.held).items()}

    @torch.no_grad()
    def compare(self, rows: Tensor) -> dict[str, float]:
        """Student against teacher on ``[sequences, length]``: ``kl``, the mean divergence in nats a token, also of each
        quarter of the sequences (a memory that gets worse as it reads shows in the last); ``agreement``, the share of
        tokens on whose most probable successor they agree; the text's cross entropy by both, in nats a token."""
        sums: dict[str, float] = {}
        device = self.model.device
        for row in rows:
            tokens = row[None].to(device)
            student = self.model(tokens, use_cache=False).logits
            with self.handle.paused() as model:
                teacher = model(tokens, use_cache=False).logits
            each = divergence(teacher, student)
            found = {
                "kl": each.mean(),
                **{
                    f"kl_quarter_{place}": part.mean()
                    for place, part in enumerate(each.tensor_split(min(4, len(row)), -1), 1)
                },
                "agreement": (teacher.argmax(-1) == student.argmax(-1)).float().mean(),
                "loss": cross_entropy(student, tokens),
                "teacher_loss": cross_entropy(teacher, tokens),
            }
            for name, value in found.items():
                sums[name] = sums.get(name, 0.0) + float(value) / len(rows)
        return sums

    def settle(self) -> None:
        """Back to the window, sinks and chunk that the converted model runs with."""
        self.handle.change(window=self.config.window, sinks=self.config.sinks, chunk=self.config.chunk)

    def save(self, network: nn.Module, folder: Path) -> None:
        self.settle()
        self.handle.save(folder)

    @torch.no_grad()
    def respond(self) -> Tensor:
        """Sequences whose second half the student writes (temperature 1), as the data of an on-policy distillation."""
        self.settle()
        torch.manual_seed(self.config.seed)
        half = self.rows.shape[1] // 2
        draw = random.Random(f"{self.config.seed} responses")
        found = []
        for _ in range(self.config.responses):
            prompt = self.rows[draw.randrange(len(self.rows))][None, :half].to(self.model.device)
            written = self.model.generate(  # type: ignore[operator]
                prompt,
                attention_mask=torch.ones_like(prompt),
                max_new_tokens=self.rows.shape[1] - half,
                min_new_tokens=self.rows.shape[1] - half,
                do_sample=True,
                temperature=1.0,
                top_k=0,
                top_p=1.0,
            )
            found.append(written[0].cpu())
        return torch.stack(found)


def divergence(teacher: Tensor, student: Tensor) -> Tensor:
    """``KL(teacher || student)`` of logits ``[..., vocabulary]``, in nats, at temperature 1."""
    target = F.log_softmax(teacher.float(), -1)
    return F.kl_div(F.log_softmax(student.float(), -1), target, reduction="none", log_target=True).sum(-1)


def kl(teacher: Tensor, student: Tensor) -> Tensor:
    """The mean of :func:`divergence` over tokens."""
    return divergence(teacher, student).mean()


def cross_entropy(logits: Tensor, tokens: Tensor) -> Tensor:
    """Of each token given those before it, in nats."""
    return F.cross_entropy(logits[:, :-1].float().flatten(0, 1), tokens[:, 1:].flatten())


def convert(
    model: str | Path,
    out: str | Path,
    data: str | Path | None,
    config: Conversion,
    *,
    resume: bool = False,
    quiet: bool = False,
) -> dict[str, float]:
    """A model folder in, a model folder out: the model's own files as they are, and beside them plan and memories.

    Args:
        model: a folder that transformers reads, with a Llama- or Qwen-class model.
        out: the folder to write; its ``training`` holds log, numbers and the state that ``resume`` goes on from.
        data: text to distil on: a file, or a folder of ``.txt`` and ``.jsonl``. Needed where memories learn.
        config: the recipe.

    Returns what was measured on held-out text: ``kl`` (nats a token) and ``agreement`` with the model as it was, for
    the plan without memories (``window_...``) and with them.

    Raises:
        UserError: with one line, for what cannot be read or converted.
    """
    model, out = Path(model), Path(out)
    if out.resolve() == model.resolve():
        raise UsageError(f"-o {out} is the model itself; name another folder")
    if out.is_dir() and any(out.iterdir()) and not resume:
        raise UsageError(f"{out} is not empty; choose another folder, or go on with --resume")
    if config.memory is not None and data is None:
        raise UsageError("--data is needed: a text file, or a folder of .txt and .jsonl, to distil on")
    network = open_model(model)
    torch.manual_seed(config.seed)
    handle = install(network, config.plan)
    measured: dict[str, float] = {}
    if config.memory is not None:
        assert data is not None
        tokens = tokens_of(Path(data), encode(model, network.config.get_text_config().vocab_size))
        run = RunDirectory(out / TRAINING, quiet=quiet)
        learner = Distillation(handle, tokens, config)
        rehearse(learner, config.hardware)
        run.start(config, seed=config.seed, resume=resume, changeable=("optimisation.checkpoint_every",))
        measured |= {f"window_{name}": value for name, value in _without(learner).items()}
        learner.responses = _responses(learner, run)
        fit(learner, config.optimisation, run, seed=config.seed, hardware=config.hardware, resume=resume, quiet=quiet)
        learner.settle()
        network.eval()
        measured |= learner.compare(learner.held)
        run.finish(measured)
    out.mkdir(parents=True, exist_ok=True)
    handle.save(out)
    for file in sorted(model.iterdir()):
        if file.is_file() and file.name not in (PLAN_FILE, MEMORY_FILE):
            with replacing(out / file.name) as temporary:
                shutil.copyfile(file, temporary)
    return measured


def _without(learner: Distillation) -> dict[str, float]:
    """What the plan without memories is measured at: memories whose ``alpha`` is 0 add nothing."""
    kept = {number: memory.alpha.detach().clone() for number, memory in learner.handle.memories.items()}
    with torch.no_grad():
        for memory in learner.handle.memories.values():
            memory.alpha.zero_()
        learner.settle()
        found = learner.compare(learner.held)
        for number, memory in learner.handle.memories.items():
            memory.alpha.copy_(kept[number])
    return {name: found[name] for name in ("kl", "agreement", "loss")}


def _responses(learner: Distillation, run: RunDirectory) -> Tensor | None:
    """The student's own sequences, written once."""
    if not learner.config.responses:
        return None
    from safetensors.torch import load_file, save_file

    file = run.path / "responses.safetensors"
    if not file.is_file():
        found = learner.respond()
        run.write(file.name, lambda path: save_file({"tokens": found}, path))
    return load_file(file)["tokens"]


def open_model(folder: str | Path) -> PreTrainedModel:
    """The causal language model that a folder holds, in evaluation mode; one line says what is wrong with it."""
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"model {str(folder)!r} is no folder")
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder} holds no model: there is no config.json")
    try:
        from transformers import AutoModelForCausalLM
        from transformers.utils import logging
    except ImportError as error:
        raise MissingExtra("converting a language model", "transformers", "language") from error
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        return AutoModelForCausalLM.from_pretrained(folder, local_files_only=True).eval()
    except Exception as error:
        # What a damaged folder raises is as various as what may be damaged in it.
        reason = " ".join(str(error).split())
        raise UserError(f"{folder} cannot be read as a causal language model: {reason[:200]}") from error
    finally:
        if shown:
            logging.enable_progress_bar()


def open_converted(folder: str | Path) -> tuple[PreTrainedModel, Handle]:
    """A model that :func:`convert` wrote, following its plan, and the handle of that."""
    model = open_model(folder)
    return model, load(folder, model)


def _rows(tokens: Tensor, config: Conversion) -> Tensor:
    """Sequences one after another, ``[sequences, length]``; what is left over is left out."""
    length = min(config.length, len(tokens) // (config.held_out + 1))
    if length < 2:
        raise UserError(f"the text has {len(tokens)} tokens; {config.held_out + 1} sequences of at least 2 are needed")
    count = len(tokens) // length
    return tokens[: count * length].reshape(count, length)
