"""A bundle, run by MONAI where medssl can't be imported, says of a file what the run's own network and `medssl predict` say."""

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import PIL.Image
import pytest
import torch
from numpy.typing import NDArray

from medssl.cli import main
from medssl.config import Finetune
from medssl.data import load_data
from medssl.device import Compute
from medssl.exports.source import Source, read_source
from medssl.exports.steps import inferer
from medssl.prediction.model import Model
from medssl.prediction.predict import Segmented, predict_case
from medssl.splits import Case
from medssl.tasks.centre import centre_crop

AFFINE = np.array([[0, 0, -1.1, 30], [1.4, 0, 0, -20], [0, -0.9, 0, 11], [0, 0, 0, 1]])  # axes turned and mirrored
RUNS: dict[str, dict[str, Any]] = {
    "UNet 3D": {"intensity": {"name": "window", "low": -50, "high": 150}, "foreground_above": -20.0},
    "build patches 3D": {"spacing": [1.23, 1.31, 1.57], "foreground_above": -20.0},
    "build progressive 2D": {"suffix": ".png"},
    "ResNet 2D": {"suffix": ".png", "fit": [32, 32]},
    "build ViT class 2D": {"suffix": ".png", "mask": "brain"},
    "build mlp 3D": {"crop_size": [64, 32, 32]},
}
ALONE = """
import json, sys
from monai.bundle import run, verify_net_in_out
for bundle, images, out in json.load(open("jobs.json")):
    config = f"{bundle}/configs/inference.json"
    run(config_file=config, bundle_root=bundle, dataset_dir=images, output_dir=out)
    verify_net_in_out("network_def", meta_file=f"{bundle}/configs/metadata.json", config_file=config, device="cpu")
    for name in [name for name in sys.modules if name.split(".")[0] == "scripts"]:
        assert sys.modules.pop(name).__file__.startswith(bundle)
    sys.path.remove(bundle)
assert not {"medssl", "networks", "transforms"} & set(sys.modules)
"""


def make_images(folder: Path, suffix: str, kind: type = np.int16) -> Path:
    """Write six images with structure: volumes with axes turned and mirrored, or pictures higher than wide."""
    random = np.random.default_rng(0)
    folder.mkdir()
    for k in range(6):
        shape = (44, 36, 40) if suffix == ".nii.gz" else (53, 41)
        image = sum(np.sin(axis / (2 + k / 3 + a)) for a, axis in enumerate(np.indices(shape))) * 60 + random.normal(
            40, 6, shape
        )
        image[: 5 + k] = -40
        if suffix == ".png":
            PIL.Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(folder / f"{k}.png")
        else:
            nibabel.save(nibabel.Nifti1Image(image.astype(kind), AFFINE), folder / f"{k}.nii.gz")
    return folder


@pytest.fixture
def bundles(make_run: Callable[..., Path], tmp_path: Path) -> dict[str, Path]:
    """Export every run of RUNS and predict its images with MONAI alone; gives the runs."""
    runs, jobs = {}, []
    for kind, changes in RUNS.items():
        # the store rounds the resampled intensities of integer images, a bundle does not
        voxels = np.float32 if "spacing" in changes else np.int16
        images = make_images(tmp_path / f"images {kind}", changes.get("suffix", ".nii.gz"), voxels)
        runs[kind] = make_run(kind, images=images, store=tmp_path / f"{kind}.h5", **changes)
        bundle = tmp_path / f"bundle {kind}"
        assert main(["export", str(runs[kind]), "--to", "monai-bundle", "-o", str(bundle)]) == 0
        jobs.append((str(bundle), str(images), str(runs[kind] / "predicted")))
    (tmp_path / "jobs.json").write_text(json.dumps(jobs))
    done = subprocess.run([sys.executable, "-I", "-c", ALONE], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return runs


@pytest.mark.slow
def test_monai_alone_says_the_same(bundles: dict[str, Path]) -> None:
    for kind, run in bundles.items():
        source = read_source(run)
        if source.task == "segmentation":
            different = compare_labels(source, run / "predicted")
            assert different <= 1e-4, f"{kind}: {different}"  # float sums in another order; none differed when it was written
        else:
            found, expected = compare_rows(source, run / "predicted")
            rounded = source.settings.fit is not None  # the store rounds pixels after resizing, too
            np.testing.assert_allclose(found, expected, atol=1e-3 if rounded else 1e-5, err_msg=kind)
            assert np.ptp(expected, axis=0).max() > 1e-3  # the images differ


def compare_rows(source: Source, folder: Path) -> tuple[NDArray[Any], NDArray[Any]]:
    """What the bundle wrote of the test images, and what the network says of the crops in their middle."""
    with (folder / "predictions.csv").open() as file:
        rows = {Path(row[0]).name: [float(number) for number in row[1:]] for row in csv.reader(file)}
    split, store = load_data(source.settings, ["test"], labels=False)
    cases = split.part("test")
    with torch.inference_mode():
        said = source.network(torch.stack([centre_crop(store, case, source.settings) for case in cases]))
    if source.task == "regression":
        said = 40.0 + 8.0 * said
    elif source.output["loss"] == "log_sigmoid":
        said = torch.softmax(torch.nn.functional.logsigmoid(said) / 2.0, 1)
    else:
        said = torch.softmax(said / 2.0, 1)
    return np.array([rows[case.image[0].name] for case in cases]), said.numpy()


def compare_labels(source: Source, folder: Path) -> float:
    """The largest share of voxels of a test image that the bundle gives another class than `medssl predict` does."""
    assert isinstance(source.settings, Finetune)
    compute = Compute(torch.device("cpu"), None)
    model = Model("run", folder, "", {"training": {}}, source.settings, source.split, source.network, None, compute)
    different = []
    for case in source.split.part("test"):
        found = predict_case([model], case).found
        assert isinstance(found, Segmented)
        assert len(np.unique(found.labels)) > 1
        different.append((found.labels != read_labels(folder, case)).mean())
    return float(max(different))


def read_labels(folder: Path, case: Case) -> NDArray[Any]:
    """Read a label map that a bundle wrote, which must lie on its image's grid."""
    image = case.image[0]
    path = folder / f"{image.name.partition('.')[0]}_seg.{image.name.partition('.')[2]}"
    if image.suffix == ".png":
        picture = np.asarray(PIL.Image.open(path))
        assert picture.shape == (53, 41)
        return picture
    labels, original = nibabel.load(path), nibabel.load(image)
    np.testing.assert_allclose(labels.affine, original.affine, atol=1e-5)
    assert labels.shape == original.shape
    assert labels.get_data_dtype() == np.uint8
    return np.asarray(labels.dataobj)


@pytest.mark.slow
def test_monais_command_line_runs_it(make_run: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = make_images(tmp_path / "images", ".nii.gz")
    run = make_run("UNETR 3D", images=images)
    assert main(["export", str(run), "--to", "monai-bundle"]) == 0
    folder, _, command, *_ = capsys.readouterr().out.splitlines()
    words = (
        command.replace("BUNDLE", folder).replace("IMAGES", str(images)).replace("PREDICTIONS", str(tmp_path / "out")).split()
    )
    done = subprocess.run([sys.executable, "-I", *words[1:]], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert compare_labels(read_source(run), tmp_path / "out") <= 1e-4


def test_as_many_windows_go_at_once_as_crops_in_training(make_run: Callable[..., Path]) -> None:
    assert inferer(read_source(make_run("UNet 3D", batch_size=6, accumulate=3)))["sw_batch_size"] == 2


def test_metadata_says_what_the_specification_asks_for(make_run: Callable[..., Path]) -> None:
    """https://docs.monai.io/en/stable/mb_specification.html, the keys that it calls required."""
    run = make_run("ResNet 3D")
    assert main(["export", str(run), "--to", "monai-bundle"]) == 0
    found = json.loads((run / "export-monai-bundle/configs/metadata.json").read_text())
    needed = {"version", "monai_version", "pytorch_version", "numpy_version", "required_packages_version", "task"}
    needed |= {"description", "authors", "copyright", "network_data_format", "schema", "changelog"}
    assert needed <= found.keys()
    image, predicted = found["network_data_format"]["inputs"]["image"], found["network_data_format"]["outputs"]["pred"]
    keys = {"type", "format", "num_channels", "spatial_shape", "dtype", "value_range", "is_patch_data", "channel_def"}
    assert keys <= image.keys()
    assert keys <= predicted.keys()
    assert (image["num_channels"], image["spatial_shape"], predicted["num_channels"]) == (2, [32, 32, 32], 3)
    assert predicted["channel_def"] == {"0": "none", "1": "lump", "2": "ring"}
