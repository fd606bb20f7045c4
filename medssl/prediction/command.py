"""`medssl predict RUN [RUN ...] -i IN -o OUT`: what a trained network says of images that it never saw."""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medssl.problems import InputError, Problem, RunError, failure

if TYPE_CHECKING:
    from medssl.prediction.inputs import Found
    from medssl.prediction.model import Model
    from medssl.prediction.predict import Options
    from medssl.prediction.results import Place
    from medssl.splits import Case


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `medssl predict`."""
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="a fine-tuning, or several that are one ensemble")
    parser.add_argument(
        "-i", "--input", required=True, metavar="IN",
        help="an image; A,B for the channels of a case, in the order of the split's modalities, empty where one is missing; a "
        "folder of images or of a DICOM series; a zip of DICOM files; a split",
    )  # fmt: skip
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="OUT", help="a new or empty folder for the results")
    parser.add_argument("--overwrite", action="store_true", help="write into a folder that has files")
    parser.add_argument("--part", default="test", help="of a split [test]")
    parser.add_argument("--data-root", type=Path, help="folder that a split's paths start from")
    parser.add_argument("--mask", type=Path, help="marks the object of the one image, for runs with roi=")
    parser.add_argument(
        "--flips", action="store_true", help="mean over flips along every axis: 4 times the work in 2D, 8 in 3D"
    )
    parser.add_argument(
        "--nearest", action="store_true", help="labels from the nearest voxel, not by interpolated probabilities"
    )
    parser.add_argument("--bids", action="store_true", help="name and lay out the results as BIDS derivatives")
    parser.add_argument("--dicom-seg", action="store_true", help="a DICOM segmentation as well (DICOM only; needs highdicom)")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads [all cores]")


def run(options: argparse.Namespace) -> None:
    """Predict every case and write its files; raises RunError at the end where some could not be."""
    from medssl.prediction.model import load_models
    from medssl.prediction.predict import Options
    from medssl.prediction.results import places_for, prepare_folder, write_dataset_description

    if options.part not in ("pretraining", "training", "validation", "test"):
        raise InputError([Problem("--part", "part", options.part, "pretraining, training, validation or test")])
    models = load_models(options.runs, options.device, options.threads)
    refuse_options(options, models)
    with readable(options.input) as where:
        found = find_input(options, where, models)
        places = places_for(options.out, found.cases, found.single, options.bids)
        prepare_folder(options.out, places, options.overwrite)
        if options.bids:
            write_dataset_description(options.out)
        say(f"{len(models)} network{'s' * (len(models) > 1)} on {models[0].compute}, {len(found.cases)} cases")
        how = Options(flips=options.flips, interpolate="nearest" if options.nearest else "linear")
        predict_all(models, found, places, how, options)


def refuse_options(options: argparse.Namespace, models: Sequence["Model"]) -> None:
    """Raise InputError for options that this task or this machine has not."""
    if options.dicom_seg:
        from medssl.prediction.dicom_seg import refuse_without_highdicom

        refuse_without_highdicom()
        if models[0].task != "segmentation":
            raise InputError([Problem("--dicom-seg", "task", models[0].task, "segmentation")])


@contextmanager
def readable(where: str) -> Iterator[str]:
    """Give a folder of the DICOM files of a zip while it is needed, anything else as it is."""
    from medssl.prediction.inputs import unzip

    if not where.lower().endswith(".zip") or not Path(where).is_file():
        yield where
        return
    with tempfile.TemporaryDirectory(prefix="medssl-") as folder:
        place = Path(folder) / Path(where).stem.lstrip(".")
        yield str(unzip(Path(where), place))


def find_input(options: argparse.Namespace, where: str, models: Sequence["Model"]) -> "Found":
    """Find the cases; raises InputError."""
    from medssl.prediction.inputs import find_cases

    channels = list(models[0].split.modality.values())
    return find_cases(where, channels, part=options.part, data_root=options.data_root, mask=options.mask)


def predict_all(
    models: Sequence["Model"], found: "Found", places: Sequence["Place"], how: "Options", options: argparse.Namespace
) -> None:
    """Predict and write case by case, a bad one told and passed over; raises as `run`."""
    from medssl.prediction.memory import forward_bytes
    from medssl.prediction.results import TABLE, write_summary, write_table

    forward = forward_bytes(models)
    began, rows = time.perf_counter(), []
    reports: dict[str, str | None] = {}
    for problem in found.problems:
        say(f"error: {problem}")
    for place, case in zip(places, found.cases, strict=True):
        try:
            rows.append(predict_one(models, case, place, how, options.dicom_seg, forward))
            reports[place.name] = None
        except (InputError, RunError, OSError, MemoryError, RuntimeError) as error:
            if found.single:
                raise
            lines = (
                [str(p) for p in error.problems] if isinstance(error, InputError) else [f"{case.image[0]}: {failure(error)}"]
            )
            reports[place.name] = lines[0]
            for line in lines[:1]:
                say(f"error: {line}")
    if rows:
        write_table(options.out / TABLE, rows)
    if not found.single:
        write_summary(options.out, reports, time.perf_counter() - began)
    bad = sum(line is not None for line in reports.values()) + len(found.problems)
    print(options.out)
    if bad:
        raise RunError(f"{bad} of {len(reports) + len(found.problems)} inputs could not be predicted")


def predict_one(
    models: Sequence["Model"], case: "Case", place: "Place", how: "Options", dicom_seg: bool, forward: int
) -> dict[str, Any]:
    """Predict a case with a bar, write its files, tell its warnings; gives its numbers."""
    from tqdm import tqdm

    from medssl.prediction.memory import estimate
    from medssl.prediction.predict import predict_case
    from medssl.prediction.results import statistics, write_case

    say(f"{case.id}: {estimate(models, case, forward)}")
    with tqdm(desc=place.name, unit="window", disable=None, leave=False) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        prediction = predict_case(models, case, how, progress=progress)
    for line in prediction.warnings:
        say(f"warning: {case.id}: {line}")
    write_case(place, models, prediction, how, dicom_seg=dicom_seg)
    return statistics(models, prediction)


def say(line: str) -> None:
    """Tell the user a line, above a bar if there is one."""
    from tqdm import tqdm

    from medssl.problems import printable

    tqdm.write(printable(line), file=sys.stderr)
