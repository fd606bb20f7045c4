"""Bad input to the scripts: exit code 2, one line a problem naming file, field, found and expected, nothing written."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

from medssl.cli import script
from medssl.config import Finetune, Pretrain
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
