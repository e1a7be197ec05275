"""HAT: super-resolution and other image restoration (arXiv 2205.04437 and 2309.05239)."""

from __future__ import annotations

from dataclasses import replace

from fovea.models.hat_config import HAT, HAT_L, HAT_S, HATConfig
from fovea.systems.system import Card, Claim, System, View
from fovea.tasks.optimisation import Optimisation
from fovea.tasks.restoration.config import Data, RestorationConfig

SMALL = HATConfig(
    upscale=2,
    embed_dim=48,
    depths=(3, 3),
    num_heads=(3, 3),
    window_size=8,
    compress_ratio=4,
    squeeze_factor=6,
    drop_path_rate=0.0,
)
"""HAT at a size that two processor cores can train: 0.5 million parameters."""

SCRATCH = Optimisation(
    steps=500_000,
    batch=32,
    lr=2e-4,
    milestones=(250_000, 400_000, 450_000, 475_000),
    validate_every=5_000,
    checkpoint_every=5_000,
    report_every=100,
)
X4 = replace(SCRATCH, steps=250_000, lr=1e-4, milestones=(125_000, 200_000, 225_000, 240_000))
"""x4 starts from the weights of x2. (The paper's text has 230 000 for the third milestone.)"""
FINE_TUNE = replace(X4, lr=1e-5)
PRETRAIN = replace(SCRATCH, steps=800_000, milestones=(300_000, 500_000, 650_000, 700_000, 750_000))
REAL = replace(SCRATCH, steps=1_000_000, lr=1e-4, milestones=(1_000_000,))
REAL_GAN = replace(SCRATCH, steps=400_000, lr=1e-4, milestones=(400_000,))


SMALL_X2 = RestorationConfig(
    network=SMALL,
    data=Data(source="both", patch=32),
    optimisation=Optimisation(
        steps=6000,
        batch=4,
        lr=1e-3,
        schedule="cosine",
        warmup=100,
        gradient_clip=1.0,
        validate_every=500,
        checkpoint_every=250,
        report_every=50,
    ),
    beginning="interpolation",
)
"""How the weights that come with fovea were trained; see ``weights/hat-small-x2/README.md``."""
DEMO = RestorationConfig(
    network=SMALL,
    data=Data(source="photographs", patch=32),
    optimisation=Optimisation(
        steps=300,
        batch=4,
        lr=5e-4,
        schedule="cosine",
        warmup=20,
        gradient_clip=1.0,
        ema=0.98,
        validate_every=50,
        checkpoint_every=100,
    ),
    beginning="interpolation",
    weights="hat-small-x2",
)
"""The small network learns from the beginning, on photographs, in minutes. Beside it: the weights that come with it."""


def _paper() -> dict[str, RestorationConfig]:
    """The trainings of the papers (arXiv 2309.05239, section 4, and the official options).

    They need DF2K (DIV2K and Flickr2K; for denoising and JPEG also BSD500 and WED; for real photographs also OST), and
    ImageNet for ``-pretrain``; ``-finetune`` and ``-gan`` start from a checkpoint of the stage before, x4 from x2.
    """
    presets: dict[str, RestorationConfig] = {}
    for name, network in (("hat-s", HAT_S), ("hat", HAT)):
        for scale in (2, 3, 4):
            network = replace(network, upscale=scale)
            scratch = RestorationConfig(network=network, optimisation=SCRATCH)
            after_x2 = replace(scratch, optimisation=X4, beginning="checkpoint")
            presets[f"paper-{name}-x{scale}"] = after_x2 if scale == 4 else scratch
    for name, network in (("hat", HAT), ("hat-l", HAT_L)):
        for scale in (2, 3, 4):
            pretrain = RestorationConfig(network=replace(network, upscale=scale), optimisation=PRETRAIN)
            presets[f"paper-{name}-x{scale}-pretrain"] = pretrain
            presets[f"paper-{name}-x{scale}-finetune"] = replace(
                pretrain, optimisation=FINE_TUNE, beginning="checkpoint"
            )
    presets["paper-real-mse"] = RestorationConfig(stage="real", network=HAT, optimisation=REAL)
    presets["paper-real-gan"] = RestorationConfig(
        stage="real-gan", network=HAT, optimisation=REAL_GAN, beginning="checkpoint"
    )
    for stage in ("denoise", "jpeg"):
        restoring = RestorationConfig(stage=stage, network=replace(HAT, upscale=1), optimisation=PRETRAIN)
        large = replace(SCRATCH, batch=8)
        presets[f"paper-{stage}"] = restoring
        presets[f"paper-{stage}-large-patches"] = replace(
            restoring, data=Data(patch=128), optimisation=large, beginning="checkpoint"
        )
    return presets


SYSTEM = System(
    card=Card(
        slug="hat",
        title="HAT: Hybrid Attention Transformer for Image Restoration",
        about="Super-resolution and other image restoration",
        year=2023,
        authors=7,
        paper="arXiv:2309.05239",
        code="XPixelGroup/HAT",
        licence="Apache-2.0",
        area="restoration",
        idea="Restores an image with shifted windows, channel attention beside them, and queries of a window that read "
        "the keys of a half-again wider window, so that more of the picture takes part in every pixel.",
        carried_by=("models", "tasks", "inspect"),
        status="ready",
    ),
    presets={"demo": DEMO, "small-x2": SMALL_X2, **_paper()},
    task="fovea.tasks.restoration",
    claims=(
        Claim(
            "blocks-on-textures",
            "Channel attention and overlapping cross-attention each restore more, and make more pixels take part.",
            "Urban100 x4: +0.1 dB each, +0.16 dB both; larger diffusion index",
            "fovea.tasks.restoration.claims:on_textures",
        ),
        Claim(
            "blocks-on-photographs",
            "The same blocks, and a larger window, on photographs.",
            "Urban100 x4: +0.16 dB for both blocks; window 8 to 16 (SwinIR) 27.45 to 27.81 dB",
            "fovea.tasks.restoration.claims:on_photographs",
        ),
        Claim(
            "same-task-pretraining",
            "Training the same task on many images first, then gently on few, beats training on the few alone.",
            None,
            "fovea.tasks.restoration.claims:pretraining",
        ),
    ),
    views=(
        View("window attention", "window:size=16", (48, 48)),
        View("shifted window attention", "window:size=16,shift=8", (48, 48)),
        View("overlapping cross-attention", "halo:block=16,halo=4,border=zero", (48, 48)),
    ),
)
