"""Configuration of a language model of the Qwen3 kind with windows and memories (AllMem, arXiv 2602.13680)."""

from __future__ import annotations

from dataclasses import dataclass

from fovea.models.language_config import LanguageConfig, Layer


@dataclass(frozen=True)
class AllMemConfig:
    """A decoder with grouped heads and rotary positions, whose every layer is a window with sinks and a memory.

    Attributes:
        vocabulary, dim, layers, heads, kv_heads, head_dim, mlp: sizes of the base model; ``mlp`` channels inside.
        rotary_base, norm_eps, tied, head_norm, bias: its other settings; the last two are of the projections.
        window: tokens that a layer sees; none for full attention (the base model as it was).
        sinks: and the first so many.
        memory: kind of memory (:data:`fovea.kernels.memory.RULES`), or none.
        memory_hidden: units of a memory; ``2 * head_dim`` if none.
        chunk: tokens between two updates.
        rate: first step size.
        share_out: memories use the layer's output map.
    """

    vocabulary: int
    dim: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    mlp: int
    rotary_base: float = 1e6
    norm_eps: float = 1e-6
    tied: bool = True
    head_norm: bool = True
    bias: bool = False
    window: int | None = 4096
    sinks: int = 128
    memory: str | None = "allmem"
    memory_hidden: int | None = None
    chunk: int = 2048
    rate: float = 0.001
    share_out: bool = False

    def __post_init__(self) -> None:
        for name in ("vocabulary", "dim", "layers", "heads", "kv_heads", "head_dim", "mlp", "chunk"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}; it must be at least 1")
        if self.heads % self.kv_heads:
            raise ValueError(f"kv_heads={self.kv_heads}; it must divide heads={self.heads}")
        if self.memory is not None and self.window is None:
            raise ValueError(f"memory={self.memory!r} with window=None; a memory stands beside a window")

    def language(self) -> LanguageConfig:
        """The decoder that this describes."""
        options = {
            "heads": self.heads,
            "kv_heads": self.kv_heads,
            "head_dim": self.head_dim,
            "rotary_base": self.rotary_base,
            "head_norm": self.head_norm,
            "bias": self.bias,
        }
        window = {"window": self.window, "sinks": self.sinks}
        memory = {
            "memory": self.memory,
            "hidden": self.memory_hidden,
            "chunk": self.chunk,
            "rate": self.rate,
            "share_out": self.share_out,
        }
        if self.memory is not None:
            layer = Layer("memory", options | window | memory)
        else:
            layer = Layer("full", options) if self.window is None else Layer("window", options | window)
        return LanguageConfig(
            vocabulary=self.vocabulary,
            dim=self.dim,
            layers=(layer,) * self.layers,
            hidden=self.mlp,
            tied=self.tied,
            norm_eps=self.norm_eps,
        )


VARIANTS: dict[str, AllMemConfig] = {
    "Qwen3-0.6B": AllMemConfig(151_936, 1024, 28, 16, 8, 128, 3072),
    "Qwen3-1.7B": AllMemConfig(151_936, 2048, 28, 16, 8, 128, 6144),
}
"""The two base models of the paper; windows of 4096 (LongBench) and 8192 (tests of 128k) are run-time settings."""
