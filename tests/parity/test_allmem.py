"""The memory engine against LaCT's own code: both places of the normalisation, momentum, Muon, gradients."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from fovea.kernels.memory import RULES, Chunk, Rule, read_through

pytestmark = pytest.mark.parity
NORMS = {"postnorm": RULES["lact"], "prenorm": RULES["lact-prenorm"]}


def run(rule: Rule, inputs: dict[str, Tensor], chunk: int) -> Tensor:
    rate = torch.cat([inputs["lr0"], inputs["lr1"], inputs["lr2"]], -1)
    theta = inputs["momentum"][:, None, :, 0] if "momentum" in inputs else None
    tokens = Chunk(inputs["k"][:, None], inputs["v"][:, None], rate[:, None], theta)
    start = {name: inputs[name][:, None] for name in ("w0", "w1", "w2")}
    return read_through(rule, start, inputs["q"][:, None, None], tokens, chunk)[:, 0, 0]


def test_lact(golden, subtests) -> None:
    description, tensors = golden("allmem-lact")
    for case, values in description["cases"].items():
        for place, rule in NORMS.items():
            with subtests.test(f"{case} {place}"):
                prefix = f"input.{case}."
                inputs = {
                    name.removeprefix(prefix): tensor.clone().requires_grad_()
                    for name, tensor in tensors.items()
                    if name.startswith(prefix) and not name.endswith("loss_weights")
                }
                out = run(replace(rule, muon=values["muon"], momentum=values["momentum"]), inputs, values["chunk"])
                tolerance = 3e-2 if values["muon"] else 1e-5
                expected = tensors[f"output.{case}.{place}"]
                torch.testing.assert_close(out.detach(), expected, rtol=tolerance, atol=tolerance)

                grads = {n.split(".")[-1]: g for n, g in tensors.items() if n.startswith(f"grad.{case}.{place}.")}
                if not grads:
                    continue
                found = torch.autograd.grad((out * tensors[f"{prefix}loss_weights"]).sum(), [inputs[n] for n in grads])
                for ours, expected in zip(found, grads.values(), strict=True):
                    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)
