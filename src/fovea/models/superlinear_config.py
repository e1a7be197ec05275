"""Configuration of language models of Superlinear attention (arXiv 2601.18401), and its published settings by name."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

from fovea.models.language_config import LanguageConfig, Layer

Below = Literal["gated-convolution", "taylor"]


@dataclass(frozen=True)
class SearchConfig:
    """How the attention layers search; the words of the official kernels (``num_spans`` is k of the paper).

    Attributes:
        heads, kv_heads, head_dim: of attention; the search has as many queries and shares the keys.
        sw_index: the window ends before stripe ``sw_index + 1``: ``floor((sw_index + 1) ** (1 / search_power)) - 1``
            tokens.
        num_spans, backward_factor, forward_factor, search_power, span_power: see
            :class:`fovea.patterns.search.SpanSearch`.
    """

    heads: int = 2
    kv_heads: int = 2
    head_dim: int | None = None
    sw_index: int = 3
    num_spans: int = 2
    backward_factor: float = 2.0
    forward_factor: float = 0.0
    search_power: float = 0.5
    span_power: float = 0.5

    def options(self) -> dict[str, Any]:
        """What the mixer is made with."""
        return dict(vars(self))


SETTINGS: dict[str, SearchConfig] = {
    "superlinear-exp-v0.1": SearchConfig(
        heads=32,
        kv_heads=2,
        head_dim=128,
        sw_index=65,
        num_spans=3,
        backward_factor=3.0,
        forward_factor=1.0,
        search_power=0.55,
        span_power=0.55,
    ),
    "kernel-defaults": SearchConfig(sw_index=0, num_spans=3),
    "kernel-examples": SearchConfig(sw_index=3, num_spans=3, backward_factor=3.0, forward_factor=1.0),
    "square-root": SearchConfig(),
}
"""The released model's attention layers, the defaults and the examples of its kernels, and ours for small models."""


@dataclass(frozen=True)
class SuperlinearConfig:
    """The shape of a language model of pairs of layers: what mixes near tokens or everything before them, and above it
    Superlinear attention, which finds single keys by what they tell of the tokens before them.

    Attributes:
        vocabulary, dim, hidden: tokens, channels, channels inside the gated MLP (0: none).
        depth: pairs of layers.
        search: of the attention layers.
        accumulator: whether keys of the search sum up those before them: ``"none"``, ``"ema"`` or ``"linear"``.
        below: the layers under each attention layer. (The released model has Mamba-2 layers there.)
    """

    vocabulary: int = 256
    dim: int = 128
    hidden: int = 256
    depth: int = 2
    search: SearchConfig = field(default_factory=SearchConfig)
    accumulator: Literal["none", "ema", "linear"] = "linear"
    below: tuple[Below, ...] = ("gated-convolution", "taylor")

    def __post_init__(self) -> None:
        object.__setattr__(self, "below", tuple(self.below))
        if isinstance(self.search, dict):
            object.__setattr__(self, "search", SearchConfig(**self.search))
        if self.depth < 1:
            raise ValueError(f"depth={self.depth}; it must be at least 1")
        for name in self.below:
            if name not in ("gated-convolution", "taylor"):
                raise ValueError(f"below={self.below}; it may list 'gated-convolution' and 'taylor'")

    def language(self) -> LanguageConfig:
        """The same as the configuration of a language model of any mixers."""
        options: dict[str, dict[str, Any]] = {"gated-convolution": {}, "taylor": {"heads": self.search.heads}}
        pair = (
            *(Layer(name, options[name]) for name in self.below),
            Layer("superlinear", {**self.search.options(), "accumulator": self.accumulator}),
        )
        return LanguageConfig(self.vocabulary, self.dim, pair * self.depth, hidden=self.hidden)


TINY = SuperlinearConfig()
"""Half a million parameters; bytes."""
SMALL = replace(TINY, dim=256, hidden=512, depth=3, search=replace(SETTINGS["kernel-examples"], heads=4, kv_heads=2))

VARIANTS: dict[str, SuperlinearConfig] = {"tiny": TINY, "small": SMALL}
