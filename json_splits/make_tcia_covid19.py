"""Write a pre-training split of TCIA CT Images in COVID-19, by patient.

The list of the MONAI tutorial (600 volumes and 171 for validation) leaks: 23 patients are in both. The names are
`volume-covid19-A-<patient>[_dayNNN].nii.gz`; here all volumes of a patient go to one part, and the 771 volumes of
the data set still divide into exactly 600 and 171.
"""

import argparse
import re
import sys
from pathlib import Path
from typing import Any

from medssl.cli import guarded
from medssl.divide import divide_by_patient
from medssl.problems import InputError, Problem
from medssl.splits import stem, write_split

NAME = re.compile(r"volume-covid19-A-(\d+)(_day\d+)?\.nii(\.gz)?")
ALL, VALIDATION = 771, 171


def cases(images: Path) -> list[dict[str, str]]:
    """Every volume below a folder whose name fits, in order of the names."""
    found = sorted((path, match) for path in images.rglob("volume-*") if (match := NAME.fullmatch(path.name)))
    if not found:
        raise InputError([Problem(str(images), "images", "none", "files volume-covid19-A-<patient>[_dayNNN].nii.gz")])
    return [
        {"id": stem(path), "patient": f"A-{int(match[1]):04d}", "image": path.relative_to(images).as_posix()}
        for path, match in found
    ]


def content(images: Path, seed: int) -> dict[str, Any]:
    found = cases(images)
    divided = divide_by_patient(found, {"validation": round(len(found) * VALIDATION / ALL)}, "pretraining", seed)
    return {
        "name": "tcia_covid19",
        "description": f"CT Images in COVID-19, divided by patient, seed {seed}",
        "reference": "https://doi.org/10.7937/tcia.2020.gqry-nc81",
        "licence": "CC BY 4.0",
        "modality": {"0": "CT"},
        **divided,
    }


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Write a pre-training split of TCIA CT Images in COVID-19 by patient.")
    parser.add_argument("images", type=Path, help="folder of the volumes; give it to the scripts as data_root")
    parser.add_argument("out", type=Path, help="the split file to write")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)

    def work() -> None:
        split = content(options.images, options.seed)
        write_split(options.out, split)
        print(f"{options.out}: pretraining {len(split['pretraining'])}, validation {len(split['validation'])}")

    return guarded(work)


if __name__ == "__main__":
    sys.exit(main())
