"""Bad input to the scripts: exit code 2, one line a problem naming file, field, found and expected, nothing written."""

import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

from medssl import loaders
from medssl.cli import main, script
from medssl.config import Finetune, Pretrain
from medssl.data import data_warnings, load_data
from medssl.pretrain import pretrain
from networks.transfer import write_weights
from networks.vit import ViT

Change = Callable[[Path, dict[str, Any]], None]


def edit(folder: Path, name: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """Write a volume again with other voxels."""
    image = nib.load(folder / name)
    voxels = change(np.asanyarray(image.dataobj))
    nib.save(nib.Nifti1Image(voxels, image.affine), folder / name)


def with_nan(voxels: np.ndarray) -> np.ndarray:
    voxels = voxels.astype(np.float32)
    voxels[3, 4, 5] = np.nan
    return voxels


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


FAULTS: dict[str, tuple[Change, str]] = {
    "not json": (lambda folder, split: (folder / "split.json").write_text("{"), "split.json: file: found "),
    "missing": (lambda folder, split: (folder / split["training"][0]["image"]).unlink(), "image"),
    "truncated": (lambda folder, split: truncate(folder / split["training"][1]["image"]), "image"),
    "nan": (lambda folder, split: edit(folder, split["validation"][0]["image"], with_nan), "NaN"),
    "label outside": (lambda folder, split: edit(folder, split["test"][1]["label"], lambda v: v + 9), "label"),
    "label shape": (lambda folder, split: edit(folder, split["test"][0]["label"], lambda v: v[:-2]), "shape"),
    "leak": (
        lambda folder, split: (folder / "split.json").write_text(
            json.dumps(split | {"test": [*split["test"], split["validation"][0]]})
        ),
        "expected an image once, in one part",
    ),
}


@pytest.fixture
def broken(volumes: Path, tmp_path: Path) -> Path:
    """A copy of the data set to break."""
    folder = tmp_path / "data"
    shutil.copytree(volumes.parent, folder, ignore=shutil.ignore_patterns("store"))
    return folder


def run(kind: str, settings: Pretrain | Finetune, words: list[str], tmp_path: Path) -> int:
    """Run a script by a recipe file of these settings."""
    recipe = tmp_path / "recipe.json"
    recipe.write_text(settings.model_dump_json())
    return script(kind, [str(recipe), *words])


def errors(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The lines of stderr that report a problem."""
    text = capsys.readouterr().err
    assert "Traceback" not in text
    return [line for line in text.splitlines() if line.startswith("error: ")]


@pytest.mark.parametrize("fault", FAULTS)
def test_bad_data_is_refused_before_the_run_folder_exists(
    fault: str, broken: Path, tmp_path: Path, finetuning: Callable[..., Finetune], capsys: pytest.CaptureFixture[str]
) -> None:
    change, words = FAULTS[fault]
    change(broken, json.loads((broken / "split.json").read_text()))
    settings = finetuning(split=broken / "split.json", store=tmp_path / "store")
    assert run("finetune", settings, [], tmp_path) == 2
    lines = errors(capsys)
    assert len(lines) == 1, lines
    assert words in lines[0]
    assert " found " in lines[0]
    assert " expected " in lines[0]
    assert not settings.out.exists()


def test_all_problems_come_in_one_pass(
    broken: Path, tmp_path: Path, finetuning: Callable[..., Finetune], capsys: pytest.CaptureFixture[str]
) -> None:
    """Headers, voxels and the encoder's file: one line each, from one call."""
    split = json.loads((broken / "split.json").read_text())
    for fault in ("missing", "truncated", "nan", "label outside", "label shape"):
        FAULTS[fault][0](broken, split)
    write_weights(tmp_path / "other.safetensors", ViT(1, (32, 32, 32), (8, 8, 8), 48, 96, 3, 3), {})
    settings = finetuning(split=broken / "split.json", store=tmp_path / "store", encoder=str(tmp_path / "other.safetensors"))
    assert run("finetune", settings, [], tmp_path) == 2
    lines = errors(capsys)
    assert len(lines) == 6, lines
    assert sum("other.safetensors: encoder: found another architecture" in line for line in lines) == 1
    assert not settings.out.exists()


def test_an_encoder_that_has_seen_the_test_images(
    broken: Path,
    tmp_path: Path,
    pretraining: Callable[..., Pretrain],
    finetuning: Callable[..., Finetune],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Pre-trained by another split, on a copy of a test image under another name."""
    split = json.loads((broken / "split.json").read_text())
    shutil.copyfile(broken / split["test"][0]["image"], broken / "copy.nii.gz")
    other = {"pretraining": [{"image": "copy.nii.gz"}], "validation": [{"image": split["validation"][0]["image"]}]}
    (broken / "other.json").write_text(json.dumps(other))
    pretrain(pretraining(split=broken / "other.json", store=tmp_path / "store", steps=1))
    settings = finetuning(encoder=str(tmp_path / "pretrain"), steps=1)
    assert run("finetune", settings, [], tmp_path) == 2
    (line,) = errors(capsys)
    assert "found an image that the encoder was pre-trained on, expected one it never saw, or allow_seen=true" in line
    assert not settings.out.exists()
    assert run("finetune", settings, ["allow_seen=true"], tmp_path) == 0
    assert "pre-trained on 1 of the cases that are judged" in (settings.out / "report.html").read_text()


def test_an_encoder_that_has_seen_one_channel_of_a_test_image(
    broken: Path,
    tmp_path: Path,
    pretraining: Callable[..., Pretrain],
    finetuning: Callable[..., Finetune],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Pre-trained on that channel alone; the others, and a case that lacks one, are no image that it saw."""
    split = json.loads((broken / "split.json").read_text())
    for case in (case for part in ("training", "validation", "test") for case in split[part]):
        second = case["image"].replace(".nii", "_second.nii")
        shutil.copyfile(broken / case["image"], broken / second)
        edit(broken, second, lambda voxels: voxels[::-1])
        case["image"] = [second, case["image"]]
    first, last, lacking = split["test"][0]["image"][1], split["test"][-1], split["test"][1]
    lacking["image"][0] = None
    two = {key: split[key] for key in ("task", "labels", "training", "validation", "test")}
    (broken / "two.json").write_text(json.dumps(two | {"modality": {"0": "second", "1": "first"}}))
    other = {"pretraining": [{"image": first}], "validation": [{"image": last["image"][1]}]}
    (broken / "other.json").write_text(json.dumps(other))
    pretrain(pretraining(split=broken / "other.json", store=tmp_path / "store", steps=1))
    settings = finetuning(split=broken / "two.json", store=tmp_path / "store", encoder=str(tmp_path / "pretrain"), steps=1)
    assert run("finetune", settings, [], tmp_path) == 2
    (line,) = errors(capsys)
    assert "found an image that the encoder was pre-trained on, expected one it never saw, or allow_seen=true" in line


@pytest.mark.parametrize("encoder", ["nowhere.pt", "text.pt", "classifier.pt", "small.pt"])
def test_an_encoder_that_does_not_fit(
    encoder: str, tmp_path: Path, finetuning: Callable[..., Finetune], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "text.pt").write_text("weights")
    torch.save(torch.nn.Linear(3, 3).state_dict(), tmp_path / "classifier.pt")
    torch.save(ViT(1, (32, 32, 32), (8, 8, 8), 24, 48, 2, 3).state_dict(), tmp_path / "small.pt")
    settings = finetuning(encoder=str(tmp_path / encoder))
    assert run("finetune", settings, [], tmp_path) == 2
    (line,) = errors(capsys)
    assert f"{encoder}: encoder: found " in line
    assert not settings.out.exists()


def test_an_image_smaller_than_the_crop(
    tmp_path: Path, pretraining: Callable[..., Pretrain], capsys: pytest.CaptureFixture[str]
) -> None:
    settings = pretraining(crop_size=[64, 32, 32], pad=False)
    assert run("pretrain", settings, [], tmp_path) == 2
    lines = errors(capsys)
    assert lines
    assert all("64" in line and " expected " in line for line in lines)
    assert not settings.out.exists()


def test_a_folder_that_is_taken(
    tmp_path: Path, pretraining: Callable[..., Pretrain], capsys: pytest.CaptureFixture[str]
) -> None:
    settings = pretraining(steps=2)
    settings.out.mkdir()
    (settings.out / "thesis.doc").write_text("mine")
    assert run("pretrain", settings, [], tmp_path) == 2
    assert "thesis.doc, which is no file of a run, expected an empty folder" in errors(capsys)[0]
    assert run("pretrain", settings, ["overwrite=true"], tmp_path) == 2
    assert (settings.out / "thesis.doc").read_text() == "mine"
    capsys.readouterr()
    other = settings.model_copy(update={"out": tmp_path / "free"})
    pretrain(other)
    assert run("pretrain", other, [], tmp_path) == 2
    assert "found a finished run, expected a new folder, --resume, or overwrite=true" in errors(capsys)[0]
    assert run("pretrain", other, ["--resume"], tmp_path) == 0


@pytest.mark.parametrize(("words", "code"), [(["lr=-1"], 2), (["stps=1"], 2), (["device=cuda:99"], 2), ([], 0)])
def test_exit_codes_of_a_dry_run(
    words: list[str], code: int, tmp_path: Path, pretraining: Callable[..., Pretrain], capsys: pytest.CaptureFixture[str]
) -> None:
    settings = pretraining()
    assert run("pretrain", settings, [*words, "--dry-run"], tmp_path) == code
    assert len(errors(capsys)) == (code == 2)
    assert not settings.out.exists()


def test_wrong_usage_is_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        script("pretrain", [])
    assert end.value.code == 2
    assert script("pretrain", ["no_such_recipe"]) == 2
    assert "no_such_recipe: recipe: found no such file" in errors(capsys)[0]


def fail(kind: str) -> Callable[..., Any]:
    """What a worker does at one case instead of reading it."""
    true = loaders.load

    def load(store: Any, entry: Any, *words: Any) -> Any:
        if kind == "raises" and entry.id == "case_002":
            raise ValueError("no such thing")
        if kind == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        return true(store, entry, *words)

    return load


@pytest.mark.parametrize("workers", [0, 2])
def test_a_sample_that_raises_is_named(
    workers: int, tmp_path: Path, pretraining: Callable[..., Pretrain], capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    settings = pretraining(workers=workers)
    read_before(settings)
    monkeypatch.setattr(loaders, "load", fail("raises"))
    began = time.monotonic()
    assert run("pretrain", settings, [], tmp_path) == 1
    (line,) = errors(capsys)
    assert line.startswith("error: case case_002 (")
    assert line.endswith("case_002.nii.gz): no such thing")
    assert time.monotonic() - began < 10


def test_a_killed_worker_ends_the_run(
    tmp_path: Path, pretraining: Callable[..., Pretrain], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = pretraining(workers=2)
    read_before(settings)
    monkeypatch.setattr(loaders, "load", fail("dies"))
    began = time.monotonic()
    assert run("pretrain", settings, [], tmp_path) == 1
    (line,) = errors(capsys)
    assert "DataLoader worker" in line
    assert "expected it to live" in line
    assert time.monotonic() - began < 10


def read_before(settings: Pretrain) -> None:
    """Pack, so that the clock measures what comes after."""
    load_data(settings, ["pretraining", "validation"], labels=False)


@pytest.mark.parametrize("deep", [False, True])
def test_check_as_json(deep: bool, broken: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same problems as on stderr, for programs; exit code 2 with them, 0 without."""
    words = ["check", str(broken / "split.json"), "--json", *(["--deep"] if deep else [])]
    assert main(words) == 0
    assert json.loads(capsys.readouterr().out)["problems"] == []
    FAULTS["missing"][0](broken, json.loads((broken / "split.json").read_text()))
    assert main(words) == 2
    told = capsys.readouterr()
    (problem,) = json.loads(told.out)["problems"]
    assert problem["found"] == "No such file or directory"
    assert set(problem) == {"file", "field", "found", "expected"}
    assert told.err == ""


def test_a_window_for_ct_over_images_that_are_none_is_said(
    broken: Path, tmp_path: Path, pretraining: Callable[..., Pretrain]
) -> None:
    for case in json.loads((broken / "split.json").read_text())["pretraining"]:
        edit(broken, case["image"], lambda voxels: voxels - voxels.min())
    window = {"name": "window", "low": -57, "high": 164}
    others = {"split": broken / "split.json", "store": tmp_path / "store", "steps": 1, "validate_every": 1}
    for quiet in (
        pretraining(intensity=window),  # of CT
        pretraining(**others, intensity=window | {"low": 0}),
        pretraining(**others, intensity="percentile"),
    ):
        assert data_warnings(quiet, *load_data(quiet, ["pretraining", "validation"], labels=False)) == []
    settings = pretraining(**others, intensity=window)
    pretrain(settings)
    (told,) = json.loads((settings.out / "summary.json").read_text())["warnings"]
    assert "a window from -57 to 164, as for CT in Hounsfield units, but no image has a value below 0" in told


def test_a_store_packed_by_hand_is_used(
    volumes: Path, tmp_path: Path, pretraining: Callable[..., Pretrain], capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "by_hand.h5"
    assert main(["pack", str(volumes), str(store)]) == 0
    assert "use it with store=" in capsys.readouterr().out
    before = store.stat()
    load_data(pretraining(store=store), ["pretraining", "validation"], labels=False)
    assert store.stat() == before
    other = tmp_path / "other.h5"
    assert main(["pack", str(volumes), str(other), "--spacing", "2", "2", "2"]) == 0
    used = capsys.readouterr().out.split("use it with ")[1].split()
    assert used == [f"store={other}", "spacing=[2.0,2.0,2.0]", "foreground_above=null"]  # words as a shell takes them
    assert main(["pack", str(volumes), str(store), "--spacing", "2", "2", "2"]) == 2
    assert "by_hand.h5: store: found one prepared as 3D" in errors(capsys)[0]
    assert main(["pack", str(volumes), str(store), "--spacing", "2"]) == 2
    assert main(["pack", str(volumes), str(tmp_path / "no_suffix")]) == 2
    assert len(errors(capsys)) == 2
