"""What is predicted from files is what judging saw; geometry, ensembles and flips change nothing that they should not."""

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from made_files import ENHANCED_CT, SERIES, enhanced, series, write
from nibabel import orientations

from medssl.cli import main
from medssl.evaluate import dice
from medssl.prediction.dicom_seg import segmentation_of
from medssl.prediction.model import Model, differences, load_model, load_models
from medssl.prediction.predict import Limits, Options, Prediction, Segmented, Told, predict_case
from medssl.problems import InputError
from medssl.readers import read_image
from medssl.scores.calibration import tempered
from medssl.scores.classes import read_predictions
from medssl.scores.numbers import read_estimates
from medssl.splits import Case, read_split
from networks.transfer import read_weights


def cases_of(run: Path, model: Model, part: str = "test") -> list[Case]:
    """The cases that a run was judged on."""
    config = json.loads((run / "config.json").read_text())
    return list(read_split(config["split"]).part(part))


def labels_of(prediction: Prediction) -> np.ndarray:
    assert isinstance(prediction.found, Segmented)
    return prediction.found.labels


def image_of(folder: Path, array: np.ndarray, affine: np.ndarray, name: str = "image.nii.gz") -> Case:
    folder.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(array, affine), folder / name)
    return Case("image", "", (folder / name,))


def test_dice_is_what_judging_saw(segmenter: Path, model: Model) -> None:
    with (segmenter / "predictions.csv").open() as file:
        judged = {(row["case"], row["class"]): float(row["dice"]) for row in csv.DictReader(file)}
    numbers = {name: k for k, name in model.labels.items()}
    assert len({value for value in judged.values() if value > 0}) > 2
    for case in cases_of(segmenter, model):
        found = labels_of(predict_case([model], case))
        truth = read_image(str(case.label), label=True).array[0]
        for (name, organ), value in judged.items():
            if name == case.id:
                assert dice(found, truth, [numbers[organ]])[0] == value


def test_probabilities_are_those_of_judging_bit_for_bit(classifier: Path) -> None:
    model = load_model(classifier, "cpu", 1)
    assert model.temperature is not None
    _, judged = read_predictions(classifier / "predictions.csv")
    found = {case.id: predict_case([model], case).found for case in cases_of(classifier, model)}
    assert found.keys() == {row.case for row in judged}
    for row in judged:
        told = found[row.case]
        assert isinstance(told, Told)
        assert told.raw == row.probabilities
        assert told.predicted == row.predicted
        assert told.calibrated
        assert told.probabilities == tuple(tempered(np.array(row.probabilities), model.temperature))
        assert told.saliency is not None
        assert told.saliency.map.shape == (32, 32)


def test_numbers_are_those_of_judging(regressor: Path) -> None:
    model = load_model(regressor, "cpu", 1)
    found = {case.id: predict_case([model], case).found for case in cases_of(regressor, model)}
    for row in read_estimates(regressor / "predictions.csv"):
        assert found[row.case].predicted == row.predicted  # type: ignore[union-attr]


@pytest.mark.parametrize("run", ["segmenter", "resampler"])
@pytest.mark.parametrize("codes", ["LPS", "AIR"])
def test_a_volume_stored_another_way_has_the_same_labels(
    run: str, codes: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    model = load_model(request.getfixturevalue(run), "cpu", 1)
    case = cases_of(request.getfixturevalue(run), model)[0]
    image = nibabel.as_closest_canonical(nibabel.load(case.image[0]))
    array, affine = np.asarray(image.dataobj)[:, :40], image.affine
    straight = predict_case([model], image_of(tmp_path / "a", array, affine))
    turn = orientations.ornt_transform(orientations.io_orientation(affine), orientations.axcodes2ornt(codes))
    turned = orientations.apply_orientation(array, turn)
    matrix = affine @ orientations.inv_ornt_aff(turn, array.shape)
    other = predict_case([model], image_of(tmp_path / "b", turned, matrix))
    assert len(np.unique(labels_of(straight))) > 2
    assert np.array_equal(other.grid.affine, matrix)
    same = orientations.apply_orientation(labels_of(straight), turn) == labels_of(other)
    assert same.mean() == 1 if run == "segmenter" else same.mean() > 0.999  # MONAI resamples flipped axes to rounding


def test_a_dicom_series_gives_what_its_nifti_does(model: Model, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(-200, 400, (20, 33, 40)).astype(np.int16)  # (slice, row, column)
    series(tmp_path / "series", pixels)
    volume = read_image(tmp_path / "series")
    of_series = predict_case([model], Case("s", "", (tmp_path / "series",)))
    of_nifti = predict_case([model], image_of(tmp_path, volume.array[0], volume.affine))
    assert labels_of(of_series).shape == (40, 33, 20)
    assert len(np.unique(labels_of(of_series))) > 1
    assert np.array_equal(labels_of(of_series), labels_of(of_nifti))


def test_the_dicom_segmentation_of_an_enhanced_image_lies_where_it_was_found(model: Model, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(-200, 400, (3, 33, 40)).astype(np.int16)
    person = dict.fromkeys(("PatientName", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID"), "")
    person |= {"AccessionNumber": "", "ReferringPhysicianName": "", "FrameOfReferenceUID": "1.2.9"}
    places = [[-100.0, -80.0, z] for z in (40.0, 30.0, 35.0)]
    write(tmp_path / "a.dcm", enhanced(pixels, places, SOPClassUID=ENHANCED_CT, **person))
    prediction = predict_case([model], Case("a", "", (tmp_path / "a.dcm",)))
    labels = np.zeros((40, 33, 3), np.uint8)
    labels[5:9, 5:9, 0] = 1  # the lowest slice
    found = segmentation_of(prediction, Segmented(labels, {}), model)
    (frame,) = found.PerFrameFunctionalGroupsSequence
    assert frame.PlanePositionSequence[0].ImagePositionPatient == places[1]


def test_a_run_together_with_itself_is_the_run(segmenter: Path, resampler: Path, classifier: Path) -> None:
    for run in (segmenter, resampler, classifier):
        models = load_models([run, run], "cpu", 1)
        case = cases_of(run, models[0])[0]
        one, two = predict_case(models[:1], case).found, predict_case(models, case).found
        if isinstance(one, Told):
            assert (one.probabilities, one.predicted) == (two.probabilities, two.predicted)  # type: ignore[union-attr]
        else:
            assert (one.labels == two.labels).mean() > 0.9999  # type: ignore[union-attr]


def test_runs_of_other_training_cases_are_an_ensemble_of_numbers(regressor: Path) -> None:
    one = load_model(regressor, "cpu", 1)
    targets = {name: number + 1 for name, number in one.description["targets"].items()}
    two = replace(one, description=one.description | {"targets": targets})
    assert differences(one, two) == []
    case = cases_of(regressor, one)[0]
    alone = [predict_case([model], case).found for model in (one, two)]
    together = predict_case([one, two], case).found
    assert isinstance(together, Told)
    assert together.each == tuple(found.predicted for found in alone)  # type: ignore[union-attr]
    assert together.each[0] != together.each[1]


def test_runs_that_differ_are_no_ensemble(segmenter: Path, resampler: Path, classifier: Path) -> None:
    with pytest.raises(InputError) as error:
        load_models([segmenter, resampler], "cpu", 1)
    assert {problem.field for problem in error.value.problems} == {"spacing", "foreground_above"}
    with pytest.raises(InputError) as error:
        load_models([segmenter, classifier], "cpu", 1)
    assert {"task", "labels", "modality", "crop_size", "intensity"} <= {problem.field for problem in error.value.problems}


def test_flips_make_the_answer_turn_with_the_image(segmenter: Path, tmp_path: Path) -> None:
    model = load_model(segmenter, "cpu", 1)
    case = cases_of(segmenter, model)[0]
    array = np.asarray(nibabel.load(case.image[0]).dataobj)[:32, 8:40, 8:40]  # one window
    affine = np.diag([1.5, 1.5, 2.0, 1.0])

    def predicted(array: np.ndarray, flips: bool) -> np.ndarray:
        return labels_of(predict_case([model], image_of(tmp_path, array, affine), Options(flips=flips)))

    mirrored = array[::-1, :, ::-1]
    assert (predicted(mirrored, False) != predicted(array, False)[::-1, :, ::-1]).mean() > 0.01
    assert (predicted(mirrored, True) == predicted(array, True)[::-1, :, ::-1]).mean() > 0.9999


def test_several_windows_are_told(model: Model, segmenter: Path) -> None:
    seen: list[tuple[int, int]] = []
    predict_case([model], cases_of(segmenter, model)[0], progress=lambda *done: seen.append(done))
    assert seen == [(2, 8), (4, 8), (6, 8), (8, 8)]
    halves = replace(model, settings=model.settings.model_copy(update={"accumulate": 2}))
    seen.clear()
    predict_case([halves], cases_of(segmenter, model)[0], progress=lambda *done: seen.append(done))
    assert seen == [(k, 8) for k in range(1, 9)]


def test_limits_are_kept_from_the_header(resampler: Path, tmp_path: Path) -> None:
    model = load_model(resampler, "cpu", 1)
    case = image_of(tmp_path, np.zeros((4, 4, 4), np.int16), np.diag([900.0, 900.0, 900.0, 1.0]))
    for limits, field in ((Limits(voxels=63), "64 voxels"), (Limits(prepared=10**6), "voxels at")):
        with pytest.raises(InputError, match=field):
            predict_case([model], case, limits=limits)
    sheared = np.array([[2.0, 0, 0, 0], [0, 2.0, 1.99, 0], [0, 0, 0.2, 0], [0, 0, 0, 1]])  # thin, but wide once upright
    case = image_of(tmp_path, np.zeros((8, 8, 512), np.int16), sheared)
    fitted = replace(model, settings=model.settings.model_copy(update={"fit": [8, 8, 8]}))
    for one in (model, fitted):
        with pytest.raises(InputError, match="voxels at"):
            predict_case([one], case, limits=Limits(prepared=10**5))


def test_what_does_not_fit_is_an_error(model: Model, tmp_path: Path) -> None:
    two = image_of(tmp_path, np.random.default_rng(0).normal(size=(32, 32, 32, 2)).astype(np.float32), np.eye(4))
    with pytest.raises(InputError, match="channels: found 2, expected 1"):
        predict_case([model], two)
    flat = image_of(tmp_path, np.zeros((32, 32), np.int16), np.eye(4))
    with pytest.raises(InputError, match="axes: found 2, expected 3"):
        predict_case([model], flat)


def test_an_unlike_image_is_told_how(model: Model, segmenter: Path, tmp_path: Path) -> None:
    case = cases_of(segmenter, model)[0]
    assert predict_case([model], case).warnings == []
    loaded = nibabel.load(case.image[0])
    array = np.asarray(loaded.dataobj).astype(np.float32)
    scaled = (array - array.min()) / np.ptp(array)  # someone has normalised it already
    (line,) = predict_case([model], image_of(tmp_path, scaled, loaded.affine)).warnings
    assert line.startswith("intensity: found 0")
    lines = predict_case([model], image_of(tmp_path, array, loaded.affine @ np.diag([4, 4, 4, 1]))).warnings
    assert [line.split(":")[0] for line in lines] == ["spacing", "size"]
    seen = cases_of(segmenter, model, "training")[0]
    (line,) = predict_case([model], replace(seen, label=None)).warnings
    assert "seen in training" in line
    pixels = np.rint(array[..., :24].T).astype(np.int16)
    series(tmp_path / "mr", pixels, gap=2.0, Modality="MR", PixelSpacing=[1.5, 1.5])
    assert "modality: found MR" in predict_case([model], Case("mr", "", (tmp_path / "mr",))).warnings[0]
    series(tmp_path / "mr", pixels, gap=2.0, name="A{}", SeriesInstanceUID="1.2.8", PixelSpacing=[1.5, 1.5])
    (tmp_path / "mr/.A").write_bytes((tmp_path / "mr/A1").read_bytes()[:200])
    for uid, found in ((SERIES, True), ("1.2.8", False)):
        lines = predict_case([model], Case("mr", "", (tmp_path / f"mr#{uid}",))).warnings
        assert any(line.startswith("modality: found MR") for line in lines) == found


def test_a_run_without_a_model_is_refused_in_a_line(
    segmenter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = tmp_path / "old"
    old.mkdir()
    (old / "config.json").write_text('{"kind": "finetune"}')
    assert main(["predict", str(old), "-i", "x.nii.gz", "-o", str(tmp_path / "out")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "model.safetensors: found a fine-tuning without it" in line
    cut = tmp_path / "model.safetensors"
    cut.write_bytes((segmenter / "model.safetensors").read_bytes()[:-100])
    assert main(["predict", str(cut), "-i", "x.nii.gz", "-o", str(tmp_path / "out")]) == 2
    assert not (tmp_path / "out").exists()


def test_a_model_needs_nothing_but_its_file(segmenter: Path, tmp_path: Path, model: Model) -> None:
    alone = tmp_path / "elsewhere.safetensors"
    alone.write_bytes((segmenter / "model.safetensors").read_bytes())
    loaded = load_model(alone, "cpu", 1)
    weights = read_weights(alone)[0]
    assert all(torch.equal(weights[name], value) for name, value in loaded.network.state_dict().items())
    assert json.loads((segmenter / "model.json").read_text()) == loaded.description
    assert loaded.sha256 == model.sha256


@pytest.mark.slow
def test_channels_may_be_missing(trained: Callable[..., Path], tmp_path: Path) -> None:
    from medssl.splits import write_split

    random = np.random.default_rng(0)
    entries: list[dict[str, Any]] = []
    for number in range(8):
        for name in ("flair", "t1", "label"):
            array = random.integers(0, 2 if name == "label" else 200, (16, 16, 16)).astype(np.uint8)
            nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), tmp_path / f"c{number}_{name}.nii.gz")
        images = [f"c{number}_flair.nii.gz", f"c{number}_t1.nii.gz" if number != 6 else None]
        entries.append({"id": f"c{number}", "image": images, "label": f"c{number}_label.nii.gz"})
    parts = {"training": entries[:4], "validation": entries[4:6], "test": entries[6:]}
    head = {"modality": {"0": "FLAIR", "1": "T1"}, "task": "segmentation", "labels": {"0": "none", "1": "noise"}}
    write_split(tmp_path / "split.json", head | parts)
    network = {"name": "unet", "channels": [4, 8]}
    run = trained(split=tmp_path / "split.json", crop_size=[16] * 3, intensity="percentile", network=network, lr=1e-2, steps=2)
    model = load_model(run, "cpu", 1)
    whole, lacking = predict_case([model], cases_of(run, model)[1]), predict_case([model], cases_of(run, model)[0])
    assert lacking.case.missing == (1,)
    assert labels_of(whole).shape == labels_of(lacking).shape == (16, 16, 16)
    with (run / "predictions.csv").open() as file:
        judged = {row["case"]: int(row["predicted_voxels"]) for row in csv.DictReader(file)}
    assert judged == {p.case.id: int((labels_of(p) == 1).sum()) for p in (whole, lacking)}
