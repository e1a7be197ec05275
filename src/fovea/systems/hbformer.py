"""HBFormer: organs and very small tumours in slices (arXiv 2512.03597)."""

from __future__ import annotations

from dataclasses import replace

from fovea.models.hbformer_config import HBFormerConfig
from fovea.models.unet_config import UNetConfig
from fovea.systems.system import Card, Claim, System, View
from fovea.tasks.slices.config import Data, Epochs, Loss, SlicesConfig

SMALL = HBFormerConfig(img_size=64, num_classes=3, embed_dim=24, feature_size=12, drop_path_rate=0.1)
"""HBFormer at a size that two processor cores can train: 2.3 million parameters."""

DEMO = SlicesConfig(
    network=SMALL,
    unet=UNetConfig(width=18, levels=5),
    data=Data(size=64, fit="pad"),
    loss=Loss(ce=0.33, dice=0.33, focal=0.34),
    optimisation=Epochs(
        steps=500,
        batch=8,
        algorithm="adamw",
        lr=2e-3,
        betas=(0.9, 0.999),
        weight_decay=1e-3,
        schedule="cosine",
        warmup=20,
        gradient_clip=1.0,
        ema=0.98,
        validate_every=50,
        checkpoint_every=100,
    ),
)
"""Learns from generated slices in minutes, a plain U-Net of as many parameters beside it."""

PAPER = Epochs(
    epochs=100,
    batch=15,
    algorithm="adamw",
    lr=3e-4,
    betas=(0.9, 0.999),
    weight_decay=1e-3,
    schedule="cosine",
    floor=1e-6 / 3e-4,
    ema=0.0,
    validate_every=2_000,
    checkpoint_every=500,
    report_every=50,
)


def _paper() -> dict[str, SlicesConfig]:
    """The trainings of the official configurations; not stated there for the bladder: batch, rate and decay."""
    synapse = SlicesConfig(
        network=HBFormerConfig(img_size=256, num_classes=9),
        data=Data(size=256),
        loss=Loss(0.33, 0.33, 0.34),
        optimisation=PAPER,
        seed=2050,
    )
    three = replace(synapse, network=HBFormerConfig(img_size=256, num_classes=3))
    decayed = replace(PAPER, weight_decay=1e-2)
    return {
        "paper-synapse": synapse,
        "paper-lits": replace(three, loss=Loss(0.3, 0.4, 0.3), optimisation=replace(decayed, batch=34)),
        "paper-acdc": replace(
            three,
            network=HBFormerConfig(img_size=224, num_classes=3),
            data=Data(size=224),
            optimisation=replace(decayed, batch=2),
        ),
        "paper-bladder": replace(
            three,
            network=HBFormerConfig(img_size=512, num_classes=3),
            data=Data(size=512),
            loss=Loss(0.4, 0.5, 0.6),
            optimisation=replace(decayed, batch=8),
        ),
    }


SYSTEM = System(
    card=Card(
        slug="hbformer",
        title="HBFormer: A Hybrid-Bridge Transformer for Microtumor and Miniature Organ Segmentation",
        about="Segmentation of very small structures in slices",
        year=2025,
        authors=9,
        paper="arXiv:2512.03597",
        code="lzeeorno/HBFormer",
        licence="MIT",
        area="segmentation",
        idea="Finds very small organs and tumours in slices with a Swin encoder and a decoder whose dilated "
        "depthwise kernels are mixed anew for each image.",
        carried_by=("models", "tasks"),
        status="ready",
    ),
    presets={"demo": DEMO, **_paper()},
    task="fovea.tasks.slices",
    claims=(
        Claim(
            "parts-on-generated-tumours",
            "The bridge decoder with dynamic dilated convolutions finds more small tumours than plain decoders do.",
            None,
            "fovea.tasks.slices.claims:on_generated",
        ),
        Claim(
            "parts-on-hippocampus",
            "The same networks on real slices: two small parts of the hippocampus in MRI.",
            "Synapse: volume Dice 0.8782, HD95 6.9185 (of the repository's own description)",
            "fovea.tasks.slices.claims:on_hippocampus",
        ),
    ),
    views=(
        View("window", "window:size=8", (32, 32)),
        View("shifted window", "window:size=8,shift=4", (32, 32)),
    ),
)
