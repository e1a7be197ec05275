"""What every mixer keeps to: whole sequences, pieces and single tokens agree, for rows that differ; packed documents do
not mix."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from fovea.nn.mixer import Mixer, State


def check_mixer(mixer: Mixer, dim: int, tokens: int, *, tolerance: float = 1e-5, alone: bool = True) -> None:
    """Run all checks. ``tokens`` is best more than what the mixer remembers, and no multiple of its blocks or chunks.

    With ``alone``, a document packed into a row gives what it gives alone; without, it only hears of no other.
    """
    mixer = mixer.eval()
    like = next(mixer.parameters())
    x = torch.randn(3, tokens, dim, dtype=like.dtype)
    whole = mixer(x).detach()
    assert whole.shape == x.shape
    assert whole.isfinite().all()
    check_causal(mixer, x, whole, tolerance)
    check_pieces(mixer, x, whole, tolerance)
    check_lengths(mixer, x, tolerance)
    check_reorder(mixer, x, whole, tolerance)
    check_state_size(mixer, x)
    check_documents(mixer, x, tolerance, alone)
    check_refusals(mixer, x)


def near(found: Tensor, wanted: Tensor, tolerance: float, what: str) -> None:
    torch.testing.assert_close(found, wanted, rtol=tolerance, atol=tolerance, msg=lambda text: f"{what}: {text}")


def check_causal(mixer: Mixer, x: Tensor, whole: Tensor, tolerance: float) -> None:
    for cut in {1, x.shape[1] // 2, x.shape[1] - 1}:
        other = x.clone()
        other[:, cut:] = torch.randn_like(other[:, cut:])
        near(mixer(other).detach()[:, :cut], whole[:, :cut], tolerance, f"tokens before {cut} hear of those after")


def check_pieces(mixer: Mixer, x: Tensor, whole: Tensor, tolerance: float) -> None:
    tokens = x.shape[1]
    for sizes in ([tokens], [1, tokens // 2, tokens], [tokens // 3, 1, 1, 0, 2, tokens], [1] * tokens):
        state, parts, done = mixer.start(len(x), x), [], 0
        for size in sizes:
            piece = x[:, done : done + size]
            parts.append(mixer.step(piece, state) if piece.shape[1] == 1 else mixer.prefill(piece, state))
            done += piece.shape[1]
            assert state.position.tolist() == [done] * len(x)
        near(torch.cat(parts, 1).detach(), whole, tolerance, f"read in pieces of {sizes[:6]}")


def check_lengths(mixer: Mixer, x: Tensor, tolerance: float) -> None:
    """Rows of different lengths, padded on the right, then further pieces of different lengths and single steps."""
    tokens = x.shape[1]
    state = mixer.start(3, x)
    alone = [mixer(x[row : row + 1]).detach()[0] for row in range(3)]
    done = [0, 0, 0]
    plan = [
        (tokens // 2, tokens // 2 - 1, 0),
        (1, 0, 1),
        (1, 1, 1),
        (tokens // 4, 3, tokens // 4 - 1),
        (1, 1, 1),
        (0, 0, 0),
    ]
    for lengths in plan:
        width = max(*lengths, 1)
        piece = torch.randn(3, width, x.shape[2], dtype=x.dtype)
        for row, length in enumerate(lengths):
            piece[row, :length] = x[row, done[row] : done[row] + length]
        out = mixer.prefill(piece, state, torch.tensor(lengths))
        assert out.isfinite().all(), "padding gives what is not finite"
        for row, length in enumerate(lengths):
            near(out[row, :length], alone[row][done[row] : done[row] + length], tolerance, f"row {row} of {lengths}")
            done[row] += length
        assert state.position.tolist() == done
    out = mixer.prefill(torch.stack([x[row, at : at + 1] for row, at in enumerate(done)]), state)
    for row, at in enumerate(done):
        near(out[row, 0], alone[row][at], tolerance, f"row {row} at its own position")


def check_reorder(mixer: Mixer, x: Tensor, whole: Tensor, tolerance: float) -> None:
    half = x.shape[1] // 2
    state = mixer.start(3, x)
    mixer.prefill(x[:, :half], state)
    rows = torch.tensor([2, 0, 0, 1])
    state.reorder(rows)
    assert state.batch == 4
    for at in range(half, half + 2):
        near(mixer.step(x[rows, at : at + 1], state), whole[rows, at : at + 1], tolerance, "reordered rows")
    state.reorder(torch.tensor([1]))
    near(mixer.step(x[:1, half + 2 : half + 3], state), whole[:1, half + 2 : half + 3], tolerance, "one row kept")


def held(state: State) -> int:
    """Numbers that a row of the state holds."""
    assert all(len(tensor) == state.batch for tensor in state.tensors.values()), "the batch is the first axis"
    return sum(tensor[0].numel() for tensor in state.tensors.values())


def check_state_size(mixer: Mixer, x: Tensor) -> None:
    state = mixer.start(3, x)
    assert held(state) == mixer.state_size(0)
    for at in range(x.shape[1]):
        mixer.step(x[:, at : at + 1], state)
        assert held(state) == mixer.state_size(at + 1), f"after {at + 1} tokens"
    state = mixer.start(3, x)
    mixer.prefill(x, state)
    assert held(state) == mixer.state_size(x.shape[1])


def check_documents(mixer: Mixer, x: Tensor, tolerance: float, alone: bool) -> None:
    """Rows with borders at different places; the numbers of documents need not begin at 0 nor follow each other."""
    tokens = x.shape[1]
    cuts = [[0, 1, tokens // 2, tokens], [0, tokens // 3, tokens // 3 + 2, tokens], [0, tokens]]
    documents = torch.zeros(3, tokens, dtype=torch.int64)
    for row, edges in enumerate(cuts):
        for number, (low, high) in enumerate(pairwise(edges)):
            documents[row, low:high] = 3 * number + row
    packed = mixer(x, documents).detach()
    assert packed.isfinite().all()
    for row, edges in enumerate(cuts):
        for low, high in pairwise(edges):
            if alone:
                near(
                    packed[row, low:high], mixer(x[row : row + 1, low:high]).detach()[0], tolerance, "a document alone"
                )
            other = torch.randn_like(x)
            other[row, low:high] = x[row, low:high]
            near(mixer(other, documents).detach()[row, low:high], packed[row, low:high], tolerance, "other documents")


def check_refusals(mixer: Mixer, x: Tensor) -> None:
    for lengths in ([1, 1, x.shape[1] + 1], [1, 1, -1]):
        state = mixer.start(3, x)
        with pytest.raises(ValueError, match="lengths"):
            mixer.prefill(x, state, torch.tensor(lengths))
        assert state.position.tolist() == [0, 0, 0]
