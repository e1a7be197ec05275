"""Tables of blocks chosen at run time, on every backend that takes them."""

from __future__ import annotations

import pytest
import torch

import fovea
from fovea.kernels.registry import backends
from fovea.patterns import Chosen, PerHead
from kernels.problems import Case
from kernels.test_backends import compare

HERE = [name for name in ("native", "tiled") if backends()[name].missing() is None]
SEARCHED = Chosen.spans(16, [0, 2, 1, 9, 5], [4, 3, 1, 12, 13])
CASES = [
    Case(SEARCHED, (75,), (200,), heads=4, kv_heads=2, batch=2),
    Case(SEARCHED, (75,), (200,), extra=3, value_dim=12),
    Case(Chosen.clusters(8, [0, 1, 0, 2, 1, 0, 2, 2], causal=True), (62,), (62,), heads=4, kv_heads=1),
    Case(Chosen(100, ((0, 1), (0, 2))), (150,), (260,)),
    Case(Chosen(64, ((0, 3, 9),), causal=True), (1,), (640,), heads=4, kv_heads=2),
    Case(PerHead((Chosen(8, ((0,), (1,))), Chosen(8, ((1,), (0,))))), (16,), (16,)),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.query_grid} {case.key_grid}")
@pytest.mark.parametrize("backend", HERE)
def test_chosen_blocks_are_the_definition(backend: str, case: Case) -> None:
    compare(case, backend, torch.float32)


def test_the_best_blocks_of_a_search() -> None:
    """What a span search does: score blocks by their mean key, see the best of each, differentiate through it."""
    source = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(1, 64, 1, 8, generator=source, requires_grad=True) for _ in range(3))
    scores = query.detach()[0, :, 0].view(8, 8, 8).mean(1) @ key.detach()[0, :, 0].view(8, 8, 8).mean(1).T
    seen = torch.zeros(8, 8, dtype=torch.bool).scatter(1, scores.topk(3).indices, True)
    out = fovea.attention(query, key, value, Chosen.where(8, seen.numpy()))
    mask = seen.repeat_interleave(8, 0).repeat_interleave(8, 1)
    heads = [x.transpose(1, 2) for x in (query, key, value)]
    wanted = torch.nn.functional.scaled_dot_product_attention(*heads, attn_mask=mask).transpose(1, 2)
    torch.testing.assert_close(out, wanted, rtol=1e-4, atol=1e-5)
    for mine, exact in zip(
        torch.autograd.grad(out.sum(), (query, key, value)),
        torch.autograd.grad(wanted.sum(), (query, key, value)),
        strict=True,
    ):
        torch.testing.assert_close(mine, exact, rtol=1e-4, atol=1e-5)
