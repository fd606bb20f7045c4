"""Parts of a split: nested subsets with and without labels, a fold held out, labels for pre-training where asked for."""

from bisect import bisect_right
from collections import Counter
from dataclasses import replace
from itertools import accumulate

from medssl.divide import hash_order, in_turns
from medssl.problems import InputError, Problem
from medssl.splits import Split, natural, people_of, who


def take_labelled(split: Split, labelled: float | None, draw: int = 0) -> Split:
    """The split with the first `labelled` training cases of an order, so that 6 of a draw are among its 12.

    Draw 0 is the order of the file; every other draw is its own order of the ids, whatever order the file has, in
    which classes take turns and patients too. An amount below 1 is a share of the cases. Raises InputError when there
    are fewer cases than asked for.
    """
    cases = split.part("training")
    file = str(split.file)
    if draw < 0:
        raise InputError([Problem(file, "draw", str(draw), "0 or more")])
    if labelled is not None and not 0 < labelled <= len(cases):
        raise InputError([Problem(file, "labelled", str(labelled), f"1 to {len(cases)}, the cases in training")])
    if draw and split.task == "classification":
        labels = {case.id: str(case.label) for case in cases}  # a label may be missing: check says so later
        order = in_turns(cases, lambda c: hash_order(draw, c.id), lambda c: c.patient, lambda c: natural(labels[c.id]))
        cases = tuple(order)
    elif draw:
        cases = tuple(sorted(cases, key=lambda case: hash_order(draw, case.id)))
    return replace(split, parts={**split.parts, "training": cases[: count_of(labelled, len(cases))]})


def take_unlabelled(split: Split, unlabelled: float | None, seed: int) -> Split:
    """The split with whole patients of pre-training, as many as have at most so many cases together, at least one.

    They come in an order of the seed, so that a smaller amount is among a larger one. An amount below 1 is a share of the
    cases. Raises InputError when there are fewer cases than asked for.
    """
    cases = split.part("pretraining")
    if unlabelled is None:
        return split
    if unlabelled > len(cases):
        expected = f"at most {len(cases)}, the cases in pretraining"
        raise InputError([Problem(str(split.file), "unlabelled", str(unlabelled), expected)])
    people = people_of(split.grouped_by, cases)
    sizes = Counter(people[who(case)] for case in cases)
    order = sorted(sizes, key=lambda person: hash_order(seed, person))
    together = list(accumulate(sizes[person] for person in order))
    taken = set(order[: max(bisect_right(together, count_of(unlabelled, len(cases))), 1)])
    kept = tuple(case for case in cases if people[who(case)] in taken)
    return replace(split, parts={**split.parts, "pretraining": kept})


def count_of(amount: float | None, cases: int) -> int:
    """How many of so many cases an amount is: all, a count, or below 1 a share."""
    return cases if amount is None else max(round(amount * cases), 1) if amount < 1 else int(amount)


def take_fold(split: Split, fold: int) -> Split:
    """The split with the training cases of a fold as validation, without their patients in pre-training.

    Raises InputError when there is no such fold, when a training case has none and when there is a validation part.
    """
    cases = split.part("training")
    file = str(split.file)
    folds = sorted({case.fold for case in cases if case.fold is not None})
    if fold not in folds:
        raise InputError([Problem(file, "fold", str(fold), ", ".join(map(str, folds)) or "no fold: the split has none")])
    without = [case.id for case in cases if case.fold is None]
    if without:
        raise InputError([Problem(file, "fold", f"none for {without[0]}", "a fold for every training case")])
    if split.part("validation"):
        raise InputError([Problem(file, "validation", "a part besides folds", "folds or a validation part")])
    held = tuple(case for case in cases if case.fold == fold)
    people = people_of(split.grouped_by, [*split.part("pretraining"), *cases])
    out = {people[who(case)] for case in held}
    parts = {
        **split.parts,
        "training": tuple(case for case in cases if case.fold != fold),
        "validation": held,
    }
    if "pretraining" in parts:
        parts["pretraining"] = tuple(case for case in parts["pretraining"] if people[who(case)] not in out)
    return replace(split, parts=parts)


def with_training_labels(split: Split) -> Split:
    """Give pre-training cases the label that their image has in the training part, where it is in that too."""
    labels = {case.image: case.label for case in split.part("training")}
    cases = tuple(replace(case, label=labels.get(case.image)) for case in split.part("pretraining"))
    return replace(split, parts=split.parts | {"pretraining": cases})
