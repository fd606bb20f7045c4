"""`medssl split FOLDER OUT.json`: from what lies in a folder to a split file, by whole patients."""

import argparse
import dataclasses
import shlex
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from statistics import mean
from typing import Any

from medssl.atomic import atomic_path
from medssl.problems import InputError, Problem, printable
from medssl.readers import ReadError, location, read_header
from medssl.sources import LAYOUTS, find_layout
from medssl.sources.found import TEXT, Found, list_files, named, shortened, suffix
from medssl.splits import PARTS, TASKS, read_split, write_split

SPAN: dict[str, Callable[[list[float]], float]] = {"least": min, "mean": mean, "most": max}  # of a part's numbers


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `medssl split`."""
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="where the images are; the split's data root")
    parser.add_argument("out", type=Path, metavar="OUT.json", help="the split file to write")
    source = parser.add_argument_group("source (default: a known layout is recognised)")
    source.add_argument("--image", action="append", metavar="TEMPLATE", help="as '{patient}/{id}.nii.gz'; again for channels")
    source.add_argument("--label", metavar="TEMPLATE", help="of segmentations, with fields of --image")
    source.add_argument("--table", type=Path, help="a CSV or TSV with columns image, label, mask, patient, part, weight")
    source.add_argument(
        "--columns", nargs="+", metavar="NAME=COLUMN", default=[], help="as image=t1,t2 label=dx patient=subject"
    )
    source.add_argument("--layout", choices=LAYOUTS, help="which layout the folder has")
    source.add_argument("--suffix", nargs="+", default=[], help="BIDS: as T1w; several are channels")
    source.add_argument("--label-column", metavar="NAME", help="BIDS: column of participants.tsv")
    source.add_argument("--keep-incomplete", action="store_true", help="--image, BIDS: keep cases that lack a channel, as null")
    source.add_argument("--unlabelled", action="append", default=[], metavar="DIR", help="more images (or TEMPLATE)")
    source.add_argument("--task", choices=TASKS)
    source.add_argument("--values", nargs="+", metavar="CLASS=NUMBER", help="a number for every class, for regression")
    source.add_argument("--modality", nargs="+", metavar="NAME", help="names of the channels")
    patients = parser.add_argument_group("patients")
    patients.add_argument("--patient", metavar="REGEX", help="over the relative path; its first group is the patient")
    patients.add_argument("--by-image", action="store_true", help="divide by image where no patient is known")
    dividing = parser.add_argument_group("dividing")
    dividing.add_argument("--validation", type=_share, metavar="N", help="a share or a number of cases [0.1]")
    dividing.add_argument("--test", type=_share, metavar="N", help="a share or a number of cases [0.2]")
    dividing.add_argument("--folds", type=int, metavar="K", help="cross-validation folds in place of a validation part")
    dividing.add_argument("--seed", type=int, default=0)
    dividing.add_argument("--no-pretraining", action="store_true", help="write no list for pre-training")
    parser.add_argument("--overwrite", action="store_true", help="replace OUT.json")


def run(options: argparse.Namespace) -> None:
    """Find, divide, write and read back; raises InputError."""
    from medssl.compose import Division, compose

    _refuse_places(options.folder, options.out)
    if options.folds is not None and options.folds < 2:
        raise InputError([Problem("split", "--folds", str(options.folds), "2 or more")])
    if options.out.exists() and not options.overwrite:
        raise InputError([Problem(str(options.out), "file", "a file", "a new one, or --overwrite")])
    files = list_files(options.folder)
    if not files:
        raise InputError([Problem(str(options.folder), "folder", "no file", "images")])
    found = _find(options, files)
    division = Division(
        *(options.validation, options.test, options.folds, options.seed),
        *(options.by_image, options.patient, not options.no_pretraining),
    )
    composed = compose(options.folder, found, division)
    if found.task == "segmentation" and not composed.labels and any(case.label is not None for case in found.cases):
        composed.labels = _read_classes(options.folder, found)
    content = _content(options, found, composed.labels, composed.grouped_by)
    with atomic_path(options.out) as temporary:  # what can't be read back never gets OUT's name
        write_split(temporary, content | composed.parts)
        try:
            read_split(temporary, options.folder)
        except InputError as error:
            raise InputError(shortened(problem._replace(file=str(options.out)) for problem in error.problems)) from None
    table = _table(composed.parts, composed.groups, composed.labels if found.task == "classification" else {})
    for line in [f"layout: {found.layout}", *table, *composed.notes, *_unused(files, found)]:
        _print(line)
    for line in _next(options):
        _print(line)


def _print(line: str) -> None:
    """Print one line whatever it holds: escapes stand for what stdout can't show."""
    encoding = sys.stdout.encoding or "utf-8"
    print(printable(line).encode(encoding, "backslashreplace").decode(encoding))


def _share(text: str) -> float:
    value = float(text)
    if not 0 <= value < 1 and not (value >= 1 and value.is_integer()):
        raise ValueError(text)
    return value


def _refuse_places(folder: Path, out: Path) -> None:
    problems = []
    if not folder.is_dir():
        problems.append(Problem(str(folder), "folder", "a file" if folder.exists() else "nothing", "a folder"))
    if not out.parent.is_dir():
        problems.append(Problem(str(out.parent), "folder", "nothing", "the folder that OUT.json goes to"))
    if out.is_dir():
        problems.append(Problem(str(out), "file", "a folder", "a file to write, as OUT.json"))
    if problems:
        raise InputError(problems)


def _find(options: argparse.Namespace, files: Sequence[str]) -> Found:
    from medssl.sources.table import COLUMNS, from_table
    from medssl.sources.template import from_folder_or_template, from_templates
    from medssl.sources.values import with_values

    renamed = dict(pair.split("=", 1) for pair in options.columns if "=" in pair)
    strange = [pair for pair in options.columns if pair.split("=")[0] not in COLUMNS or "=" not in pair]
    if strange:
        raise InputError([Problem("split", "--columns", pair, f"NAME=COLUMN of {', '.join(COLUMNS)}") for pair in strange])
    if (options.table is not None) + bool(options.image) + bool(options.layout) > 1:
        raise InputError([Problem("split", "source", "several", "one of --image, --table and --layout")])
    task = "classification" if options.values and options.task == "regression" else options.task  # of what is read
    if options.table:
        found = from_table(options.folder, options.table, task or "classification", renamed)
    elif options.image:
        found = from_templates(files, options.image, options.label, incomplete=options.keep_incomplete)
    else:
        found = find_layout(
            *(options.folder, files, options.layout, task),
            *(options.suffix, options.label_column, options.unlabelled, options.keep_incomplete),
        )
    found = with_values(found, options.values) if options.values else found
    if options.task and options.task != found.task:
        numbers = ", or --values CLASS=NUMBER" if (options.task, found.task) == ("regression", "classification") else ""
        raise InputError([Problem("split", "--task", options.task, f"{found.task}, which the source has{numbers}")])
    if not found.cases:
        raise InputError([Problem(str(options.folder), "cases", "no case has every channel", "one or more that have")])
    used = {path for case in found.cases for path in case.files}
    more = []
    for text in options.unlabelled:
        cases, labels = from_folder_or_template(files, text)
        more += cases
        if labels:
            found.left_out.append(f"label files of {text}, which are no unlabelled images: {named(labels)}")
    found.cases += [dataclasses.replace(case, part="pretraining") for case in more if case.image[0] not in used]
    paths = [path for case in found.cases for path in case.files]
    odd = [
        Problem(path, "name", "a character that can't be printed", "another name") for path in paths if not path.isprintable()
    ]
    if odd:
        raise InputError(shortened(odd))
    channels = max(len(case.channels) for case in found.cases)
    names = tuple(options.modality or ())
    if names and channels > 1 and len(names) != channels:
        raise InputError([Problem("split", "--modality", f"{len(names)} names", f"{channels}, one a channel")])
    found.modality = names or found.modality
    return found


def _content(options: argparse.Namespace, found: Found, labels: dict[int, str], grouped_by: str) -> dict[str, Any]:
    modality = tuple(options.modality or ()) or _modality(options.folder, found)
    content: dict[str, Any] = {
        "name": options.out.name.removesuffix(".json"),
        "description": f"made by medssl split, {found.layout}, seed {options.seed}",
        "task": found.task,
        "modality": {str(i): name for i, name in enumerate(modality)},
    }
    if labels:
        content["labels"] = {str(number): name for number, name in sorted(labels.items())}
    return content | {"grouped_by": grouped_by}


def _modality(folder: Path, found: Found) -> tuple[str, ...]:
    """The source's names where the files have so many channels, or made ones; medssl check tells what can't be read."""
    files = max(len(case.channels) for case in found.cases)
    first = min(found.cases, key=lambda case: len(case.missing))
    try:
        channels = sum(read_header(folder / path).channels for path in first.image) + len(first.missing)
    except ReadError:
        channels = len(found.modality) or files
    if len(found.modality) == channels:
        return found.modality
    if channels == files:
        return tuple(f"image {i}" for i in range(channels))
    return ("R", "G", "B") if channels == 3 else tuple(f"channel {i}" for i in range(channels))


def _read_classes(folder: Path, found: Found) -> dict[int, str]:
    """The classes of segmentations whose names nobody gives: every label file is read once."""
    from tqdm import tqdm

    paths = [folder / str(case.label) for case in found.cases if case.label is not None]
    with ThreadPoolExecutor(4) as pool:
        read = list(tqdm(pool.map(_values, paths), "labels", len(paths), disable=None, leave=False))
    problems = [value for value in read if isinstance(value, Problem)]
    values = {value for one in read if not isinstance(one, Problem) for value in one}
    highest = max(values, default=0)
    if not problems and highest > 2 * len(values) + 10:
        shown = ", ".join(f"{value:g}" for value in sorted(values)[:10])
        problems.append(Problem(str(folder), "labels", shown, "classes counted from 0 (write 1 for 255)"))
    if problems:
        raise InputError(shortened(problems))
    return {number: f"class {number}" if number else "background" for number in range(int(highest) + 1)}


def _values(path: Path) -> set[float] | Problem:
    import numpy as np

    from medssl.readers import ReadError, read_image

    try:
        volume = read_image(path, label=True)
    except ReadError as error:
        return error.problem
    values = set(np.unique(volume.array).astype(float) * volume.slope + volume.intercept)
    strange = sorted(value for value in values if value < 0 or value != round(value))
    return Problem(str(path), "label", f"{strange[0]:g}", "whole numbers from 0") if strange else values


def _table(parts: dict[str, list[dict[str, Any]]], groups: dict[str, str], labels: dict[int, str]) -> list[str]:
    """Cases, patients and classes, or the span of the numbers, of each part, aligned."""
    shown = dict(list(labels.items())[:8])
    known = groups != {id: id for id in groups}  # by image alone the number of patients would say nothing
    measured = [name for name in SPAN if any(isinstance(c.get("label"), float) for cases in parts.values() for c in cases)]
    rows = [["", "cases", *(["patients"] if known else []), *shown.values(), *measured]]
    for part in (part for part in PARTS if part in parts):
        cases = parts[part]
        counts = Counter(case.get("label") for case in cases if "label" in case)
        classes = [str(counts[number]) if counts else "-" for number in shown]
        people = [str(len({groups[case["id"]] for case in cases}))] if known else []
        numbers = [case["label"] for case in cases if isinstance(case.get("label"), float)]
        span = [f"{SPAN[name](numbers):.4g}" if numbers else "-" for name in measured]
        rows.append([part, str(len(cases)), *people, *classes, *span])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in rows]


def _unused(files: Sequence[str], found: Found) -> list[str]:
    used = {path for case in found.cases for path in case.files}
    places = {location(path).as_posix() for path in used}  # a DICOM series is its folder
    rest = [path for path in files if path not in used and PurePosixPath(path).parent.as_posix() not in places]
    images = [path for path in rest if suffix(path)]
    others = Counter(PurePosixPath(path).suffix.lower() or "no suffix" for path in rest if not suffix(path))
    notes = [f"image files that the layout does not use: {named(images)}"] if images else []
    counts = [f"{count} {name}" for name, count in sorted(others.items()) if name not in TEXT]
    return [*notes, *([f"files that medssl can't read: {', '.join(counts)}"] if counts else [])]


def _next(options: argparse.Namespace) -> list[str]:
    inside = options.out.parent.resolve() == options.folder.resolve()
    root = "" if inside else f" --data-root {shlex.quote(str(options.folder))}"
    note = [] if inside else ["paths start from FOLDER, so pass it as data root"]
    return [*note, f"next: medssl check {shlex.quote(str(options.out))}{root} --deep"]
