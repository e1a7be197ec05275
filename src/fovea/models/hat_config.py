"""Configuration and published variants of HAT, in the words of its official constructor."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class HATConfig:
    """The shape of a :class:`fovea.models.hat.HAT`; the defaults are HAT x4 as published.

    Attributes:
        upscale: 1 (denoising, JPEG artefacts), 3 or a power of two.
        in_chans: image channels; three are taken to be RGB and centred on the mean of DIV2K.
        img_size: what the official constructor calls the input size. It is never compared with an input: where its
            shorter side is at most ``window_size``, windows shrink to it and are not shifted.
        window_size: M, side of a window.
        compress_ratio: beta, divisor of the channels inside the convolution block.
        squeeze_factor: divisor of the channels inside its channel attention.
        conv_scale: alpha, weight of the convolution block.
        overlap_ratio: gamma; keys of the overlapping cross-attention come from windows of side ``M + int(gamma M)``.
        img_range: images are multiplied by it inside.
        depths: hybrid attention blocks of each group.
        embed_dim: channels C.
        num_heads: of each group.
        mlp_ratio: hidden channels of the MLPs, as a multiple of C.
        qkv_bias, qk_scale: bias of the projections, scale of the logits (``head_dim ** -0.5`` unless given).
        drop_rate, attn_drop_rate, drop_path_rate: dropout of projections; of attention weights, which must be 0
            because these never exist as a tensor; stochastic depth of the last block (it grows linearly from 0).
        ape: a learned absolute position for each token of ``img_size``; off in everything published.
        patch_norm: normalise the tokens before the first group.
        patch_size: 1; a token is a pixel.
        upsampler: ``"pixelshuffle"``, the only one there is.
        resi_connection: ``"1conv"`` or ``"identity"``, what ends a group.
        use_checkpoint: recompute each block in the backward pass instead of keeping its activations.
        cab, ocab: build the channel attention blocks and the overlapping cross-attention. Without both this is SwinIR.
        image_residual: at ``upscale`` 1, add the input image to the output (SwinIR's form for denoising). The official
            code, which has no branch of its own for scale 1, does not.
    """

    upscale: int = 4
    in_chans: int = 3
    img_size: int | tuple[int, int] = 64
    window_size: int = 16
    compress_ratio: int = 3
    squeeze_factor: int = 30
    conv_scale: float = 0.01
    overlap_ratio: float = 0.5
    img_range: float = 1.0
    depths: tuple[int, ...] = (6,) * 6
    embed_dim: int = 180
    num_heads: tuple[int, ...] = (6,) * 6
    mlp_ratio: float = 2.0
    qkv_bias: bool = True
    qk_scale: float | None = None
    drop_rate: float = 0.0
    attn_drop_rate: float = 0.0
    drop_path_rate: float = 0.1
    ape: bool = False
    patch_norm: bool = True
    patch_size: int = 1
    upsampler: str = "pixelshuffle"
    resi_connection: str = "1conv"
    use_checkpoint: bool = False
    cab: bool = True
    ocab: bool = True
    image_residual: bool = True

    def __post_init__(self) -> None:
        for name in ("depths", "num_heads", "img_size"):
            value = getattr(self, name)
            if isinstance(value, list):
                object.__setattr__(self, name, tuple(value))
        if self.upscale != 3 and (self.upscale < 1 or self.upscale & (self.upscale - 1)):
            raise ValueError(f"upscale={self.upscale}; it must be 1, 3 or a power of two")
        if not self.depths or len(self.depths) != len(self.num_heads):
            raise ValueError(f"depths={self.depths} and num_heads={self.num_heads}; they must name the same groups")
        for heads in self.num_heads:
            if heads < 1 or self.embed_dim % heads:
                raise ValueError(f"num_heads={self.num_heads}; each must divide embed_dim={self.embed_dim}")
        if self.window_size < 1:
            raise ValueError(f"window_size={self.window_size}; it must be at least 1")
        if self.ocab and (self.overlap < 0 or self.overlap % 2):
            raise ValueError(
                f"overlap_ratio={self.overlap_ratio}; with window_size={self.window_size} it widens windows by "
                f"{self.overlap}, which must be an even number, half for each side"
            )
        if self.resi_connection not in ("1conv", "identity"):
            raise ValueError(f"resi_connection={self.resi_connection!r}; it must be '1conv' or 'identity'")
        if self.upsampler != "pixelshuffle":
            raise ValueError(f"upsampler={self.upsampler!r}; it must be 'pixelshuffle'")
        if self.patch_size != 1:
            raise ValueError(f"patch_size={self.patch_size}; it must be 1")
        if self.attn_drop_rate:
            raise ValueError(f"attn_drop_rate={self.attn_drop_rate}; it must be 0, attention weights are never stored")

    @property
    def overlap(self) -> int:
        """How much wider than a window the key windows of the overlapping cross-attention are: int(gamma M)."""
        return int(self.window_size * self.overlap_ratio)

    @property
    def grid(self) -> tuple[int, int]:
        """``img_size`` as height and width."""
        return (self.img_size, self.img_size) if isinstance(self.img_size, int) else self.img_size


HAT = HATConfig()
HAT_S = replace(HAT, embed_dim=144, compress_ratio=24, squeeze_factor=24)
HAT_L = replace(HAT, depths=(6,) * 12, num_heads=(6,) * 12)
SWINIR = replace(HAT, window_size=8, cab=False, ocab=False)

VARIANTS: dict[str, HATConfig] = {
    "HAT-S": HAT_S,
    "HAT": HAT,
    "HAT-L": HAT_L,
    "Real-HAT": HAT,
    "SwinIR": SWINIR,
}
"""Published variants at scale 4; ``replace(VARIANTS["HAT-S"], upscale=2)`` is another scale. Real-HAT is HAT x4,
trained on images as cameras and the web leave them."""
