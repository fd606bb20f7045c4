"""A comparison as tables: the arms, their classes, and the one to paste into a paper."""

import math

from medssl.comparison.arms import Arm
from medssl.comparison.compare import Comparison
from medssl.comparison.differences import Difference
from medssl.comparison.measures import BY_CLASS, Measure
from medssl.comparison.words import capitalised, in_measure, number, p_value
from medssl.markdown import markdown_table

# The columns of the table, by title, where they are not Dice and its classes.
FIGURES = {  # with a column in the table of arms
    "segmentation": {"dice": "Dice", "surface_dice": "surface Dice", "hd95": "HD95 mm"},
    "classification": {"accuracy": "accuracy", "balanced_accuracy": "balanced accuracy", "log_loss": "log loss"},
    "regression": {"mae": "MAE", "r2": "R2"},
}
PAPER = (
    "{figures}: mean ± standard deviation over trainings (seeds). Difference: paired by seed and test case, with the 95% "
    "bootstrap interval over test {units} and seeds. p: Wilcoxon signed-rank test over {units}, corrected by Holm for {count} "
    "comparisons."
)


def table(comparison: Comparison) -> str:
    """Give the comparison as Markdown tables that also read well in a terminal."""
    header, rows = table_cells(comparison)
    parts = [markdown_table(header, rows)]
    if wide_classes(comparison):
        parts.append(markdown_table(*class_cells(comparison)))
    parts += [
        f"{in_measure(d)}{d.arm} against {d.reference}, {d.labels} labels: {d}, p {p_value(d.p_holm)}"
        for d in comparison.differences
    ]
    parts += [f"warning: {text}" for text in comparison.warnings]
    return "\n\n".join([*parts, *(f"left out: {text}" for text in comparison.skipped)])


def paper_table(comparison: Comparison) -> str:
    """Give one Markdown table of all arms and their differences, with what its columns mean below."""
    header = ["arm", "labels", "runs", comparison.arms[0].runs[0].units]
    header += [measure.title for measure in comparison.measures]
    header += ["against", "difference [95%]", "relative", "p (Holm)"]
    rows = [line for arm in comparison.arms for line in _paper_lines(comparison, arm)]
    figures = ", ".join(capitalised(measure.title) for measure in comparison.measures)
    told = {"figures": figures, "units": comparison.arms[0].runs[0].units, "count": len(comparison.differences)}
    return f"{markdown_table(header, rows)}\n\n{PAPER.format(**told)}\n"


def _paper_lines(comparison: Comparison, arm: Arm) -> list[list[str]]:
    """The line of an arm, and one more for each further difference."""
    own = [arm.name, arm.labels, str(len(arm.seeds)), str(len(arm.tested))]
    own += [spread_of(arm, measure.key) for measure in comparison.measures]
    several = len(comparison.measures) > 1
    found = [
        [f"{in_measure(d) if several else ''}{d.reference}", str(d), percent(d.relative), p_value(d.p_holm)]
        for d in comparison.differences
        if (d.arm, d.labelled) == (arm.name, arm.labelled)
    ]
    return [(own if not place else [""] * len(own)) + cells for place, cells in enumerate(found or [["-"] * 4])]


def table_cells(comparison: Comparison, against: bool = True) -> tuple[list[str], list[list[str]]]:
    """Give the header and the rows of the table; the classes have columns here when they are few.

    `against` adds the differences that the question is about, a column for each measure that cases are compared by.
    """
    figures = _figure_titles(comparison)
    names = [] if wide_classes(comparison) else class_names(comparison)
    measures = comparison.measures if against else ()
    several = len(measures) > 1
    other = "the baseline" if comparison.study else "random"
    differences = [f"{f'{measure.title} ' if several else ''}against {other} [95%]" for measure in measures]
    header = ["arm", "labels", "seeds", "n", *figures.values(), *names, "seconds", *differences]
    rows = [
        [arm.name, arm.labels, str(len(arm.seeds)), str(arm.n)]
        + [spread_of(arm, figure) for figure in figures]
        + [class_figure(arm, name) for name in names]
        + [number(arm.seconds, ".0f"), *(_against(comparison, arm, measure) for measure in measures)]
        for arm in comparison.arms
    ]
    return header, rows


def difference_cells(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """Give the header and the rows of the table of differences."""
    rows = [
        [
            f"{capitalised(in_measure(d))}{d.arm} against {d.reference}", d.labels, str(d), percent(d.relative), p_value(d.p),
            p_value(d.p_holm), verdict(d), each(d), str(len(d.pairs)), str(d.n), str(d.patients),
        ]
        for d in comparison.differences
    ]  # fmt: skip
    measure = "difference in Dice" if comparison.task == "segmentation" else "difference"
    beside = ["relative", "p", "p (Holm)", "is it real", "by seed", "seeds", "cases", comparison.arms[0].runs[0].units]
    return [measure, "labels", "mean [95%]", *beside], rows


def verdict(difference: Difference) -> str:
    """Say in a word or two whether a difference is real."""
    if difference.real:
        return "better" if difference.better else "worse"
    return "a hint" if difference.clear else "not shown"


def class_cells(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """Give Dice or sensitivity by class, a row for each class and a column for each arm."""
    header = ["class", *(arm.title for arm in comparison.arms)]
    return header, [[name, *(class_figure(arm, name) for arm in comparison.arms)] for name in class_names(comparison)]


def class_names(comparison: Comparison) -> list[str]:
    """List the classes of all arms in the order of their labels."""
    return list(dict.fromkeys(name for arm in comparison.arms for name in arm.classes))


def wide_classes(comparison: Comparison) -> bool:
    """Tell whether the classes need a table of their own."""
    return len(class_names(comparison)) > 4 or comparison.task == "classification"


def class_figure(arm: Arm, name: str) -> str:
    """Write the figure of a class that is drawn: its Dice or sensitivity."""
    return number(arm.classes.get(name, {}).get(BY_CLASS[arm.task][0]))


def spread_of(arm: Arm, figure: str) -> str:
    """Write the mean of a figure and its standard deviation over seeds."""
    form, sd = _form(arm, figure), arm.figures[figure].sd
    return number(arm.mean(figure), form) + ("" if sd is None else f" ± {sd:{form}}")


def percent(value: float | None) -> str:
    """A share with its sign."""
    return "-" if value is None else f"{value:+.1%}"


def each(difference: Difference) -> str:
    """The differences of all pairs."""
    return ", ".join(f"{value:+{difference.measure.form}}" for value in difference.by_pair)


def _figure_titles(comparison: Comparison) -> dict[str, str]:
    """The figures over all cases that have a column; without the surface Dice where no run has one."""
    titles = FIGURES[comparison.task]
    return {
        figure: title for figure, title in titles.items() if any(not math.isnan(arm.mean(figure)) for arm in comparison.arms)
    }


def _form(arm: Arm, figure: str) -> str:
    """How many digits a figure is written with."""
    return arm.main.form if figure == arm.main.key else ".2f" if figure == "hd95" else ".3f"


def _against(comparison: Comparison, arm: Arm, measure: Measure) -> str:
    """The differences of an arm to the random one of its network, or to its baselines in a study."""
    own = [d for d in comparison.differences if d.main and (d.arm, d.labelled) == (arm.name, arm.labelled)]
    return "; ".join(str(d) for d in own if d.measure == measure) or "-"
