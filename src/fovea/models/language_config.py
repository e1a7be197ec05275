"""Configuration of a language model whose layers may each mix their tokens in another way."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fovea.errors import unknown

if TYPE_CHECKING:
    from fovea.patterns import Blocks

MIXERS: dict[str, str] = {
    "full": "fovea.nn.language_attention:FullAttention",
    "window": "fovea.nn.language_attention:SlidingWindowAttention",
    "blocks": "fovea.nn.language_attention:BlockAttention",
    "taylor": "fovea.nn.taylor_attention:TaylorAttention",
    "gated-convolution": "fovea.nn.gated_convolution:GatedConvolution",
    "base-convolution": "fovea.nn.gated_convolution:BaseConvolution",
    "superlinear": "fovea.nn.span_search:SuperlinearAttention",
    "memory": "fovea.nn.memory_mixer:MemoryMixer",
}
"""Names of mixers, and the classes that they are made by as ``Class(dim, **options)``."""


@dataclass(frozen=True)
class Layer:
    """What a layer mixes its tokens with.

    Attributes:
        mixer: a name of :data:`MIXERS`.
        options: what the mixer is made with beside ``dim``; values that JSON can hold.
    """

    mixer: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.mixer not in MIXERS:
            raise unknown("mixer", self.mixer, MIXERS)


@dataclass(frozen=True)
class LanguageConfig:
    """The shape of a :class:`fovea.models.language.LanguageModel`.

    Attributes:
        vocabulary: number of tokens.
        dim: channels of a token.
        layers: what each layer mixes with; a pattern by layer is kept here, so that no checkpoint changes meaning.
        hidden: channels inside the gated MLP that follows each mixer; 0 leaves it out.
        tied: whether the output is the embedding's transpose.
        positions: learned absolute positions for so many tokens, for mixers without positions; 0 has none.
        norm_eps: of the root mean square norms.
    """

    vocabulary: int
    dim: int
    layers: tuple[Layer, ...]
    hidden: int = 0
    tied: bool = True
    positions: int = 0
    norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        made = tuple(layer if isinstance(layer, Layer) else Layer(**layer) for layer in self.layers)
        object.__setattr__(self, "layers", made)
        for name, least in (("vocabulary", 1), ("dim", 1), ("hidden", 0), ("positions", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}={getattr(self, name)}; it must be at least {least}")
        if not self.layers:
            raise ValueError("layers is empty; a language model has at least one")


def block_layers(patterns: Iterable[Blocks], **options: Any) -> tuple[Layer, ...]:
    """A layer of block attention for each pattern."""
    return tuple(Layer("blocks", {"pattern": str(pattern), **options}) for pattern in patterns)


def power_attention(
    variant: str,
    layers: int,
    *,
    size: int,
    blocks: int,
    window: int = 5,
    sink: int = 1,
    depth: int = 4,
    **options: Any,
) -> tuple[Layer, ...]:
    """Layers of PowerAttention (arXiv 2503.03588, section 3) and of what improves on it.

    Args:
        variant: ``"power"`` as published; ``"one-power"`` (A) one power a layer, whose cache is bounded; ``"searched"``
            (B) as many offsets as there are powers, searched for ``blocks`` and ``depth``; ``"searched-narrow"`` (C)
            likewise, with two blocks of the window given to the search.
        layers: their number.
        size, window, sink: tokens a block; blocks of the window and at the beginning.
        blocks: for which the schedule is made; longer sequences run, and are reached less far.
        depth: layers for which offsets are searched.
        options: of each layer, such as ``heads``.

    Raises ``UsageError`` for another variant, ``ValueError`` where no power fits between window and ``blocks``.
    """
    from fovea.patterns import Blocks
    from fovea.patterns.power import one_power_each, searched

    powers = sum(window <= 1 << k < blocks for k in range(blocks.bit_length()))
    sizes = {"size": size, "blocks": blocks, "sink": sink}
    if variant == "power":
        patterns = [Blocks.power(size, window, sink)] * layers
    elif variant == "one-power":
        patterns = list(one_power_each(layers=layers, window=window, **sizes))
    elif variant == "searched":
        patterns = [searched(window=window, count=powers, depth=depth, **sizes)] * layers
    elif variant == "searched-narrow":
        patterns = [searched(window=max(1, window - 2), count=powers + 2, depth=depth, **sizes)] * layers
    else:
        raise unknown("variant", variant, ("power", "one-power", "searched", "searched-narrow"))
    return block_layers(patterns, **options)


def hybrid(sparse: Sequence[Layer], full: Layer, *, every: int = 7, count: int = 2) -> tuple[Layer, ...]:
    """Full layers among sparse ones: the last ``count`` of every ``every`` (PowerAttention for retrieval: 2 in 7).

    ``sparse`` says how many layers there are; where a full one stands, it takes the place of a sparse one.

    >>> [layer.mixer for layer in hybrid([Layer("window", {"window": 8})] * 4, Layer("full"), every=4, count=1)]
    ['window', 'window', 'window', 'full']
    """
    if not 0 <= count <= every or every < 1:
        raise ValueError(f"every={every}, count={count}; count must be 0 to every, and every at least 1")
    return tuple(full if place % every >= every - count else layer for place, layer in enumerate(sparse))
