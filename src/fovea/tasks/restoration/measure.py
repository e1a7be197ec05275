"""PSNR and SSIM of a network on pairs of images, beside those of what there was before it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from torch import nn

from fovea.tasks.restoration.config import RestorationConfig
from fovea.tasks.restoration.examples import as_pixels, as_tensor, resized
from fovea.tasks.restoration.inference import Tiles, automatic, restore
from fovea.tasks.restoration.metrics import psnr, ssim
from fovea.tasks.restoration.pictures import Pixels, Restoration
from fovea.tasks.restoration.sources import Pair


def baseline(config: RestorationConfig) -> str:
    """What the network is compared with: bicubic enlargement, or the degraded image as it is."""
    return "bicubic" if config.scale > 1 else "input"


def restored(
    network: nn.Module,
    pairs: Iterable[Pair],
    config: RestorationConfig,
    *,
    tiles: Tiles | None = None,
    progress: Callable[[], None] = lambda: None,
) -> list[Restoration]:
    """Restore every pair and measure it as the papers do (PSNR and SSIM, see ``compare``).

    Without ``tiles`` images are restored whole, but those that would not fit into memory in the largest tiles that do.
    """
    device = next(network.parameters()).device
    results = []
    for pair in pairs:
        low = as_tensor(pair.low).to(device)
        window = config.network.window_size
        cut = tiles or automatic(
            *low.shape[1:],
            channels=config.network.embed_dim,
            scale=config.scale,
            multiple=window,
            device=device,
        )
        image = restore(network, low, scale=config.scale, multiple=window, tiles=cut).image
        ours = as_pixels(image)
        before = resized(pair.low, config.scale)
        measured = {
            "psnr": compare(psnr, ours, pair.high, config),
            "ssim": compare(ssim, ours, pair.high, config),
            "baseline_psnr": compare(psnr, before, pair.high, config),
            "baseline_ssim": compare(ssim, before, pair.high, config),
        }
        results.append(Restoration(pair.name, as_pixels(low), before, ours, pair.high, measured))
        progress()
    return results


def compare(metric: Callable[..., float], estimate: Pixels, truth: Pixels, config: RestorationConfig) -> float:
    """A metric by the rules of the stage: super-resolution on luminance (Y) without a border of ``scale`` pixels, JPEG
    on luminance and denoising on all colours without cutting a border."""
    return float(metric(estimate, truth, border=config.scale if config.scale > 1 else 0, y=config.stage != "denoise"))


def means(results: Sequence[Restoration]) -> dict[str, float]:
    """The mean of each number over the images."""
    return {key: float(np.mean([item.measured[key] for item in results])) for key in results[0].measured}


def summary(network: nn.Module, pairs: list[Pair], config: RestorationConfig) -> dict[str, float]:
    """PSNR and SSIM on average; what training validates."""
    measured = means(restored(network, pairs, config))
    return {"psnr": measured["psnr"], "ssim": measured["ssim"]}
