"""The ground that tests stand on does what it says."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

import pytest
import torch

import shape_checks

SHAPED = """
from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


@torch.library.custom_op("shaped::double", mutates_args=())
def double(x: Tensor) -> Tensor:
    return x * 2


@double.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


def add(x: Float[Tensor, "*grid dim"], y: Float[Tensor, " dim"] | None = None) -> Float[Tensor, "*grid dim"]:
    return double(x) if y is None else x + y


class Net(torch.nn.Module):
    def forward(self, x: Float[Tensor, "batch tokens dim"]) -> Float[Tensor, "batch tokens dim"]:
        return add(x)
"""


def test_fresh_memory_is_poisoned():
    assert torch.empty(4).isnan().all()
    assert torch.ones(3).new_empty(2, 2).isnan().all()


def test_cache_is_not_the_users():
    assert Path(os.environ["FOVEA_CACHE"]).name.startswith("fovea-tests-")


def test_annotated_shapes_are_checked(tmp_path, monkeypatch):
    (tmp_path / "shaped_example.py").write_text(SHAPED)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "meta_path", [shape_checks.ShapeChecks(["shaped_example"]), *sys.meta_path])
    shaped = importlib.import_module("shaped_example")

    x = torch.ones(2, 3, 4)
    torch.testing.assert_close(shaped.Net()(x), 2 * x)
    torch.testing.assert_close(torch.compile(shaped.Net(), fullgraph=True, backend="eager")(x), 2 * x)
    with pytest.raises(Exception, match="parameter 'y'"):
        shaped.add(x, torch.ones(5))
    with pytest.raises(Exception, match="parameter 'x'"):
        shaped.Net()(x[0])
