"""System C in small: brain tumours slice by slice and in 3D, every patient judged once. A table of docs/results.md.

    python benchmarks/progression.py DATA [--out runs/progression] [--jobs 2] [--arms fcn unet ...] [--quick]

DATA is TCIA's brain tumour progression set as 11 folders with {Pre,Post}_Scan_T1.nii.gz and {Pre,Post}_Mask.nii.gz.
Its patients are divided into folds, Pre and Post together; each fold is judged by a model that learned from the others
for a fixed number of steps, with its last weights, so that nothing is chosen on what is reported. `medssl slices` makes
the 2D tasks. The header's spacing (1 mm) is not the true one: below it only brings 256 voxels of a row to 96, in 2D and
in 3D, where all is learned and judged; distances mean nothing and are not told.

Everything starts from random weights. Dice is that of whole volumes: the slices of a volume are stacked, those without
tumour too, where false alarms count. A patient's Dice is the mean of Pre and Post, the table's that over patients, with
a bootstrap interval over them. Two cores need about half an hour. Stop it at any time; started again it goes on.
"""

import argparse
import math
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import numpy as np

from medssl.scores.bootstrap import bootstrap_interval
from medssl.scores.classes import Judged, read_predictions, summarise_classes
from medssl.scores.stacked import stack_slices
from medssl.scores.voxels import read_scores
from runs import Wanted, make_all, medssl, summary


class Arm(NamedTuple):
    """A task's network, what its table row says of it, and its settings."""

    task: str  # classification, segmentation, or volumes for the segmentation of whole volumes
    told: str
    words: tuple[str, ...]
    steps: int


MM = 256 / 96
PLANE = (f"spacing=[{MM},{MM}]", "fit=null", "crop_size=[96,96]", "pad=true", "batch_size=8")
DEPTH = (f"spacing=[{MM},{MM},1]", "fit=null", "crop_size=[48,48,24]", "pad=true", "batch_size=4", "foreground_share=0.66")
SMALL = ("encoder=none", "optimiser=adamw", "lr=2e-3", "schedule=one_cycle", "freeze_steps=0", "intensity=percentile")
GROWING, FIXED = "progressive=[[64,64]]", "progressive=[]"


def resnet(decoder: str) -> str:
    return f'network={{"name":"resnet18","width":32,"decoder":"{decoder}","feature_size":8}}'


ARMS = {
    "classes": Arm("classification", "ResNet-18, 64 to 96", (resnet("unet"), GROWING, "head=mlp", *PLANE), 400),
    "fcn": Arm("segmentation", "FCN over ResNet-18, 96", (resnet("fcn"), FIXED, *PLANE), 800),
    "fcn_growing": Arm("segmentation", "FCN over ResNet-18, 64 to 96", (resnet("fcn"), GROWING, *PLANE), 800),
    "unet": Arm("segmentation", "U-Net over ResNet-18, 96", (resnet("unet"), FIXED, *PLANE), 800),
    "unet_growing": Arm("segmentation", "U-Net over ResNet-18, 64 to 96", (resnet("unet"), GROWING, *PLANE), 800),
    "volumes": Arm(
        "volumes",
        "U-Net in 3D, crops of 48 x 48 x 24",
        ('network={"name":"unet","channels":[16,32,64,128]}', FIXED, *DEPTH),
        400,
    ),
}
RECIPES = dict.fromkeys(("segmentation", "volumes"), "brats_slices_segmentation")
RECIPES["classification"] = "brats_slices_classification"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/progression"))
    parser.add_argument("--jobs", type=int, default=2, help="runs side by side, each with one thread")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--quick", action="store_true", help="a few steps, to see that everything runs; its numbers say nothing"
    )
    options = parser.parse_args()
    out, data, folds = options.out.resolve(), options.data.resolve(), 4
    splits = make_splits(data, out, folds)
    folders = {
        (arm, fold): out / ("quick" if options.quick else "runs") / f"{arm}_fold{fold}_seed{options.seed}"
        for arm in options.arms
        for fold in range(folds)
    }
    make_all(
        [
            wanted(ARMS[arm], splits[ARMS[arm].task], data, out, fold, folder, options)
            for (arm, fold), folder in folders.items()
        ],
        options.jobs,
    )
    by_arm = {arm: [folders[arm, fold] for fold in range(folds)] for arm in options.arms}
    print(classes_table({arm: runs for arm, runs in by_arm.items() if ARMS[arm].task == "classification"}))
    print(dice_table({arm: runs for arm, runs in by_arm.items() if ARMS[arm].task != "classification"}))


def make_splits(data: Path, out: Path, folds: int) -> dict[str, Path]:
    """Make the split of the volumes by patient, and from it those of the slices, which keep its folds."""
    out.mkdir(parents=True, exist_ok=True)
    volumes = out / "volumes.json"
    if not volumes.exists():
        templates = ["--image", "{patient}/{visit}_Scan_T1.nii.gz", "--label", "{patient}/{visit}_Mask.nii.gz"]
        divided = ["--folds", str(folds), "--test", "0", "--no-pretraining", "--modality", "T1c"]
        medssl("split", str(data), str(volumes), *templates, *divided)
    splits = {"volumes": volumes}
    for task, words in {"classification": ["--least", "20"], "segmentation": []}.items():
        splits[task] = out / f"slices_{task}" / "split.json"
        if not splits[task].exists():
            named = ["--task", task, "--classes", "none,tumour", *words]
            medssl("slices", str(volumes), str(splits[task].parent), "--data-root", str(data), *named)
    return splits


def wanted(arm: Arm, split: Path, data: Path, out: Path, fold: int, folder: Path, options: argparse.Namespace) -> Wanted:
    """One arm trained on all folds but one and judged on that, with its last weights."""
    steps = 6 if options.quick else arm.steps
    root = [f"data_root={data}"] if arm.task == "volumes" else []
    length = [f"steps={steps}", f"validate_every={steps}", f"checkpoint_every={steps}"]
    judged = [f"fold={fold}", "judge=validation", "checkpoint=latest", f"seed={options.seed}"]
    words = [f"split={split}", f"store={out / 'store'}", *root, *SMALL, *arm.words, *length, *judged]
    return Wanted("finetune", RECIPES[arm.task], folder, words)


def classes_table(arms: dict[str, list[Path]]) -> str:
    """The slices of all folds together: each was judged once, by a model that had not seen its patient."""
    rows = [["slices", "n", "accuracy", "AUC", "sensitivity", "specificity", "log loss", "minutes"]]
    for arm, runs in arms.items():
        labels, judged = {}, list[Judged]()
        for run in runs:
            labels, more = read_predictions(run / "predictions.csv")
            judged += more
        found = summarise_classes(judged, labels)
        of_tumour = found["classes"]["tumour"]
        figures = [
            with_interval(table[name], table[f"{name}_interval"])
            for table, name in (
                (found, "accuracy"),
                (of_tumour, "auc"),
                (of_tumour, "sensitivity"),
                (of_tumour, "specificity"),
                (found, "log_loss"),
            )
        ]
        rows.append([ARMS[arm].told, str(found["n"]), *figures, minutes(runs)])
    return markdown(rows) if arms else ""


def dice_table(arms: dict[str, list[Path]]) -> str:
    """The Dice of volumes by patient, and what a mean over slices would have said."""
    rows = [["segmentation", "patients", "Dice of volumes", "worst and best patient", "mean Dice of slices", "minutes"]]
    for arm, runs in arms.items():
        scores = [row for run in runs for row in read_scores(run / "predictions.csv")]
        by_patient = defaultdict(list)
        for one in stack_slices(scores):
            by_patient[one.patient].append(one.dice)
        dice = [float(np.mean(values)) for values in by_patient.values()]
        slices = [row.dice for row in scores if not math.isnan(row.dice)]
        by_slice = f"{np.mean(slices):.3f}" if ARMS[arm].task == "segmentation" else "-"
        mean = with_interval(float(np.mean(dice)), bootstrap_interval(dice))
        rows.append([ARMS[arm].told, str(len(dice)), mean, f"{min(dice):.3f}, {max(dice):.3f}", by_slice, minutes(runs)])
    return markdown(rows) if arms else ""


def with_interval(value: float, interval: tuple[float, float] | list[float] | None) -> str:
    """A figure with its 95% interval."""
    return f"{value:.3f} ({interval[0]:.3f} to {interval[1]:.3f})" if interval else f"{value:.3f}"


def minutes(runs: list[Path]) -> str:
    """The training time of one fold, on average."""
    return f"{np.mean([summary(run)['seconds'] for run in runs]) / 60:.1f}"


def markdown(rows: list[list[str]]) -> str:
    """A table with its first row as the head."""
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:], ""])


if __name__ == "__main__":
    main()
