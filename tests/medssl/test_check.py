"""Every way in which a split or a file can be wrong is found in one pass, with one line; good data gives none."""

import gzip
import json
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_files import nifti
from PIL import Image

from medssl.check import check_split, check_volume
from medssl.problems import InputError, Problem
from medssl.readers import Volume
from medssl.splits import read_split

SHAPE = (6, 7, 8)
Content = dict[str, Any]
Defect = Callable[[Path, Content], None]


def image(seed: int, dtype: str = "int16", shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return np.random.default_rng(seed).integers(-100, 300, shape).astype(dtype)


def save(path: Path, array: np.ndarray, **changes: tuple[int, str, tuple[float, ...]]) -> None:
    path.write_bytes(gzip.compress(nifti(array, **changes)))


@pytest.fixture
def good(tmp_path: Path) -> tuple[Path, Content]:
    """A folder of 6 cases; a is in pre-training and in training."""
    content: Content = {
        "name": "good",
        "modality": {"0": "CT"},
        "labels": {"0": "background", "1": "spleen"},
        "pretraining": [{"id": "a", "image": "a.nii.gz"}, {"id": "b", "image": "b.nii.gz"}],
    }
    for seed, name in enumerate("abcdef"):
        save(tmp_path / f"{name}.nii.gz", image(seed))
        save(tmp_path / f"{name}_label.nii.gz", (image(seed + 9) > 0).astype(np.uint8))
    for part, names in (("training", "ac"), ("validation", "d"), ("test", "ef")):
        content[part] = [{"id": n, "image": f"{n}.nii.gz", "label": f"{n}_label.nii.gz"} for n in names]
    return tmp_path, content


def found(folder: Path, content: Content | bytes, **options: Any) -> list[Problem]:
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    (folder / "split.json").write_bytes(text)
    try:
        return check_split(read_split(folder / "split.json"), deep=True, **options)
    except InputError as error:
        return error.problems


def edit(*path: Any, to: Any) -> Defect:
    def defect(_: Path, content: Content) -> None:
        for key in path[:-1]:
            content = content[key]
        content[path[-1]] = to

    return defect


def rename(old: str, new: str) -> Defect:
    def defect(_: Path, content: Content) -> None:
        case = content["training"][1]
        case[new] = case.pop(old)

    return defect


def put(name: str, array: np.ndarray, **changes: tuple[int, str, tuple[float, ...]]) -> Defect:
    return lambda folder, _: save(folder / f"{name}.nii.gz", array, **changes)


def data(name: str, change: Callable[[bytes], bytes]) -> Defect:
    def defect(folder: Path, _: Content) -> None:
        file = folder / f"{name}.nii.gz"
        file.write_bytes(change(file.read_bytes()))

    return defect


def replaced(name: str, make: Callable[[Path], object]) -> Defect:
    def defect(folder: Path, _: Content) -> None:
        (folder / f"{name}.nii.gz").unlink()
        make(folder / f"{name}.nii.gz")

    return defect


def with_voxel(value: float) -> np.ndarray:
    array = image(2, "float32")
    array[1, 2, 3] = value
    return array


def flipped(raw: bytes) -> bytes:
    middle = len(raw) // 2
    return raw[:middle] + bytes([raw[middle] ^ 4]) + raw[middle + 1 :]


def both(*defects: Defect) -> Defect:
    def defect(folder: Path, content: Content) -> None:
        for each in defects:
            each(folder, content)

    return defect


def copied(folder: Path, _: Content) -> None:
    array = image(0, "float32")  # the content of a, in training, in another type and under another name
    save(folder / "f.nii.gz", array)


LABEL = (image(11) > 0).astype(np.uint8)
DEFECTS: dict[str, tuple[Defect, str]] = {
    # the split
    "misspelt key": (rename("image", "imgae"), "image (nearest valid key)"),
    "unknown key": (edit("zzz", to=1), "unknown key"),
    "misspelt part": (edit("trainig", to=[]), "trainig"),
    "part is no list": (edit("test", to={}), "list of cases"),
    "case is a number": (edit("training", 1, to=3), "training[1]"),
    "image is a number": (edit("training", 1, "image", to=3), "training[1].image"),
    "image is empty": (edit("training", 1, "image", to=""), "training[1].image"),
    "path leaves the root": (edit("training", 1, "image", to="../c.nii.gz"), "inside the data root"),
    "path leaves by a detour": (edit("training", 1, "label", to="x/../../c.nii.gz"), "inside the data root"),
    "absolute path": (edit("training", 1, "image", to="/c.nii.gz"), "inside the data root"),
    "label is a number": (edit("training", 1, "label", to=1), "training[1].label"),
    "label is the image": (edit("training", 1, "label", to="c.nii.gz"), "the image itself"),
    "no label": (edit("training", 1, "label", to=None), "without a label"),
    "fold is text": (edit("training", 1, "fold", to="1"), "fold"),
    "id with a slash": (edit("training", 1, "id", to="x/y"), "slash"),
    "unknown task": (edit("task", to="detection"), "segmentation"),
    "labels skip a number": (edit("labels", to={"0": "background", "2": "spleen"}), "0 to 1"),
    "labels are a list": (edit("labels", to=["background", "spleen"]), "labels"),
    "two classes of one name": (edit("labels", "1", to="background"), "name of its own"),
    "image twice in a part": (edit("test", 1, "image", to="e.nii.gz"), "test[0]"),
    "image in two parts": (edit("test", 0, "image", to="./c.nii.gz"), "training[1]"),
    "pre-training image in the test": (edit("test", 0, "image", to="b.nii.gz"), "pretraining[1]"),
    "id twice": (edit("test", 1, "id", to="e"), "test[0]"),
    "id of two images": (edit("pretraining", 1, "id", to="c"), "pretraining[1]"),
    "patient in two parts": (
        both(edit("training", 1, "patient", to="P1"), edit("test", 0, "patient", to="P1")),
        "one part only",
    ),
    "patient in two parts, but for the case": (
        both(edit("training", 1, "patient", to="Pé1"), edit("test", 0, "patient", to="pE\u03011 ")),
        "one part only",
    ),
    "pre-training patient in validation": (
        both(edit("pretraining", 1, "patient", to=7), edit("validation", 0, "patient", to="7")),
        "one part only",
    ),
    # files
    "missing file": (replaced("c", lambda path: None), "No such file"),
    "missing label": (replaced("c_label", lambda path: None), "No such file"),
    "a name that no file can have": (edit("training", 1, "image", to="c\ud800.nii.gz"), "a name that no file can have"),
    "folder": (replaced("c", Path.mkdir), "a folder"),
    "named pipe": (replaced("c", os.mkfifo), "no plain file"),
    "empty file": (replaced("c", Path.touch), "0 bytes"),
    "no image": (data("c", lambda raw: b"hello" * 99), "Not a gzipped file"),
    "no image inside": (data("c", lambda raw: gzip.compress(b"hello" * 99)), "NIfTI"),
    "unknown format": (edit("training", 1, "image", to="split.json"), ".nii.gz"),
    "cut gzip": (data("c", lambda raw: raw[:-99]), "end-of-stream"),
    "flipped bit": (data("c", flipped), "broken file"),
    "wrong checksum": (data("c", lambda raw: raw[:-8] + b"abcd" + raw[-4:]), "CRC"),
    "fewer voxels than declared": (
        data("c", lambda raw: gzip.compress(gzip.decompress(raw)[:-9])),
        "as its header says",
    ),
    "more bytes than declared": (
        data("c", lambda raw: gzip.compress(gzip.decompress(raw) + bytes(2**21))),
        "after the voxels",
    ),
    "claims to be huge": (put("c", image(2), dim=(40, "8h", (3, 32767, 32767, 9, 1, 1, 1, 1))), "at most"),
    "claims more than a gzip can hold": (put("c", image(2), dim=(42, "3h", (999, 999, 99))), "as its header says"),
    # headers
    "NaN in the affine": (put("c", image(2), srow=(280, "f", (np.nan,))), "NaN"),
    "singular affine": (put("c", image(2), srow=(280, "3f", (0, 1, 0))), "singular"),
    "zero spacing": (
        put("c", image(2), codes=(252, "2h", (0, 0)), pixdim=(80, "3f", (0, 1, 1))),
        "spacing: found 0x1x1 mm",
    ),
    "negative spacing": (
        put("c", image(2), codes=(252, "2h", (1, 0)), pixdim=(80, "3f", (1, -1, 1))),
        "spacing: found 1x-1x1 mm",
    ),
    "NaN spacing": (
        put("c", image(2), codes=(252, "2h", (0, 0)), pixdim=(80, "3f", (1, 1, np.nan))),
        "spacing: found 1x1xnan mm",
    ),
    "zero rows of the affine": (put("c", image(2), srow=(280, "4f", (0, 0, 0, 0))), "singular"),
    "complex": (put("c", image(2, "complex64")), "complex64"),
    "zero-size": (put("c", image(2), dim=(42, "h", (0,))), "at least one voxel"),
    "negative size": (put("c", image(2), dim=(42, "h", (-6,))), "at least one voxel"),
    "4-D that is not declared": (
        put("c", image(2, shape=(*SHAPE, 2))),
        "found 2 (2 volumes along the fourth axis), expected 1, as many as modality names",
    ),
    "5-D": (put("c", image(2, shape=(*SHAPE, 2, 2))), "2 or 3, and a fourth"),
    "4-D label": (put("c_label", image(11, "uint8", (*SHAPE, 2)) % 2), "1 for a label"),
    "1-D": (put("c", image(2, shape=(336,))), "2 or 3"),
    "no axes": (put("c", image(2), dim=(40, "h", (99,))), "axes"),
    "unknown voxel type": (put("c", image(2), code=(70, "h", (77,))), "code 77"),
    "colour volume": (put("c", image(2), code=(70, "2h", (128, 24))), "colours"),
    "infinite slope": (put("c", image(2), slope=(112, "f", (np.inf,))), "infinity"),
    "offset before the end of the header": (put("c", image(2), offset=(108, "f", (12,))), "vox_offset"),
    "2-D among volumes": (put("c", image(2, shape=(6, 7))), "axes"),
    "too few channels": (edit("training", 1, "image", to=["c.nii.gz", "c_2.nii.gz"]), "c_2.nii.gz"),
    "another shape in the label": (put("c_label", LABEL[:-1]), "6x7x8"),
    "another affine in the label": (put("c_label", LABEL, srow=(292, "f", (9,))), "position"),
    # voxels
    "NaN voxel": (put("c", with_voxel(np.nan)), "1 NaN"),
    "infinite voxel": (put("c", with_voxel(-np.inf)), "1 infinite"),
    "beyond float32": (put("c", with_voxel(1).astype("float64") * 1e39), "float32"),
    "constant": (put("c", np.full(SHAPE, 3, np.int16)), "3 everywhere"),
    "NaN in the label": (put("c_label", LABEL.astype("float32") * np.nan), "NaN"),
    "half a class": (put("c_label", LABEL * np.float32(0.5)), "whole numbers"),
    "half a class by slope": (put("c_label", LABEL, slope=(112, "f", (0.5,))), "whole numbers"),
    "class outside": (put("c_label", LABEL * np.uint8(5)), "class 5"),
    "negative class": (put("c_label", -LABEL.astype("int16")), "class -1"),
    "background only": (put("c_label", LABEL * np.uint8(0)), "background only"),
    "content in two folds": (
        both(
            edit("pretraining", to=[]),
            edit("training", 0, "fold", to=0),
            edit("training", 1, "fold", to=1),
            put("c", image(0, "float32")),
        ),
        "the voxels of a in fold 0 of training, expected fold 1 of training to share none",
    ),
    "content in two parts": (copied, "voxels of a in"),
}


@pytest.mark.parametrize("name", DEFECTS)
def test_each_defect_is_one_line(name: str, good: tuple[Path, Content]) -> None:
    defect, said = DEFECTS[name]
    folder, content = good
    defect(folder, content)
    problems = found(folder, content)
    assert len(problems) == 1, problems
    line = str(problems[0])
    assert said in line
    assert len(line) <= 300
    assert line.isprintable()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "JSON"),
        (b"{", "JSON"),
        (b"\xff\xfe", "JSON"),
        (b"[]", "a JSON object"),
        (b"{}", "some in"),
        (b'{"test": []}', "some in"),
        (b'{"test": ["a.nii.gz"], "test": ["a.nii.gz"]}', "twice"),
        (b'{"test": [{"image": "a.nii.gz", "image": "b.nii.gz"}]}', "twice"),
        (b'{"test": [{"image": "a.nii.gz", "fold": NaN}]}', "NaN"),
        (b"[" * 100_000, "JSON"),
        (b'{"test": [{"image": "a.nii.gz", "fold": ' + b"1" * 5000 + b"}]}", "JSON"),
    ],
)
def test_what_is_no_split_is_one_line(text: bytes, said: str, good: tuple[Path, Content]) -> None:
    problems = found(good[0], text)
    assert len(problems) == 1, problems
    assert said in str(problems[0])


def test_good_files_give_nothing(good: tuple[Path, Content]) -> None:
    folder, content = good
    assert found(folder, content, spatial_dims=3, smallest=SHAPE) == []
    shutil.copy(folder / "a.nii.gz", folder / "b.nii.gz")  # pre-training may hold what training holds
    save(folder / "c.nii.gz", image(2), pixdim=(80, "3f", (7, 7, 7)), qform=(252, "h", (0,)))
    assert found(folder, content, image_parts=("pretraining", "validation", "test")) == []


def test_all_problems_in_one_pass(good: tuple[Path, Content]) -> None:
    folder, content = good
    for name in ("NaN voxel", "missing label", "content in two parts"):
        DEFECTS[name][0](folder, content)
    put("d", image(3), srow=(280, "f", (np.nan,)))(folder, content)
    problems = found(folder, content)
    assert sorted(Path(problem.file).name[0] for problem in problems) == ["c", "d", "f"]  # one of c's two


def test_size_is_measured_at_the_spacing_in_ras_order(good: tuple[Path, Content]) -> None:
    folder, content = good
    assert found(folder, content, smallest=(6, 7, 15), spacing=(1, 1, 1)) == []
    assert len(found(folder, content, smallest=(6, 7, 16), spacing=(1, 1, 1))) == 6
    assert len(found(folder, content, smallest=(7,))) == 6
    for name in "abcdef":  # now the first stored axis runs from feet to head
        for file in (f"{name}.nii.gz", f"{name}_label.nii.gz"):
            raw = gzip.decompress((folder / file).read_bytes())
            rows = struct.pack("<12f", 0, 1, 0, 0, 0, 0, -1, 0, 2, 0, 0, 0)
            (folder / file).write_bytes(gzip.compress(raw[:280] + rows + raw[328:]))
    assert found(folder, content, smallest=(7, 8, 11), spacing=(1, 1, 1)) == []


def test_labels_of_image_parts_are_not_read(good: tuple[Path, Content]) -> None:
    folder, content = good
    content["pretraining"][1]["label"] = "nowhere.nii.gz"
    (folder / "d_label.nii.gz").unlink()
    assert len(found(folder, content)) == 1
    assert found(folder, content, image_parts=("pretraining", "validation")) == []
    assert found(folder, content, parts=("training", "test")) == []


def test_pictures_are_checked_by_the_same_rules(tmp_path: Path) -> None:
    content: Content = {
        "modality": dict.fromkeys("012", "RGB"),
        "labels": {"0": "background", "1": "lesion"},
        "test": [],
    }
    for seed in range(3):
        pixels = np.random.default_rng(seed).integers(0, 255, (9, 8, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{seed}.png")
        Image.fromarray((pixels[..., 0] > 99).astype(np.uint8)).save(tmp_path / f"{seed}_label.png")
        content["test"].append({"image": f"{seed}.png", "label": f"{seed}_label.png"})
    assert found(tmp_path, content) == []
    Image.fromarray(np.full((9, 8), 255, np.uint8)).save(tmp_path / "0_label.png")
    Image.fromarray(pixels[..., 0]).save(tmp_path / "1.png")
    (tmp_path / "2.png").write_bytes((tmp_path / "2.png").read_bytes()[:-40])
    said = ["class 255", "3, as many as modality names", "broken picture"]
    assert all(text in str(problem) for text, problem in zip(said, found(tmp_path, content), strict=True))


def test_check_volume_compares_shapes(good: tuple[Path, Content]) -> None:
    folder, content = good
    (folder / "split.json").write_text(json.dumps(content))
    split = read_split(folder / "split.json")
    case = split.part("training")[0]
    volume = Volume(image(0)[None], 1.0, 0.0, np.eye(4))
    label = Volume(LABEL[None, :, :, 1:], 1.0, 0.0, np.eye(4))
    assert [problem.field for problem in check_volume(case, volume, label, split)] == ["shape"]
