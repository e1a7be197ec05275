"""Names of Llama- and Qwen-class checkpoints of transformers, with AllMem's memories beside them, against ours."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from fovea.checkpoints.layout import Layout, Rule, require
from fovea.errors import UserError
from fovea.models.allmem_config import AllMemConfig

PARTS = (("q_proj", "query"), ("k_proj", "key"), ("v_proj", "value"), ("o_proj", "project"))
NORMS = (("q_norm", "query_norm"), ("k_norm", "key_norm"))


def layout(config: AllMemConfig) -> Layout:
    """The rules for a network of this configuration."""
    theirs, ours = "model.layers.{l}", "blocks.{l}"
    mixer = f"{ours}.mixer" if config.memory is None else f"{ours}.mixer.attention"
    rules = [
        Rule("model.embed_tokens.weight", "embedding.weight"),
        Rule("model.norm.weight", "norm.weight"),
        Rule("lm_head.weight", "head.weight"),
        Rule(f"{theirs}.input_layernorm.weight", f"{ours}.mixer_norm.weight"),
        Rule(f"{theirs}.post_attention_layernorm.weight", f"{ours}.mlp_norm.weight"),
        Rule(f"{theirs}.mlp.gate_proj.weight", f"{ours}.mlp.opened.weight"),
        Rule(f"{theirs}.mlp.up_proj.weight", f"{ours}.mlp.value.weight"),
        Rule(f"{theirs}.mlp.down_proj.weight", f"{ours}.mlp.project.weight"),
        *(Rule(f"{theirs}.self_attn.{their}.*", f"{mixer}.{our}.*") for their, our in (*PARTS, *NORMS)),
    ]
    for part in ("w", "w0", "w1", "w2", "b0", "b1", "scale", "shift", "alpha"):
        rules.append(Rule(f"{theirs}.mem.{part}", f"{ours}.mixer.memory.{part}"))
    for part in ("q_norm", "k_norm", "out_norm", "eta", "theta", "decay", "gate", "out"):
        rules.append(Rule(f"{theirs}.mem.{part}.*", f"{ours}.mixer.memory.{part}.*"))
    return Layout("a Llama- or Qwen-class model with AllMem's memories", tuple(rules))


def renamed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state without an output map that repeats the embedding."""
    head, embedding = state.get("lm_head.weight"), state.get("model.embed_tokens.weight")
    tied = head is not None and embedding is not None and torch.equal(head, embedding)
    return {name: tensor for name, tensor in state.items() if not (tied and name == "lm_head.weight")}


def infer(state: Mapping[str, Tensor], head_dim: int | None = None) -> dict[str, Any]:
    """What the shapes tell; heads that are not said are as wide as their norms, or of 128 channels.

    Raises:
        UserError: where a tensor is missing that is needed for it.
    """
    first, attention = "model.layers.0", "model.layers.0.self_attn"
    needed = ("q_proj", "k_proj", "v_proj", "o_proj")
    names = ["model.embed_tokens.weight", f"{first}.mlp.up_proj.weight", *(f"{attention}.{n}.weight" for n in needed)]
    require(state, names, "a Llama- or Qwen-class model")
    vocabulary, dim = state["model.embed_tokens.weight"].shape
    norm = state.get(f"{attention}.q_norm.weight")
    memory = state.get(f"{first}.mem.k_norm.weight")
    if head_dim is None:
        head_dim = len(norm) if norm is not None else len(memory) if memory is not None else 128
    rows = {name: state[f"{attention}.{name}.weight"].shape[0] for name in ("q_proj", "k_proj")}
    if any(row % head_dim for row in rows.values()):
        raise UserError(f"q_proj and k_proj have {rows} rows, which are no heads of {head_dim}; give head_dim")
    numbers = [int(m[1]) for name in state if (m := re.match(r"model\.layers\.(\d+)\.", name))]
    found: dict[str, Any] = {
        "vocabulary": vocabulary,
        "dim": dim,
        "layers": max(numbers) + 1,
        "heads": rows["q_proj"] // head_dim,
        "kv_heads": rows["k_proj"] // head_dim,
        "head_dim": head_dim,
        "mlp": state[f"{first}.mlp.up_proj.weight"].shape[0],
        "tied": "lm_head.weight" not in state,
        "head_norm": norm is not None,
        "bias": f"{attention}.q_proj.bias" in state,
    }
    gated, single = state.get(f"{first}.mem.w0"), state.get(f"{first}.mem.w")
    if gated is None and single is None:
        return found | {"memory": None, "window": None, "sinks": 0}
    if gated is not None:
        found["memory_hidden"] = gated.shape[1]
    return found | {"memory": _kind(state, f"{first}.mem."), "share_out": f"{first}.mem.out.weight" not in state}


def _kind(state: Mapping[str, Tensor], prefix: str) -> str:
    """The kind of memory that has these weights."""
    has = {name.removeprefix(prefix).partition(".")[0] for name in state if name.startswith(prefix)}
    if "w" in has:
        return "linear"
    if "scale" in has:
        return "ttt-mlp"
    if "decay" in has:
        return "titans"
    return "lact" if "gate" in has else "allmem"
