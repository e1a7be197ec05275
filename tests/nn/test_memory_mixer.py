"""The window with a memory beside it: one contract in any pieces, nothing changed at first, a state of one size."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fovea.kernels.memory import RULES
from fovea.nn.language_attention import FullAttention, SlidingWindowAttention
from fovea.nn.memory import Memory
from fovea.nn.memory_mixer import MemoryMixer
from nn.mixer_contract import check_mixer, held

DIM = 12


def mixer(memory: str = "allmem", alpha: float = 0.5, **options) -> MemoryMixer:
    options = {"window": 6, "sinks": 2, "chunk": 5, "kv_heads": 1, "hidden": 7, "rate": 0.3, **options}
    found = MemoryMixer(DIM, 3, memory=memory, alpha=alpha, head_dim=4, **options)
    for parameter in found.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.5)
    return found.double()


@pytest.mark.parametrize("memory", list(RULES))
def test_contract(memory: str) -> None:
    check_mixer(mixer(memory), DIM, 23)


@pytest.mark.parametrize(
    "options", [{"share_out": True}, {"kv_heads": 3, "head_norm": True}, {"chunk": 1, "window": 1}]
)
def test_contract_with_options(options: dict) -> None:
    check_mixer(mixer(**options), DIM, 17)


def test_a_new_memory_changes_nothing_and_a_wide_window_is_full_attention() -> None:
    x = torch.randn(2, 20, DIM, dtype=torch.float64)
    for window, other in ((6, SlidingWindowAttention(DIM, 3, window=6, sinks=2, kv_heads=1, head_dim=4)),
                          (20, FullAttention(DIM, 3, kv_heads=1, head_dim=4))):  # fmt: skip
        layer = mixer(alpha=0.0, window=window)
        other.double().load_state_dict(layer.attention.state_dict())
        torch.testing.assert_close(layer(x), other(x), rtol=1e-12, atol=1e-12)


def test_the_memory_reaches_beyond_the_window() -> None:
    x = torch.randn(1, 40, DIM, dtype=torch.float64)
    other = x.clone()
    other[:, 3] = torch.randn(DIM)
    for memory in RULES:
        layer = mixer(memory, sinks=0)
        assert (layer(x) - layer(other))[:, -1].abs().max() > 1e-7
    layer = mixer(alpha=0.0, sinks=0)
    assert torch.equal(layer(x)[:, -1], layer(other)[:, -1])


def test_every_parameter_of_the_memory_gets_a_gradient() -> None:
    for memory in RULES:
        layer = mixer(memory)
        layer(torch.randn(2, 23, DIM, dtype=torch.float64)).square().sum().backward()
        for name, parameter in layer.memory.named_parameters():
            assert parameter.grad is not None, f"{memory} {name}"
            assert parameter.grad.isfinite().all()
            assert parameter.grad.abs().max() > 0, f"{memory} {name}"


def test_the_state_keeps_its_size_over_twenty_thousand_tokens() -> None:
    layer = MemoryMixer(8, 2, window=512, sinks=4, chunk=256, kv_heads=1)
    state = layer.start(1, torch.zeros(1))
    sizes = set()
    for tokens in (600, 100, 1300, 8000, 10_000):
        layer.prefill(torch.randn(1, tokens, 8), state)
        sizes.add(held(state))
    assert state.position.tolist() == [20_000]
    d, m = 4, 8
    window = 2 * d * (512 + 4)
    assert sizes == {layer.state_size(20_000)} == {window + 2 * 3 * m * d + 256 * (2 * d + 2) + 1}


def test_padding_on_the_left_is_not_learned_from() -> None:
    memory = Memory(DIM, 2, 1, 4, chunk=3, rate=0.3).double()
    nn.init.ones_(memory.alpha)
    x, q, k, v = (torch.randn(2, 14, *shape, dtype=torch.float64) for shape in ((DIM,), (2, 4), (1, 4), (1, 4)))
    documents = torch.zeros(2, 14, dtype=torch.int64)
    documents[1, :5] = -1
    out = memory(x, q, k, v, documents=documents)
    torch.testing.assert_close(out[0], memory(x, q, k, v)[0])
    torch.testing.assert_close(out[1, 5:], memory(x[1:, 5:], q[1:, 5:], k[1:, 5:], v[1:, 5:])[0])
    assert out[1, :5].abs().max() == 0


def test_low_precision_layers_keep_float32_memories() -> None:
    layer = mixer().to(torch.bfloat16)
    state = layer.start(1, torch.zeros(1, dtype=torch.bfloat16))
    assert state.tensors["memory.w.w0"].dtype == torch.float32
    x = torch.randn(1, 9, DIM, dtype=torch.bfloat16)
    out = layer.prefill(x, state)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), layer(x).float(), rtol=0.05, atol=0.05)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"chunk": 0}, "chunk=0; it must be at least 1 token"),
        ({"kind": "allmen"}, "unknown memory 'allmen'; did you mean allmem"),
        ({"rate": 0.0}, "rate=0.0; the first step size must be above 0"),
        ({"hidden": 0}, "hidden=0; the memory needs at least 1 unit"),
    ],
)
def test_refusals(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Memory(DIM, 2, 1, 4, **options)


def test_a_state_is_for_one_size_of_chunk() -> None:
    layer = mixer()
    state = layer.start(1, torch.zeros(1, dtype=torch.float64))
    layer.memory.chunk = 4
    with pytest.raises(ValueError, match="made for chunks of 5 tokens, not 4"):
        layer.prefill(torch.randn(1, 3, DIM, dtype=torch.float64), state)
