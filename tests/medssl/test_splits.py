"""Reading and dividing splits: order, draws, patients, defaults; what is refused is in test_check.py."""

import json
from pathlib import Path
from typing import Any

import pytest

from medssl.problems import LONGEST, InputError, Problem, nearest
from medssl.splits import Split, read_split, stem, write_split
from medssl.subsets import take_fold, take_labelled, take_unlabelled


def split_of(folder: Path, **content: Any) -> Split:
    write_split(folder / "split.json", content)
    return read_split(folder / "split.json")


def test_defaults_and_order(tmp_path: Path) -> None:
    split = split_of(
        tmp_path,
        training=[
            {"image": "x/1.2.840.nii.gz"},
            {"image": ["B_t1.NII", "B_t2.nii"], "id": "B", "patient": 7, "fold": 2},
        ],
        test=["./t.png"],
    )
    first, second = split.part("training")
    assert (first.id, first.patient, first.image) == ("1.2.840", "1.2.840", (tmp_path / "x/1.2.840.nii.gz",))
    assert (second.id, second.patient, second.fold, len(second.image)) == ("B", "7", 2, 2)
    assert split.part("test")[0].image == (tmp_path / "t.png",)
    assert (split.name, split.task, split.labels, split.channels) == ("split", "segmentation", {}, 1)
    assert split.part("pretraining") == ()
    with pytest.raises(KeyError):
        split.part("validate")


def test_labels_by_task(tmp_path: Path) -> None:
    labels = {"0": "none", "1": "glioma"}
    split = split_of(tmp_path, task="classification", labels=labels, training=[{"image": "a.png", "label": 1}])
    assert split.part("training")[0].label == 1
    split = split_of(tmp_path, task="regression", training=[{"image": "a.png", "label": 0.5}])
    assert split.part("training")[0].label == 0.5
    pretraining = split_of(tmp_path, pretraining=[{"image": "a.png", "label": "a_label.png"}]).part("pretraining")
    assert pretraining[0].label is None
    for task, label in (("classification", 2), ("classification", True), ("regression", "1"), ("regression", True)):
        with pytest.raises(InputError):
            split_of(tmp_path, task=task, labels=labels, training=[{"image": "a.png", "label": label}])


def test_all_problems_at_once(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        split_of(
            tmp_path,
            nmae="x",
            modality={"1": "CT"},
            training=[{"image": "../a.nii"}, {"imag": "b.nii"}, {}, {"image": "c.nii", "patient": "p"}],
            test=[{"image": "d.nii", "patient": "P"}],
        )
    fields = ["nmae", "modality", "training[0].image", "training[1].imag", "training[2].image", "test[0].patient"]
    assert [problem.field for problem in caught.value.problems] == fields
    assert len(str(caught.value).splitlines()) == len(fields)


def test_a_missing_split_and_a_missing_root(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        read_split(tmp_path / "nowhere.json")
    with pytest.raises(InputError, match="directory"):
        read_split(tmp_path)
    split_of(tmp_path, test=["a.nii"])
    with pytest.raises(InputError, match="an existing folder"):
        read_split(tmp_path / "split.json", tmp_path / "nowhere")
    assert read_split(tmp_path / "split.json", tmp_path / "..").part("test")[0].image == (tmp_path.parent / "a.nii",)


def test_labelled_subsets_are_nested_and_drawn_by_id(tmp_path: Path) -> None:
    names = [f"c{i:02d}" for i in range(30)]
    split = split_of(tmp_path, training=[{"image": f"{name}.nii"} for name in names])
    other = split_of(tmp_path, training=[{"image": f"{name}.nii"} for name in reversed(names)])

    def ids(split: Split, labelled: int | None, draw: int) -> list[str]:
        return [case.id for case in take_labelled(split, labelled, draw).part("training")]

    assert ids(split, 6, 0) == names[:6]
    assert ids(split, None, 0) == names
    assert ids(split, 3, 1) == ["c26", "c05", "c10"]  # frozen: published subsets must not change
    for draw in range(1, 5):
        assert ids(split, 6, draw) == ids(split, 12, draw)[:6] == ids(other, 24, draw)[:6]
    assert len({tuple(ids(split, 6, draw)) for draw in range(20)}) == 20
    assert take_labelled(split, 0.4, 1) == take_labelled(split, 12, 1)
    for labelled, draw in ((31, 0), (0, 1), (-1, 0), (6, -1)):
        with pytest.raises(InputError):
            take_labelled(split, labelled, draw)


def test_a_split_is_written_whole_with_a_case_a_line(tmp_path: Path) -> None:
    content = {
        "name": "é",
        "labels": {"0": "background"},
        "training": [{"image": "a.nii"}, {"image": "b.nii"}],
        "test": [],
    }
    write_split(tmp_path / "new" / "split.json", content)
    text = (tmp_path / "new" / "split.json").read_text(encoding="utf-8")
    assert json.loads(text) == content
    assert '  {"image": "a.nii"},\n  {"image": "b.nii"}\n' in text
    with pytest.raises(TypeError):
        write_split(tmp_path / "new" / "split.json", {"name": object()})
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["split.json"]
    assert (tmp_path / "new" / "split.json").read_text(encoding="utf-8") == text


def test_problems_are_one_printable_line() -> None:
    line = str(Problem("/x" * 400 + "/c.nii", "a\nb", "\u202e\x1b[31m\ud800", "e" * 500))
    assert len(line) == LONGEST
    assert line.isprintable()
    assert "/c.nii: a\\nb: found \\u202e\\x1b[31m\\ud800, expected eee" in line
    assert str(Problem("f", "a", "b", "c")) == "f: a: found b, expected c"
    assert (nearest("imgae", ["image", "label"]), nearest("zzz", ["image"])) == ("image", None)


def test_stem() -> None:
    assert [stem(name) for name in ("a.nii.gz", "d/a.b.NII", "a.jpeg", "a.mat", "f#1.2", ".png")] == [
        "a",
        "a.b",
        "a",
        "a",
        "f#1.2",
        ".png",
    ]


def test_weight_and_grouping(tmp_path: Path) -> None:
    split = split_of(tmp_path, grouped_by="image", training=[{"image": "a.nii", "weight": 2}, {"image": "b.nii"}])
    assert [case.weight for case in split.part("training")] == [2.0, 1.0]
    assert split.grouped_by == "image"
    assert split_of(tmp_path, training=["a.nii"]).grouped_by == "patient"
    for wrong in (0, -1, "2", True, float("inf")):
        with pytest.raises(InputError):
            split_of(tmp_path, training=[{"image": "a.nii", "weight": wrong}])
    with pytest.raises(InputError, match="patient or image"):
        split_of(tmp_path, grouped_by="file", training=["a.nii"])


@pytest.mark.parametrize("grouped_by", ["patient", "image"])
def test_a_suffix_makes_no_other_patient(tmp_path: Path, grouped_by: str) -> None:
    def found(first: dict[str, str], second: dict[str, str]) -> int:
        try:
            split_of(tmp_path, grouped_by=grouped_by, training=[first], test=[second])
        except InputError as error:
            return len(error.problems)
        return 0

    told = {"image": "a.nii", "patient": "P1_day1"}, {"image": "b.nii", "patient": "P1_day2"}
    assert found(*told) == 1
    assert found({"image": "26 (19).png"}, {"image": "26 (20).png"}) == (grouped_by == "patient")
    assert found({"image": "case_001.png"}, {"image": "case_002.png"}) == 0


def test_only_a_mat_file_is_its_own_label(tmp_path: Path) -> None:
    labels = {"0": "background", "1": "tumour"}
    assert split_of(tmp_path, labels=labels, training=[{"image": "1.mat", "label": "1.mat"}]).part("training")
    with pytest.raises(InputError, match="the image itself"):
        split_of(tmp_path, labels=labels, training=[{"image": "1.nii", "label": "1.nii"}])


def test_folds(tmp_path: Path) -> None:
    training = [{"image": f"{i}.nii", "patient": f"P{i // 2}", "fold": i // 2 % 3} for i in range(12)]
    pretraining = [*training, {"image": "u.nii", "patient": "p0_pre"}]
    split = split_of(tmp_path, training=training, pretraining=pretraining)
    for fold in range(3):
        taken = take_fold(split, fold)
        assert {case.fold for case in taken.part("validation")} == {fold}
        assert len(taken.part("training")) == 8
        assert len(taken.part("pretraining")) == (8 if fold == 0 else 9)  # P0 is p0_pre
    with pytest.raises(InputError, match="0, 1, 2"):
        take_fold(split, 3)
    with pytest.raises(InputError, match="validation part"):
        take_fold(split_of(tmp_path, training=training, validation=["v.nii"]), 0)
    with pytest.raises(InputError, match="no fold"):
        take_fold(split_of(tmp_path, training=["v.nii"]), 0)


@pytest.mark.parametrize("second", ["p1_day2", "P1"])
def test_a_patient_in_two_folds_is_one_line(tmp_path: Path, second: str) -> None:
    patients = ["P1", second, second, "P2"]
    training = [{"image": f"{i}.nii", "patient": patient, "fold": i} for i, patient in enumerate(patients)]
    with pytest.raises(InputError) as caught:
        split_of(tmp_path, training=training, pretraining=[{"image": "u.nii", "patient": "P1"}])
    assert [(problem.field, problem.expected) for problem in caught.value.problems] == [
        ("training[1].patient", "a patient in one fold only")
    ]


@pytest.mark.parametrize("grouped_by", ["patient", "image"])
def test_one_id_has_one_patient(tmp_path: Path, grouped_by: str) -> None:
    def found(first: str, second: str) -> list[str]:
        pretraining, training = ([{"image": "c0.nii", "id": "c0", "patient": name}] for name in (first, second))
        test = [{"image": "t.nii", "patient": "P2"}]
        try:
            split_of(tmp_path, grouped_by=grouped_by, pretraining=pretraining, training=training, test=test)
        except InputError as error:
            return [problem.field for problem in error.problems]
        return []

    assert found("P1", "P9") == ["training[0].patient"]
    assert found("P1", "c0") == ["training[0].patient"]
    assert found("P2", "P9") == ["training[0].patient", "test[0].patient"]
    assert found("P1", "p1_left") == []


def test_numbers_that_no_float_holds(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        split_of(tmp_path, task="regression", training=[{"image": "a.nii", "label": 10**400, "weight": 10**400}])
    assert [problem.field for problem in caught.value.problems] == ["training[0].label", "training[0].weight"]


def test_draws_of_classes_take_turns_and_are_nested(tmp_path: Path) -> None:
    labels = {str(i): f"class {i}" for i in range(3)}
    training = [{"image": f"{i}.png", "patient": f"Q{i // 3}", "label": 0 if i < 60 else 1 + i % 2} for i in range(90)]
    split = split_of(tmp_path, task="classification", labels=labels, training=training)
    for draw in (1, 2):
        whole = [case.id for case in take_labelled(split, None, draw).part("training")]
        for n in range(1, 91):
            cases = take_labelled(split, n, draw).part("training")
            assert [case.id for case in cases] == whole[:n]
            counts = [sum(case.label == k for case in cases) for k in range(3)]
            assert max(counts) - min(counts) <= 1 or min(counts[1:]) == 15
            assert n > 30 or len({case.patient for case in cases if case.label == 0}) == counts[0]


def test_amounts_of_unlabelled_cases_are_nested_and_of_whole_patients(tmp_path: Path) -> None:
    cases = [{"image": f"{i}.nii", "patient": f"Q{i // 3:02d}"} for i in range(30)]
    split = split_of(tmp_path, pretraining=cases, validation=["v.nii"])
    assert take_unlabelled(split, None, 0) is split
    assert {case.patient for case in take_unlabelled(split, 6, 1).part("pretraining")} == {"Q02", "Q05"}  # frozen
    for seed in range(3):
        before = set[str]()
        for amount in range(1, 31):
            taken = take_unlabelled(split, amount, seed).part("pretraining")
            ids, people = {case.id for case in taken}, {case.patient for case in taken}
            assert before <= ids
            assert len(ids) == 3 * len(people) == max(amount // 3, 1) * 3
            before = ids
        assert take_unlabelled(split, 0.5, seed) == take_unlabelled(split, 15, seed)
    assert len({take_unlabelled(split, 3, seed).part("pretraining")[0].patient for seed in range(20)}) > 4
    with pytest.raises(InputError, match="unlabelled: found 31, expected at most 30"):
        take_unlabelled(split, 31, 0)
