"""`medssl split`: every layout becomes a split that checks clean, no patient is in two parts, and each mistake is told."""

import argparse
import json
import os
import random
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import nibabel
import numpy as np
import PIL.Image
import pydicom
import pytest
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from medssl.check import check_split
from medssl.patients import group_patients
from medssl.problems import InputError
from medssl.split_command import add_arguments, run
from medssl.splits import PARTS, Split, read_split


def volume(path: Path, seed: int, label: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).integers(0, 3 if label else 100, (4, 5, 6)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), path)


def picture(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(np.random.default_rng(seed).integers(0, 255, (6, 7), np.uint8)).save(path)


def pairs(folder: Path, images: str, labels: str, count: int = 10, channels: tuple[str, ...] = ("",)) -> None:
    for i in range(count):
        for c, channel in enumerate(channels):
            volume(folder / images / f"p_{i:02d}{channel}.nii.gz", i + 100 * c)
        volume(folder / labels / f"p_{i:02d}.nii.gz", i, label=True)


def split(folder: Path, *options: str) -> Split:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    run(parser.parse_args([str(folder), str(folder / "split.json"), *options]))
    return read_split(folder / "split.json")


def refused(folder: Path, *options: str) -> list[str]:
    with pytest.raises(InputError) as caught:
        split(folder, *options)
    assert not (folder / "split.json").exists()
    return [str(problem) for problem in caught.value.problems]


def sizes(found: Split) -> list[int]:
    return [len(found.part(part)) for part in PARTS]


def class_folders(folder: Path) -> list[str]:
    for i in range(30):
        picture(folder / ("train" if i < 20 else "test") / "ab"[i % 2] / f"x ({i}).png", i)
    return ["--by-image"]


def decathlon(folder: Path) -> list[str]:
    pairs(folder, "imagesTr", "labelsTr")
    (folder / "imagesTr" / "._p_00.nii.gz").write_bytes(b"x")
    volume(folder / "imagesTs" / "q.nii.gz", 99)
    about = {"labels": {"0": "background", "1": "L1", "2": "L2"}, "modality": {"0": "CT"}}
    (folder / "dataset.json").write_text(json.dumps(about))
    return ["--patient", r"(\w+)\.nii"]


def nnunet(folder: Path) -> list[str]:
    pairs(folder, "imagesTr", "labelsTr", channels=("_0000", "_0001"))
    about = {"labels": {"background": 0, "L1": 1, "L2": 2}, "channel_names": {"0": "T1", "1": "T2"}, "file_ending": ".nii.gz"}
    (folder / "dataset.json").write_text(json.dumps(about))
    return ["--patient", r"/(p_\d+)"]


def images_labels(folder: Path) -> list[str]:
    pairs(folder, "images", "labels")
    return ["--patient", "(?P<patient>p_.*)[.]nii"]


def bids(folder: Path) -> list[str]:
    for i in range(10):
        for session in (1, 2):
            stem = f"sub-{i:02d}/ses-{session}/anat/sub-{i:02d}_ses-{session}"
            volume(folder / f"{stem}_T1w.nii.gz", 2 * i + session)
            volume(folder / f"{stem}_T2w.nii.gz", 200 + 2 * i + session)
    rows = "".join(f"sub-{i:02d}\t{'n/a' if i == 9 else i % 2}\n" for i in range(10))
    (folder / "participants.tsv").write_text("\ufeffparticipant_id\tgroup\n" + rows, encoding="utf-8")
    return ["--suffix", "T1w", "T2w", "--label-column", "group"]


def bids_dseg(folder: Path) -> list[str]:
    bids(folder)
    for i in range(10):
        volume(folder / f"derivatives/seg/sub-{i:02d}/ses-1/anat/sub-{i:02d}_ses-1_desc-x_dseg.nii.gz", i, label=True)
    return []


def template(folder: Path) -> list[str]:
    for i in range(8):
        for visit in ("Pre", "Post"):
            volume(folder / f"{i:02d}" / f"{visit}_Scan_T1.nii.gz", 2 * i + (visit == "Pre"))
            volume(folder / f"{i:02d}" / f"{visit}_Mask.nii.gz", i, label=True)
    return ["--image", "{patient}/{visit}_Scan_T1.nii.gz", "--label", "{patient}/{visit}_Mask.nii.gz"]


def table(folder: Path) -> list[str]:
    rows = ["path;age;subject;weight"]
    for i in range(20):
        picture(folder / "all" / f"{i}.png", i)
        rows.append(f"all/{i}.png;{i * 1.5 if i < 18 else ''};S{i // 2};2")
    (folder / "t.csv").write_text("\ufeff" + "\r\n".join(rows), encoding="utf-8")
    columns = ["--columns", "image=path", "label=age", "patient=subject"]
    return ["--table", str(folder / "t.csv"), "--task", "regression", *columns]


def flat(folder: Path) -> list[str]:
    for i in range(10):
        volume(folder / f"A-{i // 2}_day{i}.nii.gz", i)
    return ["--patient", r"A-(\d+)"]


def figshare(folder: Path) -> list[str]:
    for i in range(12):
        with h5py.File(folder / f"{i}.mat", "w", userblock_size=512) as file:
            image = np.random.default_rng(i).integers(0, 99, (6, 7)).astype(np.int16)
            codes = np.array([[ord(c)] for c in f"10{i // 2}"], np.uint16)
            values = {"PID": codes, "label": [[i // 4 + 1.0]], "image": image, "tumorMask": (image > 50).astype(np.uint8)}
            for key, value in values.items():
                file[f"cjdata/{key}"] = value
    return []


def figshare_masks(folder: Path) -> list[str]:
    return [*figshare(folder), "--task", "segmentation"]


def dicom(folder: Path) -> list[str]:
    for i in range(6):
        for z in range(4):
            slice_ = pydicom.Dataset()
            slice_.file_meta = pydicom.dataset.FileMetaDataset()
            slice_.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
            slice_.SOPClassUID = CTImageStorage
            slice_.SOPInstanceUID = f"1.2.{i + 1}.{z + 1}"
            slice_.SeriesInstanceUID = f"1.2.{i + 1}"
            slice_.StudyInstanceUID, slice_.PatientID, slice_.Modality = "1.3", f"P{i // 2}", "CT"
            slice_.ImagePositionPatient, slice_.ImageOrientationPatient = [0, 0, z], [1, 0, 0, 0, 1, 0]
            slice_.PixelSpacing, slice_.Rows, slice_.Columns = [1, 1], 5, 6
            slice_.BitsAllocated, slice_.BitsStored, slice_.HighBit, slice_.PixelRepresentation = 16, 16, 15, 1
            slice_.SamplesPerPixel, slice_.PhotometricInterpretation = 1, "MONOCHROME2"
            slice_.PixelData = np.random.default_rng(9 * i + z).integers(0, 99, (5, 6)).astype(np.int16).tobytes()
            place = folder / f"study{i // 2}"  # two series in one folder
            place.mkdir(exist_ok=True)
            slice_.save_as(place / f"{i}_{z}.dcm", enforce_file_format=True)
    return []


LAYOUTS: dict[str, tuple[Callable[[Path], list[str]], list[int], int]] = {  # sizes of the parts, classes
    "class folders": (class_folders, [18, 18, 2, 10], 2),
    "Decathlon": (decathlon, [8, 7, 1, 2], 3),
    "nnU-Net": (nnunet, [7, 7, 1, 2], 3),
    "images and labels": (images_labels, [7, 7, 1, 2], 3),
    "BIDS": (bids, [14, 12, 2, 4], 2),
    "BIDS with dseg": (bids_dseg, [14, 7, 1, 2], 3),
    "template": (template, [12, 12, 2, 2], 3),
    "table": (table, [14, 12, 2, 4], 0),
    "figshare": (figshare, [8, 8, 2, 2], 3),
    "figshare masks": (figshare_masks, [8, 8, 2, 2], 2),
    "DICOM": (dicom, [4, 0, 2, 0], 0),
    "images alone": (flat, [8, 0, 2, 0], 0),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_each_layout_becomes_a_clean_split(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    make, expected, classes = LAYOUTS[name]
    found = split(tmp_path, *make(tmp_path))
    assert check_split(found, deep=True) == []
    assert (sizes(found), len(found.labels)) == (expected, classes)
    masks = {case.mask in case.image for part in PARTS for case in found.part(part)}
    assert masks == {name == "figshare"}  # whose files are masks, too
    assert found.grouped_by == ("image" if name == "class folders" else "patient")
    out = capsys.readouterr().out
    assert "layout: " in out
    assert out.endswith(f"next: medssl check {tmp_path}/split.json --deep\n")
    before = (tmp_path / "split.json").read_text()
    with pytest.raises(InputError, match="overwrite"):
        split(tmp_path, *make(tmp_path))
    split(tmp_path, *make(tmp_path), "--overwrite")
    assert (tmp_path / "split.json").read_text() == before


@pytest.mark.parametrize("seed", range(25))
def test_no_patient_leaks_whatever_the_layout(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    rows = []
    for p in range(draw.randint(6, 40)):
        part = draw.choice(["", "", "test"]) if seed % 2 else ""
        for visit in range(draw.choice([1, 1, 2, 3])):
            patient = draw.choice([f"P{p}", f"p{p}", f"P{p}_day{visit}", f"P{p}-pre"])
            (tmp_path / f"{p}_{visit}.png").touch()
            rows.append(f"{p}_{visit}.png,{draw.choice('abc')},{patient},{part}")
    draw.shuffle(rows)
    (tmp_path / "t.csv").write_text("image,label,patient,part\n" + "\n".join(rows))
    options = ["--table", str(tmp_path / "t.csv"), "--seed", str(seed), *(["--folds", "3"] if seed % 3 == 0 else [])]
    found = split(tmp_path, *options)
    cases = {part: found.part(part) for part in PARTS}
    assert sum(len(cases[part]) for part in PARTS[1:]) == len(rows)
    groups = group_patients(case.patient for part in PARTS for case in cases[part])
    people = {part: {groups[case.patient] for case in cases[part]} for part in PARTS}
    assert not people["training"] & people["validation"]
    assert not (people["training"] | people["validation"] | people["pretraining"]) & people["test"]
    assert not people["pretraining"] & people["validation"]
    assert people["pretraining"] == people["training"]
    if not seed % 2:
        assert abs(len(cases["test"]) - 0.2 * len(rows)) <= 3.5
    folds: dict[str, set[int | None]] = {}
    for case in cases["training"]:
        folds.setdefault(groups[case.patient], set()).add(case.fold)
    assert all(len(values) == 1 for values in folds.values())
    labels = [case.label for case in cases["training"]]
    for n in range(1, len(labels)):
        counts = [labels[:n].count(k) for k in range(3)]
        assert all(counts[k] >= max(counts) - 1 or counts[k] == labels.count(k) for k in range(3))


def numbers(folder: Path) -> None:
    for i in range(10):
        (folder / f"{i}.png").touch()


def rows(*lines: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        numbers(folder)
        (folder / "t.csv").write_text("image,label,patient\n" + "\n".join(lines))

    return make


def files(*names: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).touch()

    return make


def labels_of(labels: dict[str, object]) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        decathlon(folder)
        (folder / "dataset.json").write_text(json.dumps({"labels": labels}))

    return make


def participants(folder: Path, *lines: str) -> None:
    for i in range(10):
        volume(folder / f"sub-{i:02d}/anat/sub-{i:02d}_T1w.nii.gz", i)
    (folder / "participants.tsv").write_text("\n".join(["Participant_ID\tgroup", *lines]))


def lost_dseg(folder: Path) -> None:
    participants(folder)
    volume(folder / "derivatives/sub-01_dseg.nii.gz", 1, label=True)
    volume(folder / "derivatives/sub-77_dseg.nii.gz", 1, label=True)


def series_in_two_folders(folder: Path) -> None:
    dicom(folder)
    (folder / "copy").mkdir()
    (folder / "copy" / "x.dcm").write_bytes((folder / "study0" / "0_0.dcm").read_bytes())


WRONG: dict[str, tuple[Callable[[Path], None], list[str], list[str]]] = {
    "empty": (lambda folder: None, [], ["no file"]),
    "nothing known": (files("a.txt"), [], ["no known one in 1 files, as a.txt"]),
    "two layouts": (
        files("imagesTr/1.nii", "labelsTr/1.nii", "images/1.nii", "labels/1.nii"),
        [],
        ["2 at once, expected --layout decathlon or --layout images-labels"],
    ),
    "another layout": (files("a/1.png", "b/2.png", "c.mat"), ["--layout", "bids"], ["not bids"]),
    "no patients": (
        numbers,
        [],
        ["none of 10 cases, expected {patient} in --image, a patient column, --patient REGEX, or --by-image"],
    ),
    "some patients": (rows("0.png,a,P", "1.png,b,"), ["--table"], ["none of 1 (1.png)"]),
    "pattern that does not fit": (numbers, ["--patient", "([0-7])"], ["8.png: patient: found no match", "9.png: patient"]),
    "pattern without group": (numbers, ["--patient", "x"], ["(brackets)"]),
    "broken pattern": (numbers, ["--patient", "("], ["a regular expression"]),
    "template without a file": (numbers, ["--image", "{patient}.jpg"], ["nearest is "]),
    "template without an end": (numbers, ["--image", "{patient"], ["fields such as {id}"]),
    "label fields": (numbers, ["--image", "{id}.png", "--label", "{x}.png"], ["{x}"]),
    "label without image": (
        files("i/1.png", "i/2.png", "l/1.png", "l/3.png", "l/4.png"),
        ["--image", "i/{id}.png", "--label", "l/{id}.png"],
        ["l/3.png: label: found no image", "l/4.png: label: found no image"],
    ),
    "unknown part": (files("a/1.png", "b/2.png"), ["--image", "{part}/{id}.png"], ["{part}: found a", "{part}: found b"]),
    "one file for two": (files("a.png", "a.jpg"), ["--image", "{id}.*"], ["give the suffix"]),
    "a patient in two given parts": (
        files("train/P1_a.png", "test/P1_b.png", "train/P2_a.png", "test/P3_a.png"),
        ["--image", "{part}/{patient}_{x}.png"],
        ["a patient in one part"],
    ),
    "one patient": (numbers, ["--patient", "(png)"], ["at least 2"]),
    "fewer cases than asked": (numbers, ["--by-image", "--test", "20"], ["more than 1 for validation and 20 for test"]),
    "too many folds": (rows("0.png,a,P", "1.png,b,Q"), ["--folds", "9", "--test", "0", "--table"], ["2 to 2"]),
    "folds and validation": (numbers, ["--by-image", "--folds", "2", "--validation", "3"], ["folds or a validation part"]),
    "missing column": (rows("0.png,a,P"), ["--columns", "label=lable", "--table"], ["no lable, expected label (nearest)"]),
    "no such key": (rows("0.png,a,P"), ["--columns", "lab=label", "--table"], ["NAME=COLUMN"]),
    "rows": (
        rows("0.png,a,P", "0.png,a,P", "x.png,a,P", "../y.png,a,P", ",a,P"),
        ["--table"],
        ["line 3, image: found the image of line 2", "no file x.png", "inside FOLDER", "line 6, image: found nothing"],
    ),
    "ragged row": (rows("0.png,a", "1.png,a,P"), ["--table"], ["line 2: found 2 fields"]),
    "no row": (rows(), ["--table"], ["1 lines"]),
    "a cell with a line break": (rows("0.png,a,P", "1.png,a,P\u2028Q"), ["--table"], ["1.png: patient: found P\\u2028Q"]),
    "classes in two cases": (files("Normal/1.png", "normal/2.png"), ["--by-image"], ["Normal and normal"]),
    "one fold": (numbers, ["--by-image", "--folds", "0"], ["--folds: found 0, expected 2 or more"]),
    "no whole case": (
        files("1_a.png", "2_b.png"),
        ["--image", "{id}_a.png", "--image", "{id}_b.png"],
        ["no case has every channel"],
    ),
    "nnU-Net's ignore": (labels_of({"background": 0, "L1": 1, "ignore": 2}), [], ["ignore, nnU-Net's mark"]),
    "a class too high": (labels_of({"background": 0, "L1": 10**9}), [], ["2 classes up to 1000000000"]),
    "gaps": (labels_of({"0": "background", "150": "L1"}), [], ["2 classes up to 150"]),
    "a long number": (labels_of({"9" * 5000: "L1"}), [], ["no number a class"]),
    "labels of nobody": (
        lambda folder: participants(folder, "77\ta", "01\tn/a"),
        ["--label-column", "group"],
        ["no label of any image"],
    ),
    "an infinite label": (
        lambda folder: participants(folder, "01\tinf", "02\t1"),
        ["--label-column", "group", "--task", "regression"],
        ["line 2, group: found inf"],
    ),
    "dseg without image": (lost_dseg, [], ["no image to 1 (derivatives/sub-77_dseg.nii.gz)"]),
    "a series in two folders": (series_in_two_folders, [], ["series 1.2.1: found in 2 (copy, study0) folders"]),
    "pictures beside deep folders": (files("1.png", "a/b/c/2.png"), ["--by-image"], ["expected --layout flat, or a template"]),
    "labels alone as unlabelled": (
        files("1.png", "labels/2.png"),
        ["--by-image", "--layout", "flat", "--unlabelled", "labels"],
        ["no image in labels"],
    ),
    "number": (rows("0.png,a,P", "1.png,inf,P"), ["--task", "regression", "--table"], ["line 2, label", "line 3, label"]),
    "classes without numbers": (
        files("a/1.png", "a/2.png", "b/3.png"),
        ["--task", "regression", "--image", "{class}/{id}.png"],
        ["regression, expected classification, which the source has, or --values CLASS=NUMBER"],
    ),
    "a class without its number": (
        rows("0.png,mild,P", "1.png,well,Q", "2.png,severe,R"),
        ["--values", "mild=1", "--table"],
        ["no number for severe, expected severe=NUMBER", "no number for well, expected well=NUMBER"],
    ),
    "numbers of no class": (
        rows("0.png,mild,P", "1.png,well,Q"),
        ["--values", "milt=1", "well=nan", "mild=0", "mild=1", "2", "--table"],
        [
            "milt=1, expected mild=NUMBER, once",
            "well=nan, expected well=NUMBER, once",
            "mild twice, expected mild=NUMBER",
            "found 2, expected CLASS=NUMBER of mild, well",
        ],
    ),
    "numbers of numbers": (
        files("images/a.png", "images/b.png", "labels/a.png", "labels/b.png"),
        ["--by-image", "--values", "a=1"],
        ["--values: found a source for segmentation, expected one with classes"],
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_each_mistake_has_its_lines(tmp_path: Path, name: str) -> None:
    make, options, said = WRONG[name]
    make(tmp_path)
    options = [*options, str(tmp_path / "t.csv")] if options[-1:] == ["--table"] else options
    lines = refused(tmp_path, *options)
    assert len(lines) == len(said), lines
    for line, words in zip(lines, said, strict=True):
        assert words in line


def test_places(tmp_path: Path) -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    with pytest.raises(InputError) as caught:
        run(parser.parse_args([str(tmp_path / "a"), str(tmp_path / "b" / "c.json")]))
    assert len(caught.value.problems) == 2


def test_out_that_is_a_folder(tmp_path: Path) -> None:
    numbers(tmp_path)
    (tmp_path / "split.json").mkdir()
    for options in ([], ["--overwrite"]):
        with pytest.raises(InputError, match=r"split\.json: file: found a folder, expected a file"):
            split(tmp_path, "--by-image", *options)


def test_a_folder_that_cannot_be_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files("a/1.png", "b/2.png")(tmp_path)
    scan = os.scandir

    def refuse(place: str) -> object:
        if str(place).endswith("/b"):
            raise PermissionError(13, "Permission denied", str(place))
        return scan(place)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(InputError, match="/b: folder: found Permission denied"):
        split(tmp_path, "--by-image")


def excel(folder: Path) -> list[str]:
    numbers(folder)
    lines = [f"{i}.png;{'None' if i == 9 else 'ab'[i % 2]};{'anonymous' if i > 7 else i};1;;" for i in range(10)]
    text = "\n".join(["sep=;", "Image;LABEL;Patient;Split;;", *lines])
    (folder / "t.csv").write_text(text.replace(";1;;", ";1\x85\u20282;;", 1), encoding="utf-8")
    return ["--table", str(folder / "t.csv"), "--by-image"]


def stray(folder: Path) -> list[str]:
    class_folders(folder)
    files("about.png", "x.gif", "y.gif", "a.mha", "notes.txt", "LICENCE")(folder)
    return ["--by-image"]


def more_with_labels(folder: Path) -> list[str]:
    files(*(f"u/x{i}.png" for i in range(3)), "u/Masks/x1.png", "u/x1_mask_2.png", "u/x2_dseg.png")(folder)
    files(*(f"{c}/{c}{i}.png" for c in "ab" for i in range(9)))(folder)
    return ["--image", "a/{id}.png", "--by-image", "--unlabelled", "u"]


def alone_and_more(folder: Path) -> list[str]:
    numbers(folder)
    files("u/a.png")(folder)
    return ["--by-image", "--unlabelled", "u"]


def dropped(folder: Path) -> list[str]:
    images_labels(folder)
    volume(folder / "images" / "q_01.nii.gz", 7)
    return ["--patient", r"([pq]_\d+)", "--no-pretraining"]


def whole_numbers_as_participants(folder: Path) -> list[str]:
    participants(folder, *(f"{i:02d}\t{'ab'[i % 2]}" for i in range(8)), "08\tNaN")
    return ["--label-column", "Group"]


def uids(folder: Path) -> list[str]:
    dicom(folder)
    for i, path in enumerate(sorted(folder.glob("*/*.dcm"))):
        path.rename(path.with_name(f"1.2.840.{i}"))
    (folder / "study1" / "9.dcm").write_bytes(b"no DICOM")
    os.mkfifo(folder / "pipe")
    (folder / "gone").symlink_to(folder / "nowhere")
    return []


SAID: dict[str, tuple[Callable[[Path], list[str]], list[int], list[str]]] = {  # sizes of the parts, words of the summary
    "a table of Excel's": (
        excel,
        [7, 6, 1, 2],
        ["not used: 1 (Split); for the parts of Split: --columns part=Split", "taken for none: 1 that say None", "by image"],
    ),
    "stray pictures": (stray, [18, 18, 2, 10], ["not use: 1 (about.png)", "can't read: 2 .gif, 1 .mha, 1 no suffix\n"]),
    "labels among the unlabelled": (more_with_labels, [11, 0, 1, 0], ["no unlabelled images: 3 (u/Masks/x1.png, "]),
    "images alone and more": (alone_and_more, [10, 0, 1, 0], []),
    "no pre-training": (dropped, [0, 7, 1, 2], ["without a label: 1 (q_01)"]),
    "participants without sub-": (whole_numbers_as_participants, [7, 5, 1, 2], []),
    "DICOM with UIDs as names": (uids, [4, 0, 2, 0], ["left out: 1 file that can't be read (first one: "]),
}


@pytest.mark.parametrize("name", SAID)
def test_what_the_summary_says(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    make, expected, words = SAID[name]
    found = split(tmp_path, *make(tmp_path))
    out = capsys.readouterr().out
    assert sizes(found) == expected
    for said in words:
        assert said in out


def test_numbers_for_classes_make_a_regression(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of folders, of templates and of a table; a name may hold an equals sign, and rows without a class stay without."""
    for i in range(40):
        picture(tmp_path / ("train" if i < 20 else "test") / ("mild=a", "well")[i % 2] / f"{i}.png", i)
    values = ["--values", "well=0", "mild=a=0.5"]
    found = split(tmp_path, "--by-image", *values)
    assert (found.task, found.labels, sizes(found)) == ("regression", {}, [18, 18, 2, 20])
    for case in (*found.part("training"), *found.part("validation"), *found.part("test")):
        assert (case.label, type(case.label)) == (0.5 if case.image[0].parent.name == "mild=a" else 0.0, float)
    out = capsys.readouterr().out
    assert "class folders, as --image '{part}/{class}/{id}.*', numbers well 0, mild=a 0.5" in out
    assert [line.split() for line in out.splitlines() if line.startswith("test ")] == [["test", "20", "0", "0.25", "0.5"]]
    lines = [f"train/{('mild=a', 'well')[i % 2]}/{i}.png,{('mild=a', 'well', 'NA')[i % 3]},P{i}" for i in range(20)]
    (tmp_path / "t.csv").write_text("image,label,patient\n" + "\n".join(lines))
    table = split(tmp_path, "--table", str(tmp_path / "t.csv"), "--task", "regression", *values, "--overwrite")
    labelled = [case for part in PARTS[1:] for case in table.part(part)]
    assert (len(labelled), {case.label for case in labelled}) == (14, {0.0, 0.5})


def test_channels_are_counted_in_the_files(tmp_path: Path) -> None:
    for i in range(10):
        path = tmp_path / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(exist_ok=True)
        PIL.Image.fromarray(np.random.default_rng(i).integers(0, 255, (6, 7, 3), np.uint8)).save(path)
    found = split(tmp_path, "--by-image")
    assert found.modality == {0: "R", 1: "G", 2: "B"}
    assert check_split(found, deep=True) == []
    own = split(tmp_path, "--by-image", "--overwrite", "--modality", "x", "y", "z")
    assert list(own.modality.values()) == ["x", "y", "z"]


def test_a_slash_in_a_patient(tmp_path: Path) -> None:
    rows(*(f"{i}.png,{'ab'[i % 2]},P/{i}" for i in range(10)))(tmp_path)
    found = split(tmp_path, "--table", str(tmp_path / "t.csv"))
    assert {case.patient for case in found.part("training")} < {f"P-{i}" for i in range(10)}


def test_what_cannot_be_read_back_is_told_of_out(tmp_path: Path) -> None:
    class_folders(tmp_path)
    out = tmp_path / f"{'o' * 201}.json"
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    with pytest.raises(InputError) as caught:
        run(parser.parse_args([str(tmp_path), str(out), "--by-image"]))
    assert [problem.file for problem in caught.value.problems] == [str(out)]


def test_names_that_stdout_cannot_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files(*(f"{c}/{c}{i}.png" for c in ("é", "b") for i in range(9)))(tmp_path)
    with (tmp_path / "said.txt").open("w", encoding="ascii") as file:
        monkeypatch.setattr(sys, "stdout", file)
        split(tmp_path, "--by-image")
    assert "\\xe9" in (tmp_path / "said.txt").read_text()


def test_patients_as_folders_are_no_classes(tmp_path: Path) -> None:
    template(tmp_path)
    assert "no known one" in refused(tmp_path)[0]


def test_a_division_is_the_same_for_ever(tmp_path: Path) -> None:
    rows("0.png,a,P0", *(f"{i}.png,{'ab'[i % 2]},P{i}" for i in range(1, 10)))(tmp_path)
    found = split(tmp_path, "--table", str(tmp_path / "t.csv"))
    ids = {part: [case.id for case in found.part(part)] for part in PARTS[1:]}
    assert ids["validation"] + ids["test"] == ["6", "0", "3"]
    assert ids["training"][:3] == ["4", "9", "2"]
    text = (tmp_path / "split.json").read_text()
    header, *lines = (tmp_path / "t.csv").read_text().splitlines()
    (tmp_path / "t.csv").write_text("\n".join([header, *reversed(lines)]))
    split(tmp_path, "--table", str(tmp_path / "t.csv"), "--overwrite")
    assert (tmp_path / "split.json").read_text() == text  # whatever order the cases come in
    other = split(tmp_path, "--table", str(tmp_path / "t.csv"), "--seed", "1", "--overwrite")
    assert [case.id for case in other.part("training")] != ids["training"]


def test_unlabelled_images_and_no_pretraining(tmp_path: Path) -> None:
    for i in range(10):
        volume(tmp_path / "u" / f"p_{i:02d}b.nii.gz", 50 + i)
    options = [*images_labels(tmp_path)[:1], r"(p_\d+)", "--unlabelled", "u"]
    found = split(tmp_path, *options)
    held = {case.patient for part in ("validation", "test") for case in found.part(part)}
    assert sizes(found) == [14, 7, 1, 2]
    assert not held & {case.patient for case in found.part("pretraining")}
    assert check_split(found, deep=True) == []
    assert sizes(split(tmp_path, *options, "--no-pretraining", "--overwrite"))[0] == 0


def test_test_cases_without_a_label_are_in_no_part(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    numbers(tmp_path)
    lines = [f"{i}.png,{'' if i == 8 else 'ab'[i % 2]},P{i},{'test' if i > 6 else ''}" for i in range(10)]
    (tmp_path / "t.csv").write_text("image,label,patient,part\n" + "\n".join(lines))
    found = split(tmp_path, "--table", str(tmp_path / "t.csv"))
    assert sizes(found) == [6, 6, 1, 2]
    assert "without a label: 1 (8)" in capsys.readouterr().out


def test_a_class_of_one_patient_is_in_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows(*(f"{i}.png,{'c' if i > 7 else 'ab'[i % 2]},{'P8' if i > 7 else i}" for i in range(10)))(tmp_path)
    for seed in range(5):
        found = split(tmp_path, "--table", str(tmp_path / "t.csv"), "--overwrite", "--seed", str(seed))
        assert sum(case.label == 2 for case in found.part("training")) == 2
        assert "classes of a single patient, in one part only: 1 (c)" in capsys.readouterr().out


def test_out_is_not_replaced_by_what_cannot_be_read(tmp_path: Path) -> None:
    numbers(tmp_path)
    split(tmp_path, "--by-image")
    before = (tmp_path / "split.json").read_text()
    (tmp_path / ("x" * 210 + ".png")).touch()  # too long for an id
    with pytest.raises(InputError, match="200"):
        split(tmp_path, "--by-image", "--overwrite")
    assert (tmp_path / "split.json").read_text() == before
    assert not list(tmp_path.glob(".partial*"))
