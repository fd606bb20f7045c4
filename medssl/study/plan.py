"""From a study to its runs: pure, without torch, the same for the same file.

An arm becomes a fine-tuning for every point of its axes and those of the study. A pre-training is made once for each of
its own points, however many start from it; where it has an axis of the same name as what starts from it, both take the
same value. Runs with the same settings are one run.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from medssl.config import WITHOUT_EFFECT, Finetune, Pretrain, Shared
from medssl.problems import InputError, Problem, nearest
from medssl.recipes import find_recipe, parse, read_settings
from medssl.study.axes import Point, Value, labels, points, read_axes, settings_at
from medssl.study.schema import Axes, Study, Trained, laid, source_of

KINDS: dict[str, type[Shared]] = {"pretrain": Pretrain, "arms": Finetune}
SCRIPTS = {"pretrain": "pretrain", "arms": "finetune"}


@dataclass(frozen=True)
class Run:
    """A run to be made: its folder below the study's, and what its script is called with besides `out`."""

    name: str  # as in runs/mae-labelled6-seed0
    kind: str  # of the script: pretrain or finetune
    of: str  # the first pre-training or arm that it belongs to
    recipe: str
    words: tuple[str, ...]
    settings: Shared
    needs: tuple[str, ...]  # names of runs to be finished before
    axes: dict[str, str]  # the value of every axis by name, where it was first met


@dataclass(frozen=True)
class Member:
    """A run's place in an arm: the value of every axis by name."""

    arm: str
    run: str
    axes: dict[str, str]


@dataclass(frozen=True)
class Plan:
    """All runs, each after those that it needs, and the arms that they make."""

    file: Path
    study: Study
    out: Path
    runs: dict[str, Run]
    members: list[Member]

    def stages(self) -> list[list[Run]]:
        """The runs in steps: those of one need only those of earlier ones; pre-trainings, which others need, stand first."""
        stage: dict[str, int] = {}
        for run in self.runs.values():
            stage[run.name] = 1 + max((stage[name] for name in run.needs), default=-1)
        order = sorted(self.runs.values(), key=lambda run: run.kind != "pretrain")
        return [[run for run in order if stage[run.name] == k] for k in range(max(stage.values()) + 1)]

    def of_arm(self, arm: str) -> list[Member]:
        """The members of an arm."""
        return [member for member in self.members if member.arm == arm]


Made = tuple[Point, Run]


def plan(file: Path, study: Study, out: Path) -> Plan:
    """Work out the runs of a study in a folder; raises InputError with every problem of the file at once."""
    return _Planning(file, study, out).plan()


class _Planning:
    """One study being planned: its problems, and the runs so far, which are found again by their settings."""

    def __init__(self, file: Path, study: Study, out: Path) -> None:
        self.file, self.study, self.out = file, study, out
        self.problems: list[Problem] = []
        self.runs: dict[str, Run] = {}
        self.same: dict[str, Run] = {}  # by settings
        self.entries = {"pretrain": self.whole("pretrain", study.pretrain), "arms": self.whole("arms", study.arms)}
        self.axes: dict[tuple[str, str], dict[str, list[Value]]] = {}

    def problem(self, field: str, found: object, expected: str) -> None:
        self.problems.append(Problem(str(self.file), field, str(found), expected))

    def raise_any(self) -> None:
        if self.problems:
            raise InputError(list(dict.fromkeys(self.problems)))

    def plan(self) -> Plan:
        self.read_axes()
        self.check_names()
        self.raise_any()  # runs of wrong axes would only repeat it
        members = [Member(arm, run.name, labels(point)) for arm in self.study.arms for point, run in self.made("arms", arm)]
        self.raise_any()
        reached = {run.of for run in self.runs.values() if run.kind == "pretrain"}
        for name in self.study.pretrain.keys() - reached:
            self.problem(f"pretrain.{name}", "no arm that starts from it", f'one with encoder {{"pretrain": "{name}"}}')
        self.raise_any()
        return Plan(self.file, self.study, self.out, self.runs, members)

    def whole(self, group: str, entries: Mapping[str, Trained]) -> dict[str, Trained]:
        """The entries with what each takes from another one."""
        found = dict[str, Trained]()
        for name, entry in entries.items():
            seen, whole = [name], entry
            while whole.like is not None:
                if not self.exists(f"{group}.{name}.like", whole.like, entries.keys() - seen):
                    break
                seen.append(whole.like)
                whole = whole.over(entries[whole.like])
            else:
                self.check_recipe(f"{group}.{name}.recipe", whole.recipe)
            found[name] = whole
        return found

    def check_recipe(self, where: str, recipe: str | None) -> None:
        """Note a recipe that is not named or not there."""
        if recipe is None:
            return self.problem(where, "nothing", "a path, or a name under recipes/")
        try:
            find_recipe(recipe)
        except InputError as error:
            self.problem(where, recipe, error.problems[0].expected)

    def read_axes(self) -> None:
        """Read all axes: those of the study are the arms', which may replace them."""
        shared = self.read("axes", self.study.axes, "arms")
        for group, entries in self.entries.items():
            for name, entry in entries.items():
                own = self.read(f"{group}.{name}.axes", entry.axes, group)
                self.axes[group, name] = own if group == "pretrain" else shared | own

    def read(self, where: str, axes: Axes, group: str) -> dict[str, list[Value]]:
        for name, content in axes.items():
            for table in content.values() if isinstance(content, dict) else ():
                self.known(f"{where}.{name}", table, group)
            if isinstance(content, list):
                self.known(where, map(str.strip, name.split(",")), group)
        try:
            return read_axes(str(self.file), where, axes)
        except InputError as error:
            self.problems += error.problems
            return {}

    def check_names(self) -> None:
        """Find settings that do not exist, and pre-trainings and arms that are not there."""
        for key in self.study.shared:
            self.known("shared", [key], "arms" if key.split(".")[0] in Finetune.model_fields else "pretrain")
        for group, entries in self.entries.items():
            for name, entry in entries.items():
                self.known(f"{group}.{name}.settings", entry.settings, group)
                values = [value.settings.get("encoder") for axis in self.axes[group, name].values() for value in axis]
                for source in filter(None, map(source_of, [entry.encoder, *values])):
                    self.exists(f"{group}.{name}.encoder", source, self.study.pretrain)
        for name in dict.fromkeys(name for pair in self.study.compare for name in pair):
            self.exists("compare", name, self.study.arms)

    def known(self, where: str, settings: Iterable[str], group: str) -> None:
        """Note settings that the script of a group has not, and those that the study sees to itself."""
        fields = KINDS[group].model_fields
        for key in settings:
            first = key.split(".")[0]
            if first in ("out", "overwrite"):
                self.problem(f"{where}.{key}", "a setting of single runs", "none: --out names the folder of all")
            elif first in fields:
                continue
            elif group == "arms" and first in Pretrain.model_fields:
                self.problem(f"{where}.{key}", "a setting of pre-training", "it among those of a pre-training")
            else:
                near = nearest(first, fields)
                self.problem(f"{where}.{key}", "an unknown setting", f"{near!r}?" if near else "a setting that exists")

    def exists(self, where: str, name: str, entries: Iterable[str]) -> bool:
        """Note a name that is none of the entries."""
        names = sorted(entries)
        if name not in names:
            near = nearest(name, names)
            self.problem(where, name, f"{near!r}?" if near else f"one of {', '.join(names)}" if names else "none")
        return name in names

    def made(self, group: str, name: str, fixed: Point = MappingProxyType({}), above: Sequence[str] = ()) -> list[Made]:
        """The runs of an arm or a pre-training, each with the values of its own axes and of those that it starts from.

        Values by the same name as those of `fixed`, of what starts from it, are taken; `above` are the pre-trainings that do.
        """
        entry, made = self.entries[group][name], list[Made]()
        if group == "pretrain" and name in above:
            self.problem(f"pretrain.{name}.encoder", f"a circle: {', '.join([*above, name])}", "a start somewhere")
            return []
        for point in points(self.axes[group, name], fixed):
            settings = laid(self.shared(group), entry.settings, {"encoder": entry.encoder}, settings_at(point))
            source = source_of(settings["encoder"])
            if source is None:
                made += self.run(group, name, point, settings, ())
                continue
            for before, run in self.made("pretrain", source, {**fixed, **point}, [*above, name] if group == "pretrain" else []):
                start = settings | {"encoder": str(self.out / run.name)}
                made += self.run(group, name, {**before, **point}, start, (run.name,))
        if not made and not self.problems:
            values = [f"{axis} {value.label}" for axis, value in fixed.items() if axis in self.axes[group, name]]
            self.problem(f"{group}.{name}.axes", f"no value for {' and '.join(values)}", "the values of what starts from it")
        return made

    def shared(self, group: str) -> dict[str, Any]:
        """The shared settings that a script has."""
        return {key: value for key, value in self.study.shared.items() if key.split(".")[0] in KINDS[group].model_fields}

    def run(self, group: str, name: str, point: Point, settings: Mapping[str, Any], needs: tuple[str, ...]) -> list[Made]:
        """The run with these settings, which may be there already; none where they are wrong."""
        recipe = str(self.entries[group][name].recipe)
        folder = "/".join(["pretrain" if group == "pretrain" else "runs", "-".join([name, *(v.part for v in point.values())])])
        words = tuple(word(key, value) for key, value in settings.items())
        try:
            checked = read_settings(KINDS[group], recipe, [*words, f"out={self.out / folder}"])
        except InputError as error:
            told = {problem[1:] for problem in self.problems}
            self.problems += [p._replace(file=f"{self.file}: {folder}") for p in error.problems if p[1:] not in told]
            return []
        key = f"{group} {checked.model_dump_json(exclude=WITHOUT_EFFECT)}"
        if key not in self.same:
            if folder in self.runs:
                self.problem(f"{group}.{name}", f"two runs named {folder}", "other names of arms or values")
            self.same[key] = self.runs[folder] = Run(folder, SCRIPTS[group], name, recipe, words, checked, needs, labels(point))
        return [(point, self.same[key])]


def word(key: str, value: Any) -> str:
    """A setting as the command line has it."""
    plain = isinstance(value, str) and parse(value) == value
    return f"{key}={value if plain else json.dumps(value)}"
