"""The parts of the report of one run, pre-training or fine-tuning."""

import math
from collections.abc import Mapping, Sequence
from typing import Any
from zipfile import BadZipFile

import numpy as np

from medssl.comparison.fairness import flat
from medssl.problems import InputError, Problem
from medssl.reports.charts import (
    CONVENTION,
    curve,
    curve_series,
    curve_title,
    predictions_figure,
)
from medssl.reports.classification import class_answer, class_pictures, class_tables
from medssl.reports.page import bullets, folded, grid, paragraph, picture, section, settings, table
from medssl.reports.pretraining import embeddings, pretraining_answer, reads_labels, views
from medssl.runs import Run
from medssl.scores.voxels import score_by_case

WORST = 8  # cases in the table of the lowest scores


def title(run: Run) -> str:
    """Name the run in a few words."""
    if run.kind == "pretrain":
        return f"Pre-training: {run.network}"
    return f"Fine-tuning: {run.network}, {'pre-trained' if run.pretrained else 'random'} start"


def body(run: Run) -> list[str]:
    """Give all sections of the report of a run; what a run lacks is left out."""
    return [
        paragraph(f"Run folder {run.folder.name}", "quiet"),
        section("What was done", paragraph(what_was_done(run))),
        section("The answer", paragraph(answer(run), "answer"), bullets(warnings(run), "warnings")),
        section("Scores", *_scores(run)),
        section("Curves", curves_grid(run)),
        section("Views", views(run, arrays_of(run, "views.npz"))),
        section("Embeddings", embeddings(run, arrays_of(run, "embeddings.npz"))),
        section("Predictions", predictions(run)),
        section("Settings", settings(flat(run.config))),
        section("Environment", settings(flat(run.environment))),
        section("Limits", bullets(limits(run))),
    ]


def what_was_done(run: Run) -> str:
    """Tell the run in plain sentences."""
    s = run.summary
    after = f" for {s['steps']} steps" if s.get("steps") else ""
    took = f" It took {duration(float(s['seconds']))}." if s.get("seconds") is not None else ""
    follows = f" It follows {run.config['follows']}." if run.config.get("follows") else ""
    if run.kind == "pretrain":
        known = reads_labels(run)
        cases = f"{s.get('n_cases', 'the')} {'' if known else 'unlabelled '}cases"
        method = s.get("method") or "a self-supervised method"
        read = "labels of them were read" if known else "no label was read"
        return f"{run.network} was pre-trained on {cases} with {method}{after}; {read}.{took}{follows}"
    labels = f"{'all' if run.labelled is None else run.labelled} labelled cases"
    start = f"the encoder of {run.encoder_name}" if run.pretrained else "random weights"
    draw = f"(seed {run.key[0]}, draw {run.key[1]} of the labels)"
    how = f"{run.network} was trained on {labels} {draw}{after}, starting from {start}."
    checkpoint = "The last weights were" if s.get("checkpoint") == "latest" else "The weights best on validation were"
    judged = f" {checkpoint} judged once on {s['n']} {s.get('part', 'test')} cases." if s.get("n") else ""
    return how + judged + took + follows


def answer(run: Run) -> str:
    """Say in a sentence or two what came out."""
    s = run.summary
    if not run.finished:
        return f"The run is not finished ({s.get('status', 'no summary.json')}): there is no result yet."
    if run.kind == "pretrain":
        return pretraining_answer(run)
    if run.task == "classification":
        return class_answer(run)
    if s.get("dice") is None:
        return "No case has a score: there is no result."
    low, high = s.get("dice_interval") or (None, None)
    interval = f" (95% interval {low:.3f} to {high:.3f} over patients)" if low is not None else ""
    far = f", mean HD95 {s['hd95']:.2f} mm" if s.get("hd95") is not None else ""
    return (
        f"Mean Dice {s['dice']:.3f}{interval}{far}, n = {s.get('n')}. "
        "One run does not say whether pre-training helps; a comparison with the other start, over several seeds, does."
    )


def warnings(run: Run) -> list[str]:
    """List what the run warned of."""
    return [str(text) for text in run.summary.get("warnings") or []]


def limits(run: Run) -> list[str]:
    """Say what the numbers do not cover."""
    if run.kind == "pretrain":
        return ["The validation loss says how well the pretext task is solved, not how useful the encoder is."]
    policy = run.summary.get("policy")
    if run.task == "classification":
        return [
            "The intervals cover the choice of test patients, not the choice of training cases and seeds.",
            "A bootstrap knows no error that no judged case shows: an interval at 0 or 1 has no width and claims too much.",
            "Each image is judged by one crop in its middle.",
            *([f"Figures: {policy}"] if policy else []),
        ]
    return [
        "The interval covers the choice of test patients, not the choice of training cases and seeds.",
        "Scores are measured on the prepared grid"
        + (f" of {' x '.join(f'{mm:g}' for mm in spacing_of(run) or [])} mm." if spacing_of(run) else "."),
        *([f"Empty classes: {policy}"] if policy else []),
    ]


def curves_grid(run: Run) -> str:
    """Give the curves of metrics.jsonl as pictures that arrange themselves by the width of the page."""
    lines = run.metrics()
    names = list(curve_series(lines))
    alt = f"Curve over the steps of {run.name}: "
    chance = run.summary.get("chance") or {}

    def drawn(name: str) -> str:
        light, dark = (curve(lines, name, chance.get(name), dark) for dark in (False, True))
        return picture(light, alt + curve_title(name), dark=dark)

    return grid([drawn(name) for name in names])


def predictions(run: Run) -> str:
    """Give the picture of predictions beside labels, from the best case to the worst; of classes the worst cases."""
    arrays = arrays_of(run, "predictions.npz")
    if run.task == "classification":
        return class_pictures(run, arrays)
    if "image_0" not in arrays:
        return ""
    arrays = arrays | _missing_scores(run, arrays)
    names = {int(index): str(name) for index, name in (run.split.get("labels") or {}).items()}
    volume = np.asarray(arrays["image_0"]).ndim == 4
    png = predictions_figure(arrays, names, spacing_of(run))
    caption = f"Label and prediction as outlines, best case first. {CONVENTION if volume else ''}"
    return picture(png, f"Predictions beside labels, {run.name}", caption, wide=True)


def arrays_of(run: Run, name: str) -> dict[str, Any]:
    """Read an .npz of the run; empty where there is none, InputError where it can't be read."""
    path = run.folder / name
    if not path.is_file():
        return {}
    try:
        with np.load(path, allow_pickle=False) as found:
            return dict(found)
    except (OSError, ValueError, EOFError, BadZipFile) as error:
        raise InputError([Problem(str(path), "arrays", str(error), "an .npz file of arrays")]) from error


def spacing_of(run: Run) -> Sequence[float] | None:
    """Give the spacing of the prepared grid in mm, where the run knows one."""
    spacing = run.summary.get("spacing") or run.config.get("spacing")
    return [float(mm) for mm in spacing] if spacing else None


def duration(seconds: float) -> str:
    """Write seconds as a person would."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def _scores(run: Run) -> list[str]:
    """Scores by class, and the cases with the lowest."""
    if run.task == "classification":
        return class_tables(run)
    classes = run.summary.get("classes")
    if not isinstance(classes, Mapping):
        return []
    rows = [[name, _number(c.get("dice"), 3), _number(c.get("hd95"), 2), c.get("n", "")] for name, c in classes.items()]
    rows.append(
        [
            "mean over cases",
            _number(run.summary.get("dice"), 3),
            _number(run.summary.get("hd95"), 2),
            run.summary.get("n"),
        ]
    )
    parts = [table(["class", "Dice", "HD95 mm", "n"], rows, "Scores by class")]
    try:
        rows_of_cases = run.scores()
    except InputError:
        return parts
    far = score_by_case(rows_of_cases, "hd95")
    lowest = sorted((score, case) for case, score in score_by_case(rows_of_cases).items() if not math.isnan(score))[:WORST]
    worst = table(
        ["case", "Dice", "HD95 mm"], [[case, _number(d, 3), _number(far[case], 2)] for d, case in lowest], "Worst cases"
    )
    return [*parts, folded(f"The {len(lowest)} cases with the lowest Dice", worst)]


def _missing_scores(run: Run, arrays: Mapping[str, Any]) -> dict[str, float]:
    """The Dice of the shown cases from predictions.csv, where predictions.npz does not hold it."""
    try:
        by_case = score_by_case(run.scores())
    except InputError:
        return {}
    count = sum(name.startswith("name_") for name in arrays)
    shown = {k: str(arrays[f"name_{k}"]) for k in range(count) if f"name_{k}" in arrays}
    return {f"dice_{k}": by_case[name] for k, name in shown.items() if f"dice_{k}" not in arrays and name in by_case}


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:.{digits}f}"
