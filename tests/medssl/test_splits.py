"""Reading and dividing splits: order, draws, patients, defaults; what is refused is in test_check.py."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from medssl.problems import LONGEST, InputError, Problem, nearest
from medssl.splits import Split, divide_by_patient, read_split, stem, take_labelled, write_split


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
    for labelled, draw in ((31, 0), (0, 1), (-1, 0), (6, -1)):
        with pytest.raises(InputError):
            take_labelled(split, labelled, draw)


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
    assert [stem(name) for name in ("a.nii.gz", "d/a.b.NII", "a.jpeg", "a.mat", ".png")] == [
        "a",
        "a.b",
        "a",
        "a.mat",
        ".png",
    ]
