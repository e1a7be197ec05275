"""Text from a language model, token by token: sampling, streaming, stops, and beam search."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from fovea.errors import UsageError, UserError
from fovea.models.language import LanguageModel, ModelState

Tokens = Sequence[int]


@dataclass(frozen=True)
class Sampling:
    """How the next token is drawn from its logits.

    Attributes:
        temperature: the logits are divided by it; 0 takes the likeliest token.
        top_k: draw among so many likeliest tokens only.
        top_p: draw among the fewest likeliest tokens that together have this probability.
        seed: row ``i`` of a batch draws from a source of its own, seeded with ``seed + i``, so that what a row gets
            does not depend on the others.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < float("inf"):
            raise UsageError(f"temperature={self.temperature}; it must be a number of at least 0")
        if self.top_k is not None and self.top_k < 1:
            raise UsageError(f"top_k={self.top_k}; it must be at least 1")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise UsageError(f"top_p={self.top_p}; it must be more than 0 and at most 1")

    def probabilities(self, logits: Float[Tensor, "rows vocabulary"]) -> Float[Tensor, "rows vocabulary"]:
        """What tokens are drawn with; 0 for those that are left out."""
        logits = logits.float()
        if not self.temperature:
            return torch.nn.functional.one_hot(logits.argmax(-1), logits.shape[-1]).float()
        logits = logits / self.temperature
        if self.top_k is not None and self.top_k < logits.shape[-1]:
            least = logits.topk(self.top_k, dim=-1).values[:, -1:]
            logits = logits.masked_fill(logits < least, -torch.inf)
        probabilities = logits.softmax(-1)
        if self.top_p is not None:
            ordered, order = probabilities.sort(dim=-1, descending=True)
            beyond = ordered.cumsum(-1) - ordered >= self.top_p  # what comes before is enough without this token
            probabilities = probabilities.masked_fill(beyond.scatter(-1, order, beyond), 0)
            probabilities = probabilities / probabilities.sum(-1, keepdim=True)
        return probabilities


def stream(
    model: LanguageModel,
    prompts: Sequence[Tokens],
    new_tokens: int,
    *,
    sampling: Sampling | None = None,
    stop: Sequence[Tokens] = (),
    state: ModelState | None = None,
    piece: int = 4096,
) -> Iterator[list[int | None]]:
    """Generate for a batch of prompts of any lengths; after each step, the new token of each row.

    Args:
        model: in evaluation mode.
        prompts: numbers of tokens, a list a row.
        new_tokens: the most that are generated for a row.
        sampling: by default the likeliest token.
        stop: sequences of tokens; a row ends when it has generated one of them. A row that has ended yields ``None``,
            and costs nothing more.
        state: what was read before the prompts, a row for each (or one for all of them); it is left as it is.
        piece: prompts are read in pieces of so many tokens, so that memory stays bounded.

    Raises:
        UserError: for a prompt that is empty, a token that the model does not know, or logits that are not finite.
    """
    sampling = Sampling(temperature=0) if sampling is None else sampling
    if new_tokens < 0 or piece < 1:
        raise UsageError(f"new_tokens={new_tokens}, piece={piece}; they must be at least 0 and 1")
    if any(not len(sequence) for sequence in stop):
        raise UsageError("stop holds an empty sequence; each must have at least one token")
    prompts = [list(map(int, prompt)) for prompt in prompts]
    _check(model, prompts)
    return _stream(model, prompts, new_tokens, sampling, [list(s) for s in stop], state, piece)


@torch.no_grad()
def _stream(
    model: LanguageModel,
    prompts: list[list[int]],
    new_tokens: int,
    sampling: Sampling,
    stop: list[list[int]],
    state: ModelState | None,
    piece: int,
) -> Iterator[list[int | None]]:
    if not prompts or not new_tokens:
        return
    device = model.embedding.weight.device
    held = _copied(model, state, len(prompts), device)
    logits = read_prompts(model, prompts, held, piece)
    sources = [torch.Generator().manual_seed(sampling.seed + row) for row in range(len(prompts))]
    written: list[list[int]] = [[] for _ in prompts]
    going = list(range(len(prompts)))
    for step in range(new_tokens):
        if not logits.isfinite().all():
            row = going[int((~logits.isfinite()).any(-1).nonzero()[0])]
            raise UserError(f"row {row}: the model's logits are not finite after {len(written[row])} new tokens")
        drawn = sampling.probabilities(logits).cpu()
        chosen = [int(torch.multinomial(drawn[place], 1, generator=sources[row])) for place, row in enumerate(going)]
        yielded: list[int | None] = [None] * len(prompts)
        for row, token in zip(going, chosen, strict=True):
            written[row].append(token)
            yielded[row] = token
        yield yielded
        kept = [place for place, row in enumerate(going) if not any(written[row][-len(s) :] == s for s in stop)]
        if not kept or step + 1 == new_tokens:
            return
        if len(kept) < len(going):
            held.reorder(torch.tensor(kept, device=device))
            going, chosen = [going[place] for place in kept], [chosen[place] for place in kept]
        logits = model.logits(model.read(torch.tensor(chosen, device=device)[:, None], held)[:, 0])


def generate(
    model: LanguageModel,
    prompts: Sequence[Tokens],
    new_tokens: int,
    *,
    sampling: Sampling | None = None,
    stop: Sequence[Tokens] = (),
    state: ModelState | None = None,
    piece: int = 4096,
) -> list[list[int]]:
    """What :func:`stream` generates for each row, without the stop sequence that ended it."""
    written: list[list[int]] = [[] for _ in prompts]
    for step in stream(model, prompts, new_tokens, sampling=sampling, stop=stop, state=state, piece=piece):
        for row, token in zip(written, step, strict=True):
            if token is not None:
                row.append(token)
    for row in written:
        ends = [len(s) for s in stop if row[-len(s) :] == list(s)]
        if ends:
            del row[-max(ends) :]
    return written


@dataclass(frozen=True)
class Beam:
    """A continuation found by beam search.

    Attributes:
        tokens: what was generated, without the stop sequence that ended it.
        log_probability: of all generated tokens, the stop sequence included.
        ended: whether a stop sequence ended it.
    """

    tokens: tuple[int, ...]
    log_probability: float
    ended: bool


@torch.no_grad()
def beam_search(
    model: LanguageModel,
    prompt: Tokens,
    new_tokens: int,
    *,
    beams: int = 4,
    stop: Sequence[Tokens] = (),
    length_power: float = 1.0,
    state: ModelState | None = None,
    piece: int = 4096,
) -> list[Beam]:
    """The ``beams`` likeliest continuations that a search by so many rows finds, best first.

    Continuations are ranked by their log-probability divided by ``length ** length_power``.
    """
    if beams < 1 or new_tokens < 1:
        raise UsageError(f"beams={beams}, new_tokens={new_tokens}; they must be at least 1")
    device = model.embedding.weight.device
    prompts = [list(map(int, prompt))]
    _check(model, prompts)
    held = _copied(model, state, 1, device)
    logits = read_prompts(model, prompts, held, piece)
    rows: list[tuple[list[int], float]] = [([], 0.0)]
    done: list[Beam] = []
    for step in range(new_tokens):
        likely = logits.float().log_softmax(-1).cpu()
        total = likely + torch.tensor([score for _, score in rows])[:, None]
        best = total.flatten().topk(min(2 * beams, total.numel()))
        found: list[tuple[int, list[int], float]] = []
        for score, place in zip(best.values.tolist(), best.indices.tolist(), strict=True):
            row, token = divmod(place, total.shape[1])
            tokens = [*rows[row][0], token]
            ended = next((s for s in stop if tokens[-len(s) :] == list(s)), None)
            if ended is not None:
                done.append(Beam(tuple(tokens[: -len(ended)]), score, True))
            elif len(found) < beams:
                found.append((row, tokens, score))
        rows = [(tokens, score) for _, tokens, score in found]
        if not rows or step + 1 == new_tokens:
            break
        if len(done) >= beams and _worst(done, beams, length_power) >= max(
            score / len(tokens) ** length_power for tokens, score in rows
        ):
            break
        held.reorder(torch.tensor([row for row, _, _ in found], device=device))
        last = torch.tensor([tokens[-1] for tokens, _ in rows], device=device)
        logits = model.logits(model.read(last[:, None], held)[:, 0])
    done += [Beam(tuple(tokens), score, False) for tokens, score in rows]
    return sorted(done, key=lambda beam: -_rank(beam, length_power))[:beams]


def _rank(beam: Beam, length_power: float) -> float:
    return beam.log_probability / max(1, len(beam.tokens) + beam.ended) ** length_power


def _worst(done: list[Beam], beams: int, length_power: float) -> float:
    return sorted((_rank(beam, length_power) for beam in done), reverse=True)[beams - 1]


@torch.no_grad()
def read_prompts(
    model: LanguageModel, prompts: Sequence[Tokens], state: ModelState, piece: int = 4096
) -> Float[Tensor, "batch vocabulary"]:
    """Read prompts of any lengths into ``state``; returns the logits after the last token of each."""
    device = model.embedding.weight.device
    longest = max(map(len, prompts))
    tokens = torch.zeros(len(prompts), longest, dtype=torch.int64)
    for row, prompt in enumerate(prompts):
        tokens[row, : len(prompt)] = torch.tensor(list(prompt))
    lengths = torch.tensor([len(prompt) for prompt in prompts])
    last: list[Tensor | None] = [None] * len(prompts)
    for begin in range(0, longest, piece):
        here = (lengths - begin).clamp(0, piece)
        width = int(here.max())
        part = tokens[:, begin : begin + width].to(device)
        even = bool((here == width).all())
        features = model.read(part, state, None if even else here.to(device))
        for row, count in enumerate(here.tolist()):
            if count:
                last[row] = features[row, count - 1]
    return model.logits(torch.stack([feature for feature in last if feature is not None]))


def _check(model: LanguageModel, prompts: list[list[int]]) -> None:
    vocabulary = model.config.vocabulary
    for row, prompt in enumerate(prompts):
        if not prompt:
            raise UserError(f"prompt {row} is empty; it must have at least one token")
        for token in prompt:
            if not 0 <= token < vocabulary:
                raise UserError(f"prompt {row} has token {token}; the model knows 0 to {vocabulary - 1}")


def _copied(model: LanguageModel, state: ModelState | None, rows: int, device: torch.device) -> ModelState:
    """A state of so many rows that may be changed."""
    if state is None:
        return model.start(rows)
    batch = len(state.position)
    if batch not in (1, rows):
        raise UsageError(f"state has {batch} rows; for {rows} prompts it must have {rows}, or one for all")
    copy = ModelState([type(layer)(layer.position, dict(layer.tensors)) for layer in state.layers], state.config)
    copy.reorder(
        torch.arange(rows, device=device) if batch == rows else torch.zeros(rows, dtype=torch.int64, device=device)
    )
    return copy
