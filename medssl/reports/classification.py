"""The parts of a run's report that a classification has of its own."""

from collections.abc import Mapping
from typing import Any

from medssl.problems import InputError
from medssl.reports.calibration import calibration_parts
from medssl.reports.case_pictures import case_cards
from medssl.reports.class_pictures import confusion_figure
from medssl.reports.page import folded, heading, paragraph, picture, table
from medssl.runs import Run
from medssl.scores.classes import OF_CLASS, OVER_ALL

WORST = 20  # cases in the table of the highest log loss
TITLES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "mcc": "Matthews correlation",
    "log_loss": "log loss",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "precision": "precision",
    "f1": "F1",
    "auc": "AUC",
}


def class_answer(run: Run) -> str:
    """Say in a few sentences how well the classes were told apart, and what simple pixels reach."""
    s = run.summary
    if s.get("balanced_accuracy") is None:
        return "No case was judged: there is no result."
    pixels = s.get("pixels") or {}
    beside = (
        f" {str(pixels['name']).capitalize()} of the same training cases reaches a balanced accuracy of "
        f"{pixels['balanced_accuracy']:.3f}."
        if pixels.get("balanced_accuracy") is not None
        else ""
    )
    interval = _interval(s.get("balanced_accuracy_interval"), f" over {run.units}")
    return (
        f"Balanced accuracy {s['balanced_accuracy']:.3f}{interval}, accuracy {s['accuracy']:.3f}, "
        f"log loss {s['log_loss']:.3f}; n = {s.get('n')} cases of {s.get('patients')} {run.units}."
        f"{beside} One run does not say whether pre-training helps; "
        "a comparison with the other start, over several seeds, does."
    )


def class_tables(run: Run) -> list[str]:
    """Give the confusion matrix, the figures over all cases and of each class, and the worst cases."""
    s = run.summary
    if not isinstance(s.get("classes"), Mapping) or not isinstance(s.get("confusion"), Mapping):
        return []
    matrix, names = s["confusion"]["counts"], s["confusion"]["labels"]
    light, dark = (confusion_figure(matrix, names, dark) for dark in (False, True))
    caption = "Cases of each true class (a row) by prediction: their number, and the share of the row."
    return [
        picture(light, "Confusion matrix", caption, dark=dark),
        heading("Over all cases"),
        table(["figure", "value", "95% interval", s.get("pixels", {}).get("name", "pixels")], _over_all(s), "Over all cases"),
        heading("Of each class"),
        table(["class", "cases", "predicted", *(TITLES[name] for name in OF_CLASS)], _of_classes(s), "Figures of each class"),
        paragraph(
            f"Intervals in brackets: 95%, bootstrap over {run.units}. AUC is that of a class against all others.", "quiet"
        ),
        *calibration_parts(run),
        *_worst(run),
    ]


def class_pictures(run: Run, arrays: Mapping[str, Any]) -> str:
    """Give the cards of the cases in predictions.npz: those with the highest log loss, typical and best ones."""
    labels = run.split.get("labels") or {}
    if "truth_0" not in arrays or not labels:
        return ""

    def said(k: int) -> list[str]:
        truth, predicted = int(arrays[f"truth_{k}"]), int(arrays[f"predicted_{k}"])
        of = {p: f"{labels[str(p)]}: {float(arrays[f'probabilities_{k}'][p]):.1%}" for p in (truth, predicted)}
        lines = [f"right, {of[truth]}"] if truth == predicted else [f"wrong, said {of[predicted]}", f"is {of[truth]}"]
        return [*lines, *([f"log loss {float(arrays[f'error_{k}']):.2f}"] if f"error_{k}" in arrays else [])]

    return case_cards(run, arrays, said, "log loss", "class")


def class_limits(run: Run) -> list[str]:
    """Say what the numbers do not cover."""
    policy, calibration = run.summary.get("policy"), run.summary.get("calibration") or {}
    return [
        f"The intervals cover the choice of test {run.units}, not the choice of training cases and seeds.",
        "A bootstrap knows no error that no judged case shows: an interval at 0 or 1 has no width and claims too much.",
        "Each image is judged by one crop in its middle.",
        *([f"Figures: {policy}"] if policy else []),
        *([f"Calibration: {calibration['policy']}"] if calibration else []),
    ]


def _over_all(s: Mapping[str, Any]) -> list[list[str]]:
    pixels = s.get("pixels") or {}
    means = ("specificity", "precision", "f1", "auc")
    return [
        [
            TITLES[name] + (", mean over classes" if name in means else ""),
            _number(s.get(name)),
            _ends(s.get(f"{name}_interval")),
            _number(pixels.get(name)),
        ]
        for name in OVER_ALL
    ]


def _of_classes(s: Mapping[str, Any]) -> list[list[Any]]:
    def cell(of_class: Mapping[str, Any], name: str) -> str:
        ends = of_class.get(f"{name}_interval")
        return _number(of_class.get(name)) + (f" [{ends[0]:.2f}, {ends[1]:.2f}]" if ends else "")

    return [[name, c["n"], c["predicted"], *(cell(c, measure) for measure in OF_CLASS)] for name, c in s["classes"].items()]


def _worst(run: Run) -> list[str]:
    try:
        labels, rows = run.predictions()
    except InputError:
        return []
    worst = sorted(rows, key=lambda row: -row.log_loss)[:WORST]
    cells = [
        [row.case, labels[row.truth], labels[row.predicted], f"{row.probabilities[row.truth]:.3f}", f"{row.log_loss:.3f}"]
        for row in worst
    ]
    header = ["case", "truth", "predicted", "probability of the truth", "log loss"]
    return [folded(f"The {len(worst)} cases with the highest log loss", table(header, cells, "Worst cases"))]


def _interval(ends: Any, what: str = "") -> str:
    return f" (95% interval {_ends(ends)}{what})" if ends else ""


def _ends(ends: Any) -> str:
    return f"{ends[0]:.3f} to {ends[1]:.3f}" if ends else "-"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
