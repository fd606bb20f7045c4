"""Is it a fair comparison: what differs between two arms besides the start, and what weakens the numbers.

Each function gives sentences. A comparison is still made; the sentences stand beside it in the table and the report.
"""

import json
from collections.abc import Sequence
from statistics import mean
from typing import Any, Protocol

from medssl.comparison.arms import Arm, Key
from medssl.comparison.measures import MEASURES, Measure
from medssl.config import WITHOUT_EFFECT
from medssl.config.tables import flat
from medssl.runs import Run

LAST = 0.2  # the part of the steps in which validation should no longer gain
FEW = 10  # test patients that say too little of others for any interval to be trusted
# Each arm's own search may choose these; the start is the question itself; the split is compared by its cases.
OWN = WITHOUT_EFFECT | {
    "kind", "split", "encoder", "seed", "draw", "labelled", "steps", "threads", "device", "lr", "encoder_lr",
    "freeze_steps", "frozen_norm", "warmup", "schedule", "weight_decay", "clip", "patience", "validate_every",
    "rates", "layer_decay", "unfreeze_every", "ema",
}  # fmt: skip


class Paired(Protocol):
    """What these checks need of a difference."""

    @property
    def measure(self) -> Measure: ...
    @property
    def pairs(self) -> list[Key]: ...
    @property
    def by_pair(self) -> list[float]: ...
    @property
    def clear(self) -> bool: ...
    @property
    def patients(self) -> int: ...
    @property
    def units(self) -> str: ...


def arm_warnings(arm: Arm) -> list[str]:
    """Say what weakens the numbers of one arm."""
    title = arm.title
    notes = []
    if len(arm.seeds) == 1:
        notes.append(f"{title}: only one seed, so the spread between trainings is unknown")
    parts = {str(run.summary.get("part", "test")) for run in arm.runs}
    if parts != {"test"}:
        notes.append(f"{title}: judged on {' and '.join(sorted(parts))}, on which choices may have been made")
    if len(set(arm.steps)) > 1:
        notes.append(f"{title}: its runs differ in steps: {', '.join(map(str, arm.steps))}")
    measure = MEASURES[arm.task][-1]  # the one that validation watches
    found = [late_gain(run, measure) for run in arm.runs]
    gains = [gain for gain in found if gain is not None and gain > measure.flat]
    if gains:
        moved = "rose" if measure.sign > 0 else "fell"
        most = f"{max(gains):.1%}" if measure.own_unit else f"{max(gains):.3f}"
        notes.append(
            f"{title}: validation {measure.title} still {moved} by up to {most} in the last {LAST:.0%} of the steps "
            f"in {len(gains)} of {len(arm.runs)} runs: not trained until flat"
        )
    return notes


def run_warnings(arms: Sequence[Arm]) -> list[str]:
    """Give what runs warned of themselves, a line for what several said alike."""
    said: dict[str, list[str]] = {}
    for run in (run for arm in arms for run in arm.runs):
        for note in run.summary.get("warnings") or []:
            said.setdefault(str(note), []).append(run.name)
    names = {note: ", ".join(runs) if len(runs) <= 3 else f"{len(runs)} runs" for note, runs in said.items()}
    return [f"{names[note]}: {note}" for note in said]


def pair_warnings(arm: Arm, other: Arm, difference: Paired | None) -> list[str]:
    """Say what two arms differ in besides the start, and whether their difference is clear."""
    title = f"{arm.name} against {other.name}, {arm.labels} labels"
    if difference is None:
        return [f"{title}: no run of one has the seed, draw and test cases of a run of the other, so they are not compared"]
    notes = [*_unlike_pairs(arm, other), *_unlike_settings(arm, other)]
    of = "" if difference.measure.key == "dice" else f" in {difference.measure.title}"
    if difference.patients < FEW:
        notes.append(f"only {difference.patients} test {difference.units}: the interval itself is a rough guess")
    if not difference.clear:
        notes.append(f"the interval of the difference{of} covers 0: {title}")
    if len(difference.by_pair) > 1 and min(difference.by_pair) < 0 < max(difference.by_pair):
        each = ", ".join(f"{value:+{difference.measure.form}}" for value in difference.by_pair)
        notes.append(f"the difference{of} changes its sign between seeds ({each}): {title}")
    return [note if title in note else f"{title}: {note}" for note in notes]


def late_gain(run: Run, measure: Measure) -> float | None:
    """Give what validation gained in the last fifth of the steps over its best before; None without a curve.

    Of a measure in its own unit it is the share of that best.
    """
    key, sign = measure.watched, measure.sign
    curve = [(line["step"], sign * line[key]) for line in run.metrics() if line.get(key) is not None]
    border = (1 - LAST) * max((step for step, _ in curve), default=0)
    early = [value for step, value in curve if step <= border]
    late = [value for step, value in curve if step > border]
    if not early or not late:
        return None
    unit = abs(max(early)) if measure.own_unit else 1.0
    return float(max(late) - max(early)) / (unit or 1.0)


def _unlike_pairs(arm: Arm, other: Arm) -> list[str]:
    """Runs without a partner, other test cases, other labelled cases, other numbers of steps."""
    notes = []
    ours, theirs = set(arm.seeds), set(other.seeds)
    if ours != theirs:
        alone = ", ".join(f"seed {seed} draw {draw}" for seed, draw in sorted(ours ^ theirs))
        notes.append(f"runs without a partner are not compared: {alone}")
    both = [(a, b) for a in arm.runs for b in other.runs if a.key == b.key]
    unlike = [(a, b) for a, b in both if arm.cases[a.key].keys() != other.cases[b.key].keys()]
    if unlike:
        notes.append(f"the scored test cases differ in {len(unlike)} of {len(both)} pairs; only shared ones are compared")
    if any(_training(a) != _training(b) for a, b in both if _training(a) and _training(b)):
        notes.append("the labelled cases differ within a pair, so more than the start differs")
    steps = mean(arm.steps), mean(other.steps)
    if steps[0] != steps[1]:
        notes.append(f"steps differ: {steps[0]:g} against {steps[1]:g}")
    return notes


def _unlike_settings(arm: Arm, other: Arm) -> list[str]:
    """Settings other than the start and its tuning; a baseline of another network has its own architecture."""
    ours, theirs = flat(arm.runs[0].config), flat(other.runs[0].config)
    same = arm.network == other.network
    notes = []
    for key in sorted(ours.keys() | theirs.keys()):
        left, right = ours.get(key), theirs.get(key)
        if left != right and not {key, key.split(".")[0]} & OWN and (same or key.split(".")[0] != "network"):
            notes.append(f"{key} differs: {_short(left)} against {_short(right)}")
    return notes


def _training(run: Run) -> Sequence[str]:
    """The labelled cases that the run's own copy of the split lists."""
    return sorted(json.dumps(case.get("image")) for case in run.split.get("training") or [] if isinstance(case, dict))


def _short(value: Any) -> str:
    text = "not set" if value is None else json.dumps(value)
    return text if len(text) <= 40 else text[:37] + "..."
