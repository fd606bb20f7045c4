"""Dividing cases by whole patients: into parts, into folds, and into an order whose every prefix is balanced.

Everything here goes by hashes of a seed and names, so that a result is the same on every machine, in every version of
Python, whatever order the cases came in.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, TypeVar

Item = TypeVar("Item")


def hash_order(seed: int, name: str) -> bytes:
    """A sort key that shuffles names; it keeps its order when names are added."""
    return hashlib.sha256(f"{seed}/{name}".encode()).digest()


def divide_by_patient(
    cases: Sequence[Mapping[str, Any]],
    counts: Mapping[str, int],
    rest: str,
    seed: int = 0,
    strata: Mapping[str, str] | None = None,
) -> dict[str, list[dict[str, Any]]]:
    """Give each part in `counts` that many cases, or as few less as whole patients allow, and `rest` the others.

    `cases` have a "patient". The result depends on the seed and the ids of the patients, not on the order of the
    cases, which each part keeps. With `strata` (patient -> stratum) every part gets its share of each of them, `rest`
    at least one patient of each, and no part that asks for cases stays empty as long as there are patients.
    """
    sizes = Counter(case["patient"] for case in cases)
    free = sorted(sizes, key=lambda patient: hash_order(seed, patient))
    kept = _last_of_each(free, strata) if strata is not None else set()
    free = [patient for patient in free if patient not in kept]
    part_of: dict[str, str] = {}
    for part, count in counts.items():
        chosen = _stratified(free, sizes, count, strata) if strata is not None else _fill(free, sizes, count)
        part_of |= dict.fromkeys(chosen, part)
        free = [patient for patient in free if patient not in part_of]
    divided: dict[str, list[dict[str, Any]]] = {part: [] for part in (rest, *counts)}
    for case in cases:
        divided[part_of.get(case["patient"], rest)].append(dict(case))
    return divided


def folds_by_patient(
    sizes: Mapping[str, int], folds: int, seed: int = 0, strata: Mapping[str, str] | None = None
) -> dict[str, int]:
    """A fold from 0 for each patient, given how many cases each has; strata and sizes as even as patients allow."""
    strata = strata or {}
    held = [0] * folds
    fold_of: dict[str, int] = {}
    for stratum in sorted({strata.get(patient, "") for patient in sizes}):
        patients = [patient for patient in sizes if strata.get(patient, "") == stratum]
        held_here = [0] * folds
        # large patients first: the small ones level what those leave uneven
        for patient in sorted(patients, key=lambda patient: (-sizes[patient], hash_order(seed, patient))):
            fold = min(range(folds), key=lambda k: (held_here[k], held[k], k))
            fold_of[patient] = fold
            held[fold] += sizes[patient]
            held_here[fold] += sizes[patient]
    return fold_of


def in_turns(
    items: Sequence[Item], order: Callable[[Item], bytes], patient: Callable[[Item], str], stratum: Callable[[Item], Hashable]
) -> list[Item]:
    """The items with strata taking turns, and within a stratum every patient once before any patient twice.

    A stratum that is used up is skipped, so that every prefix is as balanced as the items allow. Strata follow each
    other in their sorted order; `order` decides within a stratum.
    """
    seen: Counter[tuple[Hashable, str]] = Counter()
    ranked = []
    for item in sorted(items, key=order):
        whose = (stratum(item), patient(item))
        ranked.append((seen[whose], item))
        seen[whose] += 1
    turns: Counter[Hashable] = Counter()
    placed = []
    for _, item in sorted(ranked, key=lambda pair: pair[0]):
        placed.append((turns[stratum(item)], item))
        turns[stratum(item)] += 1
    return [item for _, item in sorted(placed, key=lambda pair: (pair[0], stratum(pair[1])))]


def _last_of_each(patients: Sequence[str], strata: Mapping[str, str]) -> set[str]:
    return set({strata[patient]: patient for patient in patients}.values())


def _stratified(free: Sequence[str], sizes: Mapping[str, int], count: int, strata: Mapping[str, str]) -> list[str]:
    """Whole patients with `count` cases together as nearly as possible, of every stratum its share."""
    totals: Counter[str] = Counter()
    for patient in free:
        totals[strata[patient]] += sizes[patient]
    chosen: list[str] = []
    for stratum, share in _shares(totals, count).items():
        chosen += _fill([patient for patient in free if strata[patient] == stratum], sizes, share)
    others = [patient for patient in free if patient not in set(chosen)]
    chosen += _fill(others, sizes, count - sum(sizes[patient] for patient in chosen))
    if not chosen and count and free:
        chosen = [min(free, key=lambda patient: sizes[patient])]
    return chosen


def _shares(totals: Mapping[str, int], count: int) -> dict[str, int]:
    """The count divided in proportion to the totals; the largest remainders get what rounding down leaves."""
    everything = max(1, sum(totals.values()))
    count = min(count, everything)
    exact = {name: count * totals[name] / everything for name in sorted(totals)}
    shares = {name: int(exact[name]) for name in exact}
    for name in sorted(exact, key=lambda name: shares[name] - exact[name])[: count - sum(shares.values())]:
        shares[name] += 1
    return shares


def _fill(patients: Sequence[str], sizes: Mapping[str, int], count: int) -> list[str]:
    """Whole patients, early ones first, with `count` cases together or as few less as there is a sum for."""
    start, chosen = 0, []
    while count > 1000 and start < len(patients):  # with so many to come, every sum can be reached later
        if sizes[patients[start]] <= count:
            chosen.append(patients[start])
            count -= sizes[patients[start]]
        start += 1
    last = {0: ""}  # reachable sum -> the last patient of the first way there
    for patient in patients[start:]:
        for total in sorted(last, reverse=True):
            if total + sizes[patient] <= count:
                last.setdefault(total + sizes[patient], patient)
        if count in last:
            break
    total = max(last)
    while total:
        chosen.append(last[total])
        total -= sizes[last[total]]
    return chosen
