"""The parts of the report of one run, pre-training or fine-tuning."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from zipfile import BadZipFile

import numpy as np

from medssl.config.tables import flat
from medssl.problems import InputError, Problem
from medssl.reports.charts import curve, curve_series, curve_title
from medssl.reports.classification import class_answer, class_limits, class_pictures, class_tables
from medssl.reports.inputs import input_limits, region_sentence
from medssl.reports.page import bullets, grid, paragraph, picture, section, settings
from medssl.reports.pretraining import embeddings, pretraining_answer, reads_labels, views
from medssl.reports.regression import number_answer, number_limits, number_pictures, number_tables
from medssl.reports.segmentation import voxel_answer, voxel_limits, voxel_tables
from medssl.reports.time_spent import time_parts
from medssl.reports.voxel_pictures import voxel_pictures
from medssl.runs import Run


class Parts(NamedTuple):
    """What the report of a task has of its own: an answer in words, tables, pictures of predictions.npz, limits."""

    answer: Callable[[Run], str]
    tables: Callable[[Run], list[str]]
    pictures: Callable[[Run, Mapping[str, Any]], str]
    limits: Callable[[Run], list[str]]


TASK_PARTS = {
    "segmentation": Parts(voxel_answer, voxel_tables, voxel_pictures, voxel_limits),
    "classification": Parts(class_answer, class_tables, class_pictures, class_limits),
    "regression": Parts(number_answer, number_tables, number_pictures, number_limits),
}


def parts_of(run: Run) -> Parts:
    """Give the parts of a fine-tuning's task; InputError for a task that this version does not know."""
    if run.task not in TASK_PARTS:
        raise InputError([Problem(str(run.folder / "summary.json"), "task", run.task, " or ".join(TASK_PARTS))])
    return TASK_PARTS[run.task]


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
        section("Scores", *scores(run)),
        section("Curves", curves_grid(run)),
        section("Where the time went", *time_parts(run)),
        section("Views", views(run, arrays_of(run, "views.npz"))),
        section("Embeddings", embeddings(run, arrays_of(run, "embeddings.npz"))),
        section("Predictions", predictions(run)),
        section("Settings", settings(flat(run.config))),
        section("Environment", settings(flat(run.environment))),
        section("Limits", bullets([*input_limits(run), *limits(run)])),
    ]


def what_was_done(run: Run) -> str:
    """Tell the run in plain sentences."""
    s = run.summary
    after = f" for {s['steps']} steps" if s.get("steps") else ""
    took = f" It took {duration(float(s['seconds']))}." if s.get("seconds") is not None else ""
    follows = f" It follows {run.config['follows']}." if run.config.get("follows") else ""
    cut = region_sentence(run)
    if run.kind == "pretrain":
        known = reads_labels(run)
        cases = f"{s.get('n_cases', 'the')} {'' if known else 'unlabelled '}cases"
        method = s.get("method") or "a self-supervised method"
        read = "labels of them were read" if known else "no label was read"
        return f"{run.network} was pre-trained on {cases} with {method}{after}; {read}.{cut}{took}{follows}"
    labels = f"{'all' if run.labelled is None else run.labelled} labelled cases"
    start = f"the encoder of {run.encoder_name}" if run.pretrained else "random weights"
    draw = f"(seed {run.key[0]}, draw {run.key[1]} of the labels)"
    how = f"{run.network} was trained on {labels} {draw}{after}, starting from {start}."
    checkpoint = "The last weights were" if s.get("checkpoint") == "latest" else "The weights best on validation were"
    judged = f" {checkpoint} judged once on {s['n']} {s.get('part', 'test')} cases." if s.get("n") else ""
    return how + cut + judged + took + follows


def answer(run: Run) -> str:
    """Say in a sentence or two what came out."""
    s = run.summary
    if not run.finished:
        return f"The run is not finished ({s.get('status', 'no summary.json')}): there is no result yet."
    if run.kind == "pretrain":
        return pretraining_answer(run)
    return parts_of(run).answer(run)


def warnings(run: Run) -> list[str]:
    """List what the run warned of."""
    return [str(text) for text in run.summary.get("warnings") or []]


def limits(run: Run) -> list[str]:
    """Say what the numbers do not cover."""
    if run.kind == "pretrain":
        return ["The validation loss says how well the pretext task is solved, not how useful the encoder is."]
    return parts_of(run).limits(run)


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


def scores(run: Run) -> list[str]:
    """Give the tables of a fine-tuning's figures."""
    return [] if run.kind == "pretrain" else parts_of(run).tables(run)


def predictions(run: Run) -> str:
    """Give the pictures of a fine-tuning's predictions."""
    return "" if run.kind == "pretrain" else parts_of(run).pictures(run, arrays_of(run, "predictions.npz"))


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


def duration(seconds: float) -> str:
    """Write seconds as a person would."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"
