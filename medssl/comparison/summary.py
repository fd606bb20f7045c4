"""A comparison as the summary.json of its folder: every number that the report shows."""

from typing import Any

from medssl.comparison.by_origin import amounts, costs, grids
from medssl.comparison.compare import Comparison
from medssl.comparison.words import answer, headline


def summary_of(comparison: Comparison) -> dict[str, Any]:
    """Give arms, differences and what is read off them; None stands for a number that there is not."""
    arms, origins, differences, measure = comparison.arms, comparison.origins, comparison.differences, comparison.measures[0]
    told: dict[str, Any] = {
        "kind": "study" if comparison.study else "comparison",
        "headline": headline(comparison),
        "answer": answer(comparison),
        "task": comparison.task,
        "measure": measure.key,
        "arms": [arm.as_dict() for arm in arms],
        "differences": [difference.as_dict() for difference in differences],
    }
    if comparison.study:
        told["about"] = comparison.study.about
    parts: dict[str, Any] = {
        "label_curves": [curve.as_dict() for curve in comparison.curves],
        "labels_saved": [saving.as_dict() for saving in comparison.savings],
        "method_by_data": [grid.as_dict() for grid in grids(arms, origins, differences, measure)],
        "amounts": [curve.as_dict() for curve in amounts(arms, origins, measure)],
        "costs": [cost.as_dict() for cost in costs(arms, origins, differences, measure)],
        "origins": {title: origin.as_dict() for title, origin in origins.items()},
    }
    told |= {name: part for name, part in parts.items() if part}
    return told | {"warnings": comparison.warnings, "skipped": comparison.skipped}
