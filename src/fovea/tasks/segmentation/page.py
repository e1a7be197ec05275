"""The page of a segmentation of volumes: numbers of each region, planes with truth and predictions, the learning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from fovea.tasks.report import Report
from fovea.tasks.run import RunDirectory
from fovea.tasks.segmentation.coding import Coded
from fovea.tasks.segmentation.config import VolumesConfig
from fovea.tasks.segmentation.measure import Result, summary
from fovea.tasks.segmentation.pictures import PLANES, place, planes

SHOWN = 3
"""Cases on the page."""

Compared = Mapping[str, tuple[Sequence[Result], int]]
"""Name of a network, what it made of the cases, and its number of parameters; ours is the first."""
LEGEND = ("red", "yellow", "blue", "green", "violet")


def page(
    run: RunDirectory,
    config: VolumesConfig,
    compared: Compared,
    coding: Coded,
    *,
    title: str,
    lead: str,
    curves: Mapping[str, RunDirectory] | None = None,
) -> Report:
    """The report of a training or an evaluation, not yet written.

    Args:
        compared: the networks' results on the same cases.
        curves: run folders whose validations are drawn, by the network's name.
    """
    numbers = {name: summary(found, coding) for name, (found, _) in compared.items()}
    ours = next(iter(compared))
    large = {f"Dice, {name}": _three(values.get("dice")) for name, values in numbers.items()}
    large |= {f"HD95, {name}": f"{_one(values.get('hd95'))} mm" for name, values in numbers.items()}
    report = Report(title, lead).numbers(large, accent=f"Dice, {ours}")
    report.heading("Every region" if coding.regions else "Every class")
    report.paragraph(
        "Dice as MONAI has it: cases without the structure are left out of the mean. Dice and HD95 (millimetres) as "
        "the BraTS server has them: a structure that is in neither counts as 1 and 0, one that was missed or invented "
        "as 0 and the diagonal of the volume. 'HD95 where found' is the mean over cases where both have it; 'missed' "
        "counts cases of whose structure no voxel was found."
    )
    header = ["network", "structure", "Dice", "Dice (server)", "HD95 (server)", "HD95 where found", "missed"]
    rows = []
    for name, values in numbers.items():
        for structure in (*coding.names, "mean"):
            end = "" if structure == "mean" else f"_{structure.lower().replace(' ', '_')}"
            cells = [_three(values.get(f"dice{end}")), _three(values.get(f"dice_server{end}"))]
            cells += [_one(values.get(f"hd95{end}")), _one(values.get(f"hd95_found{end}"))]
            missed = values.get(f"missed{end}")
            rows.append([name, structure, *cells, "" if missed is None else f"{missed:.0f}"])
    report.table(header, rows)
    _cases(report, compared, coding)
    report.heading("Three planes")
    colours = ", ".join(f"{name} {LEGEND[index % len(LEGEND)]}" for index, name in enumerate(coding.names))
    report.paragraph(f"Through the place where there is most to see: {colours}.")
    _planes(report, compared, coding)
    report.paragraph("Networks: " + "; ".join(f"{name}, {count:,} parameters" for name, (_, count) in compared.items()))
    if curves:
        report.heading("How they learned" if len(curves) > 1 else "How it learned")
        measured = {name: folder.measurements() for name, folder in curves.items()}
        for key, up in (("dice", "mean Dice of cases it is not trained on"), ("loss", "training loss")):
            drawn = {name: [(at["step"], at[key]) for at in lines if key in at] for name, lines in measured.items()}
            report.curves(drawn, up=up)
    return report.run(run, config)


def _cases(report: Report, compared: Compared, coding: Coded) -> None:
    report.heading("Every case")
    ours = next(iter(compared.values()))[0]
    header = ["case", "voxels to find", *(f"{name}, {structure}" for name in compared for structure in coding.names)]
    rows = []
    for index in sorted(range(len(ours)), key=lambda i: int(ours[i].truth.any(0).sum())):
        cells = [m.dice_server for found, _ in compared.values() for m in found[index].measured]
        rows.append([ours[index].volume.name, int(ours[index].truth.any(0).sum()), *(_three(cell) for cell in cells)])
    report.paragraph("Dice (server), the smallest lesions first.")
    report.table(header, rows)


def _planes(report: Report, compared: Compared, coding: Coded) -> None:
    ours = next(iter(compared.values()))[0]
    order = sorted(range(len(ours)), key=lambda i: int(ours[i].truth.any(0).sum()))
    spread = np.unique(np.linspace(0, len(order) - 1, min(SHOWN, len(order))).round().astype(int))
    for index in (order[int(i)] for i in spread):
        result = ours[index]
        at, image = place(result.truth), result.volume.image[0]
        ways = {"image": None, "truth": result.truth}
        ways |= {name: found[index].prediction for name, (found, _) in compared.items()}
        report.paragraph(f"{result.volume.name}, {int(result.truth.any(0).sum())} voxels to find")
        drawn = {way: planes(image, masks, at, regions=coding.regions) for way, masks in ways.items()}
        for axis, plane in enumerate(PLANES):
            pictures = [(f"{way}, {plane} {at[axis]}", pixels[axis]) for way, pixels in drawn.items()]
            report.pictures(pictures, least=170, pixels=True)


def _three(value: float | None) -> str:
    return "-" if value is None or not np.isfinite(value) else f"{value:.3f}"


def _one(value: float | None) -> str:
    return "-" if value is None or not np.isfinite(value) else f"{value:.1f}"
