"""Puts the cases of a source into the parts of a split: who is one patient, who goes where, in which order."""

import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medssl.divide import divide_by_patient, folds_by_patient, hash_order, in_turns
from medssl.patients import group_patients
from medssl.problems import InputError, Problem
from medssl.sources.found import Found, FoundCase, bare, named, shortened
from medssl.splits import NAME, is_name, natural, stem

HELD = ("validation", "test")  # parts whose patients pre-training must not see


@dataclass(frozen=True)
class Division:
    """What the user asks for; `validation` and `test` are a share below 1, a count of cases, or None for the default."""

    validation: float | None = None
    test: float | None = None
    folds: int | None = None
    seed: int = 0
    by_image: bool = False
    patient: str | None = None
    pretraining: bool = True


@dataclass
class Composed:
    """The parts of the split as they are written, and what the summary says about them."""

    parts: dict[str, list[dict[str, Any]]]
    labels: dict[int, str]
    grouped_by: str
    groups: dict[str, str]  # case id -> what stands for its patient
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Member:
    id: str
    group: str
    stratum: str
    part: str | None
    entry: dict[str, Any]


def compose(folder: Path, found: Found, wanted: Division) -> Composed:
    """Divide the cases of a source; raises InputError with every problem of one step at once."""
    ids = _ids(found.cases)
    patients = _patients(folder, found.cases, wanted)
    groups_of = group_patients(patient for patient in patients if patient is not None)
    groups = [groups_of[patient] if patient is not None else id for id, patient in zip(ids, patients, strict=True)]
    _refuse_names(found.cases, ids, patients)
    labels = found.labels or _classes(found)
    strata = _strata(found, groups)
    members = [
        _Member(id, group, strata[group], case.part, _entry(id, patient, case, labels, found.task))
        for id, patient, group, case in zip(ids, patients, groups, found.cases, strict=True)
    ]
    members.sort(key=lambda member: natural(member.id))
    grouped_by = "image" if None in patients else "patient"
    composed = Composed({}, labels, grouped_by, {member.id: member.group for member in members}, list(found.left_out))
    parts = _divide(folder, members, wanted, composed.notes, strata)
    if wanted.folds and parts["training"]:
        _fold(folder, parts["training"], wanted)
    composed.parts = {part: [member.entry for member in parts[part]] for part in parts}
    _note_people(composed, patients, groups_of, found, parts)
    return composed


def _entry(id: str, patient: str | None, case: FoundCase, labels: Mapping[int, str], task: str) -> dict[str, Any]:
    entry: dict[str, Any] = {"id": id} | ({"patient": patient} if patient is not None else {})
    entry["image"] = case.channels[0] if len(case.channels) == 1 else case.channels
    if case.label is not None:
        numbers = {name: number for number, name in labels.items()}
        entry["label"] = numbers[str(case.label)] if task == "classification" else case.label
    if case.mask is not None:
        entry["mask"] = case.mask
    return entry | ({"weight": case.weight} if case.weight != 1 else {})


def _ids(cases: Sequence[FoundCase]) -> list[str]:
    """The stem of each case's first image, or where stems are equal its path with dashes."""
    first = [case.image[0] for case in cases]
    ids = [stem(path) for path in first]
    for longer in (lambda path: bare(path).replace("/", "-"), lambda path: path.replace("/", "-")):
        counts = Counter(ids)
        ids = [longer(path) if counts[id] > 1 else id for id, path in zip(ids, first, strict=True)]
    doubled = [id for id, count in Counter(ids).items() if count > 1]
    if doubled:
        raise InputError(shortened(Problem("split", "id", f"{id} twice", "files that differ in name") for id in doubled))
    return ids


def _patients(folder: Path, cases: Sequence[FoundCase], wanted: Division) -> list[str | None]:
    patients = [case.patient for case in cases]
    if wanted.patient is not None:
        patients = _by_pattern(wanted.patient, cases)
    unknown = [case.image[0] for case, patient in zip(cases, patients, strict=True) if patient is None]
    if unknown and not wanted.by_image:
        expected = "{patient} in --image, a patient column, --patient REGEX, or --by-image"
        what = f"none of {len(cases)} cases" if len(unknown) == len(cases) else f"none of {named(unknown)}"
        raise InputError([Problem(str(folder), "patient", what, expected)])
    return [patient.replace("/", "-") if patient is not None else None for patient in patients]  # DICOM allows a slash


def _refuse_names(cases: Sequence[FoundCase], ids: Sequence[str], patients: Sequence[str | None]) -> None:
    """Ids and patients that a split can't hold, told by the file they come from."""
    problems = [
        Problem(case.image[0], what, name, NAME)
        for case, *names in zip(cases, ids, patients, strict=True)
        for what, name in zip(("id", "patient"), names, strict=True)
        if name is not None and not is_name(name)
    ]
    if problems:
        raise InputError(shortened(problems))


def _by_pattern(text: str, cases: Sequence[FoundCase]) -> list[str | None]:
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise InputError([Problem("split", "--patient", str(error), "a regular expression")]) from None
    if not pattern.groups:
        raise InputError([Problem("split", "--patient", text, "a pattern with the patient in (brackets)")])
    group: str | int = "patient" if "patient" in pattern.groupindex else 1
    matches = [pattern.search(case.image[0]) for case in cases]
    patients = [match[group] or None if match else None for match in matches]
    missed = [case.image[0] for case, patient in zip(cases, patients, strict=True) if patient is None]
    if missed:
        raise InputError(shortened(Problem(path, "patient", "no match", f"--patient {text} to fit") for path in missed))
    return patients


def _classes(found: Found) -> dict[int, str]:
    if found.task != "classification":
        return {}
    names = {str(case.label) for case in found.cases if case.label is not None}
    alike: dict[str, list[str]] = {}
    for name in sorted(names):
        alike.setdefault(name.casefold(), []).append(name)
    doubled = [" and ".join(group) for group in alike.values() if len(group) > 1]
    if doubled:
        raise InputError([Problem("split", "class", named(doubled), "classes that differ in more than upper and lower case")])
    return dict(enumerate(sorted(names, key=lambda name: (natural(name), name))))


def _strata(found: Found, groups: Sequence[str]) -> dict[str, str]:
    """For each patient its most frequent class, or the quartile of its mean value; one stratum in segmentation."""
    held: dict[str, list[str | float]] = {}
    for case, group in zip(found.cases, groups, strict=True):
        held.setdefault(group, [])
        if case.label is not None:
            held[group].append(case.label)
    if found.task == "classification":
        return {g: max(sorted(set(map(str, v))), key=list(map(str, v)).count) if v else "" for g, v in held.items()}
    if found.task == "segmentation":
        return dict.fromkeys(held, "")
    means = {group: sum(map(float, values)) / len(values) for group, values in held.items() if values}
    ranked = sorted(means.values())
    quartile = {group: str(4 * bisect_left(ranked, mean) // len(ranked)) for group, mean in means.items()}
    return {group: quartile.get(group, "") for group in held}


def _divide(
    folder: Path, members: Sequence[_Member], wanted: Division, notes: list[str], strata: Mapping[str, str]
) -> dict[str, list[_Member]]:
    labelled = any("label" in member.entry for member in members)
    given = any(member.part in {"training", "validation", "test"} for member in members)
    extra = [m for m in members if m.part == "pretraining" or (labelled and "label" not in m.entry and m.part not in HELD)]
    extra_ids = {member.id for member in extra}
    bare_test = [m.id for m in members if labelled and m.part in HELD and "label" not in m.entry]
    if bare_test:
        notes.append(f"left out, cases to validate or test on without a label: {named(bare_test)}")
    use = [m for m in members if m.id not in extra_ids and m.id not in set(bare_test)]
    _refuse_shared(folder, use)
    parts: dict[str, list[_Member]] = {"training": [], "validation": [], "test": []}
    for member in use:
        parts[member.part or "training"].append(member)
    counts = _counts(folder, parts, wanted, given, labelled)
    dicts = [{"patient": member.group, "member": member} for member in parts["training"]]
    divided = divide_by_patient(dicts, counts, "training", wanted.seed, strata)
    for part, cases in divided.items():
        parts[part] = [case["member"] for case in cases] + (parts[part] if part != "training" else [])
    seed = wanted.seed
    parts["training"] = in_turns(
        parts["training"], lambda m: hash_order(seed, m.id), lambda m: m.group, lambda m: natural(_turn(m, strata))
    )
    held = {member.group for part in HELD for member in parts[part]} | {
        member.group for member in members if member.id in set(bare_test)
    }
    pool = [member for member in [*parts["training"], *extra] if member.group not in held]
    lost = [member.id for member in extra if member.group in held]
    if extra and labelled and not wanted.pretraining:
        notes.append(f"left out by --no-pretraining, without a label: {named([member.id for member in extra])}")
    if lost and wanted.pretraining:
        notes.append(f"left out of pre-training, as their patients are held out: {named(lost)}")
    pretraining = [_unlabelled(member) for member in sorted(pool, key=lambda m: natural(m.id))]
    if not labelled:
        parts["training"] = []
    everything = {"pretraining": pretraining if wanted.pretraining or not labelled else [], **parts}
    return {part: cases for part, cases in everything.items() if cases}


def _turn(member: _Member, strata: Mapping[str, str]) -> str:
    label = member.entry.get("label")
    return str(label) if type(label) is int else strata[member.group]


def _unlabelled(member: _Member) -> _Member:
    entry = {key: value for key, value in member.entry.items() if key != "label"}
    return _Member(member.id, member.group, member.stratum, member.part, entry)


def _refuse_shared(folder: Path, members: Sequence[_Member]) -> None:
    seen: dict[str, _Member] = {}
    problems: dict[str, Problem] = {}
    for member in members:
        first = seen.setdefault(member.group, member)
        if (first.part or "training") != (member.part or "training"):
            found = f"{member.group} in {first.part or 'training'} ({first.id}) and {member.part or 'training'} ({member.id})"
            problems.setdefault(member.group, Problem(str(folder), "patient", found, "a patient in one part"))
    if problems:
        raise InputError(list(problems.values()))


def _counts(
    folder: Path, parts: Mapping[str, Sequence[_Member]], wanted: Division, given: bool, labelled: bool
) -> dict[str, int]:
    """How many cases validation and test get from training."""
    everything = sum(map(len, parts.values()))
    asked = {
        "validation": 0 if wanted.folds or parts["validation"] else 0.1,
        "test": 0 if given or not labelled else 0.2,
    }
    problems = []
    for part, wish in (("validation", wanted.validation), ("test", wanted.test)):
        if wish is not None and parts[part]:
            problems.append(Problem("split", f"--{part}", f"{len(parts[part])} cases that the data set gives", f"no --{part}"))
        elif wish is not None:
            asked[part] = wish
    if wanted.folds and (parts["validation"] or wanted.validation):
        problems.append(Problem("split", "--folds", "a validation part besides", "folds or a validation part"))
    available = len(parts["training"])
    counts = {
        part: round(wish * (everything if not given else available)) if wish < 1 else int(wish) for part, wish in asked.items()
    }
    counts = {part: max(count, 1) if asked[part] else 0 for part, count in counts.items()}
    patients = len({member.group for member in parts["training"]})
    need = 1 + sum(count > 0 for count in counts.values())
    if available <= sum(counts.values()):
        what = " and ".join(f"{count} for {part}" for part, count in counts.items() if count)
        problems.append(Problem(str(folder), "cases", str(available), f"more than {what or 'none'}"))
    elif patients < need:
        problems.append(Problem(str(folder), "patients", str(patients), f"at least {need}, one a part"))
    if problems:
        raise InputError(problems)
    return counts


def _fold(folder: Path, training: Sequence[_Member], wanted: Division) -> None:
    sizes = Counter(member.group for member in training)
    folds = wanted.folds or 0
    if not 2 <= folds <= len(sizes):
        raise InputError([Problem(str(folder), "--folds", str(folds), f"2 to {len(sizes)}, the patients in training")])
    fold_of = folds_by_patient(sizes, folds, wanted.seed, {member.group: member.stratum for member in training})
    for member in training:
        member.entry["fold"] = fold_of[member.group]


def _note_people(
    composed: Composed,
    patients: Sequence[str | None],
    groups_of: Mapping[str, str],
    found: Found,
    parts: Mapping[str, Sequence[_Member]],
) -> None:
    if composed.grouped_by == "image":
        composed.notes.append("warning: divided by image: a patient may be in two parts, and results look too good")
    names: dict[str, list[str]] = {}
    for patient in sorted({patient for patient in patients if patient is not None}):
        names.setdefault(groups_of[patient], []).append(patient)
    alike = [" = ".join(group) for group in names.values() if len(group) > 1]
    if alike:
        composed.notes.append(f"taken for one patient: {named(alike)}")
    if found.task == "classification":
        by_class: dict[str, set[str]] = {}
        for member in [member for cases in parts.values() for member in cases if "label" in member.entry]:
            by_class.setdefault(composed.labels[member.entry["label"]], set()).add(member.group)
        single = [name for name, people in by_class.items() if len(people) == 1]
        if single:
            composed.notes.append(f"warning: classes of a single patient, in one part only: {named(single)}")
