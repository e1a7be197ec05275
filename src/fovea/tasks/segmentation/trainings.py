"""Trainings of volumes that two processor cores can hold: what the demonstration and the claims run."""

from __future__ import annotations

from fovea.models.swin_unetr_config import SwinUNETRConfig
from fovea.models.volume_unet_config import VolumeUNetConfig
from fovea.tasks.segmentation.config import Data, Loss, VolumesConfig, WarmCosine

SMALL = SwinUNETRConfig(feature_size=12, window_size=4)
"""Swin UNETR at a size that two processor cores can train: 4 million parameters; its windows divide all grids."""

DEMO = VolumesConfig(
    network=SMALL,
    unet=VolumeUNetConfig(width=14),
    data=Data(roi=(32, 32, 32), size=(48, 48, 48), foreground=0.7, train_cases=32, test_cases=8),
    loss=Loss("dice-ce"),
    optimisation=WarmCosine(
        steps=160,
        batch=2,
        algorithm="adamw",
        lr=2e-3,
        betas=(0.9, 0.999),
        weight_decay=1e-5,
        schedule="cosine",
        warmup=10,
        gradient_clip=2.0,
        ema=0.95,
        validate_every=40,
        checkpoint_every=40,
    ),
)
"""Learns from generated brains in minutes, a plain U-Net of as many parameters beside it."""

HIPPOCAMPUS = VolumesConfig(
    network=SwinUNETRConfig(in_channels=1, out_channels=3, feature_size=12),
    unet=VolumeUNetConfig(width=14),
    data=Data(coding="classes", roi=(32, 32, 32), foreground=0.5, held_out=8),
    optimisation=WarmCosine(
        steps=400,
        batch=2,
        algorithm="adamw",
        lr=1e-3,
        betas=(0.9, 0.999),
        weight_decay=1e-5,
        schedule="cosine",
        warmup=20,
        gradient_clip=2.0,
        ema=0.98,
        validate_every=100,
        checkpoint_every=50,
    ),
)
"""Real MRI (Medical Segmentation Decathlon, task 4) on two processor cores; see the claims."""
