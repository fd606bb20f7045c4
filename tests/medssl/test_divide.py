"""Dividing by whole patients: exact sums, strata, folds, turns; and which ids mean one patient."""

import random
from collections import Counter

import pytest

from medssl.divide import divide_by_patient, folds_by_patient, hash_order, in_turns
from medssl.patients import group_patients


@pytest.mark.parametrize("seed", range(5))
def test_division_by_patient_is_exact_where_it_can_be(seed: int) -> None:
    sizes = random.Random(seed).choices([1, 2, 3, 5], k=60)
    cases = [{"patient": f"P{p}", "image": f"{p}_{i}"} for p, size in enumerate(sizes) for i in range(size)]
    shuffled = random.Random(seed).sample(cases, len(cases))
    divided = divide_by_patient(cases, {"validation": 17, "test": 31}, "training", seed)
    assert [len(divided[part]) for part in ("validation", "test")] == [17, 31]
    assert sum(map(len, divided.values())) == len(cases)
    patients = [{case["patient"] for case in part} for part in divided.values()]
    assert sum(map(len, patients)) == 60
    again = divide_by_patient(shuffled, {"validation": 17, "test": 31}, "training", seed)
    assert [{case["patient"] for case in part} for part in again.values()] == patients
    assert divide_by_patient(cases, {"validation": 17}, "training", seed + 1)["validation"] != divided["validation"]


def test_division_keeps_patients_whole_where_no_sum_fits() -> None:
    cases = [{"patient": p} for p in "aabbcc"]
    divided = divide_by_patient(cases, {"test": 3}, "training")
    assert [len(divided[part]) for part in ("test", "training")] == [2, 4]


@pytest.mark.parametrize("seed", range(20))
def test_strata_get_their_share_and_no_patient_is_divided(seed: int) -> None:
    draw = random.Random(seed)
    strata = {f"P{p}": draw.choice("aaabbc") for p in range(80)} | {"alone": "d"}
    cases = [{"patient": patient} for patient in strata for _ in range(draw.choice([1, 2, 4]))]
    divided = divide_by_patient(cases, {"validation": 20, "test": 40}, "training", seed, strata)
    patients = {part: {case["patient"] for case in found} for part, found in divided.items()}
    assert sum(map(len, patients.values())) == len(strata)
    assert sum(map(len, divided.values())) == len(cases)
    assert "alone" in patients["training"]
    everything = Counter(strata[case["patient"]] for case in cases)
    for part, count in (("validation", 20), ("test", 40)):
        assert count - 4 < len(divided[part]) <= count
        held = Counter(strata[case["patient"]] for case in divided[part])
        for stratum in "abc":
            assert abs(held[stratum] - count * everything[stratum] / len(cases)) <= 5
    shuffled = draw.sample(cases, len(cases))
    again = divide_by_patient(shuffled, {"validation": 20, "test": 40}, "training", seed, strata)
    assert {part: {case["patient"] for case in found} for part, found in again.items()} == patients


@pytest.mark.parametrize("folds", [2, 3, 5])
def test_folds_are_even_in_size_and_strata(folds: int) -> None:
    strata = {f"P{p}": "abc"[p % 7 % 3] for p in range(47)}
    fold_of = folds_by_patient(dict.fromkeys(strata, 1), folds, 1, strata)
    sizes = Counter(fold_of.values())
    assert sorted(sizes) == list(range(folds))
    assert max(sizes.values()) - min(sizes.values()) <= 1
    for stratum in "abc":
        held = Counter(fold_of[patient] for patient in strata if strata[patient] == stratum)
        assert max(held.values()) - min(held.values()) <= 1


def test_turns() -> None:
    items = [("a", "P1", 1), ("a", "P1", 2), ("a", "P2", 3), ("b", "P3", 4), ("a", "P4", 5)]
    order = in_turns(items, lambda i: bytes([i[2]]), lambda i: i[1], lambda i: i[0])
    assert [item[2] for item in order] == [1, 4, 3, 5, 2]
    assert [hash_order(0, name).hex()[:6] for name in ("a", "b")] == ["d3216b", "7d9abe"]  # frozen


@pytest.mark.parametrize(
    "names",
    [
        ("P01", "p01", "P01_day2", "P01-ses-02", "P01_v1", "P01_pre", "P01_post", "P01_baseline", "P01_left", "P01_T1"),
        ("P01", "P01 (2)", "P01_2", "P01-b", "P01_20200131", "P01_day2_left", "P01 run 3"),
        ("A-0003", "A-0003_day012"),
        ("anna_pre", "Anna_post"),
        ("P01", "P01_31012020", "P01-31-01-2020", "P01_6mo", "P01_12mo", "P01_2years", "P01_ax", "P01_cor", "P01_sag"),
        ("smith_t1w", "Smith_T2w", "smith-flair"),
    ],
)
def test_names_of_one_patient(names: tuple[str, ...]) -> None:
    assert len(set(group_patients(names).values())) == 1


@pytest.mark.parametrize(
    "names",
    [
        ("case_001", "case_002", "case"),
        ("sub-01", "sub-02"),
        ("BRATS_001", "BRATS_002"),
        ("1", "2", "10", "11"),
        ("mri_scan_1", "mri_scan_2"),
        ("TCGA-02-0001", "TCGA-02-0003", "A-0001", "A-0011"),
        ("P1", "P10", "P11"),
        ("image (1)", "image (2)"),
        ("1.2.840.1", "1.2.840.1.2", "1.2.840.2"),
        ("mri_6mo", "mri_12mo", "brain_ax", "brain_sag", "p_31012020", "p_31012021", "P_31132020", "t1w", "t2w"),
        ("hippocampus_001", "hippocampus_002", "left", "right", "v1", "v2"),
    ],
)
def test_names_of_different_patients(names: tuple[str, ...]) -> None:
    assert len(set(group_patients(names).values())) == len(names)
