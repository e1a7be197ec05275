"""Attention layers of Superlinear models from official checkpoints.

Only the attention of the released model is Superlinear's own (the rest is a Mamba-2 hybrid with expert MLPs), so what
is read are its attention layers. How the released file calls the projection to search queries could not be read
anywhere; names are therefore a table that a caller may change.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from fovea.checkpoints.layout import Layout, Rule
from fovea.checkpoints.reading import weights
from fovea.errors import UserError
from fovea.models.superlinear_config import SETTINGS, SearchConfig
from fovea.nn.span_search import SuperlinearAttention

NAMES: dict[str, str] = {
    "search_query": "attn.q_search_proj",
    "query": "attn.q_proj",
    "key": "attn.k_proj",
    "value": "attn.v_proj",
    "project": "attn.o_proj",
}
"""Our parts of an attention layer, and what a checkpoint calls them."""


def layout(names: Mapping[str, str] | None = None) -> Layout:
    """The rules for one attention layer; ``names`` over those of :data:`NAMES`."""
    known = {**NAMES, **(names or {})}
    if unknown := sorted(set(known) - set(NAMES)):
        raise UserError(f"names has {', '.join(unknown)}; it may have {', '.join(NAMES)}")
    return Layout(
        "a Superlinear attention layer", tuple(Rule(f"{theirs}.*", f"{ours}.*") for ours, theirs in known.items())
    )


def attention_layers(
    state: Mapping[str, Tensor], config: SearchConfig | str, names: Mapping[str, str] | None = None
) -> dict[str, SuperlinearAttention]:
    """The attention layers of a checkpoint, by what stands before the names of their tensors, in evaluation mode.

    Args:
        state: official names and tensors, bare or under ``state_dict``.
        config: how the layers search, or the name of published settings. Where it has no ``head_dim``, it is read from
            the shapes, which must then agree with ``heads``.
        names: what the checkpoint calls our parts, over :data:`NAMES`. A layer without a projection to search queries
            is an ordinary one: its search starts where its attention looks.

    Raises:
        UserError: when there is no such layer, or its shapes are not those of the configuration.
    """
    if isinstance(config, str):
        if config not in SETTINGS:
            raise UserError(f"config={config!r}; it may be {', '.join(map(repr, SETTINGS))}")
        config = SETTINGS[config]
    rules, tensors = layout(names), weights(state)
    known = {**NAMES, **(names or {})}
    marker = re.compile(rf"(?P<prefix>(?:.*\.)?){re.escape(known['query'])}\.weight")
    prefixes = [match["prefix"] for name in tensors if (match := marker.fullmatch(name))]
    if not prefixes:
        begins = ", ".join(list(tensors)[:3])
        raise UserError(
            f"no tensor is called {known['query']}.weight; give names (the checkpoint begins with {begins})"
        )
    found = {}
    for prefix in prefixes:
        parts = tuple(f"{prefix}{theirs}." for theirs in known.values())
        own = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(parts)}
        rows, dim = own[f"{known['query']}.weight"].shape
        head_dim = rows // config.heads if config.head_dim is None else config.head_dim
        layer = SuperlinearAttention(
            dim, **replace(config, head_dim=head_dim).options(), bias=f"{known['query']}.bias" in own
        )
        expected = layer.state_dict()
        if not any(name.startswith(known["search_query"]) for name in own):
            expected = {name: tensor for name, tensor in expected.items() if not name.startswith("search_query")}
        rules.check(own, expected)
        with torch.no_grad():
            layer.load_state_dict(rules.to_ours(own), strict=False)
            if "search_query.weight" not in expected:
                layer.start_search()
        found[prefix.removesuffix(".")] = layer.eval()
    return found
