"""The page of a segmentation: numbers class by class, small structures by size, slices with truth and prediction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from fovea.tasks.report import Report
from fovea.tasks.run import RunDirectory
from fovea.tasks.slices import metrics
from fovea.tasks.slices.config import SlicesConfig
from fovea.tasks.slices.measure import RADII, Result, summary
from fovea.tasks.slices.pictures import grey, most_to_see, overlaid

SHOWN = 6
"""Slices on the page."""
WIDTH = 256
"""Small slices are enlarged by a whole number to about so many pixels."""

Compared = Mapping[str, tuple[Sequence[Result], int]]
"""Name of a network, what it made of the cases, and its number of parameters; ours is the first."""


def page(
    run: RunDirectory,
    config: SlicesConfig,
    compared: Compared,
    classes: Sequence[str],
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
    numbers = {name: summary(found, classes) for name, (found, _) in compared.items()}
    ours = next(iter(compared))
    report = Report(title, lead).numbers(_large(numbers, ours), accent=f"Dice, {ours}")
    report.heading("Classes")
    report.paragraph(
        "Dice and HD95 (in pixels; the 95th percentile of distances between surfaces). A class that was there and not "
        "found has Dice 0 and the largest HD95 there can be; one that is in neither is left out. 'Official' counts as "
        "the published code does: a class that was not found has HD95 0, one that is in neither has Dice 1."
    )
    _classes(report, numbers, classes)
    _structures(report, compared, classes[config.data.structures % len(classes)], numbers)
    report.heading("Slices")
    _slices(report, compared, classes)
    if curves:
        report.heading("How they learned" if len(curves) > 1 else "How it learned")
        measured = {name: folder.measurements() for name, folder in curves.items()}
        for key, up in (("dice", "mean Dice of cases it is not trained on"), ("loss", "training loss")):
            drawn = {name: [(at["step"], at[key]) for at in lines if key in at] for name, lines in measured.items()}
            report.curves(drawn, up=up)
    return report.run(run, config)


def _large(numbers: Mapping[str, Mapping[str, float]], ours: str) -> dict[str, str]:
    large: dict[str, str] = {}
    for name, values in numbers.items():
        large[f"Dice, {name}"] = f"{values['dice']:.3f}" if "dice" in values else "-"
    for name, values in numbers.items():
        large[f"HD95, {name}"] = f"{values['hd95']:.1f}" if "hd95" in values else "-"
    for name, values in numbers.items():
        if "recall" in values:
            large[f"small structures found, {name}"] = f"{100 * values['recall']:.0f} %"
    return large


def _classes(report: Report, numbers: Mapping[str, Mapping[str, float]], classes: Sequence[str]) -> None:
    header = ["network", "class", "Dice", "HD95", "missed", "Dice official", "HD95 official"]
    rows = []
    for name, values in numbers.items():
        for label in (*classes[1:], "mean"):
            end = "" if label == "mean" else f"_{label.lower().replace(' ', '_')}"
            cells = [values.get(f"dice{end}"), values.get(f"hd95{end}"), values.get(f"missed{end}")]
            cells += [values.get(f"dice{end}_official"), values.get(f"hd95{end}_official")]
            shown = [f"{cells[0]:.3f}" if cells[0] is not None else "-", _one(cells[1])]
            shown += [f"{cells[2]:.0f}" if cells[2] is not None else ""]
            shown += [f"{cells[3]:.3f}" if cells[3] is not None else "-", _one(cells[4])]
            rows.append([name, label, *shown])
    report.table(header, rows)


def _structures(report: Report, compared: Compared, label: str, numbers: Mapping[str, Mapping[str, float]]) -> None:
    tables = {}
    for name, (found, _) in compared.items():
        structures = [structure for result in found for structure in result.structures]
        tables[name] = metrics.recall_by_radius(structures, RADII)
    sizes = list(next(iter(tables.values())))
    if not sizes:
        return
    report.heading(f"Single structures of class '{label}'")
    report.paragraph(
        "How many were found, by their radius (that of a disc of the same area); found means a Dice of at least "
        "one half with the predicted structures that touch it. False ones touch no true one."
    )
    header = [
        "network",
        *(f"{size} ({tables[next(iter(tables))][size][1]})" for size in sizes),
        "all",
        "false, a slice",
    ]
    report.table(
        header,
        [
            [
                name,
                *(f"{100 * table[size][0]:.0f} %" for size in sizes),
                f"{100 * numbers[name]['recall']:.0f} %",
                f"{numbers[name]['false_structures']:.2f}",
            ]
            for name, table in tables.items()
        ],
    )


def _slices(report: Report, compared: Compared, classes: Sequence[str]) -> None:
    ours = next(iter(compared.values()))[0]
    spread = np.linspace(0, len(ours) - 1, min(SHOWN, len(ours))).round().astype(int)
    for index in spread:
        z = most_to_see(ours[index].truth)
        image, truth = ours[index].image[z], ours[index].truth[z]
        factor = max(1, WIDTH // max(image.shape))
        where = f"{ours[index].name}, slice {z}" if len(ours[index].truth) > 1 else ours[index].name
        pictures = [(where, grey(image, enlarge=factor)), ("truth", overlaid(image, truth, enlarge=factor))]
        for name, (found, _) in compared.items():
            overlaps = metrics.per_class(found[index].prediction[z], truth, len(classes))
            dice = np.array([overlap.dice for overlap in overlaps])
            words = f", Dice {np.nanmean(dice):.2f}" if not np.isnan(dice).all() else ""
            pictures.append((name + words, overlaid(image, found[index].prediction[z], enlarge=factor)))
        report.pictures(pictures, least=190, pixels=True)
    report.paragraph("Networks: " + "; ".join(f"{name}, {count:,} parameters" for name, (_, count) in compared.items()))


def _one(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
