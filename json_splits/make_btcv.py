"""Write btcv_6.json, btcv_12.json and btcv_24.json: the split of the MONAI self-supervised tutorial.

The small training lists are the first cases of the large one, and all three share one validation list, 0035 to 0040,
which is also what is reported: the labels of 0061 to 0080 were never published, so there is no test part.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

from medssl.cli import guarded
from medssl.splits import write_split

TRAINING = (*range(1, 11), *range(21, 35))
VALIDATION = range(35, 41)
CLASSES = (
    *("background", "spleen", "rkid", "lkid", "gall", "eso", "liver"),
    *("sto", "aorta", "IVC", "veins", "pancreas", "rad", "lad"),
)


def case(number: int) -> dict[str, str]:
    name = f"{number:04d}"
    return {"id": name, "image": f"imagesTr/img{name}.nii.gz", "label": f"labelsTr/label{name}.nii.gz"}


def content(labelled: int) -> dict[str, Any]:
    return {
        "name": f"btcv_{labelled}",
        "description": f"BTCV abdomen CT, 13 organs, {labelled} training volumes; report the validation part",
        "reference": "https://www.synapse.org/#!Synapse:syn3193805/wiki/217789",
        "licence": "free after registration at Synapse",
        "task": "segmentation",
        "modality": {"0": "CT"},
        "labels": {str(number): name for number, name in enumerate(CLASSES)},
        "training": [case(number) for number in TRAINING[:labelled]],
        "validation": [case(number) for number in VALIDATION],
    }


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Write the three BTCV splits.")
    parser.add_argument("folder", type=Path, nargs="?", default=Path(__file__).parent, help="default: beside this script")
    folder = parser.parse_args(arguments).folder

    def work() -> None:
        for labelled in (6, 12, 24):
            write_split(folder / f"btcv_{labelled}.json", content(labelled))
            print(folder / f"btcv_{labelled}.json")

    return guarded(work)


if __name__ == "__main__":
    sys.exit(main())
