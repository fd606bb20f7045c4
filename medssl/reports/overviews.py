"""The parts of a study's report that look across arms: labels saved, method x data, amount of data, cost beside gain."""

from medssl.comparison.by_origin import Grid, amounts, costs, grids
from medssl.comparison.compare import Comparison
from medssl.comparison.measures import Measure
from medssl.comparison.tables import percent
from medssl.comparison.words import capitalised, told_savings
from medssl.reports.page import bullets, paragraph, picture, table
from medssl.reports.study_charts import Series, bands, heat_map
from medssl.time_spent import time_of


def label_parts(comparison: Comparison) -> list[str]:
    """Give the label-efficiency curve, and how many labels each arm saves."""
    if not comparison.curves:
        return []
    title = capitalised(comparison.measures[0].title)
    series = {curve.name: Series(curve.labelled, curve.means, curve.sds) for curve in comparison.curves}
    light, dark = (bands(series, "labelled cases", title, dark) for dark in (False, True))
    caption = (
        f"{title} against labelled cases, on a logarithmic axis. Points are means over seeds, bands one standard deviation "
        "over seeds on either side."
    )
    how = (
        "Read off straight between the points of the other curve, on the logarithmic axis; the intervals are of a bootstrap "
        "over test patients and seeds."
    )
    return [
        bullets(told_savings(comparison.savings)),
        paragraph(how if comparison.savings else "", "quiet"),
        picture(light, f"{title} against labels", caption, dark=dark, wide=True),
    ]


def method_parts(comparison: Comparison) -> list[str]:
    """Give a heat map of method x data for each number of labels."""
    measure = comparison.measures[0]
    found = grids(comparison.arms, comparison.origins, comparison.differences, measure)
    return [_heat_map(grid, measure) for grid in found]


def amount_parts(comparison: Comparison) -> list[str]:
    """Give the score against the amount of unlabelled data."""
    measure = comparison.measures[0]
    found = amounts(comparison.arms, comparison.origins, measure)
    if not found:
        return []
    title = capitalised(measure.title)
    series = {curve.name: Series(curve.cases, curve.means, curve.sds) for curve in found}
    light, dark = (bands(series, "unlabelled cases of pre-training", title, dark) for dark in (False, True))
    caption = f"{title} against the cases of pre-training; bands are one standard deviation over seeds on either side."
    return [picture(light, f"{title} against the amount of unlabelled data", caption, dark=dark, wide=True)]


def cost_parts(comparison: Comparison) -> list[str]:
    """Give what pre-training took beside what it gained."""
    found = costs(comparison.arms, comparison.origins, comparison.differences, comparison.measures[0])
    if not found:
        return []
    header = ["arm", "labels", "gain [95%]", "relative", "pre-training", "its samples", "fine-tuning", "its samples"]
    rows = [
        [
            f"{cost.arm} against {cost.reference}", cost.labels, cost.gain, percent(cost.relative),
            time_of(cost.pretraining_seconds), f"{cost.pretraining_samples:,}",
            "-" if cost.finetuning_seconds is None else time_of(cost.finetuning_seconds), f"{cost.finetuning_samples:,.0f}",
        ]
        for cost in found
    ]  # fmt: skip
    caption = (
        "Samples are crops trained on, repetitions counted. Pre-training, with all that its encoder went through before, is "
        "paid once for all fine-tunings that start from it; fine-tuning is one run, and the random arm needs it too."
    )
    return [table(header, rows, "Cost and gain"), paragraph(caption, "quiet")]


def _heat_map(grid: Grid, measure: Measure) -> str:
    """Gains over the baseline where all cells have one, else scores."""
    cells = [cell for rows in zip(grid.gains, grid.scores, strict=True) for cell in zip(*rows, strict=True)]
    gained = all(gain is not None for gain, score in cells if score is not None)
    values = grid.gains if gained else grid.scores
    words = [
        [_cell(grid, row, column, measure, gained) for column in range(len(grid.data))] for row in range(len(grid.methods))
    ]
    title = f"{capitalised(measure.title)}, {grid.labels} labels"
    pictures = [
        heat_map(grid.methods, grid.data, values, words, title, centred=gained, good=measure.sign, dark=dark)
        for dark in (False, True)
    ]
    below = " In brackets the difference to the baseline; a star marks those beyond chance." if gained else ""
    caption = f"Rows are methods, columns what they were pre-trained on; blue is better.{below}"
    return picture(pictures[0], f"Method and data: {title}", f"{title}. {caption}", dark=pictures[1], wide=True)


def _cell(grid: Grid, row: int, column: int, measure: Measure, gained: bool) -> str:
    score, gain = grid.scores[row][column], grid.gains[row][column]
    if score is None:
        return ""
    star = "*" if grid.real[row][column] else ""
    return f"{score:{measure.form}}" + (f"\n({gain:+{measure.form}}{star})" if gained and gain is not None else "")
