"""Attention layers from checkpoints: names that may be changed, layers that never searched, files of other models."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fovea.checkpoints import CheckpointMismatch
from fovea.checkpoints.superlinear import NAMES, attention_layers, layout
from fovea.errors import UserError
from fovea.models.superlinear_config import SearchConfig
from fovea.nn.span_search import SuperlinearAttention

CONFIG = SearchConfig(heads=4, kv_heads=2, sw_index=1)


def official(bias: bool = False) -> tuple[SuperlinearAttention, dict[str, Tensor]]:
    layer = SuperlinearAttention(24, **{**CONFIG.options(), "bias": bias})
    torch.nn.init.normal_(layer.search_query.weight)
    return layer, layout().to_official(layer.state_dict())


@pytest.mark.parametrize("bias", [False, True])
def test_layers_come_as_they_were(bias: bool) -> None:
    layer, names = official(bias)
    state = {f"model.layers.{place}.{name}": tensor for place in (3, 9) for name, tensor in names.items()}
    state["model.layers.0.mixer.in_proj.weight"] = torch.zeros(3)
    found = attention_layers({"state_dict": state}, CONFIG)
    assert list(found) == ["model.layers.3", "model.layers.9"]
    x = torch.randn(1, 70, 24)
    assert torch.equal(found["model.layers.9"](x), layer(x))


def test_names_may_be_changed() -> None:
    layer, names = official()
    state = {name.replace("attn.q_search_proj", "self_attn.q1"): tensor for name, tensor in names.items()}
    found = attention_layers(state, CONFIG, {"search_query": "self_attn.q1"})
    assert torch.equal(found[""].search_query.weight, layer.search_query.weight)
    with pytest.raises(UserError, match="names has search"):
        attention_layers(state, CONFIG, {"search": "self_attn.q1"})


def test_a_layer_that_never_searched_starts_where_it_looks() -> None:
    layer, names = official()
    state = {name: tensor for name, tensor in names.items() if "search" not in name}
    found = attention_layers(state, CONFIG)[""]
    assert torch.equal(found.search_query.weight, layer.query.weight * 6**-0.5)


def test_other_files_are_refused() -> None:
    _, names = official()
    with pytest.raises(UserError, match=r"no tensor is called attn.q_proj.weight"):
        attention_layers({"encoder.weight": torch.zeros(1)}, CONFIG)
    with pytest.raises(CheckpointMismatch, match=r"attn.v_proj.weight"):
        attention_layers({**names, f"{NAMES['value']}.weight": torch.zeros(3, 24)}, CONFIG)
    with pytest.raises(UserError, match="'superlinear-exp-v0.1'"):
        attention_layers(names, "v2")
