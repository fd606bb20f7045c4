"""The files of a prediction: label map and its names, numbers, pictures, and last the report of how it was made.

One case lies flat in its folder, several have a folder each, or all lie as BIDS derivatives do. Every file is written whole
or not at all, and run_report.json comes last: a folder with it is complete.
"""

import csv
import io
import json
import platform
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from medssl import __version__
from medssl.atomic import atomic_path, write_atomically
from medssl.nifti_bytes import LONGEST
from medssl.prediction.inputs import case_digest, safe_names
from medssl.prediction.model import AGREED_SETTINGS, Model
from medssl.prediction.predict import Options, Prediction, Segmented
from medssl.prediction.preview import RESEARCH, colour_of, preview, saliency_picture
from medssl.problems import InputError, Problem
from medssl.readers import has_geometry
from medssl.run_folder import version_of
from medssl.splits import Case

REPORT, TABLE = "run_report.json", "predictions.csv"
ENTITY = re.compile(r"(?:^|_)((sub|ses|sample|task|acq|ce|rec|run|echo|part|chunk|tracer)-[A-Za-z0-9]+)")
PACKAGES = ("medssl", "torch", "monai", "numpy", "nibabel", "pydicom", "highdicom")


@dataclass(frozen=True)
class Place:
    """Where the files of a case go: data files have the case's name, the others do only where `prefixed`."""

    folder: Path
    name: str
    prefixed: bool = False

    def data(self, ending: str) -> Path:
        """The path of a file that is often copied elsewhere: NAME_dseg.nii.gz."""
        return self.folder / f"{self.name}_{ending}"

    def file(self, name: str) -> Path:
        return self.folder / (f"{self.name}_{name}" if self.prefixed else name)


def places_for(out: Path, cases: Sequence[Case], single: bool, bids: bool = False) -> list[Place]:
    """Give every case its place below a folder; no name from a file or a split reaches the path unchecked."""
    if bids:
        return _bids_places(out, cases)
    names = safe_names(cases)
    return [Place(out if single else out / name, name) for name in names]


def _bids_places(out: Path, cases: Sequence[Case]) -> list[Place]:
    prefixes = [_bids_prefix(case) for case in cases]
    places = []
    for number, (case, prefix) in enumerate(zip(cases, prefixes, strict=True)):
        shared = sum(other.casefold() == prefix.casefold() for other in prefixes) > 1  # T1w and FLAIR of one session
        parts = [part for part in prefix.split("_") if part.startswith(("sub-", "ses-"))]
        name = f"{prefix}_desc-{case_digest(case, number)}" if shared else prefix
        places.append(Place(out.joinpath(*parts, "anat"), name, prefixed=True))
    return places


def _bids_prefix(case: Case) -> str:
    """A case's entities in BIDS' order of the file's name; of other names their letters and digits as the subject."""
    entities = [found[0] for found in ENTITY.findall(case.id)]
    if entities and entities[0].startswith("sub-"):
        return "_".join(entities)
    bare = re.sub(r"[^A-Za-z0-9]", "", case.id)
    return f"sub-{bare}" if bare == case.id and len(bare) <= 80 else f"sub-{bare[:70]}{_digest(case.id)[:6]}"


def _digest(text: str) -> str:
    return sha256(text.encode("utf-8", "replace")).hexdigest()


def prepare_folder(out: Path, places: Sequence[Place], overwrite: bool) -> None:
    """Make the folder of results; raises InputError for one that holds anything, unless it may be written over.

    No report or DICOM segmentation of an earlier run is left in the places of the cases, which may fail now.
    """
    if out.exists() and not out.is_dir():
        raise InputError([Problem(str(out), "out", "a file", "a folder")])
    if not overwrite and out.is_dir() and any(out.iterdir()):
        raise InputError([Problem(str(out), "out", "a folder with files", "a new or empty one, or --overwrite")])
    out.mkdir(parents=True, exist_ok=True)
    old = [path for place in places for path in (place.file(REPORT), place.data("dseg.dcm"))]
    for path in (out / REPORT, out / TABLE, *old):  # what is there is no longer whole
        path.unlink(missing_ok=True)


def write_case(
    place: Place, models: Sequence[Model], prediction: Prediction, options: Options, *, dicom_seg: bool = False
) -> list[Path]:
    """Write all files of a case and give their paths, the report last; raises InputError for a DICOM-SEG of other files."""
    place.folder.mkdir(parents=True, exist_ok=True)
    place.file(REPORT).unlink(missing_ok=True)
    found, model = prediction.found, models[0]
    written: list[Path] = []
    if isinstance(found, Segmented):
        written += [write_labels(place, model, prediction, found), write_names(place.data("dseg.tsv"), model)]
        if dicom_seg:
            from medssl.prediction.dicom_seg import write_dicom_seg

            with atomic_path(place.data("dseg.dcm")) as temporary:
                write_dicom_seg(temporary, prediction, found, model)
            written.append(place.data("dseg.dcm"))
    elif found.saliency is not None:
        written.append(write_atomically(place.file("saliency.png"), saliency_picture(found, prediction)))
    written.append(_write_json(place.file("statistics.json"), statistics(models, prediction)))
    written.append(write_atomically(place.file("preview.png"), preview(models, prediction)))
    report = run_report(models, prediction, options) | {"files": [path.name for path in written]}
    return [*written, _write_json(place.file(REPORT), report)]


def write_labels(place: Place, model: Model, prediction: Prediction, found: Segmented) -> Path:
    """Write the label map: NIfTI with the input's affine, or of a picture an indexed PNG of as many pixels."""
    if found.labels.ndim == 2 and not str(prediction.case.image[0]).lower().endswith((".nii", ".nii.gz", ".nrrd")):
        return _write_picture(place.data("dseg.png"), model, found)
    import nibabel

    kind = nibabel.Nifti1Image if max(found.labels.shape) <= LONGEST else nibabel.Nifti2Image
    image: Any = kind(found.labels, None)
    image.header.set_xyzt_units("mm")
    image.header.set_intent("label", name="medssl")
    image.set_sform(prediction.grid.affine, 1)
    image.set_qform(prediction.grid.affine, 1)  # without the shear that a tilted gantry makes, which it can't hold
    with atomic_path(place.data("dseg.nii.gz")) as temporary:
        nibabel.save(image, temporary)
    return place.data("dseg.nii.gz")


def _write_picture(path: Path, model: Model, found: Segmented) -> Path:
    from PIL import Image

    picture = Image.fromarray(found.labels)
    if found.labels.dtype == np.uint8:
        picture = Image.frombytes("P", picture.size, found.labels.tobytes())
        colours = ["#000000", *(colour_of(k) for k in range(1, len(model.labels)))]
        picture.putpalette([int(colour[i : i + 2], 16) for colour in colours for i in (1, 3, 5)])
    with atomic_path(path) as temporary:
        picture.save(temporary, "PNG")
    return path


def write_names(path: Path, model: Model) -> Path:
    """Write what the numbers of a label map mean, as BIDS has it: index, name, colour."""
    rows = [[k, name, "#000000" if not k else colour_of(k)] for k, name in sorted(model.labels.items())]
    return write_atomically(path, _table(["index", "name", "color"], rows, "\t"))


def statistics(models: Sequence[Model], prediction: Prediction) -> dict[str, Any]:
    """The result in numbers: volumes by class, or probabilities, or the number."""
    found, model = prediction.found, models[0]
    head = {"case": prediction.case.id, "task": model.task}
    if isinstance(found, Segmented):
        unit = unit_of(prediction)
        voxel = 1.0 if unit == "pixels" else prediction.grid.voxel
        classes = {
            model.labels[k]: {"index": k, "voxels": count, "volume": count * voxel} for k, count in found.voxels.items() if k
        }
        spacing = None if unit == "pixels" else list(prediction.grid.spacing)
        return head | {"unit": unit, "classes": classes, "shape": list(prediction.grid.shape), "spacing": spacing}
    if not found.probabilities:
        return head | {"target": model.target, "predicted": found.predicted, "by_network": list(found.each)}
    names = [model.labels[k] for k in sorted(model.labels)]
    temperatures = [one.temperature for one in models]
    return head | {
        "predicted": names[int(found.predicted)],
        "index": int(found.predicted),
        "probabilities": dict(zip(names, found.probabilities, strict=True)),
        "calibrated": found.calibrated,
        "temperature": temperatures if len(temperatures) > 1 else temperatures[0],
        "uncalibrated": dict(zip(names, found.raw, strict=True)),
        "by_network": list(found.each),
    }


def unit_of(prediction: Prediction) -> str:
    """The unit of volumes: mm3, of 2D images mm2, or pixels where the format knows no spacing."""
    dims = len(prediction.grid.shape)
    return "pixels" if dims == 2 and not has_geometry(prediction.case.image[0]) else f"mm{dims}"


def run_report(models: Sequence[Model], prediction: Prediction, options: Options) -> dict[str, Any]:
    """How a prediction was made: versions, networks with their hashes, input with its hash, settings, time, warnings."""
    model = models[0]
    return {
        "medssl": __version__,
        "versions": {"python": platform.python_version(), **{name: version_of(name) for name in PACKAGES}},
        "note": RESEARCH,
        "models": [
            {
                "run": str(one.path.parent),
                "sha256": one.sha256,
                "task": one.task,
                "network": one.settings.network.name,
                "data": one.description["data"],
                "step": one.description["step"],
                "seed": one.settings.seed,
                "temperature": one.temperature,
            }
            for one in models
        ],
        "input": {
            "files": [{"name": name, "sha256": digest} for name, digest in prediction.hashes],
            "content": prediction.content,
            "channels_missing": list(prediction.case.missing),
        },
        "preparation": {name: model.description["settings"].get(name) for name in AGREED_SETTINGS},
        "prepared_shape": list(prediction.prepared),
        "options": asdict(options) | {"overlap": model.settings.overlap},
        "device": str(model.compute),
        "seconds": {name: round(value, 3) for name, value in prediction.seconds.items()},
        "finished": time.strftime("%Y-%m-%d %H:%M:%S%z"),
        "warnings": prediction.warnings,
    }


def write_table(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    """Write predictions.csv: a line a case, of what `statistics` says of each."""
    lines = [_flat(row) for row in rows]
    columns = list(dict.fromkeys(key for line in lines for key in line))
    return write_atomically(path, _table(columns, [[line.get(key, "") for key in columns] for line in lines], ","))


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers of a case in one line, named as in a run's predictions.csv."""
    line = {"case": row["case"]}
    if row["task"] == "segmentation":
        return line | {f"{name}_{row['unit']}": found["volume"] for name, found in row["classes"].items()}
    line["predicted"] = row["predicted"]
    if row["task"] == "regression":
        return line
    return line | {"calibrated": row["calibrated"]} | {f"p_{name}": share for name, share in row["probabilities"].items()}


def write_dataset_description(out: Path) -> Path:
    """Write what makes a folder a BIDS derivative."""
    made_by = [{"Name": "medssl", "Version": __version__}]
    content = {"Name": "medssl predictions", "BIDSVersion": "1.10.0", "DatasetType": "derivative", "GeneratedBy": made_by}
    return _write_json(out / "dataset_description.json", content)


def write_summary(out: Path, reports: Mapping[str, str | None], seconds: float) -> Path:
    """Write the report over several cases: by case what went wrong, or nothing."""
    failed = {case: line for case, line in reports.items() if line is not None}
    content = {"medssl": __version__, "cases": len(reports), "failed": failed, "seconds": round(seconds, 3)}
    return _write_json(out / REPORT, content)


def _table(header: Sequence[str], rows: Iterable[Sequence[Any]], delimiter: str) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([_plain(cell) for cell in row] for row in rows)
    return text.getvalue().encode("utf-8", "backslashreplace")


def _plain(cell: Any) -> Any:
    """A cell that no spreadsheet takes for a formula."""
    return f"'{cell}" if isinstance(cell, str) and cell[:1] in "=+-@\t\r" and cell[:1] else cell


def _write_json(path: Path, content: Any) -> Path:
    text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    return write_atomically(path, text.encode("utf-8", "replace"))
