"""What AllMem's recipe gives at a size that two processor cores train: recall beyond the window, and real text.

A small full-attention model of the Qwen3 kind learns to recall, or to go on with text. Its copies with a window and
sinks are asked as they are, and after memories were distilled into them: linear ones, AllMem's, and AllMem's with the
window that they are asked with rather than windows drawn at random.
"""

from __future__ import annotations

import math
import random
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from fovea.data.synthetic.recall import IGNORED, Recall, Segment, generate
from fovea.errors import MissingExtra
from fovea.models import allmem_costs
from fovea.models.allmem_config import VARIANTS
from fovea.steer.conversion import Distillation, cross_entropy, kl
from fovea.steer.conversion_config import Conversion
from fovea.steer.language_models import install
from fovea.tasks.fit import fit
from fovea.tasks.language.memory_study import distances
from fovea.tasks.optimisation import Optimisation
from fovea.tasks.run import RunDirectory

Tell = Callable[[str], None]

STUDENTS: dict[str, dict[str, Any]] = {
    "window": {"memory": None},
    "window, linear memory": {"memory": "linear"},
    "window, AllMem": {"memory": "allmem"},
    "window, AllMem, sizes not drawn": {"memory": "allmem", "fixed": True},
}
"""Kind of memory of each student; ``fixed``: window, sinks and chunk are always those it runs with."""


@dataclass(frozen=True)
class Toy:
    """The sizes of one comparison.

    Attributes:
        dim, layers, heads: of the teacher; as many key heads as heads.
        vocabulary, length: of its sequences.
        pairs: of recall.
        teacher_steps, student_steps, batch: of training; sequences drawn anew for each step of the teacher, and from
            ``distilled`` for the students.
        lr, student_lr, gate_lr: of AdamW.
        window, sinks, chunk: with which students are asked.
        windows, sinks_drawn, chunks: between which they are drawn for each batch.
        unseen: a window that no student learned with.
        rate: step size that tokens start with.
        distilled, questions: sequences to distil on, and to be asked on.
    """

    dim: int = 64
    layers: int = 2
    heads: int = 1
    vocabulary: int = 256
    length: int = 128
    pairs: int = 8
    teacher_steps: int = 1500
    student_steps: int = 400
    batch: int = 32
    lr: float = 2e-3
    student_lr: float = 3e-3
    gate_lr: float = 5e-2
    window: int = 32
    sinks: int = 2
    chunk: int = 16
    windows: tuple[int, int] = (16, 64)
    sinks_drawn: tuple[int, int] = (0, 4)
    chunks: tuple[int, int] = (8, 32)
    unseen: int = 12
    rate: float = 0.5
    distilled: int = 4096
    questions: int = 512


def teach(toy: Toy, batch: Callable[[int], tuple[Tensor, Tensor]], seed: int, tell: Tell | None = None) -> Any:
    """A model that has learned ``batch(step) -> inputs, labels`` (``IGNORED`` where nothing is asked)."""
    try:
        from transformers import Qwen3Config, Qwen3ForCausalLM
    except ImportError as error:
        raise MissingExtra("AllMem's comparison", "transformers", "language") from error
    torch.manual_seed(seed)
    model = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=toy.vocabulary,
            hidden_size=toy.dim,
            intermediate_size=2 * toy.dim,
            num_hidden_layers=toy.layers,
            num_attention_heads=toy.heads,
            num_key_value_heads=toy.heads,
            head_dim=toy.dim // toy.heads,
            max_position_embeddings=toy.length,
            pad_token_id=None,
            bos_token_id=None,
            eos_token_id=None,
        )
    )
    optimiser = torch.optim.AdamW(model.parameters(), lr=toy.lr, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, toy.lr, total_steps=toy.teacher_steps)
    for step in range(toy.teacher_steps):
        inputs, labels = batch(step)
        logits = model(inputs, use_cache=False).logits
        loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        if tell is not None and step % 100 == 99:
            tell(f"teacher, step {step + 1}: loss {loss.item():.3f}")
    return model.eval()


def distil(model: Any, toy: Toy, student: Mapping[str, Any], rows: Tensor, seed: int, tell: Tell | None = None) -> Any:
    """The handle of a student that has learned on ``rows [sequences, length]`` what the model says."""
    fixed = bool(student.get("fixed"))
    config = Conversion(
        window=toy.window,
        sinks=toy.sinks,
        chunk=toy.chunk,
        memory=student["memory"],
        rate=toy.rate,
        windows=(toy.window, toy.window) if fixed else toy.windows,
        sinks_drawn=(toy.sinks, toy.sinks) if fixed else toy.sinks_drawn,
        chunks=(toy.chunk, toy.chunk) if fixed else toy.chunks,
        length=toy.length,
        held_out=8,
        gate_lr=toy.gate_lr,
        seed=seed,
        optimisation=Optimisation(
            steps=toy.student_steps,
            batch=toy.batch,
            algorithm="adamw",
            lr=toy.student_lr,
            betas=(0.9, 0.95),
            warmup=20,
            schedule="cosine",
            gradient_clip=1.0,
            ema=0.0,
            validate_every=100,
            checkpoint_every=toy.student_steps,
        ),
    )
    torch.manual_seed(seed)
    handle = install(model, config.plan)
    if handle.memories:
        learner = Distillation(handle, rows, config)
        with tempfile.TemporaryDirectory() as folder:
            run = RunDirectory(folder, quiet=True)
            run.start(config, seed=seed)
            fit(learner, config.optimisation, run, seed=seed, quiet=True)
            if tell is not None:
                tell(f"{student}: {run.measurements()[-1]}")
        learner.settle()
        model.eval()
    return handle


@torch.no_grad()
def ask(handle: Any, toy: Toy, asked: Tensor, labels: Tensor | None) -> dict[str, float]:
    """Of the student as it is set now: divergence from the teacher, and of recall the share of right answers to
    questions whose pair lies outside window and sinks; of text the bits a byte."""
    window, sinks = handle.plans[0].window, handle.plans[0].sinks
    sums = {"kl": 0.0}
    right = total = 0
    for rows in range(0, len(asked), 64):
        tokens = asked[rows : rows + 64]
        student = handle.model(tokens, use_cache=False).logits
        with handle.paused() as model:
            teacher = model(tokens, use_cache=False).logits
        share = len(tokens) / len(asked)
        sums["kl"] += float(kl(teacher, student)) * share
        if labels is None:
            bits = float(cross_entropy(student, tokens)) / math.log(2)
            sums["bits_per_byte"] = sums.get("bits_per_byte", 0.0) + bits * share
        else:
            wanted = labels[rows : rows + 64]
            far = beyond(tokens, wanted, window, sinks)
            right += int((student.argmax(-1) == wanted)[far].sum())
            total += int(far.sum())
    return sums | ({"accuracy_beyond": right / total} if total else {})


@torch.no_grad()
def _taught(teacher: Any, toy: Toy, asked: Tensor, labels: Tensor | None) -> dict[str, float]:
    """Of the teacher what :func:`ask` says of students."""
    logits = torch.cat([teacher(part, use_cache=False).logits for part in asked.split(64)])
    if labels is None:
        return {"bits_per_byte": float(cross_entropy(logits, asked)) / math.log(2)}
    far = beyond(asked, labels, toy.window, toy.sinks)
    return {"accuracy_beyond": float((logits.argmax(-1) == labels)[far].float().mean())}


def beyond(inputs: Tensor, labels: Tensor, window: int, sinks: int) -> Tensor:
    """``[examples, length]``: where a key is asked whose pair lies behind the window and after the sinks."""
    distance = distances(inputs, labels)
    key = torch.arange(inputs.shape[1]) - distance - 1
    return (distance >= window) & (key >= sinks)


def compare(
    toy: Toy, teacher: Any, rows: Tensor, asked: Tensor, labels: Tensor | None, seed: int, tell: Tell | None = None
) -> dict[str, Any]:
    """Every student beside the teacher; see :func:`recall` and :func:`text`."""
    found: dict[str, Any] = {"teacher": _taught(teacher, toy, asked, labels)}
    for name, student in STUDENTS.items():
        handle = distil(teacher, toy, student, rows, seed, tell)
        found[name] = ask(handle, toy, asked, labels)
        handle.change(window=toy.unseen)
        found[name] |= {f"{key}_unseen_window": value for key, value in ask(handle, toy, asked, labels).items()}
        if handle.memories:
            handle.change(window=1, sinks=0)
            found[name] |= {f"{key}_memory_alone": value for key, value in ask(handle, toy, asked, labels).items()}
        handle.remove()
        if tell is not None:
            tell(f"{name}: {found[name]}")
    return found


def recall_segment(toy: Toy, examples: int, seed: int) -> Recall:
    """Sequences of recall with questions at any distance alike."""
    return generate(Segment(examples, toy.length, toy.pairs), toy.vocabulary, seed, power=1.0)


def recall(toy: Toy | None = None, seeds: Sequence[int] = (0,), *, quiet: bool = False) -> dict[str, Any]:
    """Multi-query recall: for the teacher and each student ``kl`` (nats a token), ``accuracy_beyond``, both also with a
    window never learned with (``..._unseen_window``) and with the window emptied (``..._memory_alone``).

    Returns means, with the deviation and each seed's value where there are several.
    """
    toy = toy or Toy()

    def one(seed: int) -> dict[str, Any]:
        taught = recall_segment(toy, toy.batch * toy.teacher_steps, 3 * seed)
        teacher = teach(toy, lambda step: _batch(taught, toy.batch, step), seed, _tell(quiet))
        rows = recall_segment(toy, toy.distilled, 3 * seed + 1).inputs
        asked = recall_segment(toy, toy.questions, 3 * seed + 2)
        return compare(toy, teacher, rows, asked.inputs, asked.labels, seed, _tell(quiet))

    return _summary([one(seed) for seed in seeds])


def text(
    data: str | Path, toy: Toy | None = None, seeds: Sequence[int] = (0,), *, quiet: bool = False
) -> dict[str, Any]:
    """Bytes of a text file: ``kl`` and ``bits_per_byte`` in the same way; the last tenth is asked."""
    toy = toy or Toy(layers=4, teacher_steps=1500)
    found = torch.tensor(list(Path(data).read_bytes()), dtype=torch.int64)
    cut = len(found) * 9 // 10
    learned, late = found[:cut], found[cut:]

    def one(seed: int) -> dict[str, Any]:
        def batch(step: int) -> tuple[Tensor, Tensor]:
            rows = _drawn(learned, toy, toy.batch, f"{seed} {step}")
            return rows, F.pad(rows[:, 1:], (0, 1), value=IGNORED)

        teacher = teach(toy, batch, seed, _tell(quiet))
        rows = _drawn(learned, toy, toy.distilled, f"{seed} distilled")
        return compare(toy, teacher, rows, _drawn(late, toy, toy.questions, "asked"), None, seed, _tell(quiet))

    return _summary([one(seed) for seed in seeds])


def costs(*, quiet: bool = False) -> dict[str, Any]:
    """Operations and numbers kept by the 0.6B shape with a window of 8192, by length: how many times those of full
    attention are ours, counted exactly and as dense products that are masked afterwards."""
    config = replace(VARIANTS["Qwen3-0.6B"], window=8192)
    full = replace(config, window=None, memory=None)
    found: dict[str, Any] = {}
    for length in (8192, 16384, 32768, 65536, 131072):
        found[f"{length} tokens"] = {
            "operations": allmem_costs.against_full(config, length),
            "operations_of_masked_products": allmem_costs.against_full(config, length, causal=False),
            "attention_alone": allmem_costs.against_full(config, length, "attention"),
            "kept": allmem_costs.cache(config, length)["total"],
            "kept_by_full_attention": allmem_costs.cache(full, length)["total"],
        }
    return found


def beyond_the_window(*, quiet: bool = False) -> dict[str, Any]:
    """The claim of :func:`recall`, three seeds."""
    return recall(seeds=(0, 1, 2), quiet=quiet)


def _batch(taught: Recall, size: int, step: int) -> tuple[Tensor, Tensor]:
    part = slice(step * size, (step + 1) * size)
    return taught.inputs[part], taught.labels[part]


def _drawn(tokens: Tensor, toy: Toy, count: int, seed: str) -> Tensor:
    draw = random.Random(seed)
    starts = [draw.randrange(len(tokens) - toy.length) for _ in range(count)]
    return torch.stack([tokens[start : start + toy.length] for start in starts])


def _tell(quiet: bool) -> Tell | None:
    return None if quiet else lambda line: print(line, flush=True)


def _summary(runs: Sequence[Mapping[str, Mapping[str, float]]]) -> dict[str, Any]:
    """Each number's mean; with several runs also its deviation and all values."""
    if len(runs) == 1:
        return {name: dict(values) for name, values in runs[0].items()}
    found: dict[str, Any] = {}
    for name in runs[0]:
        found[name] = {}
        for key in runs[0][name]:
            values = [run[name][key] for run in runs]
            found[name][key] = {"mean": mean(values), "deviation": stdev(values), "seeds": values}
    return found
