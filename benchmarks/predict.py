"""A real or made-up CT to labels on its own grid: `medssl predict`'s way beside MONAI's `sliding_window_inference` + `Invertd`.

Both load the same network, read the same file, bring it to the same spacing and orientation, predict in the same windows and
write a label map with the file's affine. MONAI's way is that of its tutorials: class scores of the whole volume, inverted by
Invertd with bilinear interpolation, then the largest; `MONAI, labels` inverts the label map by nearest neighbour instead.
Seconds are of the processor, memory is the most that a process had above imports and network. How well labels come back is
measured without a network: perfect probabilities at the coarse spacing, by both interpolations, beside the truth.

    python benchmarks/predict.py [--volume CT.nii.gz] [--seg LABELS.nii.gz]
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch
from monai.data import MetaTensor
from monai.inferers.utils import sliding_window_inference
from monai.transforms import (
    AsDiscreted,
    Compose,
    EnsureChannelFirstd,
    Invertd,
    LoadImaged,
    Orientationd,
    SaveImaged,
    ScaleIntensityRanged,
    Spacingd,
)

from ct_volumes import volume as made_up
from losses import resident_mib
from medssl.config import Finetune
from medssl.evaluate import dice
from medssl.model_file import FORMAT, MODEL, OF_THE_RUN
from medssl.prediction.grid import Grid, labels_on
from medssl.prediction.inputs import find_cases
from medssl.prediction.memory import estimate, forward_bytes
from medssl.prediction.model import Model, load_model, network_of
from medssl.prediction.predict import Options, predict_case
from medssl.prediction.results import Place, write_labels
from medssl.readers import read_image
from medssl.splits import Split
from networks.weight_files import write_weights
from turns import beside_first, in_a_process, in_turns, print_rows, write_results

WAYS = ("MONAI, scores", "MONAI, labels", "medssl", "medssl, nearest")
CLASSES = 14
LOW, HIGH = -175.0, 250.0


def main() -> None:
    """Time every way in turns, compare their labels, measure both interpolations, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--volume", type=Path, help="a CT; by default a made-up one")
    parser.add_argument("--seg", type=Path, help="labels of it, for the interpolations; by default the made-up CT's brightness")
    parser.add_argument("--size", type=int, nargs=3, default=(256, 256, 128), help="of the made-up CT")
    parser.add_argument("--spacing", type=float, nargs=3, default=(2.0, 2.0, 3.0), help="that the network wants, mm")
    parser.add_argument("--crop", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--turns", type=int, default=1)
    parser.add_argument("--json", type=Path, help="file for the results")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        file = options.volume or write_volume(place / "ct.nii.gz", options.size)
        write_model(place / MODEL, options.spacing, options.crop)
        rows = in_turns(WAYS, options.turns, one_turn, file, place, options.threads)
        first = np.asarray(nibabel.load(place / "MONAI, scores.nii.gz").dataobj)
        table = []
        for way in WAYS:
            written = nibabel.load(place / f"{way}.nii.gz")
            labels = np.asarray(written.dataobj)
            same = {"same voxels": f"{(labels == first).mean():.5f}", "affine": str(same_affine(written, file))}
            table.append(beside_first(rows, way) | {"cpu s": rows[way]["cpu_s"]} | same)
        print_rows(table)
        print(f"\nestimated by medssl: {rows['medssl']['estimated_mb']:.0f} MB besides the weights\n")
        back = in_a_process(both_ways_back, file, options.seg, options.spacing)
        print_rows([{"interpolation": name, "Dice": f"{value:.4f}"} for name, value in back.items()])
    if options.json:
        write_results(options, {"ways": rows, "back": back})


def one_turn(way: str, file: Path, place: Path, threads: int) -> dict[str, float]:
    """Predict one file one way, write its labels: seconds and memory."""
    torch.set_num_threads(threads)
    model = load_model(place / MODEL, "cpu", threads)
    (case,) = find_cases(str(file), ["CT"]).cases
    expected = estimate([model], case, forward_bytes([model])).bytes / 1e6
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts anew
    before = resident_mib("VmRSS")
    began, cpu_began = time.perf_counter(), time.process_time()
    if way.startswith("MONAI"):
        predict_by_monai(model, file, place / f"{way}.nii.gz", scores=way == "MONAI, scores")
    else:
        prediction = predict_case([model], case, Options(interpolate="nearest" if "nearest" in way else "linear"))
        found: Any = prediction.found
        write_labels(Place(place, "ct"), model, prediction, found).rename(place / f"{way}.nii.gz")
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu_began
    memory = (resident_mib("VmHWM") - before) * 1.048576
    return {"s": seconds, "cpu_s": cpu_seconds, "memory_mb": memory, "estimated_mb": expected}


def predict_by_monai(model: Model, file: Path, target: Path, scores: bool) -> None:
    """MONAI's tutorials: transforms, windows, the inverse of the transforms, the largest class, a file."""
    steps = Compose([
        LoadImaged("image"),
        EnsureChannelFirstd("image"),
        Orientationd("image", axcodes="RAS", labels=None),
        Spacingd("image", pixdim=model.settings.spacing, mode="bilinear"),
        ScaleIntensityRanged("image", LOW, HIGH, 0.0, 1.0, clip=True),
    ])  # fmt: skip
    largest = [AsDiscreted("pred", argmax=True)]
    back = [Invertd("pred", steps, "image", nearest_interp=not scores, to_tensor=True)]
    save = SaveImaged(
        "pred",
        output_dir=target.parent / "monai",
        output_postfix="",
        separate_folder=False,
        print_log=False,
        output_dtype=np.uint8,
    )
    after = Compose([*back, *largest, save] if scores else [*largest, *back, save])
    data = steps({"image": str(file)})
    window = model.settings.crop_size
    with torch.no_grad(), torch.autocast("cpu", model.compute.autocast, enabled=model.compute.autocast is not None):
        image = data["image"]
        data["pred"] = MetaTensor(
            sliding_window_inference(image[None], window, 1, model.network, model.settings.overlap, "gaussian")[0].float(),
            meta=image.meta,
        )
    after(data)
    next((target.parent / "monai").glob("*.nii.gz")).rename(target)


def both_ways_back(file: Path, seg: Path | None, spacing: list[float]) -> dict[str, float]:
    """Dice with the truth of labels brought to a coarse grid as shares of the voxels and back, the mean over classes."""
    image = read_image(file)
    truth = read_image(seg, label=True).array[0] if seg else np.digitize(image.array[0], [-500, -50, 100, 300])
    known = [int(k) for k in np.unique(truth) if k]
    old = Grid(truth.shape, image.affine)
    shares = MetaTensor(torch.from_numpy(np.stack([truth == k for k in [0, *known]]).astype(np.float32)), affine=image.affine)
    turned = Orientationd("image", axcodes="RAS", labels=None)({"image": shares})
    coarse = Spacingd("image", pixdim=spacing, mode="bilinear")(turned)["image"]
    grid = Grid(tuple(coarse.shape[1:]), coarse.affine.numpy())
    found = {}
    numbers = np.searchsorted([0, *known], truth)
    for name in ("nearest", "linear"):
        labels = labels_on(old, grid, name)
        labels.begin(grid.shape, 0, (0, 0, 0))
        labels.take(0, coarse.as_tensor().clamp_min(1e-6).log())
        found[name] = float(np.nanmean(dice(labels.finish().numpy(), numbers, range(1, len(known) + 1))))
    return found


def write_model(path: Path, spacing: list[float], crop: int) -> None:
    """Write a small UNETR of random weights as a fine-tuning would."""
    settings = Finetune.model_validate({
        "split": path, "out": path.parent, "steps": 1, "batch_size": 1, "validate_every": 1, "lr": 1.0, "crop_size": [crop] * 3,
        "pad": True, "spacing": list(spacing), "intensity": {"name": "window", "low": LOW, "high": HIGH},
        "network": {"name": "vit_tiny", "feature_size": 8},
    })  # fmt: skip
    labels = {k: f"organ {k}" if k else "background" for k in range(CLASSES)}
    network, _ = network_of(settings, Split(path, "none", {0: "CT"}, "segmentation", labels, {}))
    description = {
        "format": FORMAT, "task": "segmentation", "labels": {str(k): name for k, name in labels.items()}, "modality": ["CT"],
        "data": "none", "step": 0, "settings": json.loads(settings.model_dump_json(exclude=OF_THE_RUN)), "training": {},
    }  # fmt: skip
    write_weights(path, network, description)


def write_volume(path: Path, size: list[int]) -> Path:
    """Write a made-up CT, stored from left to right and from front to back as scanners' files often are."""
    nibabel.save(nibabel.Nifti1Image(made_up(size, np.random.default_rng(0)), np.diag([-1.2, -1.2, 2.0, 1.0])), path)
    return path


def same_affine(written: Any, file: Path) -> bool:
    """Whether a label map has the grid of the file it was made of."""
    wanted = nibabel.load(file)
    return bool(np.allclose(written.affine, wanted.affine) and written.shape == wanted.shape[:3])


if __name__ == "__main__":
    main()
