"""Memories learn as their formulas say, in any pieces, and differentiate through every update."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from fovea.kernels.fast_networks import GLU, FastNetwork, Weights
from fovea.kernels.memory import (
    RULES,
    Chunk,
    Rule,
    gradients,
    normalised,
    orthogonalised,
    read_on,
    read_through,
    row_norms,
    start_state,
    state_size,
)

NAMES = pytest.mark.parametrize("name", list(RULES))
DIM, VALUE, HIDDEN = 4, 4, 5


def weights(network: FastNetwork, *lead: int) -> Weights:
    shapes = network.shapes(DIM, VALUE, HIDDEN)
    return {name: 0.5 * torch.randn(*lead, *shape, dtype=torch.float64) for name, shape in shapes.items()}


def tokens(rule: Rule, batch: int, heads: int, length: int) -> Chunk:
    shape = (batch, heads, length)
    draw = lambda *width: torch.randn(*shape, *width, dtype=torch.float64)  # noqa: E731
    rate = 0.3 * draw(1).sigmoid()
    theta = draw().sigmoid() if rule.momentum else None
    return Chunk(draw(DIM), draw(VALUE), rate, theta, 0.2 * draw().sigmoid() if rule.decay else None)


def problem(name: str, batch: int = 2, heads: int = 2, length: int = 13) -> tuple[Rule, Weights, Tensor, Chunk]:
    rule = RULES[name]
    query = torch.randn(batch, heads, 2, length, DIM, dtype=torch.float64)
    return rule, weights(rule.network, heads), query, tokens(rule, batch, heads, length)


@NAMES
@pytest.mark.parametrize("mean", [False, True])
def test_inner_gradients_are_those_of_the_loss(name: str, mean: bool) -> None:
    rule = replace(RULES[name], mean=mean)
    w, chunk = weights(rule.network, 2, 3), tokens(rule, 2, 3, 7)
    fast = {n: w[n].requires_grad_() for n in rule.network.fast}
    out = rule.network(w, chunk.key)
    each = 0.5 * (out - chunk.value).square().sum(-1) if rule.loss == "square" else -(out * chunk.value).sum(-1)
    places = torch.arange(1, 8) if rule.harmonic else 1
    loss = (chunk.rate[..., 0] / places * each).sum() / (7 if mean else 1)
    expected = torch.autograd.grad(loss, list(fast.values()))
    with torch.no_grad():
        found = gradients(rule, w, chunk)
    for ours, theirs in zip(found.values(), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


def by_hand(rule: Rule, w: Weights, query: Tensor, chunk: Chunk) -> Tensor:
    """The published order written out for chunks of one token, batch and head by batch and head."""
    out = torch.zeros_like(query[..., :VALUE])
    for b in range(query.shape[0]):
        for h in range(query.shape[1]):
            now = {n: x[h].clone() for n, x in w.items()}
            first = {n: x.norm(dim=-1, keepdim=True) for n, x in now.items()}
            step = {n: torch.zeros_like(x) for n, x in now.items()}
            for t in range(query.shape[3]):
                out[b, h, :, t] = rule.network(now, query[b, h, :, t])
                eps = 1e-5 if t else 0.0  # rows as they started need no normalisation
                held = {n: x / (x.norm(dim=-1, keepdim=True) + eps) * first[n] for n, x in now.items()}
                held = {n: x.requires_grad_() for n, x in held.items()}
                k, v = chunk.key[b, h, t : t + 1], chunk.value[b, h, t : t + 1]
                loss = chunk.rate[b, h, t, 0] * 0.5 * (rule.network(held, k) - v).square().sum()
                for n, g in zip(held, torch.autograd.grad(loss, list(held.values())), strict=True):
                    g = g / max(1.0, g.norm().item())
                    step[n] = chunk.theta[b, h, t] * step[n] + g
                    now[n] = held[n].detach() - step[n]
    return out


def test_chunks_of_one_token_are_a_loop_over_tokens() -> None:
    rule, w, query, brought = problem("allmem")
    torch.testing.assert_close(read_through(rule, w, query, brought, 1), by_hand(rule, w, query, brought))


def test_the_weights_are_read_before_they_are_normalised() -> None:
    rule, w, query, brought = problem("allmem")
    published = read_through(rule, w, query, brought, 4)
    swapped = read_through(replace(rule, normalise="before reading"), w, query, brought, 4)
    torch.testing.assert_close(swapped[..., :4, :], published[..., :4, :], atol=1e-4, rtol=1e-4)  # nothing written yet
    assert (swapped - published)[..., 4:, :].abs().max() > 1e-2
    assert RULES["allmem"].normalise == "after reading"


def test_norms_are_along_the_inputs() -> None:
    w = weights(GLU(), 2)
    grown = normalised({n: 3 * x for n, x in w.items()}, row_norms(RULES["allmem"], w))
    assert row_norms(RULES["allmem"], w)["w1"].shape == (2, VALUE, 1)
    for name in w:
        torch.testing.assert_close(grown[name], w[name], rtol=1e-4, atol=1e-4)


@NAMES
def test_any_pieces_and_single_tokens_give_what_one_pass_gives(name: str) -> None:
    rule, w, query, brought = problem(name)
    whole = read_through(rule, w, query, brought, 4)
    for pieces in ([13], [1] * 13, [5, 0, 7, 1], [4, 4, 5], [3, 9, 1]):
        state, done, outs = start_state(rule, w, 2, 4), 0, []
        sizes = {key: tensor.shape for key, tensor in state.items()}
        for piece in pieces:
            lengths = torch.tensor([piece, piece])
            part = slice(done, done + piece)
            outs.append(read_on(rule, w, state, query[:, :, :, part], brought.part(done, done + piece), lengths))
            done += piece
        torch.testing.assert_close(torch.cat(outs, 3), whole)
        assert {key: tensor.shape for key, tensor in state.items()} == sizes


@NAMES
def test_rows_of_different_lengths_keep_their_own_chunks(name: str) -> None:
    rule, w, query, brought = problem(name)
    whole = read_through(rule, w, query, brought, 4)
    state = start_state(rule, w, 2, 4)
    done = torch.tensor([0, 0])
    for lengths in ([3, 5], [0, 2], [6, 1], [4, 5]):
        lengths = torch.tensor(lengths)
        index = (done[:, None] + torch.arange(int(lengths.max()))).clamp(max=12)
        row = torch.arange(2)[:, None]
        part = Chunk(**{n: t.transpose(1, 2)[row, index].transpose(1, 2) for n, t in brought.tensors().items()})
        asked = query.permute(0, 3, 1, 2, 4)[row, index].permute(0, 2, 3, 1, 4)
        out = read_on(rule, w, state, asked, part, lengths)
        for b in range(2):
            piece = slice(int(done[b]), int(done[b] + lengths[b]))
            torch.testing.assert_close(out[b, :, :, : lengths[b]], whole[b, :, :, piece])
        done = done + lengths
    assert done.tolist() == [13, 13]
    assert state["count"].tolist() == [1, 1]


@NAMES
def test_the_state_is_as_large_as_the_formula(name: str) -> None:
    rule = RULES[name]
    state = start_state(rule, weights(rule.network, 2), 3, 6)
    assert sum(tensor.numel() for tensor in state.values()) == 3 * state_size(rule, DIM, VALUE, HIDDEN, 2, 6)


@NAMES
def test_outer_gradients_through_four_chunks(name: str) -> None:
    rule, w, query, brought = problem(name, 1, 1, 8)
    names, given = list(w), brought.tensors()

    def run(query: Tensor, *tensors: Tensor) -> Tensor:
        start = dict(zip(names, tensors, strict=False))
        chunk = Chunk(**dict(zip(given, tensors[len(names) :], strict=True)))
        return read_through(rule, start, query, chunk, 2)

    inputs = [x.detach().requires_grad_() for x in (query, *w.values(), *given.values())]
    assert torch.autograd.gradcheck(run, inputs)


@NAMES
def test_checkpointed_is_not_checkpointed(name: str) -> None:
    rule, w, query, brought = problem(name)
    inputs = [x.requires_grad_() for x in (query, *w.values(), *brought.tensors().values())]
    plain = read_through(rule, w, query, brought, 4)
    again = read_through(rule, w, query, brought, 4, checkpointed=True)
    assert torch.equal(plain, again)
    expected = torch.autograd.grad(plain.square().sum(), inputs, allow_unused=True)
    for ours, theirs in zip(
        torch.autograd.grad(again.square().sum(), inputs, allow_unused=True), expected, strict=True
    ):
        assert torch.equal(ours, theirs)


def test_orthogonalised_matrices_have_singular_values_near_one() -> None:
    for shape in ((8, 8), (5, 9), (9, 5)):
        values = torch.linalg.svdvals(orthogonalised(torch.randn(3, *shape)))
        assert values.min() > 0.6 and values.max() < 1.4


def test_low_precision_tokens_meet_float32_weights() -> None:
    rule, w, query, brought = problem("allmem")
    low = Chunk(**{n: t.bfloat16() for n, t in brought.tensors().items()})
    out = read_through(rule, {n: x.float() for n, x in w.items()}, query.bfloat16(), low, 4)
    assert out.dtype == torch.float32
    torch.testing.assert_close(out.double(), read_through(rule, w, query, brought, 4), rtol=0.1, atol=0.1)


def test_autocast_leaves_memories_in_float32() -> None:
    rule, w, query, brought = problem("allmem")
    w, query = {n: x.float() for n, x in w.items()}, query.float()
    brought = Chunk(**{n: t.float() for n, t in brought.tensors().items()})
    with torch.autocast("cpu", torch.bfloat16):
        found = read_through(rule, w, query, brought, 4)
        pieces = read_on(rule, w, start_state(rule, w, 2, 4), query, brought, torch.tensor([13, 13]))
    assert torch.equal(found, read_through(rule, w, query, brought, 4))
    torch.testing.assert_close(pieces, found, rtol=1e-5, atol=1e-5)


def test_no_tokens() -> None:
    rule, w, query, brought = problem("allmem")
    assert read_through(rule, w, query[:, :, :, :0], brought.part(0, 0), 4).shape == (2, 2, 2, 0, VALUE)


def test_a_chunk_holds_a_token() -> None:
    rule, w, query, brought = problem("allmem")
    with pytest.raises(ValueError, match="chunk=0; it must be at least 1 token"):
        read_through(rule, w, query, brought, 0)
