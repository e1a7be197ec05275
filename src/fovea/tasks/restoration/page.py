"""The page of a restoration: the numbers, images side by side, the way they were learned, where the network looked."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fovea.inspect.lam import Attribution, Region, lam
from fovea.models.hat import HAT
from fovea.tasks.report import Report
from fovea.tasks.restoration.config import RestorationConfig
from fovea.tasks.restoration.examples import as_tensor
from fovea.tasks.restoration.measure import baseline, means
from fovea.tasks.restoration.pictures import Pixels, Restoration, hardest, overlay, side_by_side, table
from fovea.tasks.run import RunDirectory

SHIPPED = "trained for longer"
"""How pictures and numbers of the weights that come with fovea are called."""
PATCH = 16
"""Side of the restored patch whose origin is asked for, in pixels of the result (arXiv 2011.11036)."""
AROUND = 64
"""Side of the low-resolution image around it."""


def page(
    run: RunDirectory,
    config: RestorationConfig,
    restorations: Sequence[Restoration],
    *,
    title: str,
    lead: str,
    looked: tuple[Pixels, Attribution] | None = None,
    shipped: Sequence[Restoration] = (),
    untrained: float | None = None,
) -> Report:
    """The report of a training or an evaluation, not yet written.

    Args:
        looked: low-resolution patch and attribution map; see ``where_it_looked``.
        shipped: the same images restored with the weights that come with fovea.
        untrained: PSNR before the first step of training.
    """
    mean, before, ours = means(restorations), baseline(config), f"HAT x{config.scale}" if config.scale > 1 else "HAT"
    numbers = {
        f"PSNR, {before}": f"{mean['baseline_psnr']:.2f} dB",
        f"PSNR, {ours}": f"{mean['psnr']:.2f} dB",
        "gain": f"{mean['psnr'] - mean['baseline_psnr']:+.2f} dB",
        f"SSIM, {before} / {ours}": f"{mean['baseline_ssim']:.4f} / {mean['ssim']:.4f}",
    }
    if untrained is not None:
        gain = f"{untrained - mean['baseline_psnr']:+.2f}"
        start = ", which starts as an interpolation" if config.beginning == "interpolation" else ""
        numbers[f"PSNR before training{start}"] = f"{untrained:.2f} dB ({gain})"
    if shipped:
        longer = means(shipped)["psnr"]
        numbers[f"PSNR, {SHIPPED}"] = f"{longer:.2f} dB ({longer - mean['baseline_psnr']:+.2f})"
    report = Report(title, lead).numbers(numbers, accent="gain")
    report.heading("Side by side")
    for index, item in enumerate(restorations[:2]):
        side_by_side(report, item, before, ours, [(SHIPPED, other) for other in shipped[index : index + 1]])
    report.heading("Every image")
    where = "all colours" if config.stage == "denoise" else "luminance (Y of BT.601)"
    border = ", a border of as many pixels as the scale cut off" if config.scale > 1 else ""
    report.paragraph(f"PSNR and SSIM on {where}{border}.")
    table(report, restorations, before, ours)
    if shipped:
        report.paragraph("The same images with the weights that come with fovea, which were trained for longer:")
        table(report, shipped, before, SHIPPED)
    lines = run.measurements()
    curve = [(line["step"], line["psnr"]) for line in lines if "psnr" in line]
    if curve:
        report.heading("How it learned")
        report.curves(
            {"PSNR": curve},
            up="PSNR of images it is not trained on (dB)",
            levels={before: mean["baseline_psnr"]},
        )
        report.curves(
            {"training loss (mean absolute difference)": [(at["step"], at["loss"]) for at in lines if "loss" in at]}
        )
    if looked is not None:
        picture, found = looked
        report.heading("Where the network looked")
        report.paragraph(
            f"Local attribution map of the {PATCH} x {PATCH} patch in the middle (outlined): the pixels of the "
            f"low-resolution image that it was made from. Diffusion index {found.diffusion_index:.2f}: larger where "
            "more pixels take part (0: one pixel, 100: all alike)."
        )
        report.pictures(
            [
                ("low resolution", _enlarged(_outlined(picture, config.scale))),
                ("attribution", _enlarged(overlay(picture, found.map.numpy()))),
            ],
            least=260,
            pixels=True,
        )
    return report.run(run, config)


def where_it_looked(network: HAT, item: Restoration) -> tuple[Pixels, Attribution]:
    """The attribution map of the hardest patch of an image, and the low-resolution pixels around it that it is over."""
    scale, window = network.scale, network.multiple
    around = [min(AROUND, size) // window * window for size in item.low.shape[:2]]
    ((row, column),) = hardest(item.baseline, item.truth, PATCH, 1)
    top = _inside((row + PATCH // 2) // scale - around[0] // 2, item.low.shape[0] - around[0])
    left = _inside((column + PATCH // 2) // scale - around[1] // 2, item.low.shape[1] - around[1])
    low = item.low[top : top + around[0], left : left + around[1]]
    region = Region(around[0] * scale // 2 - PATCH // 2, around[1] * scale // 2 - PATCH // 2, PATCH, PATCH)
    device = next(network.parameters()).device
    return low, lam(network, as_tensor(low).to(device), region, batch=5)


def _inside(start: int, last: int) -> int:
    return max(0, min(start, last))


def _outlined(picture: Pixels, scale: int) -> Pixels:
    """The patch in the middle framed in red."""
    framed = picture.copy()
    half = -(-PATCH // scale) // 2
    rows, columns = (slice(size // 2 - half - 1, size // 2 + half + 1) for size in picture.shape[:2])
    inner = framed[rows, columns][1:-1, 1:-1].copy()
    framed[rows, columns] = np.array([255, 60, 40], np.uint8)[: picture.shape[2]]
    framed[rows, columns][1:-1, 1:-1] = inner
    return framed


def _enlarged(picture: Pixels, factor: int = 5) -> Pixels:
    return picture.repeat(factor, 0).repeat(factor, 1)
