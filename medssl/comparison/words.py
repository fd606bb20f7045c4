"""What a comparison says, in sentences: does pre-training help, by how much, is it real."""

import math
from collections.abc import Sequence
from typing import Any

from medssl.comparison.compare import Comparison
from medssl.comparison.differences import Difference
from medssl.comparison.efficiency import Saving

GUESSED = ", pre-trained"  # how an arm of a folder without a study ends


def headline(comparison: Comparison) -> str:
    """Answer the question of a study in a few words, and then for each pair of arms; nothing where nothing is compared."""
    pairs: dict[tuple[str, str], list[Difference]] = {}
    for one in comparison.differences:
        if one.main and one.measure == comparison.measures[0]:
            pairs.setdefault((one.arm, one.reference), []).append(one)
    if not pairs:
        return ""
    asked = [one for found in pairs.values() for one in found if one.pretraining]
    return "\n".join([*([_verdict(asked)] if asked else []), *(_pair(found) for found in pairs.values())])


def answer(comparison: Comparison) -> str:
    """Say what pre-training did, and whether it is real: a line for each arm and number of labels."""
    main = [difference for difference in comparison.differences if difference.main]
    if not main:
        form = comparison.measures[0].form
        arms = "; ".join(f"{arm.title}: {number(arm.mean(arm.main.key), form)}" for arm in comparison.arms)
        title = capitalised(comparison.measures[0].title)
        why = "No pre-trained arm has a random arm of its network beside it: no word on pre-training."
        if comparison.study and comparison.study.compare:
            why = "No pair of the study has finished runs of equal seed and draw: nothing is compared."
        return f"{why} {title}: {arms}."
    beside = [difference for difference in comparison.differences if not difference.main]
    lines: dict[Any, list[str]] = {}
    for one in main:
        same = (one.arm, one.labelled, one.measure)
        sentences = [_beside(other) for other in beside if (other.arm, other.labelled, other.measure) == same]
        pair = (one.arm, one.labelled, one.reference if comparison.study else None)
        lines.setdefault(pair, []).extend([_sentence(one), *sentences])
    return "\n".join(" ".join(line) for line in lines.values())


def in_measure(difference: Difference) -> str:
    """Name the measure of a difference where its task has several; nothing for Dice."""
    return f"{difference.measure.title}, " if difference.measure.key != "dice" else ""


def capitalised(text: str) -> str:
    """The text with its first letter large, the others as they are."""
    return text[:1].upper() + text[1:]


def number(value: float | None, form: str = ".3f") -> str:
    """A figure in digits, a dash for none."""
    return "-" if value is None or math.isnan(value) else f"{value:{form}}"


def p_value(p: float) -> str:
    """A p as papers write it."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _verdict(asked: Sequence[Difference]) -> str:
    """Whether pre-training helps at all, and its largest real gain."""
    gains = [one for one in asked if one.real and one.better]
    losses = [one for one in asked if one.real and not one.better]
    some = "" if len(asked) == 1 else f"in {len(gains)} of {len(asked)} comparisons "
    if gains:
        most = max(gains, key=lambda one: abs(one.difference))
        said = f"Pre-training helps {some}beyond chance, at most by {most} {_scored(most)} ({most.arm}, {most.labels} labels)."
    else:
        said = "Pre-training is not shown to help."
    if losses:
        said += f" It harms in {len(losses)}."
    unsure = [one for one in asked if one.clear and not one.real]
    if unsure:
        said += f" In {len(unsure)} the interval leaves out 0, but p after Holm's correction does not: a hint, no more."
    return said


def _scored(one: Difference) -> str:
    """Which score is meant."""
    return one.measure.phrase


def _pair(found: Sequence[Difference]) -> str:
    """What an arm does against another, over its numbers of labels."""
    states = {
        "better": [one for one in found if one.real and one.better],
        "worse": [one for one in found if one.real and not one.better],
        "no difference shown": [one for one in found if not one.real],
    }
    told = [
        f"{state} with {_listed([one.labels for one in same])} labels ({'; '.join(map(str, same))})"
        for state, same in states.items()
        if same
    ]
    return f"{found[0].arm} against {found[0].reference}, {found[0].measure.title}: {', '.join(told)}."


def told_savings(savings: Sequence[Saving]) -> list[str]:
    """What labels are worth, a sentence for all numbers of labels of which the same is found."""
    labels: dict[tuple[str, str], list[str]] = {}
    for saving in savings:
        labels.setdefault((saving.arm, saving.finding), []).append(str(saving.labelled))
    return [f"{arm} at {_listed(numbers)} labels {finding}" for (arm, finding), numbers in labels.items()]


def _listed(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else words[0]


def _sentence(difference: Difference) -> str:
    verb = "raises" if difference.difference > 0 else "lowers"
    if GUESSED in difference.arm:
        claim = f"pre-training {verb} the {difference.measure.phrase} of {difference.arm.replace(GUESSED, '')}"
    else:
        claim = f"{difference.arm} {verb} the {difference.measure.phrase} of {difference.reference}"
    relative = "" if difference.relative is None else f" ({difference.relative:+.1%} relative)"
    low, high = (f"{end:+{difference.measure.form}}" for end in difference.interval)
    before, after = (number(value, difference.measure.form) for value in (difference.reference_value, difference.value))
    by = f"{difference.difference:+{difference.measure.form}}"
    return (
        f"With {difference.labels} labels, {claim if difference.clear else f'no effect is shown: {claim}'} from "
        f"{before} to {after}, by {by}{relative}; the 95% "
        f"interval over {difference.patients} test {difference.units} and {_seeds(difference)} is {low} to {high}, "
        f"{_real(difference)}"
    )


def _seeds(difference: Difference) -> str:
    return "1 seed" if len(difference.pairs) == 1 else f"{len(difference.pairs)} seeds"


def _real(difference: Difference) -> str:
    """What the interval and the test say together."""
    if difference.patients == 1:
        return "from one patient: no word on others."
    said = f"which {'excludes' if difference.clear else 'covers'} 0"
    if len(difference.pairs) == 1:
        return f"{said}, and one seed says nothing about other trainings."
    return f"{said}; Wilcoxon's p, corrected by Holm, is {p_value(difference.p_holm)}."


def _beside(difference: Difference) -> str:
    of = f" in {difference.measure.title}" if in_measure(difference) else ""
    scores = f"{difference.reference} scores {number(difference.reference_value, difference.measure.form)}{of}"
    return f"Beside it {scores}: {difference.arm} minus that is {difference}."
