"""Differences between two arms, in pairs: how large, how sure, and how probable by chance alone.

Arms are compared on the runs with the same (seed, draw) and on the same test cases. The mean of the differences stands with
a bootstrap interval over patients and seeds (`crossed`), Wilcoxon's p over patients, and that p after Holm's correction for
all comparisons that are reported together.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from medssl.comparison.arms import Arm, Key
from medssl.comparison.crossed import crossed_interval, matrix
from medssl.comparison.fairness import pair_warnings
from medssl.comparison.measures import BESIDE, MEASURES, Measure
from medssl.comparison.planned import Study
from medssl.comparison.significance import holm, signed_rank
from medssl.problems import InputError, Problem

ALPHA = 0.05


@dataclass(frozen=True)
class Difference:
    """A measure of `arm` minus that of `reference`, in pairs; `main` where the report's question is about it."""

    measure: Measure
    arm: str
    reference: str
    labelled: int | None
    main: bool  # the start alone differs, or the study names the pair
    pretraining: bool  # the arm is pre-trained and the reference, of the same network, is not
    pairs: list[Key]
    by_pair: list[float]
    value: float  # of the arm, over the paired runs and cases
    reference_value: float
    difference: float
    interval: tuple[float, float]
    relative: float | None
    p: float
    p_holm: float
    n: int
    patients: int
    units: str  # patients, or images where the split divides those

    @property
    def labels(self) -> str:
        return "all" if self.labelled is None else str(self.labelled)

    @property
    def clear(self) -> bool:
        """Whether the interval leaves out 0; that of one patient has no width and proves nothing."""
        return self.patients > 1 and (self.interval[0] > 0 or self.interval[1] < 0)

    @property
    def real(self) -> bool:
        """Whether the interval leaves out 0 and patients agree, after the correction for all comparisons."""
        return self.clear and self.p_holm < ALPHA

    @property
    def better(self) -> bool:
        """Whether the arm has the better score, by however little."""
        return self.measure.sign * self.difference > 0

    def as_dict(self) -> dict[str, Any]:
        """Give what the comparison's summary.json holds, the measure by its name."""
        told, key = asdict(self), self.measure.key
        return told | {
            "measure": key,
            key: told.pop("value"),
            f"reference_{key}": told.pop("reference_value"),
            "clear": self.clear,
            "real": self.real,
        }

    def __str__(self) -> str:
        difference, low, high = (f"{value:+{self.measure.form}}" for value in (self.difference, *self.interval))
        return f"{difference} [{low}, {high}]"


def guessed_differences(arms: Sequence[Arm]) -> tuple[list[Difference], list[str]]:
    """Compare each pre-trained arm with every random arm of as many labels, that of its own network first.

    Gives the differences and what to know before believing them.
    """
    found: list[tuple[Arm, Arm, bool]] = []
    notes = []
    for arm in (arm for arm in arms if arm.pretrained):
        others = [other for other in arms if not other.pretrained and other.labelled == arm.labelled]
        if arm.network not in {other.network for other in others}:
            notes.append(f"{arm.title}: no random arm of the same network to compare with")
        for other in sorted(others, key=lambda other: other.network != arm.network):
            found.append((arm, other, arm.network == other.network))
    differences, more = _compared(found, MEASURES[arms[0].task])
    return differences, notes + more


def planned_differences(arms: Sequence[Arm], study: Study) -> tuple[list[Difference], list[str]]:
    """Compare the pairs of arms that a study names, at each number of labels and where their other axes agree.

    InputError where the test patients of two such arms differ, or the study's measure has no value for each case.
    """
    found: list[tuple[Arm, Arm, bool]] = []
    notes = []
    for name, baseline in study.compare:
        for arm in (arm for arm in arms if arm.planned == name):
            others = [other for other in arms if other.planned == baseline and _beside(arm, other)]
            if not others:
                notes.append(f"{arm.title}: no finished run of {baseline} to compare with")
            found += [(arm, other, True) for other in others]
    problems = [problem for arm, other, _ in found for problem in _other_patients(study, arm, other)]
    if problems:
        raise InputError(problems)
    differences, more = _compared(found, study_measures(arms[0].task, study))
    return differences, notes + more


def study_measures(task: str, study: Study) -> tuple[Measure, ...]:
    """Give the study's own measure, or all of the task; InputError for one that is no measure of cases."""
    known = MEASURES[task]
    if study.measure is None or study.measure in BESIDE[task]:  # which has no value for each case
        return known
    chosen = tuple(measure for measure in known if measure.key == study.measure)
    if not chosen:
        expected = " or ".join(measure.key for measure in known)
        raise InputError([Problem(str(study.folder), "measure", study.measure, f"{expected}, for {task}")])
    return chosen


def _beside(arm: Arm, other: Arm) -> bool:
    """Whether two arms have equal labels, and equal values on every axis that both have."""
    shared = arm.axes.keys() & other.axes.keys()
    return arm is not other and arm.labelled == other.labelled and all(arm.axes[axis] == other.axes[axis] for axis in shared)


def _other_patients(study: Study, arm: Arm, other: Arm) -> list[Problem]:
    ours, theirs = set(arm.patients.values()), set(other.patients.values())
    if ours == theirs:
        return []
    found = f"{len(ours)} of {arm.title}, {len(theirs)} of {other.title}, {len(ours & theirs)} in both"
    return [Problem(str(study.folder), "test patients", found, "the same in all arms")]


def _compared(pairs: Sequence[tuple[Arm, Arm, bool]], measures: Sequence[Measure]) -> tuple[list[Difference], list[str]]:
    """All differences, their p corrected together, and the warnings about each."""
    differences: list[Difference] = []
    notes: list[str] = []
    for arm, other, main in pairs:
        for measure in measures:
            difference = difference_of(arm, other, measure, main)
            notes += pair_warnings(arm, other, difference)
            differences += [difference] if difference else []
    corrected = holm([difference.p for difference in differences])
    return [replace(one, p_holm=p) for one, p in zip(differences, corrected, strict=True)], notes


def difference_of(arm: Arm, other: Arm, measure: Measure, main: bool = True) -> Difference | None:
    """Pair by (seed, draw) and case; None where nothing can be paired. The p is not corrected yet."""
    mine, its = arm.values[measure.key], other.values[measure.key]
    pairs = [key for key in arm.seeds if key in its and mine[key].keys() & its[key].keys()]
    if not pairs:
        return None
    shared = {key: [case for case in mine[key] if case in its[key]] for key in pairs}
    values, cases = matrix([{case: mine[key][case] - its[key][case] for case in shared[key]} for key in pairs])
    reference, _ = matrix([{case: its[key][case] for case in shared[key]} for key in pairs])
    patients = [arm.patients[case] for case in cases]
    difference, before = float(values.mean()), float(reference.mean())
    p = signed_rank(dict(zip(cases, values.mean(axis=0).tolist(), strict=True)), arm.patients)
    return Difference(
        measure=measure,
        arm=arm.name,
        reference=other.name,
        labelled=arm.labelled,
        main=main,
        pretraining=arm.pretrained and not other.pretrained and arm.network == other.network,
        pairs=pairs,
        by_pair=[math.fsum(mine[key][case] - its[key][case] for case in shared[key]) / len(shared[key]) for key in pairs],
        value=before + difference,
        reference_value=before,
        difference=difference,
        interval=crossed_interval(values, patients),
        relative=difference / before if before else None,
        p=p,
        p_holm=p,
        n=len(cases),
        patients=len(set(patients)),
        units=arm.runs[0].units,
    )
