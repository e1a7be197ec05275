"""Neighborhood attention against the vectors of its official operator: outputs, lse, windows and gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import fovea
from fovea.kernels.registry import backends
from fovea.patterns import Neighborhood

pytestmark = pytest.mark.parity

ARGUMENTS = {"q": "query", "k": "key", "v": "value", "rpb": "bias", "extra_k": "extra_key", "extra_v": "extra_value"}
BACKENDS = ["auto", *(name for name, backend in backends().items() if backend.missing() is None and name != "flex")]


def pattern_of(case: dict[str, Any]) -> Neighborhood:
    """The pattern that a case describes; scalars repeat on all axes."""
    axes = len(case["layout"])
    values = [case["kernel"], case.get("stride", 1), case.get("dilation", 1), case.get("causal", False)]
    return Neighborhood(*(tuple(v) if isinstance(v, list) else (v,) * axes for v in values))


def compare(case: dict[str, Any], name: str, tensors: dict[str, Tensor], backend: str) -> None:
    """Outputs within 1e-5 and gradients within 1e-4 of the vector's; ``name`` is the case's in the tensors' names."""
    inputs = {
        a: tensors[f"input.{name}.{a}"].clone().requires_grad_() for a in ARGUMENTS if f"input.{name}.{a}" in tensors
    }
    out, lse = fovea.attention(
        pattern=pattern_of(case),
        scale=case.get("scale"),
        backend=backend,
        return_lse=True,
        **{ARGUMENTS[a]: tensor for a, tensor in inputs.items()},
    )
    torch.testing.assert_close(out.detach(), tensors[f"output.{name}.out"], rtol=0, atol=1e-5)
    torch.testing.assert_close(lse.detach(), tensors[f"output.{name}.lse"], rtol=0, atol=1e-5)
    (out * tensors[f"input.{name}.grad_out"]).sum().backward()
    for argument, tensor in inputs.items():
        expected = tensors[f"grad.{name}.{argument}"]
        torch.testing.assert_close(tensor.grad, expected, rtol=0, atol=1e-4, msg=lambda m, a=argument: f"{a}: {m}")


@pytest.mark.parametrize("backend", BACKENDS)
def test_operator(golden, subtests, backend: str) -> None:
    description, tensors = golden("fna")
    for name, case in description["cases"].items():
        with subtests.test(name):
            compare(case, name, tensors, backend)


def test_windows(golden, subtests) -> None:
    description, tensors = golden("fna")
    for name, case in description["cases"].items():
        with subtests.test(name):
            for axis, spans in enumerate(pattern_of(case).spans(tuple(case["layout"]))):
                expected = tensors[f"output.{name}.window_axis{axis}"].numpy()
                np.testing.assert_array_equal(np.stack([spans.start, spans.last], 1), expected)
