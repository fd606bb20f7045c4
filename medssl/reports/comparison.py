"""The parts of the report of a folder of runs: the arms side by side."""

from pathlib import Path

from medssl.comparison.arms import Arm
from medssl.comparison.compare import Comparison
from medssl.comparison.measures import BY_CLASS
from medssl.comparison.tables import class_cells, class_names, difference_cells, table_cells, wide_classes
from medssl.comparison.words import answer, headline
from medssl.config import WITHOUT_EFFECT
from medssl.config.tables import flat
from medssl.reports import run as run_parts
from medssl.reports.charts import bars_by_arm
from medssl.reports.overviews import amount_parts, cost_parts, label_parts, method_parts
from medssl.reports.page import bullets, folded, heading, paragraph, picture, plain, section, settings, table
from medssl.reports.pretraining import views
from medssl.runs import Run, is_run, read_run

PER_RUN = WITHOUT_EFFECT | {"seed", "draw", "kind"}  # settings in which the runs of an arm differ anyway
SHOWN = 8  # warnings that are not folded away, and arms that are not


def body(comparison: Comparison) -> list[str]:
    """Give all sections of the report of a comparison."""
    pretraining = pretraining_runs(comparison)
    about = comparison.study.about if comparison.study else ""
    return [
        paragraph(about, "quiet"),
        section("The answer", *_answer(comparison)),
        section("What was done", *_what_was_done(comparison, pretraining)),
        section("Table", *_tables(comparison), *_bars(comparison)),
        section("Labels saved", *label_parts(comparison)),
        section("Method and data", *method_parts(comparison)),
        section("Amount of unlabelled data", *amount_parts(comparison)),
        section("Cost and gain", *cost_parts(comparison)),
        section("Curves", *_many(comparison, _curves(comparison, pretraining))),
        section("Views", *(_with_heading(f"Pre-training {run.name}", _views(run)) for run in pretraining)),
        section("Predictions", *_many(comparison, [_predictions(arm) for arm in comparison.arms])),
        section("Settings", *_settings(comparison.arms)),
        section("Environment", settings(flat(comparison.arms[0].runs[0].environment))),
        section("Limits", bullets(_limits(comparison))),
    ]


def _answer(comparison: Comparison) -> list[str]:
    """The question answered, of a study first in short; then what to know before believing it."""
    lines = [paragraph(line, "answer") for line in answer(comparison).splitlines()]
    short = headline(comparison).splitlines() if comparison.study else []
    if short:
        lines = [paragraph(short[0], "answer"), bullets(short[1:]), folded("Every comparison in a sentence", *lines)]
    first, rest = comparison.warnings[:SHOWN], comparison.warnings[SHOWN:]
    return [*lines, bullets(first, "warnings"), folded(f"{len(rest)} more warnings", bullets(rest, "warnings"))]


def _many(comparison: Comparison, parts: list[str]) -> list[str]:
    """Parts of arms as they are, or folded away where they are many."""
    return parts if len(comparison.arms) <= SHOWN else [folded("One run of every arm", *parts)]


def pretraining_runs(comparison: Comparison) -> list[Run]:
    """Give the finished pre-training runs in the folder, and those elsewhere that the arms' encoders come from."""
    found = {run.folder.resolve(): run for run in comparison.pretraining}
    for run in (run for arm in comparison.arms for run in arm.runs if run.pretrained):
        encoder = Path(str(run.summary.get("encoder", run.config.get("encoder"))))
        folder = (encoder.parent if encoder.suffix == ".safetensors" else encoder).resolve()
        if folder not in found and is_run(folder):
            found[folder] = read_run(folder)
    return list(found.values())


def _what_was_done(comparison: Comparison, pretraining: list[Run]) -> list[str]:
    count = sum(len(arm.runs) for arm in comparison.arms)
    arms = f"{len(comparison.arms)} arm{'s' if len(comparison.arms) > 1 else ''}"
    first = f"{count} fine-tuning runs in {arms} were compared on the same test cases, in pairs of equal seed and labels."
    skipped = [heading("Left out"), bullets(comparison.skipped)] if comparison.skipped else []
    return [paragraph(first), *(paragraph(run_parts.what_was_done(run)) for run in pretraining), *skipped]


def _tables(comparison: Comparison) -> list[str]:
    """The arms, the classes where they are many, and the differences."""
    parts = [table(*table_cells(comparison, against=False), "Arms")]  # the differences have a table of their own
    if wide_classes(comparison):
        title = f"{BY_CLASS[comparison.task][0].capitalize()} by class"
        parts += [heading(title), table(*class_cells(comparison), title)]
    parts.append(
        paragraph("Figures are mean ± standard deviation over seeds; n counts test cases; seconds is one run.", "quiet")
    )
    return [*parts, *_differences(comparison)]


def _differences(comparison: Comparison) -> list[str]:
    """Every difference with its interval and p, and what those are."""
    if not comparison.differences:
        return []
    units = comparison.differences[0].units
    told = (
        f"Intervals are of a bootstrap over test {units} and seeds, paired by both. p is of Wilcoxon's signed ranks over "
        f"{units}, of the seeds at hand; p (Holm) is corrected for all {len(comparison.differences)} comparisons of this page. "
        "Better or worse: the interval leaves out 0 and p (Holm) is below 0.05. A hint: the interval alone."
    )
    return [heading("Differences"), table(*difference_cells(comparison), "Differences"), paragraph(told, "quiet")]


def _bars(comparison: Comparison) -> list[str]:
    """Bars of the arms: the mean and each class; what has a scale of its own in a picture of its own; none of many arms."""
    if len(comparison.arms) > SHOWN:
        return []
    names = class_names(comparison)
    if comparison.task == "segmentation":
        return [_picture(comparison, {"mean": "dice"}, names, "Dice", "Dice of each class")]
    if comparison.task == "regression":
        return [
            _picture(
                comparison, {"MAE": "mae"}, [], "MAE", "Mean absolute error in the target's unit, lower is better", top=None
            ),
            _picture(comparison, {"R2": "r2"}, [], "R2", "R2, of always saying the mean 0"),
        ]
    means = {"accuracy": "accuracy", "balanced accuracy": "balanced_accuracy"}
    return [
        _picture(comparison, means, names, "share", "Accuracy, balanced accuracy and sensitivity of each class"),
        _picture(comparison, {"log loss": "log_loss"}, [], "log loss", "Log loss, lower is better", top=None),
    ]


def _picture(
    comparison: Comparison, figures: dict[str, str], names: list[str], title: str, what: str, top: float | None = 1.0
) -> str:
    """Bars of these figures, by what they are called, and of these classes."""
    by_class = next(iter(BY_CLASS[comparison.task]), "")
    means: dict[str, list[float | None]] = {}
    spreads: dict[str, list[float | None]] = {}
    for arm in comparison.arms:
        of_arm, classes = [arm.figures[figure] for figure in figures.values()], [arm.classes.get(name, {}) for name in names]
        means[arm.title] = [*(one.mean for one in of_arm), *(one.get(by_class) for one in classes)]
        spreads[arm.title] = [*(one.sd for one in of_arm), *(one.get("sd") for one in classes)]
    light, dark = (bars_by_arm([*figures, *names], means, spreads, title, top, dark) for dark in (False, True))
    caption = f"{what}; the thin lines are one standard deviation over seeds."
    return picture(light, what, caption, dark=dark, wide=True)


def _curves(comparison: Comparison, pretraining: list[Run]) -> list[str]:
    """Every pre-training, and the first run of every arm."""
    parts = [_with_heading(f"Pre-training {run.name}", run_parts.curves_grid(run)) for run in pretraining]
    return parts + [_with_heading(_first(arm), run_parts.curves_grid(arm.runs[0])) for arm in comparison.arms]


def _views(run: Run) -> str:
    return views(run, run_parts.arrays_of(run, "views.npz"))


def _predictions(arm: Arm) -> str:
    return _with_heading(_first(arm), run_parts.predictions(arm.runs[0]))


def _settings(arms: list[Arm]) -> list[str]:
    """What differs between the arms as a table, what they share folded away."""
    configs = [{k: v for k, v in flat(arm.runs[0].config).items() if k not in PER_RUN} for arm in arms]
    keys = list(dict.fromkeys(key for config in configs for key in config))
    shared = {key: configs[0][key] for key in keys if all(config.get(key, ...) == configs[0].get(key) for config in configs)}
    rows = [[key, *(plain(config[key]) if key in config else "-" for config in configs)] for key in keys if key not in shared]
    differing = table(["setting", *(arm.title for arm in arms)], rows, "Settings that differ") if rows else ""
    return [differing, folded("Settings that all arms share", settings(shared))]


def _limits(comparison: Comparison) -> list[str]:
    about = "Empty classes" if comparison.task == "segmentation" else "Figures"
    policies = [arm.runs[0].summary.get("policy") for arm in comparison.arms]
    pairs = [len(difference.pairs) for difference in comparison.differences]
    seeds = (
        "With one seed the intervals cover the choice of test patients alone, not that of training cases and seeds."
        if pairs and max(pairs) == 1
        else "The intervals cover the choice of test patients and of seeds, as far as so few seeds can tell: with two or three "
        "they hold the truth in 90 to 98 of 100 studies, less often the more trainings differ."
    )
    fixed = [
        seeds,
        "p asks whether test patients agree on the trainings at hand; it knows nothing of other seeds.",
        "Every interval is one of several looked at and is not corrected for that; p (Holm) is."
        if len(comparison.differences) > 1
        else "",
        "Seconds are those of fine-tuning; what pre-training took comes on top.",
    ]
    return [text for text in fixed if text] + [f"{about}: {p}" for p in dict.fromkeys(policies) if p]


def _first(arm: Arm) -> str:
    seed, draw = arm.seeds[0]
    return f"{arm.title} (seed {seed}, draw {draw})"


def _with_heading(text: str, content: str) -> str:
    return heading(text) + content if content else ""
