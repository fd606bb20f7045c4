"""Is a study sound: what is wrong with its data, and what its arms differ in besides what is asked. Reads splits only."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from medssl.comparison.arms import inside
from medssl.comparison.measures import MEASURES
from medssl.config import WITHOUT_EFFECT, Finetune, Pretrain, Shared, UNetSettings, encoder_sizes
from medssl.problems import InputError, Problem, nearest
from medssl.recipes import shorten
from medssl.splits import Case, Split, read_split
from medssl.study.plan import Member, Plan, Run
from medssl.subsets import take_fold, take_labelled, take_unlabelled

SILENT = {"normalise", "heads", "stem_stride", "stem_pool"}  # sizes that leave no trace in the weights


def missing_data(plan: Plan) -> list[Problem]:
    """The splits and data folders that are not there."""
    found = []
    for settings in {(run.settings.split, run.settings.data_root): run.settings for run in plan.runs.values()}.values():
        root = settings.data_root or settings.split.parent
        if not settings.split.is_file():
            found.append(Problem(str(settings.split), "split", "no such file", "a split: medssl split makes one"))
        elif not root.is_dir():
            found.append(Problem(str(settings.split), "data_root", str(root), "an existing folder"))
    return found


def data_problems(plan: Plan) -> list[Problem]:
    """Find what would fail after hours, or make the comparison worthless, where the splits are there to be read."""
    reading = _Reading()
    splits = {name: split for name, run in plan.runs.items() if (split := reading.split(run.settings)) is not None}
    found = [*_measure(plan, splits), *reading.problems, *_equal_amounts(plan, splits), *_unlike_cases(plan, splits)]
    return list(dict.fromkeys([*found, *_seen(plan, splits), *_unlike_encoders(plan)]))


def _measure(plan: Plan, splits: Mapping[str, Split]) -> Iterator[Problem]:
    """A measure that cases of the task have no value of; of any task, where no split is there to be read."""
    tasks = sorted({split.task for name, split in splits.items() if plan.runs[name].kind == "finetune"}) or list(MEASURES)
    names, asked = [measure.key for task in tasks for measure in MEASURES[task]], plan.study.measure
    if asked is not None and asked not in names:
        near = nearest(asked, names)
        expected = f"{near!r}?" if near else f"{' or '.join(names)}, for {' or '.join(tasks)}"
        yield Problem(str(plan.file), "measure", asked, expected)


class _Reading:
    """Splits read once, with the subsets that runs take; gathers what is wrong with them."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.whole: dict[tuple[Any, ...], Split | None] = {}

    def split(self, settings: Shared) -> Split | None:
        key = (settings.split, settings.data_root, settings.fold)
        if key not in self.whole:
            self.whole[key] = self.tried(settings)
        split = self.whole[key]
        try:
            if split is not None and isinstance(settings, Finetune):
                return take_labelled(split, settings.labelled, settings.draw)
            if split is not None and isinstance(settings, Pretrain):
                return take_unlabelled(split, settings.unlabelled, settings.seed)
        except InputError as error:
            self.problems += error.problems
        return split

    def tried(self, settings: Shared) -> Split | None:
        if not settings.split.is_file() or not (settings.data_root or settings.split.parent).is_dir():
            return None
        try:
            split = read_split(settings.split, settings.data_root)
            return split if settings.fold is None else take_fold(split, settings.fold)
        except InputError as error:
            self.problems += error.problems
            return None


def _equal_amounts(plan: Plan, splits: Mapping[str, Split]) -> Iterator[Problem]:
    """Values of `labelled` that are one for the report, as 6 and 0.5 of 12 cases."""
    found: dict[tuple[Any, ...], list[str]] = {}
    for member in (member for member in plan.members if member.run in splits and "labelled" in member.axes):
        others = {axis: value for axis, value in member.axes.items() if axis != "labelled"}
        key = (member.arm, *others.items(), len(splits[member.run].part("training")))
        found.setdefault(key, []).append(member.axes["labelled"])
    for values in (values for values in found.values() if len(values) > 1):
        told = f"{' and '.join(values)}, which take the same cases"
        yield Problem(str(plan.file), "axes.labelled", told, "amounts that differ")


def _unlike_cases(plan: Plan, splits: Mapping[str, Split]) -> Iterator[Problem]:
    """Arms that are not judged, or not validated, on the same patients; arms judged on nothing."""
    for run in plan.runs.values():
        if run.name in splits and judged(run) and not splits[run.name].part(judged(run)):
            yield Problem(str(run.settings.split), judged(run), "no cases", "at least one, to judge by")
    for ours, theirs in _beside_each_other(plan):
        a, b = plan.runs[ours.run], plan.runs[theirs.run]
        if a.name in splits and b.name in splits:
            for parts in dict.fromkeys([("validation", "validation"), (judged(a), judged(b))]):
                here, there = (_people(splits[run.name].part(part)) for run, part in zip((a, b), parts, strict=True))
                if here != there:
                    field, odd = f"{parts[0]} of {ours.arm} and {theirs.arm}", min(here ^ there)
                    yield Problem(str(plan.file), field, f"{odd[0]} in one only", "the same patients in all arms")


def _beside_each_other(plan: Plan) -> Iterator[tuple[Member, Member]]:
    """Every member of an arm with a member of the first arm that it could be compared with."""
    first = next(iter(plan.study.arms))
    for arm in plan.study.arms:
        beside = _beside(plan, arm, first)
        for member in plan.of_arm(arm):
            other = next((other for other in plan.of_arm(first) if member.run != other.run and beside(member, other)), None)
            if other:
                yield other, member


def _seen(plan: Plan, splits: Mapping[str, Split]) -> Iterator[Problem]:
    """Images of pre-training that an arm which starts from it is judged by."""
    for run in plan.runs.values():
        if not isinstance(run.settings, Finetune) or run.settings.allow_seen or run.name not in splits:
            continue
        judging = {path: case for case in splits[run.name].part(judged(run)) for path in case.image}
        for source in _sources(plan, run):
            seen = [path for case in splits[source].part("pretraining") for path in case.image] if source in splits else []
            if both := [path for path in seen if path in judging]:
                expected = "no case that is judged, or allow_seen=true"
                yield Problem(str(plan.file), f"pretraining of {plan.runs[source].of}", str(both[0]), expected)


def _sources(plan: Plan, run: Run) -> list[str]:
    """The pre-trainings behind a run."""
    return [*run.needs, *(name for before in run.needs for name in _sources(plan, plan.runs[before]))]


def _unlike_encoders(plan: Plan) -> Iterator[Problem]:
    """Runs whose network can't take the weights that they start from."""
    for run in plan.runs.values():
        for before in (plan.runs[name] for name in run.needs):
            here, there = (_sizes(settings) for settings in (run.settings, before.settings))
            if here and there and here != there:
                key = next(key for key in here | there if here.get(key) != there.get(key))
                found = f"{key} {here.get(key)} in {run.of}"
                yield Problem(str(plan.file), "network", found, f"{there.get(key)}, as the pre-training {before.of} has it")


def _sizes(settings: Shared) -> dict[str, Any]:
    network = settings.network
    if isinstance(network, UNetSettings):
        return {}
    return {"name": network.name} | {k: v for k, v in encoder_sizes(network).items() if k not in SILENT}


def judged(run: Run) -> str:
    """The part of the split that a run is judged by; none for a pre-training."""
    return run.settings.judge if isinstance(run.settings, Finetune) else ""


def _people(cases: Sequence[Case]) -> set[tuple[str, str]]:
    return {(case.id, case.patient) for case in cases}


def notes(plan: Plan) -> list[str]:
    """What a reader of the plan should know: arms that differ in more than the start, single seeds, nothing compared."""
    found = []
    for arm in plan.study.arms:
        keys = {(run.settings.seed, getattr(run.settings, "draw", 0)) for run in (plan.runs[m.run] for m in plan.of_arm(arm))}
        if len(keys) == 1:
            found.append(f"{arm}: a single seed: the spread between trainings stays unknown")
    for arm, baseline in plan.study.compare:
        beside = _beside(plan, arm, baseline)
        alike = [(a, b) for a in plan.of_arm(arm) for b in plan.of_arm(baseline) if beside(a, b)]
        pairs = [(a, b) for a, b in alike if _draw(plan, a) == _draw(plan, b)]
        alone = {a.run for a, _ in alike} - {a.run for a, _ in pairs} | {b.run for _, b in alike} - {b.run for _, b in pairs}
        if not alike:
            found.append(f"{arm} against {baseline}: no two runs with the same values of the axes of both")
        if alone:
            found.append(f"{arm} against {baseline}: {len(alone)} runs have no partner of the same seed and draw of labels")
        found += [f"{arm} against {baseline}: {line}" for line in dict.fromkeys(_differences(plan, pairs))]
    same = {run: [m.arm for m in plan.members if m.run == run] for run in plan.runs}
    twins = dict.fromkeys(" and ".join(dict.fromkeys(arms)) for arms in same.values() if len(set(arms)) > 1)
    return [*dict.fromkeys(found), *(f"{arms} share runs: their settings are the same" for arms in twins)]


def _beside(plan: Plan, arm: str, other: str) -> Callable[[Member, Member], bool]:
    """Whether members of two arms stand side by side, as in the report: of equal labels and of equal values on every axis of
    which both arms have several; one that an arm has a single value of is a part of that arm.
    """
    ours, theirs = (_varied(plan.of_arm(name)) for name in (arm, other))
    shared = ours & theirs

    def beside(a: Member, b: Member) -> bool:
        equal = _labelled(plan, a) == _labelled(plan, b)
        return equal and all(a.axes[axis] == b.axes[axis] for axis in shared)

    return beside


def _varied(members: Sequence[Member]) -> set[str]:
    """The axes that an arm has several values of, but for those of which its tables have a column or a mean."""
    values: dict[str, set[str]] = {}
    for member in members:
        for axis, value in member.axes.items():
            values.setdefault(axis, set()).add(value)
    return {axis for axis, several in values.items() if len(several) > 1 and not inside(axis)}


def _labelled(plan: Plan, member: Member) -> float | None:
    settings = plan.runs[member.run].settings
    return settings.labelled if isinstance(settings, Finetune) else None


def _draw(plan: Plan, member: Member) -> tuple[int, int]:
    settings = plan.runs[member.run].settings
    return settings.seed, getattr(settings, "draw", 0)


def _differences(plan: Plan, pairs: Sequence[tuple[Member, Member]]) -> Iterator[str]:
    """The settings in which paired runs differ besides where they start."""
    for ours, theirs in pairs:
        a, b = (plan.runs[member.run].settings.model_dump(mode="json") for member in (ours, theirs))
        for key in dict.fromkeys([*a, *b]):
            if a.get(key) != b.get(key) and key not in WITHOUT_EFFECT | {"encoder", "seed", "draw"}:
                yield from _difference(key, a.get(key), b.get(key))


def _difference(key: str, ours: Any, theirs: Any) -> Iterator[str]:
    """What differs in a setting: of two tables of one kind each of their settings that does."""
    if isinstance(ours, dict) and isinstance(theirs, dict) and ours.get("name") == theirs.get("name"):
        for inner in dict.fromkeys([*ours, *theirs]):
            if ours.get(inner) != theirs.get(inner):
                yield from _difference(f"{key}.{inner}", ours.get(inner), theirs.get(inner))
    else:
        yield f"{key} differs: {_short(ours)} against {_short(theirs)}"


def _short(value: Any) -> str:
    return str(value["name"]) if isinstance(value, dict) and "name" in value else shorten(value)
