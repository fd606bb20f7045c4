"""The space of a search: settings by name, and the values that each may take.

    lr=1e-4..1e-2               a range, of whole numbers where the setting has only these; drawn by its logarithm where
                                one end is ten times the other or more
    weight_decay=0,0.01,0.05    a choice

Whether a value is one is asked of the settings themselves, by putting both ends of a range and every choice over the recipe.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medssl.config import WITHOUT_EFFECT, FineTune, Finetune, Shared, UNetSettings
from medssl.problems import InputError, Problem
from medssl.recipes import parse, read_recipe, read_settings

WIDE = 10.0  # a range whose ends differ by this factor or more is drawn by its logarithm
AROUND = 10**0.75  # the default range of the rate: so far below the recipe's and above it, a decade and a half
DECAYS = (0.0, 0.01, 0.05)
DIGITS = 3  # of a drawn number: a recipe that a person reads, finer than any training can tell
QUESTION = {"split", "data_root", "fold", "labelled", "unlabelled", "draw", "judge", "seed"}
VALIDATIONS = {"steps", "validate_every", "checkpoint", "patience"}
HARDWARE = {"threads", "device"}
OF_ENCODERS = {"encoder_lr", "rates", "layer_decay", "freeze_steps", "unfreeze_every", "frozen_norm"}


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included."""

    low: float
    high: float
    whole: bool

    @property
    def log(self) -> bool:
        return self.low > 0 and self.high / self.low > WIDE - 1e-9

    def holds(self, value: Any) -> bool:
        """Whether a setting's value is in it."""
        return isinstance(value, int | float) and not isinstance(value, bool) and self.low <= value <= self.high

    def rounded(self, value: float) -> float:
        """A drawn number as it is used."""
        return value if self.whole else min(max(float(f"{value:.{DIGITS}g}"), self.low), self.high)

    def __str__(self) -> str:
        notes = ["whole numbers"] * self.whole + ["by the logarithm"] * self.log
        return f"{self.low:g} to {self.high:g}" + (f" ({', '.join(notes)})" if notes else "")


@dataclass(frozen=True)
class Choice:
    """Values as the command line has them."""

    words: tuple[str, ...]

    def holds(self, value: Any) -> bool:
        """Whether a setting's value is one of them."""
        return value in map(parse, self.words)

    def index(self, value: Any) -> int:
        """The place of a setting's value among them."""
        return list(map(parse, self.words)).index(value)

    def __str__(self) -> str:
        return ", ".join(self.words)


Space = dict[str, Range | Choice]


def read_words(words: Sequence[str]) -> dict[str, str | list[Any]]:
    """Read `key=values` words, or a JSON file of them; raises InputError with all that are neither."""
    wanted, problems = dict[str, str | list[Any]](), list[Problem]()
    for word in words:
        key, equals, text = word.partition("=")
        entries = {key: text} if equals and key else read_recipe(Path(word), "space")
        for name, values in entries.items():
            if name in wanted:
                problems.append(Problem("space", name, "the setting twice", "once"))
            wanted[name] = values if isinstance(values, list) else str(values)
    if problems:
        raise InputError(problems)
    return wanted


def space_of(kind: type[Shared], recipe: str, words: Sequence[str], wanted: Mapping[str, str | list[Any]]) -> Space:
    """Check wanted values against a recipe whose settings are known to be sound; raises InputError with every problem."""
    base = read_settings(kind, recipe, words)
    space, problems = Space(), list[Problem]()
    for key, values in wanted.items():
        found = refused(key, base) or _axis(kind, recipe, words, key, values)
        if isinstance(found, Range | Choice):
            space[key] = found
        else:
            problems += found
    if not wanted:
        problems.append(Problem("space", "settings", "none", "at least one, as lr=1e-4..1e-2"))
    if problems:
        raise InputError(problems)
    return space


def refused(key: str, base: Shared) -> list[Problem]:
    """Why a setting is none that a search may choose."""
    first = key.partition(".")[0]
    reasons = [
        (QUESTION, "a setting that says what is asked", "one that says how it is learned"),
        (VALIDATIONS, "a setting that moves the validations", "one that leaves them comparable"),
        (WITHOUT_EFFECT | HARDWARE, "a setting without effect on the result", "one that has some"),
        (unused(base), f"a setting without effect on the network {base.network.name}", "one that has some"),
    ]
    return [Problem("space", key, found, expected) for names, found, expected in reasons if first in names][:1]


def unused(base: Shared) -> set[str]:
    """Settings without effect on a network that has no encoder."""
    return OF_ENCODERS if isinstance(base.network, UNetSettings) else set()


def default_space(bases: Sequence[Shared]) -> dict[str, str | list[Any]]:
    """What is searched where nothing is said, one space for all recipes: rates, that of the encoder, and weight decay.

    A pre-training's method is left alone: its settings would change what its own validation figure measures.
    """
    low, high = min(base.lr for base in bases) / AROUND, max(base.lr for base in bases) * AROUND
    wanted: dict[str, str | list[Any]] = {"lr": f"{low:.2g}..{high:.2g}"}
    if any(_turns_encoder(base) for base in bases):
        wanted["encoder_lr"] = "0.01..1"
    return wanted | {"weight_decay": sorted({*DECAYS, *(base.weight_decay for base in bases)})}


def _turns_encoder(base: Shared) -> bool:
    """Whether the rate of the encoder is open: there is one, it is not frozen, and no schedule sets its rate."""
    open_ = isinstance(base, Finetune) and base.encoder_lr > 0 and not isinstance(base.schedule, FineTune)
    return open_ and "encoder_lr" not in unused(base)


def value_of(base: Shared, key: str) -> Any:
    """A recipe's own value of a setting; of a table, its name."""
    value: Any = base.model_dump(mode="json")
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value.get("name", value) if isinstance(value, dict) else value


def _axis(
    kind: type[Shared], recipe: str, words: Sequence[str], key: str, values: str | list[Any]
) -> Range | Choice | list[Problem]:
    """The values of one setting, or what is wrong with them."""

    def problems_of(value: Any) -> list[Problem]:
        try:
            read_settings(kind, recipe, [*words, f"{key}={_text(value)}"])
        except InputError as error:
            return [problem._replace(file="space") for problem in error.problems]
        return []

    ends = _ends(values)
    if ends and not ends[0] < ends[1]:
        return [Problem("space", key, f"an empty range, {values}", "from..to, the first below the second")]
    if ends:
        if problems := problems_of(ends[0]) or problems_of(ends[1]):
            return problems
        whole = all(isinstance(end, int) for end in ends) and bool(problems_of(ends[0] + 0.5))
        return Range(*ends, whole)
    chosen = values if isinstance(values, list) else _listed(values)
    if len(set(map(_text, chosen))) < max(2, len(chosen)):
        found = f"{', '.join(map(_text, chosen)) or 'nothing'}"
        return [Problem("space", key, found, "several values, as 0,0.01,0.05, or a range, as 1e-4..1e-2")]
    wrong = list(dict.fromkeys(problem for value in chosen for problem in problems_of(value)))
    return wrong or Choice(tuple(map(_text, chosen)))


def _ends(values: str | list[Any]) -> tuple[float, float] | None:
    """The ends of a range, or None where the values are no range."""
    parts = list(map(parse, values.split(".."))) if isinstance(values, str) else []
    numbers = [part for part in parts if isinstance(part, int | float) and not isinstance(part, bool)]
    return (numbers[0], numbers[1]) if len(numbers) == len(parts) == 2 else None


def _listed(text: str) -> list[Any]:
    """Values between commas; those of JSON, with commas inside, as they are."""
    values = parse(f"[{text}]")
    return values if isinstance(values, list) else [parse(part.strip()) for part in text.split(",") if part.strip()]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
