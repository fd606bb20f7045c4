"""`medssl slices`: voxels, spacing and place kept, upright, classes by count, patients whole, all or nothing."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from medssl.check import check_split
from medssl.cli import main
from medssl.config import Finetune
from medssl.finetune import finetune
from medssl.preparation import prepare
from medssl.problems import InputError
from medssl.readers import read_image
from medssl.reports.pictures import _slice as as_reported
from medssl.slices import Choice, axial_slices, chosen, read_channels
from medssl.splits import Case, Split, read_split, write_split
from medssl.store import Geometry

ROOT = Path(__file__).parents[2]
SPACING = (0.7, 0.9, 5.0)  # mm, along R, A and S
RANDOM = np.random.default_rng(0)


def save(path: Path, ras: np.ndarray, codes: str = "RAS", slope: float = 1.0, intercept: float = 0.0) -> None:
    """Write a volume (x, y, z) in RAS, or (x, y, z, c), with its axes stored in another order; stored values as given."""
    affine = np.diag([*SPACING, 1.0])
    affine[:3, 3] = [-11.0, 23.5, 40.0]
    from nibabel import orientations

    change = orientations.ornt_transform(orientations.axcodes2ornt("RAS"), orientations.axcodes2ornt(codes))
    stored = orientations.apply_orientation(ras, change)
    header = nibabel.Nifti1Header()
    header.set_data_dtype(stored.dtype)
    header.set_data_shape(stored.shape)
    header.set_sform(affine @ orientations.inv_ornt_aff(change, ras.shape), code=1)
    header.set_slope_inter(slope, intercept)
    header["vox_offset"] = 352
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(header.binaryblock + bytes(4) + stored.tobytes(order="F"))


def noise(shape: tuple[int, ...] = (20, 24, 6)) -> np.ndarray:
    return RANDOM.integers(-1000, 3000, shape).astype(np.int16)


def mask(voxels: list[int], shape: tuple[int, int, int] = (20, 24, 6)) -> np.ndarray:
    """A label with so many voxels of classes 1 and 2 in each slice."""
    label = np.zeros(shape, np.uint8)
    for k, count in enumerate(voxels):
        label[..., k].flat[RANDOM.choice(shape[0] * shape[1], count, replace=False)] = RANDOM.integers(1, 3, count)
    return label


def make(folder: Path, parts: Mapping[str, list[dict[str, Any]]], channels: int = 1) -> Path:
    head = {
        "name": "heads",
        "modality": {str(c): f"T{c}" for c in range(channels)},
        "labels": {"0": "background", "1": "core", "2": "rim"},
    }
    write_split(folder / "volumes.json", head | dict(parts))
    return folder / "volumes.json"


def case(name: str, patient: str, label: bool = True, **more: Any) -> dict[str, Any]:
    return {"id": name, "patient": patient, "image": f"{name}.nii"} | ({"label": f"{name}_label.nii"} if label else {}) | more


RUNS = {"several": [], "one": ["--classes", "background,tumour"]}
VOXELS = {"a": [0, 3, 9, 0, 1, 0], "b": [0, 0, 8, 8, 2, 0], "c": [7, 0, 0, 0, 0, 0], "d": [0, 4, 4, 4, 0, 4]}


@pytest.fixture
def volumes(tmp_path: Path) -> Path:
    """Four labelled volumes of three patients, two of them in folds, and two without a label."""
    for name, voxels in VOXELS.items():
        save(tmp_path / f"{name}.nii", noise(), "LPS")
        save(tmp_path / f"{name}_label.nii", mask(voxels), "LPS")
    for name in ("u", "v"):
        save(tmp_path / f"{name}.nii", noise(), "RAS")
    training = [case("a", "P1", fold=0, weight=2), case("b", "P1", fold=0), case("c", "P2", fold=1)]
    pretraining = [case("a", "P1", label=False), case("u", "P4", label=False), case("v", "P5", label=False)]
    return make(tmp_path, {"pretraining": pretraining, "training": training, "test": [case("d", "P3")]})


def cut(split: Path, out: Path, *words: str) -> Split:
    assert main(["slices", str(split), str(out), *words]) == 0
    return read_split(out / "split.json")


@pytest.mark.parametrize("codes", ["RAS", "LPS", "SAR", "PIL"])
def test_voxels_slope_spacing_and_place_are_those_of_the_volume(tmp_path: Path, codes: str) -> None:
    values = noise()
    save(tmp_path / "a.nii", values, codes, slope=0.5, intercept=-3)
    made = cut(make(tmp_path, {"pretraining": [case("a", "P", label=False)]}), tmp_path / "out").part("pretraining")
    assert [one.id for one in made] == [f"a_s{k:03d}" for k in range(6)]
    for k, one in enumerate(made):
        image = read_image(one.image[0])
        assert (image.array.dtype, image.slope, image.intercept, image.array.shape) == (np.int16, 0.5, -3.0, (1, 24, 20))
        np.testing.assert_array_equal(image.array[0], values[::-1, ::-1, k].T)
        np.testing.assert_allclose(np.linalg.norm(image.affine[:3, :2], axis=0), [0.9, 0.7], rtol=1e-6)
        corner = np.array([-11 + 19 * 0.7, 23.5 + 23 * 0.9, 40 + 5 * k])  # the front on the patient's right
        np.testing.assert_allclose(image.affine[:3, 3], corner, rtol=1e-6)
        theirs: Any = nibabel.load(one.image[0])
        np.testing.assert_array_equal(theirs.get_fdata(), values[::-1, ::-1, k].T * 0.5 - 3)


def test_a_slice_looks_like_the_axial_slice_of_the_report(tmp_path: Path) -> None:
    values = noise()
    values[-1, -1, 4] = 30000  # right, front
    save(tmp_path / "a.nii", values, "LPS")
    made = cut(make(tmp_path, {"pretraining": [case("a", "P", label=False)]}), tmp_path / "out").part("pretraining")
    image = read_image(made[4].image[0]).array[0]
    assert image[0, 0] == 30000, "the patient's right front is not at the top left"
    np.testing.assert_array_equal(as_reported(image, 0), as_reported(values, 4))


def test_label_maps_lie_on_their_images(volumes: Path) -> None:
    made = cut(volumes, volumes.parent / "out")
    assert not check_split(made, deep=True), "a slice without an object is no problem"
    for one in made.part("training"):
        name, number = one.id.split("_s")
        whole = np.asarray(nibabel.as_closest_canonical(nibabel.load(volumes.parent / f"{name}_label.nii")).dataobj)  # type: ignore[arg-type]
        label = read_image(str(one.label), label=True)
        np.testing.assert_array_equal(label.array[0], whole[::-1, ::-1, int(number)].T)
        np.testing.assert_array_equal(label.affine, read_image(one.image[0]).affine)


def test_two_names_make_one_class_of_all_objects(volumes: Path) -> None:
    several, one = (cut(volumes, volumes.parent / name, *words) for name, words in RUNS.items())
    assert (several.labels[2], one.labels) == ("rim", {0: "background", 1: "tumour"})
    for first, second in zip(several.part("training"), one.part("training"), strict=True):
        classes, merged = (read_image(str(found.label), label=True).array for found in (first, second))
        np.testing.assert_array_equal(merged, classes > 0)


@pytest.mark.parametrize(("least", "every"), [(1, 1), (4, 1), (1, 2), (5, 3)])
def test_classes_are_those_of_a_recount(volumes: Path, least: int, every: int) -> None:
    words = ["--task", "classification", "--classes", "none,tumour", "--least", str(least), "--every", str(every)]
    made = cut(volumes, volumes.parent / "out", *words)
    assert (made.labels, made.task) == ({0: "none", 1: "tumour"}, "classification")
    assert not (volumes.parent / "out/labels").exists()
    found = {one.id: one.label for part in ("training", "test") for one in made.part(part)}
    assert found == {f"{name}_s{k:03d}": int(voxels[k] >= least) for name, voxels in VOXELS.items() for k in range(0, 6, every)}


def test_keep_takes_all_for_pretraining_and_what_is_asked_for_from_labelled_parts(volumes: Path) -> None:
    labelled = cut(volumes, volumes.parent / "labelled", "--keep", "labelled", "--least", "3")
    assert [one.id for one in labelled.part("training")] == ["a_s001", "a_s002", "b_s002", "b_s003", "c_s000"]
    assert len(labelled.part("pretraining")) == 18
    balanced = cut(volumes, volumes.parent / "balanced", "--keep", "balanced", "--task", "classification")
    for name, voxels in VOXELS.items():
        classes = [one.label for part in ("training", "test") for one in balanced.part(part) if one.id.startswith(name)]
        objects = sum(count > 0 for count in voxels)
        assert (classes.count(1), classes.count(0)) == (objects, min(objects, 6 - objects))
    again = cut(volumes, volumes.parent / "again", "--keep", "balanced", "--task", "classification")
    assert [one.id for one in again.part("training")] == [one.id for one in balanced.part("training")]


def test_patients_parts_folds_and_weights_are_those_of_the_volumes(volumes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before, made = read_split(volumes), cut(volumes, volumes.parent / "out")
    source = {one.id: one for part in before.parts.values() for one in part if one.label is not None or part[0].label is None}
    for part in before.parts:
        assert {one.patient for one in made.part(part)} == {one.patient for one in before.part(part)}
    for one in made.part("training"):
        volume = source[one.id[0]]
        assert (one.patient, one.fold) == (volume.patient, volume.fold)
        assert one.weight == (2.0 if one.id[0] == "a" else 1.0)
    told = capsys.readouterr().out.splitlines()
    assert [line.split() for line in told[:4]] == [
        ["slices", "patients", "none", "object"],
        ["pretraining", "18", "3", "-", "-"],
        ["training", "18", "2", "11", "7"],
        ["test", "6", "1", "2", "4"],
    ]


def test_several_channels_stay_exact_and_apart(tmp_path: Path) -> None:
    first, second = noise(), RANDOM.normal(size=(20, 24, 6)).astype(np.float32)
    pair = noise((20, 24, 6, 2))
    save(tmp_path / "t0.nii", first, "LPS", slope=2)
    save(tmp_path / "t1.nii", second, "LPS")
    save(tmp_path / "both.nii", pair)
    save(tmp_path / "lone.nii", lone := noise(), "RAS")
    entries = [{"id": "x", "image": ["t0.nii", "t1.nii"]}, {"id": "y", "image": "both.nii"}]
    entries.append({"id": "z", "image": [None, "lone.nii"]})
    made = cut(make(tmp_path, {"pretraining": entries}, channels=2), tmp_path / "out")
    assert not check_split(made, deep=True)
    expected = {"x": (first, second), "y": (pair[..., 0], pair[..., 1]), "z": (lone,)}
    for one in made.part("pretraining"):
        name, number = one.id.split("_s")
        assert one.missing == ((0,) if name == "z" else ())
        for file, channel in zip(one.image, expected[name], strict=True):
            image = read_image(file)
            assert (image.array.dtype, image.slope) == (channel.dtype, 2.0 if channel is first else 1.0)
            np.testing.assert_array_equal(image.array[0], channel[::-1, ::-1, int(number)].T)


def test_blank_slices_are_left_out_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values, label = noise(), mask([0, 0, 5, 0, 0, 0])
    values[..., 0] = -1000
    values[..., [2, 5]] = RANDOM.integers(-1000, -900, (20, 24, 2))  # air and its noise; one of them is labelled
    save(tmp_path / "a.nii", values)
    save(tmp_path / "a_label.nii", label)
    made = cut(make(tmp_path, {"training": [case("a", "P")]}), tmp_path / "out")
    assert [one.id for one in made.part("training")] == ["a_s001", "a_s002", "a_s003", "a_s004"]
    assert "left out: 2 slices" in capsys.readouterr().out


def test_slices_share_the_memory_of_their_volume(volumes: Path) -> None:
    channels = read_channels(Case("a", "P1", (volumes.parent / "a.nii",)))
    slices = axial_slices(channels, None)
    assert all(np.shares_memory(one.images[0].array, channels[0].array) for one in slices)
    assert len(chosen("a", slices, Choice(keep="labelled"))) == 0


def test_a_killed_slicing_leaves_no_split_and_is_begun_anew(tmp_path: Path) -> None:
    entries = []
    for number in range(12):
        save(tmp_path / f"n{number}.nii", noise((90, 90, 20)))
        entries.append(case(f"n{number}", f"P{number}", label=False))
    split, out = make(tmp_path, {"pretraining": entries}), tmp_path / "out"
    command = [sys.executable, "-m", "medssl.cli", "slices", str(split), str(out)]
    working = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 60
    while len(list(out.glob("images/*"))) < 30 and time.monotonic() < until:
        time.sleep(0.002)
    with pytest.raises(InputError, match="another process"):  # in the middle of it
        main_or_raise(split, out)
    working.send_signal(signal.SIGKILL)
    working.wait()
    left = len(list(out.glob("images/*")))
    assert 30 <= left < 240
    with pytest.raises(InputError, match=r"split\.json"):
        read_split(out / "split.json")
    assert len(cut(split, out).part("pretraining")) == 240
    cut(split, tmp_path / "straight")
    files = sorted(path.relative_to(out) for path in out.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(tmp_path / "straight") for path in (tmp_path / "straight").rglob("*.*"))
    for file in files:
        assert (out / file).read_bytes() == (tmp_path / "straight" / file).read_bytes(), file


def main_or_raise(split: Path, out: Path) -> None:
    main(["slices", str(split), str(out), "--debug"])


def test_what_can_not_be_cut_is_one_line_and_leaves_nothing(volumes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = volumes.parent
    out = folder / "out"

    def refused(split: Path, *words: str) -> str:
        assert main(["slices", str(split), str(out), *words]) == 2
        errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1
        return errors[0]

    broken = noise().astype(np.float32)
    broken[3, 3, 3] = np.nan
    save(folder / "c.nii", broken, "LPS")
    assert "c.nii: voxels: found 1 NaN" in refused(volumes)
    assert not out.exists()
    save(folder / "c.nii", noise(), "LPS")
    save(folder / "c_label.nii", mask([3] * 6) * np.uint8(3), "LPS")
    assert "c_label.nii: label: found class" in refused(volumes)
    save(folder / "c_label.nii", mask(VOXELS["c"]), "LPS")
    (folder / "d.nii").write_bytes((folder / "a.nii").read_bytes())
    assert "d.nii: content: found the voxels of a in" in refused(volumes)
    save(folder / "d.nii", noise(), "LPS")
    assert "test: found no slice to keep" in refused(volumes, "--keep", "labelled", "--least", "5", "--every", "1")
    for mine in (out / "images" / "mine.txt", out / "mine.txt"):
        mine.parent.mkdir(parents=True, exist_ok=True)
        mine.write_text("keep me")
        assert "expected a new or empty folder" in refused(volumes)
        assert mine.read_text() == "keep me"
    content = json.loads(volumes.read_text()) | {"task": "regression"}
    for one in content["training"] + content["test"]:
        one["label"] = 1.5
    write_split(volumes, content)
    assert "task: found regression, expected segmentation" in refused(volumes)


def test_a_slice_is_resampled_by_its_own_spacing(volumes: Path) -> None:
    one = cut(volumes, volumes.parent / "out").part("training")[2]
    image, label_map = read_image(one.image[0]), read_image(str(one.label), label=True)
    prepared, label, affine = prepare(image, label_map, Geometry(2, (0.45, 1.4)))
    assert label is not None
    assert (prepared.shape, label.shape) == ((1, 47, 10), (1, 47, 10))  # 21.6 mm down, 14 mm across, first to last centre
    np.testing.assert_allclose(np.linalg.norm(affine[:3, :2], axis=0), [0.45, 1.4], rtol=1e-6)
    np.testing.assert_array_equal(prepared[0, ::2], image.array[0, :, ::2])  # every second row is one


@pytest.mark.slow
@pytest.mark.parametrize("task", ["segmentation", "classification"])
def test_slices_are_learned_from(volumes: Path, task: str) -> None:
    out = volumes.parent / task
    cut(volumes, out, "--task", task, "--keep", "balanced")
    network = {"name": "unet", "channels": [4, 8]} if task == "segmentation" else {"name": "resnet18", "width": 4}
    settings = {
        "split": out / "split.json", "out": out / "run", "crop_size": [32, 32], "pad": True, "spacing": [1, 1],
        "intensity": "percentile", "network": network, "steps": 2, "batch_size": 2, "validate_every": 1,
        "workers": 0, "threads": 1, "lr": 1e-3, "fold": 1, "judge": "test", "checkpoint": "latest",
    }  # fmt: skip
    finetune(Finetune.model_validate(settings))
    summary = json.loads((out / "run/summary.json").read_text())
    assert summary["n"] == len(read_split(out / "split.json").part("test")) - len(summary.get("unscored", []))
    assert summary["spacing"] == pytest.approx([1.0, 1.0])
