"""PowerAttention and the patterns it is compared with: outputs of the vectors, gradients of masked dense attention."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional

import fovea
from fovea.nn.language_attention import BlockAttention
from fovea.patterns import Blocks
from parity.test_fna import BACKENDS

pytestmark = pytest.mark.parity


def pattern_of(kind: str, values: dict[str, Any], size: int) -> Blocks:
    """The pattern of a kind in the vector's words."""
    if kind == "longnet":
        return Blocks.longnet(size, tuple(map(tuple, values["segments"])))
    make = {"sliding": Blocks.sliding, "power": Blocks.power, "dilated": Blocks.dilated, "stride": Blocks.strided}[kind]
    return make(size, **values)


def test_blocks_of_the_paper(golden, subtests) -> None:
    description, tensors = golden("power-attention")
    for kind, values in description["paper_patterns"].items():
        with subtests.test(kind):
            expected = tensors[f"output.blocks128.{kind}"]
            pattern = pattern_of(kind, values, 1)
            assert torch.equal(torch.from_numpy(pattern.mask(len(expected))), expected.bool())


@pytest.mark.parametrize("backend", BACKENDS)
def test_operator(golden, subtests, backend: str) -> None:
    description, tensors = golden("power-attention")
    weights = tensors["input.loss_weights"]
    for kind, values in description["small_patterns"].items():
        with subtests.test(kind):
            pattern = pattern_of(kind, values, description["small"]["block"])
            mask = tensors[f"output.small.{kind}.mask"].bool()
            assert torch.equal(torch.from_numpy(pattern.mask(len(mask))), mask)

            inputs = [tensors[f"input.{name}"].clone().requires_grad_() for name in "qkv"]
            out = fovea.attention(*(x.transpose(1, 2) for x in inputs), pattern=pattern, backend=backend).transpose(
                1, 2
            )
            torch.testing.assert_close(out.detach(), tensors[f"output.small.{kind}.out"], rtol=0, atol=1e-5)
            found = torch.autograd.grad((out * weights).sum(), inputs)

            dense = functional.scaled_dot_product_attention(*inputs, attn_mask=mask, enable_gqa=True)
            dense = torch.where(mask.any(1)[:, None], dense, 0)
            for ours, expected in zip(found, torch.autograd.grad((dense * weights).sum(), inputs), strict=True):
                torch.testing.assert_close(ours, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("backend", BACKENDS)
def test_decoding_sees_what_prefill_saw(golden, backend: str) -> None:
    description, tensors = golden("power-attention")
    q, k, v = (tensors[f"input.{name}"].transpose(1, 2) for name in "qkv")
    pattern = pattern_of("power", description["small_patterns"]["power"], description["small"]["block"])
    whole = fovea.attention(q, k, v, pattern, backend=backend)
    for length in range(1, q.shape[1] + 1):
        last = fovea.attention(q[:, length - 1 : length], k[:, :length], v[:, :length], pattern, backend=backend)
        torch.testing.assert_close(last, whole[:, length - 1 : length], rtol=0, atol=1e-5)


def test_layer_with_a_cache(golden, subtests) -> None:
    """A layer whose projections pick the vector's queries, keys and values out of its input: whole, in pieces, and
    token by token."""
    description, tensors = golden("power-attention")
    small = description["small"]
    q, k, v = (tensors[f"input.{name}"].transpose(1, 2).flatten(2) for name in "qkv")
    x = torch.cat([q, k, v], -1)
    widths = [each.shape[-1] for each in (q, k, v)]
    for kind, values in description["small_patterns"].items():
        with subtests.test(kind):
            layer = BlockAttention(
                x.shape[-1],
                small["q_heads"],
                kv_heads=small["kv_heads"],
                head_dim=small["dim"],
                rotary_base=None,
                pattern=pattern_of(kind, values, small["block"]),
            )
            with torch.no_grad():
                for projection, rows in zip(
                    (layer.query, layer.key, layer.value), torch.eye(x.shape[-1]).split(widths), strict=True
                ):
                    projection.weight.copy_(rows)
                layer.project.weight.copy_(torch.eye(x.shape[-1])[:, : widths[0]])
            wanted = tensors[f"output.small.{kind}.out"].transpose(1, 2).flatten(2)
            for pieces in ([x.shape[1]], [13, 1, 20, 11], [1] * x.shape[1]):
                state = layer.start(len(x), x)
                out = torch.cat([layer.prefill(piece, state) for piece in x.split(pieces, 1)], 1)
                torch.testing.assert_close(out[..., : widths[0]], wanted, rtol=0, atol=1e-5)
            torch.testing.assert_close(layer(x)[..., : widths[0]], wanted, rtol=0, atol=1e-5)
