"""Numbers for classes, as a stage of disease has: `--values NonDemented=0 VeryMildDemented=0.5` makes a regression."""

import dataclasses
import math
from collections.abc import Sequence

from medssl.problems import InputError, Problem, nearest
from medssl.sources.found import Found


def with_values(found: Found, pairs: Sequence[str]) -> Found:
    """Give each case the number of its class in place of it; raises InputError unless every class has one number."""
    if found.task != "classification":
        raise InputError([Problem("split", "--values", f"a source for {found.task}", "one with classes")])
    classes = sorted({str(case.label) for case in found.cases if case.label is not None} or set(found.labels.values()))
    values: dict[str, float] = {}
    problems = []
    for pair in pairs:
        name, _, text = pair.rpartition("=")
        number = _number(text)
        if number is None or name not in classes or name in values:
            near = nearest(name, classes) if name not in classes else name
            expected = f"{near}=NUMBER" if near else f"CLASS=NUMBER of {', '.join(classes)}"
            found_text = f"{name} twice" if name in values else pair
            problems.append(Problem("split", "--values", found_text, f"{expected}, once"))
        else:
            values[name] = number
    missing = [name for name in classes if name not in values and not problems]
    problems += [Problem("split", "--values", f"no number for {name}", f"{name}=NUMBER") for name in missing]
    if problems:
        raise InputError(problems)
    cases = [dataclasses.replace(c, label=None if c.label is None else values[str(c.label)]) for c in found.cases]
    told = ", ".join(f"{name} {number:g}" for name, number in sorted(values.items(), key=lambda item: item[1]))
    return dataclasses.replace(found, layout=f"{found.layout}, numbers {told}", task="regression", cases=cases, labels={})


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
