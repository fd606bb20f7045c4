"""Write a split of Medical Segmentation Decathlon Task04, hippocampus, by patient.

Files 2k-1 and 2k are the two sides of one subject, so a split by file leaks: patient = (number + 1) // 2. The 260
volumes of 170 subjects divide into 200 for pre-training and training (the same list), 20 for validation and 40 for
testing. Take few labels with `labelled=6 draw=1`.
"""

import argparse
import re
import sys
from pathlib import Path
from typing import Any

from medssl.cli import guarded
from medssl.divide import divide_by_patient
from medssl.problems import InputError, Problem
from medssl.splits import write_split

NAME = re.compile(r"hippocampus_(\d+)\.nii\.gz")
ALL, VALIDATION, TEST = 260, 20, 40


def cases(folder: Path) -> list[dict[str, str]]:
    """Every pair of image and label; raises InputError for a folder without pairs and for an image without a label."""
    names = [("imagesTr", "labelsTr"), ("images", "labels")]
    images, labels = next(((a, b) for a, b in names if (folder / a).is_dir() and (folder / b).is_dir()), ("", ""))
    found = sorted((int(m[1]), m[0]) for path in folder.glob(f"{images}/*") if (m := NAME.fullmatch(path.name)))
    if not images or not found:
        raise InputError([Problem(str(folder), "folder", "no volumes", "imagesTr and labelsTr of hippocampus_NNN.nii.gz")])
    bare = [name for _, name in found if not (folder / labels / name).is_file()]
    if bare:
        raise InputError([Problem(str(folder / labels / name), "file", "nothing", "the image's label") for name in bare])
    return [
        {
            "id": f"hippocampus_{number:03d}",
            "patient": str((number + 1) // 2),
            "image": f"{images}/{name}",
            "label": f"{labels}/{name}",
        }
        for number, name in found
    ]


def content(folder: Path, seed: int) -> dict[str, Any]:
    found = cases(folder)
    counts = {"validation": round(len(found) * VALIDATION / ALL), "test": round(len(found) * TEST / ALL)}
    divided = divide_by_patient(found, counts, "training", seed)
    return {
        "name": "hippocampus",
        "description": f"Medical Segmentation Decathlon Task04, divided by patient, seed {seed}",
        "reference": "http://medicaldecathlon.com",
        "licence": "CC-BY-SA 4.0",
        "task": "segmentation",
        "modality": {"0": "MR"},
        "labels": {"0": "background", "1": "anterior", "2": "posterior"},
        "pretraining": [{key: case[key] for key in ("id", "patient", "image")} for case in divided["training"]],
        **divided,
    }


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Write a split of Decathlon Task04 hippocampus by patient.")
    parser.add_argument("folder", type=Path, help="Task04_Hippocampus; give it to the scripts as data_root")
    parser.add_argument("out", type=Path, help="the split file to write")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)

    def work() -> None:
        split = content(options.folder, options.seed)
        write_split(options.out, split)
        print(f"{options.out}: training {len(split['training'])}, test {len(split['test'])}")

    return guarded(work)


if __name__ == "__main__":
    sys.exit(main())
