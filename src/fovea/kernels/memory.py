"""Memories that learn while reading: a small network whose weights are updated chunk by chunk to give values for keys.

One engine for AllMem (arXiv 2602.13680), LaCT (2505.23884), TTT-MLP (2407.04620), Titans (2501.00663) and a linear
memory; what differs between them is a :class:`Rule`. :func:`read_through` takes whole sequences and is differentiable
through every update; :func:`read_on` takes the next tokens of sequences of different lengths from a bounded state.
Inside a chunk every token reads the weights that the last completed chunk left. Weights and steps are float32 (float64
where the tokens are), under autocast too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from fovea.kernels.fast_networks import GLU, MLP, FastNetwork, Linear, NormedMLP, Weights

EPS = 1e-5
"""Added to row norms before dividing by them."""
MUON = (
    (4.0848, -6.8946, 2.9270),
    (3.9505, -6.3029, 2.6377),
    (3.7418, -5.5913, 2.3037),
    (2.8769, -3.1427, 1.2046),
    (2.8366, -3.0525, 1.2012),
)
"""Coefficients of the five Newton-Schulz steps."""

Normalise = Literal["after reading", "before reading", "after writing", "copy", "never"]


@dataclass(frozen=True)
class Rule:
    """How a memory learns.

    Attributes:
        network: what it computes.
        loss: ``"square"``: ``|f(k) - v|^2 / 2``; ``"dot"``: ``-f(k) . v``.
        normalise: when rows of matrices are brought back to the norms they started with: ``"after reading"`` (AllMem:
            a chunk reads the weights as the last write left them; gradient and write start from the normalised ones),
            ``"before reading"``, ``"after writing"`` (LaCT, post-norm), ``"copy"`` (LaCT, pre-norm: reads and gradients
            use a normalised copy while the weights themselves add up), ``"never"``.
        clip: largest norm of a chunk's gradient, for each memory and matrix; none leaves it.
        momentum: a chunk's step is its gradient and ``theta`` times the step before.
        decay: a chunk's ``decay`` part of the weights is forgotten before it is written.
        muon: the step is orthogonalised.
        mean: the gradient is the mean over the chunk rather than the sum.
        harmonic: the rate of the token at (1-based) place ``p`` of its chunk is divided by ``p``.
    """

    network: FastNetwork
    loss: Literal["square", "dot"] = "square"
    normalise: Normalise = "after reading"
    clip: float | None = 1.0
    momentum: bool = True
    decay: bool = False
    muon: bool = False
    mean: bool = False
    harmonic: bool = False


RULES: dict[str, Rule] = {
    "allmem": Rule(GLU()),
    "linear": Rule(Linear()),
    "lact": Rule(GLU(residual=False), "dot", "after writing", clip=None),
    "lact-prenorm": Rule(GLU(residual=False), "dot", "copy", clip=None),
    "lact-muon": Rule(GLU(residual=False), "dot", "after writing", clip=None, muon=True),
    "ttt-mlp": Rule(NormedMLP(), normalise="never", clip=None, momentum=False, harmonic=True),
    "titans": Rule(MLP(), normalise="never", decay=True),
}
"""The memories by name."""


@dataclass(frozen=True)
class Chunk:
    """What the tokens of a chunk, or of whole sequences, bring to a memory. Axes ``[batch, heads, tokens, ...]``.

    Attributes:
        key, value: ``[..., dim]``, ``[..., value_dim]``.
        rate: ``[..., 1]``, or ``[..., matrices]``: the step size, one for all fast weights or one for each.
        theta: ``[...]``: how much of the last step is kept; its mean over the chunk counts. None without momentum.
        decay: ``[...]``: how much is forgotten; its mean over the chunk counts. None without decay.
    """

    key: Tensor
    value: Tensor
    rate: Tensor
    theta: Tensor | None = None
    decay: Tensor | None = None

    def tensors(self) -> dict[str, Tensor]:
        return {name: tensor for name, tensor in vars(self).items() if tensor is not None}

    def part(self, first: int, last: int) -> Chunk:
        return Chunk(**{name: tensor[:, :, first:last] for name, tensor in self.tensors().items()})


def row_norms(rule: Rule, start: Weights) -> Weights:
    """The norms to which rows are brought back: those of the first weights."""
    return {name: start[name].norm(dim=-1, keepdim=True) for name in rule.network.normed}


def normalised(w: Weights, norms: Weights) -> Weights:
    """Every row of the matrices in ``norms`` at its norm there; a row that has it already stays as it is."""
    return w | {name: w[name] * _factor(w[name].norm(dim=-1, keepdim=True), norm) for name, norm in norms.items()}


def _factor(found: Tensor, wanted: Tensor) -> Tensor:
    return torch.where(found == wanted, 1, wanted / (found + EPS))


def orthogonalised(step: Tensor) -> Tensor:
    """A matrix with the singular vectors of ``step`` and singular values near 1 (Muon's Newton-Schulz iteration), in
    bfloat16 as published, in float64 where ``step`` is."""
    tall = step.shape[-2] > step.shape[-1]
    x = step.mT if tall else step
    x = x if x.dtype == torch.float64 else x.bfloat16()
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for a, b, c in MUON:
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    return (x.mT if tall else x).to(step.dtype)


def gradients(rule: Rule, w: Weights, chunk: Chunk) -> Weights:
    """The chunk's gradient at ``w`` of each fast weight: ``sum_t rate_t * d loss_t``."""
    network = rule.network
    out, kept = network.apply(w, chunk.key)
    slope = out - chunk.value if rule.loss == "square" else -chunk.value
    rate, tokens = chunk.rate, chunk.key.shape[-2]
    if rule.harmonic:
        rate = rate / torch.arange(1, tokens + 1, dtype=rate.dtype, device=rate.device)[:, None]
    if rule.mean:
        rate = rate / tokens
    rates = dict(zip(network.fast, rate.expand(*rate.shape[:-1], len(network.fast)).split(1, -1), strict=True))
    return network.gradients(w, chunk.key, kept, slope, rates)


def reading(rule: Rule, w: Weights, norms: Weights) -> Weights:
    """The weights that tokens read."""
    return normalised(w, norms) if rule.normalise in ("before reading", "copy") else w


def write(rule: Rule, w: Weights, step: Weights, norms: Weights, chunk: Chunk) -> tuple[Weights, Weights]:
    """Weights and steps after a whole chunk was written (AllMem, section on the memory update; LaCT, Algorithm 1).

    Args:
        w, step: the weights as the last write left them, and its steps (zeros at first).
        norms: of :func:`row_norms`.
        chunk: what is written.
    """
    at = w if rule.normalise in ("after writing", "never") else normalised(w, norms)
    found = gradients(rule, at, chunk)
    if rule.clip is not None:
        found = {name: g * (rule.clip / _norm(g).clamp(min=rule.clip)) for name, g in found.items()}
    if rule.momentum:
        assert chunk.theta is not None
        theta = chunk.theta.mean(-1)[..., None, None]
        found = {name: theta * step[name] + g for name, g in found.items()}
    base = w if rule.normalise == "copy" else at
    if rule.decay:
        assert chunk.decay is not None
        kept = 1 - chunk.decay.mean(-1)[..., None, None]
        base = base | {name: kept * base[name] for name in rule.network.fast}
    after = base | {name: base[name] - (orthogonalised(g) if rule.muon else g) for name, g in found.items()}
    return (normalised(after, norms) if rule.normalise == "after writing" else after), found


def _norm(g: Tensor) -> Tensor:
    return torch.linalg.vector_norm(g, dim=(-2, -1), keepdim=True)


def read_through(
    rule: Rule,
    start: Mapping[str, Float[Tensor, "..."]],
    query: Float[Tensor, "batch heads group tokens dim"],
    tokens: Chunk,
    chunk: int,
    *,
    checkpointed: bool = False,
) -> Float[Tensor, "batch heads group tokens value_dim"]:
    """What a memory that starts at ``start`` answers to the queries of whole sequences, read in chunks.

    The last chunk is read and never written. Differentiable in everything.

    Args:
        rule: how it learns.
        start: the first weights, ``[heads, rows, columns]`` (shared by the sequences) or with the batch in front.
        query: for each memory head a group of queries a token.
        tokens: keys, values and steps of the sequences.
        chunk: tokens a chunk.
        checkpointed: keep only the weights at chunk borders, and compute each chunk again in the backward pass.
    """
    check_chunk(chunk)
    dtype = _dtype(query)
    query, tokens = query.to(dtype), _cast(tokens, dtype)
    w = _batched({name: weight.to(dtype) for name, weight in start.items()}, query)
    norms, step = row_norms(rule, w), zero_steps(rule, w)
    outs = [query.new_zeros(*query.shape[:3], 0, tokens.value.shape[-1])]
    length = query.shape[3]
    with torch.autocast(query.device.type, enabled=False):
        for first in range(0, length, chunk):
            last = min(first + chunk, length)
            asked, brought = query[:, :, :, first:last].flatten(2, 3), tokens.part(first, last)
            arguments = (rule, w, step, norms, asked, brought, last < length)
            if checkpointed and last < length:
                out, w, step = checkpoint(_read_and_write, *arguments, use_reentrant=False)  # type: ignore[misc]
            else:
                out, w, step = _read_and_write(*arguments)
            outs.append(out.unflatten(2, (query.shape[2], last - first)))
    return torch.cat(outs, 3)


def _read_and_write(
    rule: Rule, w: Weights, step: Weights, norms: Weights, query: Tensor, chunk: Chunk, followed: bool
) -> tuple[Tensor, Weights, Weights]:
    out = rule.network(reading(rule, w, norms), query)
    if followed:
        w, step = write(rule, w, step, norms, chunk)
    return out, w, step


def start_state(
    rule: Rule, start: Mapping[str, Tensor], batch: int, chunk: int, *, rates: int = 1
) -> dict[str, Tensor]:
    """The state of ``batch`` memories before their first token, float32 (float64 where ``start`` is).

    ``w.*``: fast weights; ``step.*``: the last steps (with momentum); ``chunk.*``: what the tokens of the unfinished
    chunk brought, in room for one chunk; ``count [batch]``: how many tokens it has.
    """
    check_chunk(chunk)
    fast = {name: start[name].detach() for name in rule.network.fast}
    first = fast[rule.network.fast[0]]
    dtype, heads = _dtype(first), first.shape[-3]
    matrices = rule.network.shapes(1, 1, 1)
    inputs = start[next(name for name in matrices if name in ("w", "w0"))].shape[-1]
    values = start["w" if "w" in matrices else "w1"].shape[-2]
    state = {f"w.{name}": weight.to(dtype).repeat(batch, 1, 1, 1) for name, weight in fast.items()}
    if rule.momentum:
        state |= {f"step.{name}": torch.zeros_like(state[f"w.{name}"]) for name in fast}
    room = {"key": (inputs,), "value": (values,), "rate": (rates,)}
    room |= {"theta": ()} if rule.momentum else {}
    room |= {"decay": ()} if rule.decay else {}
    for name, widths in room.items():
        state[f"chunk.{name}"] = first.new_zeros(batch, heads, chunk, *widths, dtype=dtype)
    state["count"] = torch.zeros(batch, dtype=torch.int64, device=first.device)
    return state


def state_size(rule: Rule, dim: int, value_dim: int, hidden: int, heads: int, chunk: int, *, rates: int = 1) -> int:
    """Numbers in the state of one sequence: ``heads (P (1 + momentum) + chunk (dim + value_dim + rates + momentum +
    decay)) + 1`` with ``P`` the fast weights of a memory (``3 m d`` for the gated unit)."""
    shapes = rule.network.shapes(dim, value_dim, hidden)
    weights = sum(shapes[name][0] * shapes[name][1] for name in rule.network.fast)
    each = dim + value_dim + rates + rule.momentum + rule.decay
    return heads * (weights * (1 + rule.momentum) + chunk * each) + 1


@torch.no_grad()
def read_on(
    rule: Rule,
    start: Mapping[str, Tensor],
    state: dict[str, Tensor],
    query: Float[Tensor, "batch heads group tokens dim"],
    tokens: Chunk,
    lengths: Int64[Tensor, " batch"],
) -> Float[Tensor, "batch heads group tokens value_dim"]:
    """What the memories answer to their next tokens, the first ``lengths`` of each row; zeros at the others.

    ``state`` (of :func:`start_state`) is brought up to date in place. Rows may stand at different places of their
    chunks: their borders are counted from their own first tokens, as :func:`read_through` has them.
    """
    network, chunk = rule.network, state["chunk.key"].shape[2]
    dtype = state["chunk.key"].dtype
    query, tokens = query.to(dtype), _cast(tokens, dtype)
    first = {name: start[name].detach().to(dtype) for name in (*network.fast, *network.fixed)}
    norms = _batched(row_norms(rule, first), query)
    fixed = _batched({name: first[name] for name in network.fixed}, query)
    batch, heads, group, length, _ = query.shape
    out = query.new_zeros(batch, heads, group, length, tokens.value.shape[-1])
    count, done = state["count"], torch.zeros_like(lengths)
    with torch.autocast(query.device.type, enabled=False):
        while bool((done < lengths).any()):
            taken = torch.minimum(chunk - count, lengths - done)
            most = int(taken.max())
            row, place = torch.nonzero(torch.arange(most, device=query.device) < taken[:, None], as_tuple=True)
            source = done[row] + place
            asked = query.new_zeros(batch, heads, group, most, query.shape[-1])
            asked[row, :, :, place] = query[row, :, :, source]
            w = fixed | {name: state[f"w.{name}"] for name in network.fast}
            answered = network(reading(rule, w, norms), asked.flatten(2, 3)).unflatten(2, (group, -1))
            out[row, :, :, source] = answered[row, :, :, place]
            for name, tensor in tokens.tensors().items():
                state[f"chunk.{name}"][row, :, count[row] + place] = tensor[row, :, source]
            count, done = count + taken, done + taken
            full = torch.nonzero(count == chunk).flatten()
            if len(full):
                _write_rows(rule, state, fixed, norms, full)
                count[full] = 0
    state["count"] = count
    return out


def _write_rows(rule: Rule, state: dict[str, Tensor], fixed: Weights, norms: Weights, rows: Tensor) -> None:
    """Write the full chunks of these rows."""
    network = rule.network
    w = {name: weight[rows] for name, weight in fixed.items()} | {
        name: state[f"w.{name}"][rows] for name in network.fast
    }
    step = {name: state[f"step.{name}"][rows] for name in network.fast} if rule.momentum else {}
    held = {name: state[f"chunk.{name}"][rows] for name in Chunk.__dataclass_fields__ if f"chunk.{name}" in state}
    w, step = write(rule, w, step, {name: norm[rows] for name, norm in norms.items()}, Chunk(**held))
    for name in network.fast:
        state[f"w.{name}"][rows] = w[name]
        if rule.momentum:
            state[f"step.{name}"][rows] = step[name]


def check_chunk(chunk: int) -> None:
    """Raise ``ValueError`` where a chunk holds no token."""
    if chunk < 1:
        raise ValueError(f"chunk={chunk}; it must be at least 1 token")


def zero_steps(rule: Rule, w: Weights) -> Weights:
    """The steps before the first write."""
    return {name: torch.zeros_like(w[name]) for name in rule.network.fast} if rule.momentum else {}


def _batched(w: Weights, query: Tensor) -> Weights:
    """Each weight with the batch in front."""
    return {name: x if x.ndim == 4 else x.expand(query.shape[0], *x.shape) for name, x in w.items()}


def _dtype(tensor: Tensor) -> torch.dtype:
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32


def _cast(chunk: Chunk, dtype: torch.dtype) -> Chunk:
    return replace(chunk, **{name: tensor.to(dtype) for name, tensor in chunk.tensors().items()})
