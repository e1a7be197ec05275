"""LoLA-SpecViT: hyperspectral pixels from few labels (arXiv 2506.17759)."""

from __future__ import annotations

from dataclasses import replace

from fovea.models.lola_specvit_config import LoLASpecViTConfig
from fovea.systems.system import Card, Claim, System, View
from fovea.tasks.optimisation import Optimisation
from fovea.tasks.spectral.config import Data, Features, SpectralConfig, Split

NANO = LoLASpecViTConfig(
    in_channels=8,
    dim=16,
    depths=(1, 1, 1),
    num_heads=(2, 2, 4),
    window_size=(3, 3, 3),
    mlp_ratio=2.0,
    spatial_size=7,
    r=4,
    lora_alpha=8.0,
    front=(8, 16),
    squeeze=4,
    drop_path_rate=0.1,
)
"""A network for patches of 7 x 7 pixels that a processor trains in seconds."""
SMALL_NETWORK = replace(
    NANO,
    in_channels=15,
    dim=48,
    depths=(2, 2, 4),
    num_heads=(4, 4, 8),
    window_size=(4, 4, 4),
    spatial_size=9,
    r=8,
    lora_alpha=16.0,
    front=(8, 16),
)

LESSON = Optimisation(
    steps=600,
    batch=32,
    algorithm="adamw",
    lr=1e-3,
    betas=(0.9, 0.999),
    weight_decay=0.01,
    warmup=20,
    gradient_clip=1.0,
    ema=0.99,
    validate_every=100,
    checkpoint_every=200,
)
DEMO = SpectralConfig(
    network=NANO,
    features=Features(whiten=False),
    split=Split(train=0.1, block=12, area=0.3),
    optimisation=replace(LESSON, steps=560),
    cycle=80,
    compare=("svm", "cnn"),
)
"""A generated scene of fields: trained on a tenth of its labels, at random and in blocks, beside the baselines."""
NANO_PRESET = SpectralConfig(
    network=NANO,
    data=Data(),
    features=Features(whiten=False),
    split=Split(train=0.1),
    optimisation=replace(LESSON, steps=700),
    cycle=100,
    compare=("svm",),
)
SMALL = replace(
    NANO_PRESET,
    network=SMALL_NETWORK,
    optimisation=replace(LESSON, steps=2100, lr=5e-4, validate_every=300, checkpoint_every=300),
    cycle=300,
)
PAPER = SpectralConfig(
    network=LoLASpecViTConfig(),
    split=Split(train=0.1),
    optimisation=Optimisation(
        steps=7000,
        batch=64,
        algorithm="adamw",
        lr=2e-5,
        betas=(0.9, 0.999),
        weight_decay=0.01,
        gradient_clip=0.5,
        ema=0.0,
        validate_every=250,
        checkpoint_every=250,
    ),
    cycle=1000,
    turns=False,
)
"""The published sizes and rates, with adapters that start at zero, the cyclical rate, and what the paper leaves open
answered honestly: components of the training pixels, validation among these, the level of the spectrum kept."""
OFFICIAL = replace(
    PAPER,
    network=LoLASpecViTConfig(variant="official"),
    features=Features(fit="all", scaled=False, patches="patch"),
    split=Split(kinds=("random", "disjoint"), train=0.02),
    trained="adapters",
    cycle=None,
)
"""What the published code does: gated adapters alone learn, everything else stays random."""

SYSTEM = System(
    card=Card(
        slug="lola-specvit",
        title="LoLA-SpecViT: Local Attention SwiGLU Vision Transformer with LoRA for Hyperspectral Imaging",
        about="Hyperspectral pixels from few labels",
        year=2025,
        authors=7,
        paper="arXiv:2506.17759",
        code="FadiZidiDz/LoLA-SpecViT-Model",
        licence="custom, non-commercial",
        area="hyperspectral",
        idea="Classifies the pixels of hyperspectral scenes from few labels with convolutions over spectrum and "
        "space before windowed attention, training little more than gated low-rank adapters.",
        carried_by=("models", "tasks"),
        status="ready",
    ),
    presets={"demo": DEMO, "nano": NANO_PRESET, "small": SMALL, "paper": PAPER, "official": OFFICIAL},
    task="fovea.tasks.spectral",
    claims=(
        Claim(
            "few-labels",
            "With 2% and 10% of a real scene's labels, patches tell more than single pixels do.",
            "overall accuracy up to 99.91% on LongKou, HongHu and Salinas (the paper's abstract), random splits",
            "fovea.tasks.spectral.claims:few_labels",
        ),
        Claim(
            "adapters",
            "Adapters alone, on a network that knows another scene, come close to training everything.",
            "over 80% fewer trained parameters at high accuracy (the paper's abstract)",
            "fovea.tasks.spectral.claims:adapters",
        ),
    ),
    views=(View("window", "window:size=7", (14, 14)),),
)
