"""Axes: what a study varies, and the values that it gives to it.

An axis is named after a setting and lists its values; `seed, draw` sets two settings at once, to one value or to one
each. A table of settings by name is an axis too, for what belongs together: a method with its network and its rate.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from medssl.problems import InputError, Problem
from medssl.recipes import shorten
from medssl.splits import show, stem
from medssl.study.schema import Axes, laid, source_of


@dataclass(frozen=True)
class Value:
    """One value of an axis: what it is called, in tables and in a run's name, and the settings that it stands for."""

    label: str
    part: str  # of a run's name
    settings: dict[str, Any]


Point = Mapping[str, Value]  # by axis
AMOUNTS = ("labelled", "unlabelled")  # whose null is all cases


def read_axes(file: str, where: str, axes: Axes) -> dict[str, list[Value]]:
    """Read axes, by their first setting; raises InputError where values have not the axis's form or are called the same."""
    problems, found = list[Problem](), dict[str, list[Value]]()
    for name, content in axes.items():
        settings = [key.strip() for key in name.split(",")]
        first = settings[0]
        if first in found:
            problems.append(Problem(file, f"{where}.{name}", f"another axis of {first}", "one"))
        elif not content:
            problems.append(Problem(file, f"{where}.{name}", "no value", "at least one"))
        elif isinstance(content, dict):
            found[first] = [Value(label, _part(first, label), values) for label, values in content.items()]
        elif wrong := [value for value in content if isinstance(value, list) and len(value) != len(settings) > 1]:
            expected = f"one value, or {len(settings)}: one for each setting"
            problems.append(Problem(file, f"{where}.{name}", show(wrong[0]), expected))
        else:
            found[first] = [_value(settings, value) for value in content]
        parts = [value.part for value in found.get(first, [])]
        if twice := [part for part in parts if parts.count(part) > 1]:
            expected = "values of different names: a table gives them their own"
            problems.append(Problem(file, f"{where}.{name}", f"{twice[0]} twice", expected))
    if problems:
        raise InputError(problems)
    return found


def points(axes: Mapping[str, Sequence[Value]], fixed: Point) -> list[dict[str, Value]]:
    """Every value with every other; an axis that is fixed by name has only the value that is called as that is."""
    choices = [
        [value for value in values if name not in fixed or value.label == fixed[name].label] for name, values in axes.items()
    ]
    return [dict(zip(axes, values, strict=True)) for values in product(*choices)]


def settings_at(point: Point) -> dict[str, Any]:
    """The settings that the values of a point stand for, later axes over earlier ones."""
    return laid(*(value.settings for value in point.values()))


def labels(point: Point) -> dict[str, str]:
    """The value's name by axis."""
    return {name: value.label for name, value in point.items()}


def _value(settings: Sequence[str], value: Any) -> Value:
    each = value if isinstance(value, list) and len(settings) > 1 else [value] * len(settings)
    label = "-".join(dict.fromkeys(map(_label, each)))
    label = "all" if label == "none" and settings[0] in AMOUNTS else label
    return Value(label, _part(settings[0], label, isinstance(each[0], str | dict)), dict(zip(settings, each, strict=True)))


def _label(value: Any) -> str:
    """What a value is called: a table by its name, a file by its own."""
    if isinstance(value, dict):
        return str(source_of(value) or value.get("name") or shorten(value))
    if isinstance(value, list):
        return "x".join(map(_label, value))
    if value is None or isinstance(value, bool):
        return {None: "none", True: "true", False: "false"}[value]
    return stem(value).removesuffix(".json") if isinstance(value, str) else str(value)


def _part(axis: str, label: str, word: bool = True) -> str:
    """What a value adds to a run's name: a word is enough, a number needs to say of what."""
    clear = word and label[:1].isalpha()
    return re.sub(r"[^\w.+]+", "_", label if clear else f"{axis.rpartition('.')[2]}{label}")
