"""Configuration and published variants of Based, in the words of its official constructor."""

from __future__ import annotations

from dataclasses import dataclass, replace

from fovea.models.language_config import LanguageConfig, Layer


@dataclass(frozen=True)
class BasedConfig:
    """The shape of a Based language model (arXiv 2402.18668); the defaults are those of 360 million parameters.

    Every layer is a short gated convolution but for those that are listed.

    Attributes:
        vocab_size: tokens; the embedding has rows up to a multiple of ``pad_vocab_size_multiple``.
        n_embd, n_layer: channels; layers.
        n_head: heads of linear and of windowed attention.
        n_inner: channels inside the gated MLP, rounded up to a multiple of 256.
        alt_mixer_layers: which layers, from 0, are Taylor linear attention.
        alt_mixer_2_layers: which are attention in a sliding window.
        feature_dim: of the queries and keys of linear attention.
        window_size: *twice* the look-back: a token sees itself and ``window_size // 2`` tokens before it.
        kernel_sizes, expand_proj: tokens of a convolution; channels of its two halves as a multiple of ``n_embd``.
        use_bias: whether the projections around a convolution have a bias.
        conv_bias: whether convolutions have one: those of the official CUDA path do.
        rotary_emb_base: of the rotary positions in windows.
        layer_norm_epsilon: of the root mean square norms.
    """

    vocab_size: int = 50257
    n_embd: int = 1024
    n_layer: int = 27
    n_head: int = 16
    n_inner: int = 2048
    alt_mixer_layers: tuple[int, ...] = (1, 6, 11, 16, 21)
    alt_mixer_2_layers: tuple[int, ...] = (2, 7, 12, 17, 22)
    feature_dim: int = 16
    window_size: int = 256
    kernel_sizes: int = 3
    expand_proj: int = 4
    use_bias: bool = True
    conv_bias: bool = False
    rotary_emb_base: float = 10000.0
    layer_norm_epsilon: float = 1e-5
    pad_vocab_size_multiple: int = 8

    def __post_init__(self) -> None:
        for name in ("alt_mixer_layers", "alt_mixer_2_layers"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for name in ("vocab_size", "n_embd", "n_layer", "n_head", "n_inner", "window_size", "pad_vocab_size_multiple"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}; it must be at least 1")
        if self.n_embd % self.n_head:
            raise ValueError(f"n_head={self.n_head}; it must divide n_embd={self.n_embd}")
        for name in ("alt_mixer_layers", "alt_mixer_2_layers"):
            if not set(getattr(self, name)) <= set(range(self.n_layer)):
                raise ValueError(f"{name}={getattr(self, name)}; layers are numbered 0 to {self.n_layer - 1}")
        if both := set(self.alt_mixer_layers) & set(self.alt_mixer_2_layers):
            raise ValueError(f"layers {sorted(both)} are in alt_mixer_layers and in alt_mixer_2_layers; one must go")

    @property
    def look_back(self) -> int:
        """Earlier tokens that a token sees in a window, w_l."""
        return self.window_size // 2

    def layer(self, place: int) -> Layer:
        """What a layer mixes with."""
        if place in self.alt_mixer_layers:
            return Layer("taylor", {"heads": self.n_head, "feature_dim": self.feature_dim})
        if place in self.alt_mixer_2_layers:
            options = {"heads": self.n_head, "window": self.look_back + 1, "rotary_base": self.rotary_emb_base}
            return Layer("window", options)
        options = {"kernel": self.kernel_sizes, "expand": self.expand_proj}
        return Layer("gated-convolution", options | {"bias": self.use_bias, "conv_bias": self.conv_bias})

    def language(self) -> LanguageConfig:
        """The same as the configuration of a language model of any mixers."""
        return LanguageConfig(
            vocabulary=_up(self.vocab_size, self.pad_vocab_size_multiple),
            dim=self.n_embd,
            layers=tuple(map(self.layer, range(self.n_layer))),
            hidden=_up(self.n_inner, 256),
            norm_eps=self.layer_norm_epsilon,
        )


def _up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple


BASED_360M = BasedConfig()
BASED_1B = replace(
    BASED_360M,
    n_embd=1792,
    n_layer=36,
    n_inner=3584,
    alt_mixer_layers=(1, 6, 11, 16, 21, 27, 33),
    alt_mixer_2_layers=(2, 7, 12, 17, 22, 28, 34),
)

VARIANTS: dict[str, BasedConfig] = {
    "based-360m": BASED_360M,
    "based-1b": BASED_1B,
    "based-1b-50b": BASED_1B,
    "based-1b-throughput": replace(BASED_1B, n_head=28, window_size=128),
}
"""Published checkpoints (``-50b``: trained on 50 billion tokens) and the shape that the throughput was measured in."""
