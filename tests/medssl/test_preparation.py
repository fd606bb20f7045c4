"""What packing makes of a volume: against nibabel, numpy and loops over voxels."""

import dataclasses
from pathlib import Path

import made_files
import nibabel
import numpy as np
import pytest
from PIL import Image

from medssl.check import check_split, size_at
from medssl.fingerprints import Fingerprints
from medssl.preparation import Prepared, percentiles, prepare_case
from medssl.readers import read_header
from medssl.splits import Case, Split
from medssl.store import PERCENTILES, POSITIONS, Geometry

SPLIT = Split(Path("split.json"), "n", {0: "CT"}, "segmentation", {0: "background", 1: "one", 2: "two"}, {})
AFFINE = np.array([[0, -1.5, 0, 9], [0, 0, 2.0, -8], [3.0, 0, 0, 7], [0, 0, 0, 1]])  # stored as S, L, A


def prepared(folder: Path, image: nibabel.Nifti1Image, geometry: Geometry, label: np.ndarray | None = None) -> Prepared:
    """Write the files and prepare them as one case."""
    nibabel.save(image, folder / "image.nii")
    if label is not None:
        nibabel.save(nibabel.Nifti1Image(label, image.affine), folder / "label.nii")
    case = Case("a", "p", (folder / "image.nii",), None if label is None else folder / "label.nii")
    result = prepare_case(SPLIT, case, geometry, label is not None, Fingerprints(folder / "store.h5"))
    assert isinstance(result, Prepared), result
    return result


def real(result: Prepared) -> np.ndarray:
    """The intensities that are kept."""
    return result.arrays["image"].astype(np.float64) * result.attributes["slope"] + result.attributes["intercept"]


def test_orientation_is_nibabels(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    image = nibabel.Nifti1Image(random.integers(-9, 900, (5, 6, 7)).astype(np.int16), AFFINE)
    label = random.integers(0, 3, (5, 6, 7)).astype(np.uint8)
    result, expected = prepared(tmp_path, image, Geometry(3), label), nibabel.as_closest_canonical(image)
    assert np.array_equal(real(result)[0], expected.get_fdata())
    assert np.array_equal(
        result.arrays["label"][0], nibabel.as_closest_canonical(nibabel.Nifti1Image(label, AFFINE)).get_fdata()
    )
    np.testing.assert_allclose(result.attributes["affine"], expected.affine)
    assert result.attributes["spacing"] == [1.5, 2.0, 3.0]


def test_spacing_keeps_image_and_label_in_place(tmp_path: Path) -> None:
    """A ball of 10 mm stays where it was, in mm, in the image and in its label."""
    centre = np.array([-3.0, 8.0, 25.0])
    index = np.stack(np.meshgrid(*map(np.arange, (20, 30, 40)), [1], indexing="ij"), -1)[..., 0, :]
    away = np.linalg.norm((index @ AFFINE.T)[..., :3] - centre - np.array([-15.0, 20.0, 0]), axis=-1)
    ball = (away < 10).astype(np.int16)
    result = prepared(tmp_path, nibabel.Nifti1Image(ball * 1000, AFFINE), Geometry(3, (2.0, 2.0, 2.0)), ball.astype(np.uint8))
    assert result.attributes["spacing"] == [2.0, 2.0, 2.0]
    for array in (real(result)[0] > 500, result.arrays["label"][0] == 1):
        found = nibabel.affines.apply_affine(result.attributes["affine"], np.argwhere(array))
        np.testing.assert_allclose(found.mean(0), centre + np.array([-15.0, 20.0, 0]), atol=0.5)
        assert len(found) * 8 == pytest.approx(4 / 3 * np.pi * 10**3, rel=0.08)


def test_the_size_told_from_the_header_is_that_of_the_resampled_image(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for dims in [2, *[3] * 19]:
        affine, shape = np.diag(random.uniform(0.5, 3, 4)), random.integers(1, 20, dims)
        if dims == 3:  # turned and sheared
            affine[:3, :3] @= np.linalg.qr(random.normal(size=(3, 3)))[0]
            affine[:3, random.permutation(3)] += affine[:3, :3] @ random.uniform(-0.5, 0.5, (3, 3))
        image = nibabel.Nifti1Image(random.integers(0, 9, shape).astype(np.int16), affine)
        result = prepared(tmp_path, image, Geometry(dims, (1.5, 0.7, 2.2)[:dims]))
        assert size_at(read_header(tmp_path / "image.nii"), (1.5, 0.7, 2.2)[:dims]) == result.arrays["image"].shape[1:]


def test_the_border_is_cropped_to_what_lies_above(tmp_path: Path) -> None:
    array = np.full((9, 9, 9), -50, np.int16)
    array[2:5, 3:7, 4:6] = 10
    for slope in (1.0, -1.0):  # with a falling slope the object has the smaller stored numbers
        image = nibabel.Nifti1Image((array * slope).astype(np.int16), np.eye(4))
        image.header.set_slope_inter(slope, 0)
        result = prepared(tmp_path, image, Geometry(3, None, 0.0))
        assert np.array_equal(real(result)[0], np.full((3, 4, 2), 10))
        np.testing.assert_allclose(result.attributes["affine"][:3, 3], [2, 3, 4])


@pytest.mark.parametrize(
    ("dtype", "low", "high"),
    [
        ("uint8", 0, 255), ("int16", -32768, 32767), ("uint16", 0, 65535), ("int32", -(2**31), 2**31 - 1),
        ("uint32", 0, 2**31 - 1), ("int64", -9, 2**24 + 1), ("float32", -1e30, 1e30), ("float64", -2.5, 2.5),
    ],
)  # fmt: skip
def test_intensities_are_kept_exactly(tmp_path: Path, dtype: str, low: float, high: float) -> None:
    array = np.linspace(low, high, 4 * 5 * 6).reshape(4, 5, 6).astype(dtype)
    array[0, 0, 0], array[-1, -1, -1] = low, high
    result = prepared(tmp_path, nibabel.Nifti1Image(array, np.eye(4), dtype=dtype), Geometry(3))
    assert result.arrays["image"].itemsize <= 4
    expected = array.astype(np.float32) if dtype.startswith("float") else array
    assert np.array_equal(real(result)[0], expected.astype(np.float64))


@pytest.mark.parametrize("dtype", ["uint32", "int64"])
def test_huge_integers_are_rounded_and_not_wrapped(tmp_path: Path, dtype: str) -> None:
    array = np.linspace(0, 2**32 - 1, 60).reshape(3, 4, 5).astype(dtype)
    result = prepared(tmp_path, nibabel.Nifti1Image(array, np.eye(4), dtype=dtype), Geometry(3))
    np.testing.assert_allclose(real(result)[0], array.astype(np.float64), rtol=1e-7)


def test_positions_are_of_their_class_and_of_the_foreground(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    image = nibabel.Nifti1Image(random.normal(size=(40, 40, 40)).astype(np.float32), np.eye(4))
    label = np.zeros((40, 40, 40), np.uint8)
    label[3, 4, 5] = 2  # no voxel of class 1, and one of class 2
    result = prepared(tmp_path, image, Geometry(3), label)
    assert set(result.arrays) == {"image", "label", "positions-foreground", "positions-0", "positions-2"}
    assert result.arrays["positions-2"].tolist() == [[3, 4, 5]]
    foreground = result.arrays["positions-foreground"]
    assert POSITIONS / 2 < len(foreground) == len({tuple(p) for p in foreground.tolist()}) <= POSITIONS
    assert (real(result)[0][tuple(foreground.T)] > image.get_fdata().mean()).all()


def test_a_picture_that_is_wider_than_a_short_integer(tmp_path: Path) -> None:
    pixels = np.zeros((4, 40_000), np.uint8)
    pixels[:, 39_000:] = 9
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    result = prepare_case(SPLIT, Case("a", "p", (tmp_path / "wide.png",)), Geometry(2), False, Fingerprints(tmp_path / "s.h5"))
    assert isinstance(result, Prepared)
    assert np.array_equal(result.arrays["image"][0], pixels)
    assert (result.arrays["positions-foreground"][:, 1] >= 39_000).all()


@pytest.mark.parametrize("values", [np.arange(7), np.random.default_rng(0).normal(size=(3, 50, 7)), np.ones(1)])
def test_percentiles_are_numpys(values: np.ndarray) -> None:
    np.testing.assert_allclose(percentiles(values.astype(np.float32)), np.percentile(values, PERCENTILES), rtol=1e-5, atol=1e-6)


def test_a_folder_is_its_visible_files_and_the_series_that_is_asked_for(tmp_path: Path) -> None:
    folder = tmp_path / "d"
    (folder / "below").mkdir(parents=True)
    (folder / "1.dcm").write_bytes(b"one")
    fingerprints = Fingerprints(tmp_path / "s.h5")
    before = fingerprints.of(folder)
    (folder / ".DS_Store").write_bytes(b"x")
    (folder / "below" / "x").write_bytes(b"x")
    assert fingerprints.of(folder) == before != ""
    assert len({before, fingerprints.of(tmp_path / "d#1.2"), fingerprints.of(tmp_path / "d#1.3")}) == 3
    (folder / "2.dcm").write_bytes(b"two")
    assert fingerprints.of(folder) != before
    assert fingerprints.of(tmp_path / "nowhere") == ""


@pytest.mark.parametrize("text", ["", "[]", "null", "{", '{"a": 1}'])
def test_what_is_remembered_may_be_lost(tmp_path: Path, text: str) -> None:
    (tmp_path / "s.fingerprints.json").write_text(text)
    (tmp_path / "a").write_bytes(b"a")
    fingerprints = Fingerprints(tmp_path / "s.h5")
    digest = fingerprints.of(tmp_path / "a")
    fingerprints.save()
    assert Fingerprints(tmp_path / "s.h5").known[str(tmp_path / "a")][1] == digest


def test_a_png_mask_of_a_dicom_picture(tmp_path: Path) -> None:
    """The mask can't say where it lies, so it lies where its image does."""
    random = np.random.default_rng(0)
    pixels, mask = random.integers(0, 900, (30, 40)).astype(np.int16), random.integers(0, 3, (30, 40)).astype(np.uint8)
    made_files.dicom(tmp_path / "chest.dcm", pixels, PixelSpacing=[0.5, 0.5])
    Image.fromarray(mask).save(tmp_path / "mask.png")
    case = Case("a", "p", (tmp_path / "chest.dcm",), tmp_path / "mask.png")
    split = dataclasses.replace(SPLIT, parts={"test": (case,)})
    assert check_split(split, spatial_dims=2, deep=True) == []
    result = prepare_case(split, case, Geometry(2, (0.5, 0.5)), True, Fingerprints(tmp_path / "s.h5"))
    assert isinstance(result, Prepared)
    assert np.array_equal(result.arrays["label"][0], mask)
    assert result.arrays["image"].shape == (1, 30, 40)


def test_a_mask_darkens_what_the_label_marks_and_keeps_no_label(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    array = random.integers(-50, 900, (12, 10)).astype(np.int16)
    tumour = np.zeros((12, 10), np.uint8)
    tumour[3:6, 2:5] = 2
    for name, content in (("image", array), ("label", tumour)):
        np.save(tmp_path / f"{name}.npy", content)
    case = Case("a", "p", (tmp_path / "image.npy",), tmp_path / "label.npy")
    result = prepare_case(SPLIT, case, Geometry(2, mask="label"), False, Fingerprints(tmp_path / "s.h5"))
    assert isinstance(result, Prepared), result
    assert np.array_equal(result.arrays["image"][0], np.where(tumour > 0, array.min(), array))
    assert "label" not in result.arrays
    assert len(result.attributes["files"]) == 2  # a changed label prepares the image again
    whole = prepare_case(SPLIT, case, Geometry(2), False, Fingerprints(tmp_path / "s.h5"))
    assert whole.attributes["content"] == result.attributes["content"]  # type: ignore[union-attr]  # a leak is still seen
    bare = prepare_case(SPLIT, dataclasses.replace(case, label=None), Geometry(2, mask="label"), False, Fingerprints(tmp_path))
    assert [str(problem) for problem in bare] == [  # type: ignore[union-attr]
        f"{tmp_path / 'image.npy'}: label: found none, expected a segmentation of what mask=label hides"
    ]


def test_a_brain_is_left_of_a_head(tmp_path: Path) -> None:
    away = np.hypot(*np.meshgrid(np.linspace(-1, 1, 96), np.linspace(-1, 1, 96), indexing="ij"))
    head = np.select([away < 0.6, away < 0.75, away < 0.9], [180, 20, 220], 5).astype(np.uint8)  # brain, skull, scalp
    np.save(tmp_path / "head.npy", head)
    case = Case("a", "p", (tmp_path / "head.npy",))
    result = prepare_case(SPLIT, case, Geometry(2, mask="brain"), False, Fingerprints(tmp_path / "s.h5"))
    left = result.arrays["image"][0] > 100  # type: ignore[union-attr]
    assert 2 * (left & (away < 0.6)).sum() / (left.sum() + (away < 0.6).sum()) > 0.95


def test_images_are_resized_to_fit(tmp_path: Path) -> None:
    np.save(tmp_path / "wide.npy", np.repeat([100, 700], [30, 90]).astype(np.int16)[None].repeat(60, 0))
    case = Case("a", "p", (tmp_path / "wide.npy",))
    result = prepare_case(SPLIT, case, Geometry(2, fit=(64, 64)), False, Fingerprints(tmp_path / "s.h5"))
    assert isinstance(result, Prepared)
    assert result.arrays["image"].shape == (1, 32, 64)
    assert result.arrays["image"].dtype == np.int16
    assert (result.arrays["image"][..., :14] == 100).all()  # a quarter of the width
    assert (result.arrays["image"][..., 18:] == 700).all()


def test_a_grey_picture_among_coloured_ones_has_three_equal_channels(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    Image.fromarray(random.integers(0, 255, (8, 9), dtype=np.uint8)).save(tmp_path / "grey.png")
    Image.fromarray(random.integers(0, 255, (8, 9, 3), dtype=np.uint8)).save(tmp_path / "colour.png")
    cases = tuple(Case(name, name, (tmp_path / f"{name}.png",)) for name in ("grey", "colour"))
    split = Split(tmp_path / "s.json", "n", {0: "R", 1: "G", 2: "B"}, "classification", {}, {"pretraining": cases})
    assert check_split(split) == []
    grey, colour = (prepare_case(split, case, Geometry(2), False, Fingerprints(tmp_path / "s.h5")) for case in cases)
    assert isinstance(grey, Prepared)
    assert isinstance(colour, Prepared)
    assert grey.arrays["image"].shape == colour.arrays["image"].shape == (3, 8, 9)
    assert (grey.arrays["image"] == np.asarray(Image.open(tmp_path / "grey.png"))).all()
    assert len(grey.attributes["percentiles"]) == 3
