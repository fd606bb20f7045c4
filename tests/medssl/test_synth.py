"""The synthetic data set: the same for a seed, whole, well-formed, and no folder of others is touched."""

import hashlib
import itertools
from pathlib import Path

import numpy as np
import pytest

from medssl.check import check_split
from medssl.problems import InputError
from medssl.readers import read_header, read_image
from medssl.splits import read_split
from medssl.synth import make_case, make_dataset


def digest(folder: Path) -> str:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return hashlib.sha256(b"".join(str(f.relative_to(folder)).encode() + f.read_bytes() for f in files)).hexdigest()


@pytest.mark.parametrize("dims", [2, 3])
def test_a_data_set_checks_clean_and_is_the_same_for_a_seed(tmp_path: Path, dims: int) -> None:
    split = read_split(make_dataset(tmp_path / "a", cases=10, dims=dims))
    assert check_split(split, spatial_dims=dims, deep=True) == []
    assert [len(split.part(p)) for p in ("pretraining", "training", "validation", "test")] == [7, 2, 1, 2]
    assert {case.id for case in split.part("training")} < {case.id for case in split.part("pretraining")}
    labels = [
        read_image(case.label).array for p in ("training", "test") for case in split.part(p) if isinstance(case.label, Path)
    ]
    assert all(set(np.unique(label)) == set(split.labels) for label in labels)
    before = digest(tmp_path / "a")
    make_dataset(tmp_path / "b", cases=10, dims=dims)
    make_dataset(tmp_path / "c", cases=10, dims=dims, seed=1)
    assert before == digest(tmp_path / "b") != digest(tmp_path / "c")


@pytest.mark.parametrize("dims", [2, 3])
def test_a_regression_asks_for_the_share_of_the_liver(tmp_path: Path, dims: int) -> None:
    split = read_split(make_dataset(tmp_path / "a", cases=10, dims=dims, task="regression"))
    assert check_split(split, spatial_dims=dims, deep=True) == []
    segmented = read_split(make_dataset(tmp_path / "b", cases=10, dims=dims))
    for part in ("training", "validation", "test"):
        for case, other in zip(split.part(part), segmented.part(part), strict=True):
            assert case.image[0].read_bytes() == other.image[0].read_bytes()
            assert isinstance(other.label, Path)
            share = (read_image(other.label).array == 1).mean()
            assert case.label == pytest.approx(100 * share, abs=1e-4)
    assert not (tmp_path / "a" / "labels").exists()
    written = split.file.stat().st_mtime_ns
    assert make_dataset(tmp_path / "a", cases=10, dims=dims, task="regression").stat().st_mtime_ns == written
    with pytest.raises(InputError):
        make_dataset(tmp_path / "a", cases=10, dims=dims)


def test_an_interrupted_data_set_is_finished_and_others_are_left_alone(tmp_path: Path) -> None:
    split = make_dataset(tmp_path / "a", cases=8, dims=2)
    before, written = digest(tmp_path / "a"), split.stat().st_mtime_ns
    make_dataset(tmp_path / "a", cases=8, dims=2)
    assert split.stat().st_mtime_ns == written
    split.unlink()
    (tmp_path / "a/images/case_003.png").unlink()
    make_dataset(tmp_path / "a", cases=8, dims=2)
    assert digest(tmp_path / "a") == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/split.json").write_text("{}")
    for folder, cases in ((tmp_path / "a", 9), (tmp_path / "mine", 8), (split, 8), (tmp_path / "new", 7)):
        with pytest.raises(InputError):
            make_dataset(folder, cases=cases, dims=2)
    assert digest(tmp_path / "a") == before
    assert not (tmp_path / "new").exists()


def test_the_liver_is_on_the_right_whatever_the_storage(tmp_path: Path) -> None:
    split = read_split(make_dataset(tmp_path / "v", cases=10))
    corners = set()
    for case in split.part("training") + split.part("validation") + split.part("test"):
        assert isinstance(case.label, Path)
        label = read_image(case.label)
        x = {k: (label.affine @ [*np.argwhere(label.array[0] == k).mean(0), 1])[0] for k in (1, 2)}
        assert x[1] > 5 > -5 > x[2]  # RAS: x grows to the right
        corners.add(tuple(np.sign(np.diag(label.affine)[:3])))
        assert read_header(case.label).spacing == (1.5, 1.5, 2.0)
    assert len(corners) == 3


def test_a_threshold_finds_no_organ() -> None:
    """The best window of intensities for each organ, even chosen on the very cases, has a mean Dice below 0.5."""
    cases = [make_case(3, 0, number) for number in range(4)]
    edges = np.percentile(np.concatenate([image[label > 0] for image, label in cases]), np.linspace(0, 100, 16))
    for organ in range(1, 5):
        best = 0.0
        for low, high in itertools.combinations(edges, 2):
            found = [((image >= low) & (image <= high), label == organ) for image, label in cases]
            best = max(best, float(np.mean([2 * (a & b).sum() / (a.sum() + b.sum()) for a, b in found])))
        assert 0.1 < best < 0.5
