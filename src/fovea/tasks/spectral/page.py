"""The page of a classification: figures with deviations, leakage, maps side by side, every class, how it learned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean, stdev

import numpy as np
from numpy.typing import NDArray

from fovea.tasks.report import Report
from fovea.tasks.run import RunDirectory
from fovea.tasks.spectral.baselines import WORDS
from fovea.tasks.spectral.config import Kind, SpectralConfig
from fovea.tasks.spectral.maps import coloured, false_colours, legend
from fovea.tasks.spectral.trials import Lesson, Trial

NAMES = {"oa": "overall accuracy", "aa": "average accuracy", "kappa": "kappa"}
Maps = Mapping[str, NDArray[np.int64]]


def summary(trials: Sequence[Trial], method: str, kind: Kind) -> dict[str, tuple[float, float]]:
    """Mean and deviation over the seeds of each figure of one method on one kind of split."""
    found = [trial.scores for trial in trials if trial.method == method and trial.kind == kind]
    figures = {}
    for name in NAMES:
        values = [getattr(scores, name) for scores in found]
        figures[name] = (mean(values), stdev(values) if len(values) > 1 else 0.0)
    return figures


def page(
    run: RunDirectory,
    config: SpectralConfig,
    lessons: Sequence[Lesson],
    trials: Sequence[Trial],
    maps: Maps,
    *,
    title: str,
    lead: str,
) -> Report:
    """The report of a training, not yet written.

    Args:
        maps: classes (from 1) of every pixel of the first lesson's scene, by the method.
    """
    first = lessons[0]
    report = Report(title, lead)
    figures = {method: summary(trials, method, first.kind) for method in _methods(trials)}
    numbers = {}
    for method in ("ours", "svm"):
        if method in figures:
            numbers |= {f"{NAMES[name]}, {WORDS[method]}": f"{figures[method][name][0]:.2f}%" for name in ("oa", "aa")}
    report.numbers(numbers, accent=next(iter(numbers)))
    _maps(report, first, maps)
    _methods_table(report, config, trials)
    _splits(report, config, lessons)
    _classes(report, first, trials)
    _learning(report, run)
    return report.run(run, config)


def _maps(report: Report, lesson: Lesson, maps: Maps) -> None:
    scene = lesson.scene
    assert scene.labels is not None
    count, factor = len(scene.classes), max(1, 480 // max(scene.size))

    def shown(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return picture.repeat(factor, 0).repeat(factor, 1)

    report.heading("The scene and its maps")
    report.paragraph(
        f"{scene.name}: {scene.size[0]} x {scene.size[1]} pixels, {scene.cube.shape[2]} bands, {count} classes. The "
        f"maps are those of the {lesson.kind} split; unlabelled pixels, dark in the truth, are classified as well."
    )
    known = np.zeros(scene.size[0] * scene.size[1], np.int64)
    known[lesson.split.known] = scene.labels.ravel()[lesson.split.known]
    pictures = [
        ("the scene in false colours", shown(false_colours(scene))),
        ("what is known of it (truth)", shown(coloured(scene.labels, count))),
        (f"the {len(lesson.split.known)} pixels learned from", shown(coloured(known.reshape(scene.size), count))),
        *((WORDS[method], shown(coloured(found, count))) for method, found in maps.items()),
    ]
    report.pictures(pictures, least=250, pixels=True)
    report.pictures([("classes", legend(scene.classes))], least=140)


def _methods_table(report: Report, config: SpectralConfig, trials: Sequence[Trial]) -> None:
    report.heading("Every method")
    seeds = f"mean and deviation of {config.seeds} seeds" if config.seeds > 1 else "one seed"
    report.paragraph(
        f"Percent of the tested pixels, {seeds}. All learn from the same pixels; what is tested chooses nothing."
    )
    rows = []
    for kind in config.split.kinds:
        for method in _methods(trials):
            of = [trial for trial in trials if trial.method == method and trial.kind == kind]
            if not of:
                continue
            cells = [_with_deviation(*value, config.seeds) for value in summary(trials, method, kind).values()]
            learned = f"{of[0].learned:,}" if of[0].parameters else "-"
            share = f"{100 * of[0].learned / of[0].parameters:.1f}%" if of[0].parameters else "-"
            rows.append([WORDS[method], kind, *cells, learned, share, f"{mean(trial.seconds for trial in of):.0f} s"])
    report.table(["method", "split", *NAMES.values(), "weights learned", "of all", "training"], rows)


def _splits(report: Report, config: SpectralConfig, lessons: Sequence[Lesson]) -> None:
    report.heading("What the splits let through")
    report.paragraph(
        f"Patches of {config.patch} x {config.patch} pixels overlap. In a random split nearly every tested patch holds "
        "pixels whose labels were learned, so that its figure says little about other places; in the disjoint split "
        f"training lies in blocks of {config.split.block} x {config.split.block} pixels, and tested patches reach into "
        "none of them."
    )
    rows = []
    for lesson in lessons[: len(config.split.kinds)]:
        leak = lesson.split.leakage(config.patch)
        counts = [len(lesson.split.train), len(lesson.split.validation), len(lesson.split.test)]
        rows.append([lesson.kind, *counts, *(f"{100 * share:.1f}%" for share in (leak.pixel, leak.patch, leak.area))])
    header = ["split", "learned", "validated", "tested", "hold a learned pixel", "overlap a learned patch", "area seen"]
    report.table(header, rows)


def _classes(report: Report, lesson: Lesson, trials: Sequence[Trial]) -> None:
    scene, kind = lesson.scene, lesson.kind
    assert scene.labels is not None
    of_class = {
        method: np.mean([t.scores.of_class for t in trials if (t.method, t.kind) == (method, kind)], axis=0)
        for method in ("ours", "svm")
        if any((t.method, t.kind) == (method, kind) for t in trials)
    }
    labels = scene.labels.ravel()
    learned, tested = (np.bincount(labels[p], minlength=len(scene.classes) + 1) for p in _places(lesson))
    rows = []
    for number, name in enumerate(scene.classes):
        cells = [
            f"{values[number]:.1f}" if np.isfinite(values[number]) else "not tested" for values in of_class.values()
        ]
        rows.append([name, int(learned[number + 1]), int(tested[number + 1]), *cells])
    report.heading(f"Every class, {kind} split")
    report.table(["class", "pixels learned", "pixels tested", *(f"{WORDS[method]} (%)" for method in of_class)], rows)
    untested = sorted({(trial.kind, scene.classes[k]) for trial in trials for k in trial.scores.untested})
    if untested:
        words = ", ".join(f"{name} ({kind} split)" for kind, name in untested)
        report.paragraph(f"No pixel was tested of {words}; the average accuracy leaves such classes out.")


def _learning(report: Report, run: RunDirectory) -> None:
    lines = run.measurements()
    curve = [(line["step"], line["validation_oa"]) for line in lines if "validation_oa" in line]
    if curve:
        report.heading("How it learned")
        report.curves({"validation": curve}, up="overall accuracy on pixels held back (%)")
        report.curves({"training loss": [(line["step"], line["loss"]) for line in lines if "loss" in line]})


def _places(lesson: Lesson) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    return lesson.split.known, lesson.split.test


def _methods(trials: Sequence[Trial]) -> list[str]:
    return list(dict.fromkeys(trial.method for trial in trials))


def _with_deviation(value: float, deviation: float, seeds: int) -> str:
    return f"{value:.2f} ± {deviation:.2f}" if seeds > 1 else f"{value:.2f}"
