"""The official layout of Based (HazyResearch/based) and what a checkpoint's shapes tell."""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import isclose
from typing import Any

from torch import Tensor

from fovea.checkpoints.layout import Layout, Rule, require
from fovea.errors import UsageError
from fovea.models.language_config import LanguageConfig

EMBEDDING = "transformer.embeddings.word_embeddings.weight"
MIXERS: dict[str, tuple[tuple[str, str], ...]] = {
    "gated-convolution": (
        ("in_proj.weight", "input.weight"),
        ("in_proj.bias", "input.bias"),
        ("conv.conv.weight", "conv.weight"),
        ("conv.conv.bias", "conv.bias"),
        ("out_proj.weight", "output.weight"),
        ("out_proj.bias", "output.bias"),
    ),
    "taylor": (
        ("proj_q.weight", "query.weight"),
        ("proj_k.weight", "key.weight"),
        ("proj_v.weight", "value.weight"),
        ("out_proj.weight", "project.weight"),
    ),
    "window": (
        ("Wqkv.weight#0", "query.weight"),
        ("Wqkv.weight#1", "key.weight"),
        ("Wqkv.weight#2", "value.weight"),
        ("out_proj.weight", "project.weight"),
    ),
}
"""Names inside a mixer, official and ours."""

FIXED: dict[str, tuple[Any, ...]] = {
    "rms_norm": (True,),
    "activation_function": ("swiglu",),
    "scale_attn_by_inverse_layer_idx": (False,),
    "rotary_emb_fraction": (1, 1.0),
    "max_position_embeddings": (0,),
    "mlp_fc1_bias": (False,),
    "mlp_fc2_bias": (False,),
    "qkv_proj_bias": (False,),
    "out_proj_bias": (False,),
}
"""Official words of which we compute only these values, which are those of everything published."""

WINDOW_FIXED: dict[str, tuple[Any, ...]] = {
    "causal": (True,),
    "num_heads_kv": (None,),
    "qkv_proj_bias": (False,),
    "out_proj_bias": (False,),
    "rotary_emb_scale_base": (None,),
    "rotary_emb_interleaved": (False,),
}


def layout(config: LanguageConfig) -> Layout:
    """The rules for a network of this configuration."""
    block, ours = "transformer.layers.{l}", "blocks.{l}"
    rules = [
        Rule(EMBEDDING, "embedding.weight"),
        Rule("transformer.ln_f.weight", "norm.weight"),
        Rule(f"{block}.norm1.weight", f"{ours}.mixer_norm.weight"),
        Rule(f"{block}.norm2.weight", f"{ours}.mlp_norm.weight"),
        Rule(f"{block}.mlp.fc1.weight#0", f"{ours}.mlp.value.weight"),
        Rule(f"{block}.mlp.fc1.weight#1", f"{ours}.mlp.opened.weight"),
        Rule(f"{block}.mlp.fc2.weight", f"{ours}.mlp.project.weight"),
    ]
    for place, layer in enumerate(config.layers):
        rules += [
            Rule(f"transformer.layers.{place}.mixer.{theirs}", f"blocks.{place}.mixer.{name}")
            for theirs, name in MIXERS[layer.mixer]
        ]
    return Layout(
        f"Based with {len(config.layers)} layers of {config.dim} channels",
        tuple(rules),
        ignored=r"transformer\.decay\.decay",
        stacked={f"{block}.mlp.fc1.weight": 2, f"{block}.mixer.Wqkv.weight": 3},
        copies={"lm_head.weight": EMBEDDING},
    )


def renamed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights alone: without the prefix ``model.`` of trainings, and without the metrics kept beside them."""
    return {name.removeprefix("model."): tensor for name, tensor in state.items() if "metrics" not in name}


def infer(state: Mapping[str, Tensor], feature_dim: int = 16) -> dict[str, Any]:
    """What the shapes tell of the configuration, in the words of :class:`BasedConfig`.

    Not in the shapes: the window, and the heads of a network without linear attention, which are left as published.
    ``vocab_size`` is the number of rows, padding included.

    Args:
        state: official names and tensors.
        feature_dim: of linear attention, which with the shapes tells the heads.
    """
    first = "transformer.layers.0"
    require(state, (EMBEDDING, f"{first}.norm1.weight", f"{first}.mlp.fc2.weight"), "Based")
    layers = 1 + max(int(match[1]) for name in state if (match := re.match(r"transformer\.layers\.(\d+)\.", name)))
    vocabulary, dim = state[EMBEDDING].shape
    found: dict[str, Any] = {
        "vocab_size": vocabulary,
        "n_embd": dim,
        "n_layer": layers,
        "n_inner": state[f"{first}.mlp.fc2.weight"].shape[1],
        "alt_mixer_layers": _holding("proj_q.weight", layers, state),
        "alt_mixer_2_layers": _holding("Wqkv.weight", layers, state),
        "pad_vocab_size_multiple": 1 if vocabulary % 8 else 8,
    }
    if linear := found["alt_mixer_layers"]:
        found["n_head"] = len(state[f"transformer.layers.{linear[0]}.mixer.proj_q.weight"]) // feature_dim
    if convolutions := _holding("conv.conv.weight", layers, state):
        mixer = f"transformer.layers.{convolutions[0]}.mixer"
        channels, _, found["kernel_sizes"] = state[f"{mixer}.conv.conv.weight"].shape
        found["expand_proj"] = 2 * channels // dim
        found["use_bias"] = f"{mixer}.in_proj.bias" in state
        found["conv_bias"] = f"{mixer}.conv.conv.bias" in state
    return found


def words(config: Mapping[str, Any]) -> dict[str, Any]:
    """The words of an official configuration, mixers' own included, as those of :class:`BasedConfig`.

    Raises:
        UsageError: when a word asks for what nothing published has, such as windows that see the future.
    """
    said = dict(config)
    convolution, linear, window = (dict(said.pop(name, {})) for name in ("mixer", "alt_mixer", "alt_mixer_2"))
    _check("config", said, FIXED)
    _check("config.alt_mixer_2", window, WINDOW_FIXED)
    known = {
        "vocab_size": said,
        "n_embd": said,
        "n_layer": said,
        "n_head": said,
        "n_inner": said,
        "alt_mixer_layers": said,
        "alt_mixer_2_layers": said,
        "layer_norm_epsilon": said,
        "pad_vocab_size_multiple": said,
        "variant": said,
        "conv_bias": said,
        "feature_dim": {**said, **linear},
        "window_size": {**said, **window},
        "rotary_emb_base": {**said, **window},
        "kernel_sizes": {**said, **convolution},
        "expand_proj": {**said, **convolution},
        "use_bias": {**said, **convolution},
    }
    found = {name: source[name] for name, source in known.items() if source.get(name) is not None}
    heads = {group["num_heads"] for group in (linear, window) if "num_heads" in group} | (
        {said["n_head"]} if "n_head" in said else set()
    )
    if len(heads) > 1:
        raise UsageError(f"config has num_heads {sorted(heads)}; linear and windowed attention have as many each")
    if heads:
        found["n_head"] = heads.pop()
    scale, width = window.get("softmax_scale"), found.get("n_embd", 0) / found.get("n_head", 1)
    if scale is not None and width and not isclose(scale, width**-0.5, rel_tol=1e-5):
        raise UsageError(
            f"config.alt_mixer_2 has softmax_scale={scale}; what was published has head_dim ** -0.5 = {width**-0.5:.6g}"
        )
    return found


def _holding(leaf: str, layers: int, state: Mapping[str, Tensor]) -> tuple[int, ...]:
    return tuple(place for place in range(layers) if f"transformer.layers.{place}.mixer.{leaf}" in state)


def _check(where: str, said: Mapping[str, Any], fixed: Mapping[str, tuple[Any, ...]]) -> None:
    for name, values in fixed.items():
        if name in said and said[name] not in values:
            raise UsageError(f"{where} has {name}={said[name]!r}; what was published has {values[0]!r}")
