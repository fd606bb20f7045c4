"""`medssl slices SPLIT OUT_DIR`: the axial slices of a split's volumes as 2D images, with a split of their own."""

import argparse
import math
import shlex
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medssl.problems import InputError, Problem
from medssl.splits import PARTS, Split, read_split, write_split

if TYPE_CHECKING:
    from medssl.cutting import Cut

KEEP = ("all", "labelled", "balanced")
SPLIT = "split.json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `medssl slices`."""
    parser.add_argument("split", type=Path, metavar="SPLIT", help="a split of volumes with segmentations, or for pre-training")
    parser.add_argument("out", type=Path, metavar="OUT_DIR", help="a new or empty folder, for the images and split.json")
    parser.add_argument("--data-root", type=Path, help="folder that the split's paths start from")
    parser.add_argument("--task", choices=("segmentation", "classification"), default="segmentation", help="of the slices")
    parser.add_argument("--every", type=whole, default=1, metavar="N", help="every N-th slice only")
    parser.add_argument(
        "--keep", choices=KEEP, default="all", help="of labelled volumes; balanced: as many slices without an object as with"
    )
    parser.add_argument("--least", type=whole, default=1, metavar="VOXELS", help="labelled voxels that make an object [1]")
    parser.add_argument(
        "--classes",
        type=two_names,
        metavar="NONE,OBJECT",
        help="what slices without and with one are called; of label maps all objects become OBJECT",
    )


def whole(text: str) -> int:
    """A whole number from 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"found {text}, expected a whole number from 1")
    return int(text)


def two_names(text: str) -> tuple[str, str]:
    """Two different names with a comma between."""
    names = [name.strip() for name in text.split(",")]
    if len(set(names)) != 2 or len(names) != 2 or "" in names:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected two names with a comma between, as none,tumour")
    return names[0], names[1]


def run(options: argparse.Namespace) -> None:
    """Check, estimate, cut, write the split, read it back; raises InputError with every problem."""
    from medssl.check import check_split
    from medssl.cutting import FOLDERS, cut_split, divided
    from medssl.data_folder import flush_to_disk, new_data_folder
    from medssl.slices import Choice

    split = read_split(options.split, options.data_root)
    if split.task != "segmentation" and any(case.label is not None for part in PARTS for case in split.part(part)):
        raise InputError([Problem(str(split.file), "task", split.task, "segmentation, whose labels can be cut")])
    problems = check_split(split, spatial_dims=3)
    if problems:
        raise InputError(problems)
    classes = options.classes or class_names(split)
    with new_data_folder(options.out, FOLDERS, last=SPLIT) as out:
        check_room(split, options.out, options.every)
        choice = Choice(options.every, options.keep, options.least)
        label_maps = options.task == "segmentation"
        cuts = cut_split(split, choice, out, label_maps, merged=label_maps and options.classes is not None)
        parts = divided(split, cuts)
        empty = [part for part, cases in parts.items() if split.part(part) and not cases]
        if empty:
            raise InputError([Problem(str(split.file), part, "no slice to keep", "--keep all") for part in empty])
        flush_to_disk()
        write_split(out / SPLIT, described(split, options, classes) | parts)
        read_split(out / SPLIT)
    for line in [*table(split, cuts, classes), *notes(split, cuts, options)]:
        print(line)


def class_names(split: Split) -> tuple[str, str]:
    """What slices without and with an object are called: one of a single kind by its own name."""
    return "none", split.labels[1] if len(split.labels) == 2 and split.labels[1] != "none" else "object"


def check_room(split: Split, out: Path, every: int) -> None:
    """Tell from the headers what will be written at most; raises InputError when the disk has not the room."""
    from medssl.check import ras_axes
    from medssl.cutting import unique_cases
    from medssl.readers import read_header

    slices, size = 0, 0
    cases = unique_cases(split)
    for case in cases:
        headers = [read_header(path) for path in case.image]
        depth = headers[0].shape[ras_axes(headers[0])[2]]
        kept = math.ceil(depth / every)
        voxels = math.prod(headers[0].shape) // depth * kept
        size += voxels * sum(header.channels * header.dtype.itemsize for header in headers)
        size += voxels * (case.label is not None)
        slices += kept
    free = shutil.disk_usage(out).free
    print(f"slices: at most {slices} of {len(cases)} volumes, {size / 1e6:.1f} MB before compression", file=sys.stderr)
    if size > free:
        raise InputError([Problem(str(out), "free space", f"{free / 1e9:.1f} GB", f"{size / 1e9:.1f} GB")])


def described(split: Split, options: argparse.Namespace, classes: tuple[str, str]) -> dict[str, Any]:
    """The split of the slices without its parts."""
    labels = dict(enumerate(classes)) if options.task == "classification" or options.classes else split.labels
    made = f"--every {options.every} --keep {options.keep} --least {options.least}"
    content: dict[str, Any] = {
        "name": f"{split.name}-{options.task}-slices",
        "description": f"axial slices of {split.name}, made by medssl slices --task {options.task} {made}",
        "task": options.task,
        "modality": {str(number): name for number, name in split.modality.items()},
    }
    if labels:
        content["labels"] = {str(number): name for number, name in labels.items()}
    if options.task == "segmentation":
        content["empty_labels"] = True
    return content | {"grouped_by": split.grouped_by}


def table(split: Split, cuts: Mapping[str, "Cut"], classes: tuple[str, str]) -> list[str]:
    """Slices, patients and classes of each part, aligned; "-" where there is no label."""
    rows = [["", "slices", "patients", *classes]]
    for part in (part for part in PARTS if split.part(part)):
        cases = split.part(part)
        slices = [(case, one.is_object) for case in cases for one in cuts[case.id].of_part(part)]
        known = [is_object for case, is_object in slices if case.label is not None]
        counts = [str(known.count(False)), str(known.count(True))] if known else ["-", "-"]
        rows.append([part, str(len(slices)), str(len({case.patient for case in cases})), *counts])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in rows]


def notes(split: Split, cuts: Mapping[str, "Cut"], options: argparse.Namespace) -> list[str]:
    """What was left out, what a reader of scores should know, and what comes next."""
    blank, lines = sum(cut.blank for cut in cuts.values()), []
    if blank:
        lines.append(f"left out: {blank} slices that show nothing, constant or nearly so")
    if options.keep != "all":
        lines.append(f"note: --keep {options.keep} holds for validation and test too: scores leave out the other slices")
    return [*lines, f"next: medssl check {shlex.quote(str(options.out / SPLIT))} --deep"]
