"""`medssl predict`: what it takes, what it leaves, and what becomes of a bad file among good ones."""

import csv
import io
import json
import struct
import zipfile
from dataclasses import replace
from pathlib import Path

import highdicom
import nibabel
import numpy as np
import PIL.Image
import pytest
from made_files import series
from monai.data import MetaTensor
from monai.transforms import LoadImage

from medssl.cli import main
from medssl.nifti_bytes import nifti_bytes
from medssl.prediction.grid import Grid
from medssl.prediction.inputs import find_cases, safe_names, unzip
from medssl.prediction.predict import Prediction, Segmented
from medssl.prediction.results import Place, places_for, write_labels
from medssl.problems import InputError
from medssl.readers import Volume, read_image
from medssl.splits import Case, read_split

Lines = pytest.CaptureFixture[str]


def predict(run: Path, where: object, out: Path, *more: str) -> int:
    return main(["predict", str(run), "-i", str(where), "-o", str(out), "--device", "cpu", "--threads", "1", *more])


def config(run: Path) -> dict[str, str]:
    loaded: dict[str, str] = json.loads((run / "config.json").read_text())
    return loaded


def test_a_volume_leaves_labels_numbers_and_a_picture(segmenter: Path, tmp_path: Path, capsys: Lines) -> None:
    case = read_split(config(segmenter)["split"]).part("test")[0]
    (source,) = case.image
    assert predict(segmenter, source, tmp_path / "out") == 0
    out, name = tmp_path / "out", case.id
    assert "MB besides the weights" in capsys.readouterr().err
    files = {"statistics.json", "preview.png", "run_report.json", "predictions.csv", f"{name}_dseg.nii.gz", f"{name}_dseg.tsv"}
    assert {path.name for path in out.iterdir()} == files
    labels, image = nibabel.load(out / f"{name}_dseg.nii.gz"), nibabel.load(source)
    assert labels.get_data_dtype() == np.uint8
    assert np.array_equal(labels.affine, image.affine)
    assert labels.shape == image.shape
    ours, theirs = (LoadImage(image_only=True)(path) for path in (out / f"{name}_dseg.nii.gz", source))
    assert isinstance(ours, MetaTensor)
    assert np.array_equal(ours.affine, theirs.affine)
    array = np.asarray(labels.dataobj)
    numbers = json.loads((out / "statistics.json").read_text())
    assert numbers["unit"] == "mm3"
    for organ, found in numbers["classes"].items():
        assert found["voxels"] == (array == found["index"]).sum(), organ
        assert found["volume"] == pytest.approx(found["voxels"] * 4.5)
    with (out / f"{name}_dseg.tsv").open() as file:
        assert [row["name"] for row in csv.DictReader(file, delimiter="\t")] == ["background", *numbers["classes"]]
    report = json.loads((out / "run_report.json").read_text())
    assert len(report["models"][0]["sha256"]) == 64
    assert report["options"]["interpolate"] == "linear"
    with PIL.Image.open(out / "preview.png") as picture:
        assert min(picture.size) > 300
    assert predict(segmenter, source, out) == 2
    assert "expected a new or empty one, or --overwrite" in capsys.readouterr().err
    assert predict(segmenter, source, out, "--overwrite") == 0


def test_a_bad_file_is_named_and_the_others_go_on(classifier: Path, tmp_path: Path, capsys: Lines) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    images = [case.image[0] for case in read_split(config(classifier)["split"]).part("test")[:3]]
    for path in images:
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "broken.png").write_bytes(images[0].read_bytes()[:200])
    (folder / "notes.txt").write_text("nothing")
    assert predict(classifier, folder, tmp_path / "out") == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 2
    assert "broken.png" in lines[0]
    assert "1 of 4 inputs could not be predicted" in lines[1]
    with (tmp_path / "out/predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["case"] for row in rows] == [path.stem for path in images]
    assert all(sum(float(row[key]) for key in row if key.startswith("p_")) == pytest.approx(1) for row in rows)
    for path in images:
        found = json.loads((tmp_path / "out" / path.stem / "statistics.json").read_text())
        assert found["predicted"] in found["probabilities"]
        assert {"preview.png", "saliency.png"} <= {file.name for file in (tmp_path / "out" / path.stem).iterdir()}
    summary = json.loads((tmp_path / "out/run_report.json").read_text())
    assert list(summary["failed"]) == ["broken"]


def test_overwriting_leaves_nothing_whole_of_what_fails_now(classifier: Path, tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    first, second = (case.image[0] for case in read_split(config(classifier)["split"]).part("test")[:2])
    for path in (first, second):
        (folder / path.name).write_bytes(path.read_bytes())
    assert predict(classifier, folder, out) == 0
    (out / first.stem / f"{first.stem}_dseg.dcm").touch()
    (folder / second.name).write_bytes(second.read_bytes()[:200])
    assert predict(classifier, folder, out, "--overwrite") == 1
    assert (out / first.stem / "run_report.json").is_file()
    assert not (out / first.stem / f"{first.stem}_dseg.dcm").exists()
    assert not (out / second.stem / "run_report.json").exists()


def test_a_number_has_its_name(regressor: Path, tmp_path: Path) -> None:
    case = read_split(config(regressor)["split"]).part("test")[0]
    assert predict(regressor, case.image[0], tmp_path / "out") == 0
    found = json.loads((tmp_path / "out/statistics.json").read_text())
    assert (found["task"], found["target"]) == ("regression", "radii")
    assert (tmp_path / "out/preview.png").stat().st_size > 1000


@pytest.mark.slow
def test_a_dicom_segmentation_is_read_back(segmenter: Path, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(-200, 400, (32, 33, 34)).astype(np.int16)
    series(tmp_path / "series", pixels, PatientName="N", PatientBirthDate="", PatientSex="", FrameOfReferenceUID="1.2.9",
           StudyDate="", StudyTime="", AccessionNumber="", StudyID="", ReferringPhysicianName="")  # fmt: skip
    assert predict(segmenter, tmp_path / "series", tmp_path / "out", "--dicom-seg") == 0
    labels = np.asarray(nibabel.load(tmp_path / "out/series_dseg.nii.gz").dataobj)
    affine = read_image(tmp_path / "series").affine.astype(np.float32)  # as NIfTI has it
    assert np.array_equal(nibabel.load(tmp_path / "out/series_dseg.nii.gz").affine, affine)
    found = highdicom.seg.segread(tmp_path / "out/series_dseg.dcm")
    assert [found.get_segment_description(k).segment_label for k in found.segment_numbers] == [
        "liver",
        "spleen",
        "aorta",
        "kidney",
    ]
    sources = [uid for _, _, uid in found.get_source_image_uids()]
    by_file = found.get_pixels_by_source_instance(sources, combine_segments=True, ignore_spatial_locations=True,
                                                  assert_missing_frames_are_empty=True)  # fmt: skip
    places = {uid: k for k, uid in enumerate(uids_in_order(tmp_path / "series"))}
    for uid, frame in zip(sources, by_file, strict=True):
        assert np.array_equal(frame.T, labels[:, :, places[uid]])
    assert labels.max() > 0
    case = read_split(config(segmenter)["split"]).part("test")[0]
    assert predict(segmenter, case.image[0], tmp_path / "no", "--dicom-seg") == 2


def uids_in_order(folder: Path) -> list[str]:
    """The instances of a series from the feet up."""
    import pydicom

    files = [pydicom.dcmread(path, stop_before_pixels=True) for path in folder.iterdir()]
    return [file.SOPInstanceUID for file in sorted(files, key=lambda file: file.ImagePositionPatient[2])]


def test_a_zip_of_a_series_is_the_series(segmenter: Path, tmp_path: Path) -> None:
    series(tmp_path / "series", np.random.default_rng(0).integers(-200, 400, (32, 33, 34)).astype(np.int16))
    with zipfile.ZipFile(tmp_path / "scan.zip", "w") as packed:
        for path in (tmp_path / "series").iterdir():
            packed.write(path, f"../../{path.name}")
        packed.writestr("readme.txt", "no DICOM")
    assert predict(segmenter, tmp_path / "scan.zip", tmp_path / "zipped") == 0
    assert predict(segmenter, tmp_path / "series", tmp_path / "plain") == 0
    ours, theirs = (
        np.asarray(nibabel.load(next((tmp_path / name).glob("*_dseg.nii.gz"))).dataobj) for name in ("zipped", "plain")
    )
    assert np.array_equal(ours, theirs)
    with pytest.raises(InputError, match="more bytes unpacked"):
        unzip(tmp_path / "scan.zip", tmp_path / "few", most_bytes=5000)
    with pytest.raises(InputError, match="files: found 33"):
        unzip(tmp_path / "scan.zip", tmp_path / "fewer", most_files=10)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_zip_whose_unpacking_nothing_bounds_is_refused(tmp_path: Path, method: int) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", method) as packed:
        packed.writestr("0.dcm", bytes(128) + b"DICM")
    with pytest.raises(InputError, match="expected deflated or stored files"):
        unzip(tmp_path / "a.zip", tmp_path / "out")


def test_a_zip_with_an_endless_list_of_files_is_refused_unread(tmp_path: Path) -> None:
    entry, count = b"PK\1\2" + bytes(42), 10**5
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 1, 1, len(entry) * count, 0, 0)
    (tmp_path / "a.zip").write_bytes(entry * count + end)
    with pytest.raises(InputError, match="a list of files of 4600000 bytes"):
        unzip(tmp_path / "a.zip", tmp_path / "out")


def test_an_axis_too_long_for_the_old_header_is_written_and_read(tmp_path: Path) -> None:
    labels = np.random.default_rng(0).integers(0, 5, (40000, 2, 3)).astype(np.uint8)
    affine = np.diag([0.5, 2.0, 3.0, 1.0])
    volume, found = Volume(labels[None], 1.0, 0.0, affine), Segmented(labels, {})
    prediction = Prediction(named("x"), Grid(labels.shape, affine), volume, found, [], {}, [], "", labels.shape)
    prediction = replace(prediction, case=replace(prediction.case, image=(Path("x.nii.gz"),)))
    written = write_labels(Place(tmp_path, "x"), None, prediction, found)  # type: ignore[arg-type]
    (tmp_path / "bytes.nii.gz").write_bytes(nifti_bytes(volume))
    for path in (written, tmp_path / "bytes.nii.gz"):
        again = read_image(path)
        assert np.array_equal(again.array[0], labels)
        assert np.array_equal(again.affine, affine)


def test_bids_names(segmenter: Path, tmp_path: Path) -> None:
    case = read_split(config(segmenter)["split"]).part("test")[0]
    source = tmp_path / "in/sub-07/ses-2/anat/sub-07_ses-2_run-1_T1w.nii.gz"
    source.parent.mkdir(parents=True)
    source.write_bytes(case.image[0].read_bytes())
    assert predict(segmenter, tmp_path / "in", tmp_path / "out", "--bids") == 0
    place = tmp_path / "out/sub-07/ses-2/anat"
    assert (place / "sub-07_ses-2_run-1_dseg.nii.gz").is_file()
    assert (place / "sub-07_ses-2_run-1_dseg.tsv").is_file()
    assert json.loads((tmp_path / "out/dataset_description.json").read_text())["DatasetType"] == "derivative"
    names = [
        place.name for place in places_for(tmp_path, [named("sub-1_T1w"), named("sub-1_FLAIR"), named("a b")], False, True)
    ]
    assert len(set(names)) == 3
    assert all(name.startswith("sub-") and "/" not in name for name in names)


def named(id: str) -> Case:
    return Case(id, "", (Path("x.png"),))


def test_cases_of_one_name_are_told_apart(tmp_path: Path) -> None:
    for name in ("A/scan/image.png", "B/scan/image.png", "C/deep/one.png", "D/deep/one.nii", "D/deep/one.png", "E/alone.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    cases = find_cases(str(tmp_path), ["CT"]).cases
    ids = ["alone", "A-scan-image", "B-scan-image", "C-deep-one.png", "D-deep-one.nii", "D-deep-one.png"]
    assert sorted(case.id for case in cases) == sorted(ids)
    twins = [Case("x", "", (Path(name),)) for name in ("A/x.png", "B/x.png")]
    for bids in (False, True):
        assert len({place.data("dseg.nii.gz") for place in places_for(tmp_path, twins, False, bids)}) == 2


def test_names_never_leave_the_folder(tmp_path: Path) -> None:
    ids = ["..", ".", "../../etc", "a\\..\\b", "A", "a", "-rf", ".hidden", "", "x" * 300, "C:", "ok_1", "e\u0301", "a\nb"]
    names = safe_names([named(id) for id in ids])
    assert names[ids.index("ok_1")] == "ok_1"
    assert len({name.casefold() for name in names}) == len(ids)
    for bids in (False, True):
        for place in places_for(tmp_path, [named(id) for id in ids], False, bids):
            for path in (place.data("dseg.nii.gz"), place.file("preview.png")):
                assert path.resolve().is_relative_to(tmp_path)
                assert path.parent != tmp_path
                assert len(path.name) < 200


def test_channels_are_found_by_number_or_name(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    names = "p1_0000.png p1_0001.png p2_0001.png deep/sub-3_FLAIR.png deep/sub-3_T1.png alone.png p9/T1.png p9/flair.png"
    for name in names.split():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    found = find_cases(str(folder), ["flair", "T1"])
    assert {case.id: ([path.name for path in case.image], case.missing) for case in found.cases} == {
        "alone": (["alone.png"], ()),
        "p1": (["p1_0000.png", "p1_0001.png"], ()),
        "p2": (["p2_0001.png"], (0,)),
        "p9": (["flair.png", "T1.png"], ()),
        "sub-3": (["sub-3_FLAIR.png", "sub-3_T1.png"], ()),
    }
    (case,) = find_cases(f"{folder}/p1_0000.png,", ["flair", "T1"]).cases
    assert (case.id, case.missing) == ("p1", (1,))
    with pytest.raises(InputError, match="channels: found 3, expected 2: flair, T1"):
        find_cases("a,b,c", ["flair", "T1"])


def test_a_second_file_of_a_channel_is_told_and_never_taken_for_another(tmp_path: Path) -> None:
    names = ["p.png", "p_0000.png", "p_0001.png", "q_T1.png", "q_T2.nii", "q_T2.nii.gz"]  # nnU-Net calls its label map p
    for name in names:
        (tmp_path / name).touch()
    found = find_cases(str(tmp_path), ["T1", "T2"])
    assert {case.id: ([path.name for path in case.image], case.missing) for case in found.cases} == {
        "p.png": (["p.png"], ()),
        "p_0000.png": (["p_0000.png", "p_0001.png"], ()),
        "q": (["q_T1.png", "q_T2.nii"], ()),
    }
    (problem,) = found.problems
    assert (Path(problem.file).name, problem.field, problem.found) == ("q_T2.nii.gz", "channel", "a second file of T2")


@pytest.mark.slow
def test_a_picture_gets_an_indexed_picture(trained, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    from medssl.synth import make_dataset

    split = make_dataset(tmp_path / "slices", cases=10, dims=2)
    unet = {"name": "unet", "channels": [4, 8]}
    run = trained(split=split, crop_size=[32, 32], intensity="percentile", network=unet, lr=1e-2,
                  fit=[64, 64], steps=2)  # fmt: skip
    array = np.random.default_rng(0).integers(0, 255, (70, 51)).astype(np.uint8)
    PIL.Image.fromarray(array).save(tmp_path / "picture.png")
    assert predict(run, tmp_path / "picture.png", tmp_path / "out") == 0
    labels = read_image(tmp_path / "out/picture_dseg.png", label=True).array
    numbers = json.loads((tmp_path / "out/statistics.json").read_text())
    assert labels.shape == (1, 70, 51)
    assert numbers["unit"] == "pixels"
    assert [found["voxels"] for found in numbers["classes"].values()] == np.bincount(labels.ravel(), minlength=5)[1:].tolist()
    with PIL.Image.open(io.BytesIO((tmp_path / "out/picture_dseg.png").read_bytes())) as opened:
        assert opened.mode == "P"
