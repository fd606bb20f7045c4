"""What a slot does with an image: exactly what `medssl predict` does, and the files that the page shows.

labels and numbers   as the command writes them, bit for bit
volume.nii.gz        of a volume: its first channel as stored, for a viewer
image.png            of a picture: its pixels in 8 bits; overlay.png: its labels in their colours
result.zip           all that the command would have left
"""

import io
import json
import threading
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.colors import to_rgb

from medssl.nifti_bytes import nifti_bytes
from medssl.prediction.model import Model
from medssl.prediction.predict import Limits as Sizes
from medssl.prediction.predict import Options, Prediction, Segmented, predict_case
from medssl.prediction.preview import colour_of, plane, scale_of
from medssl.prediction.results import REPORT, TABLE, Place, statistics, write_case, write_table
from medssl.problems import InputError, RunError, failure
from medssl.readers import Volume
from medssl.web.limits import Limits, Refusal
from medssl.web.opening import line_of
from medssl.web.results import Job, discard
from medssl.web.upload import Upload

NAME, ZIPPED = "image", "result.zip"  # of every case, in the names of its files, and of all of them together
_drawing = threading.Lock()  # matplotlib draws for one thread at a time


def worker(models: dict[str, Sequence[Model]], limits: Limits) -> Callable[[Job, Callable[[], None]], None]:
    """The work of one slot, with networks that no other slot uses."""

    def work(job: Job, check: Callable[[], None]) -> None:
        try:
            predict(job, models[job.model], limits, check)
        except InputError as error:
            raise Refusal(422, line_of(error, Upload(job.folder / NAME, job.name))) from None
        except (RunError, MemoryError) as error:
            raise Refusal(422, f"{job.name}: {failure(error)}".replace(str(job.folder), "")) from None
        finally:  # the upload is not needed any more
            for path in job.folder.iterdir():
                if path != job.result:
                    discard(path) if path.is_dir() else path.unlink()

    return work


def predict(job: Job, models: Sequence[Model], limits: Limits, check: Callable[[], None]) -> None:
    """Predict a job's case and write its files; raises what `predict_case` raises."""

    def progress(done: int, total: int) -> None:
        job.windows = done, total
        check()

    assert job.case is not None
    options = Options(flips=job.flips)
    prediction = predict_case(models, job.case, options, Sizes(limits.voxels, limits.voxels), progress)
    check()
    with _drawing:
        written = write_case(Place(job.result, NAME), models, prediction, options)
    numbers = statistics(models, prediction)
    written.append(write_table(job.result / TABLE, [numbers]))
    _without_paths(job.result / REPORT, models)
    archive, names = write_zip(job, written), [path.name for path in written]
    kept = [archive, *write_view(job.result, prediction)]
    job.files = {path.name: path for path in kept} | dict.fromkeys(names, archive)
    job.bytes = sum(path.stat().st_size for path in kept)
    job.found, job.warnings = numbers, prediction.warnings


def _without_paths(path: Path, models: Sequence[Model]) -> None:
    """Name the run in a report without the folder it lies in, which is no client's business."""
    report = json.loads(path.read_text("utf-8"))
    for told, model in zip(report["models"], models, strict=True):
        told["run"] = model.name
    path.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", "utf-8")


def write_zip(job: Job, written: Sequence[Path]) -> Path:
    """Move all files of a result into one, under the names that the command gives them: many small ones are slow to remove."""
    path = job.result / ZIPPED
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for file in written:
            packed = file.suffix in (".gz", ".png")
            archive.write(file, named(job, file.name), zipfile.ZIP_STORED if packed else None)
            file.unlink()
    return path


def content(job: Job, file: str) -> bytes:
    """A file of a result as it was written."""
    if job.files[file].name == file:
        return job.files[file].read_bytes()
    with zipfile.ZipFile(job.files[file]) as archive:
        return archive.read(named(job, file))


def named(job: Job, file: str) -> str:
    """What a file of a result is called once it is saved: data files have the name of the case, as the command gives it."""
    assert job.case is not None
    return job.case.id + file.removeprefix(NAME) if file.startswith(f"{NAME}_") else file


def write_view(folder: Path, prediction: Prediction) -> list[Path]:
    """Write what a viewer needs to show a case."""
    if len(prediction.grid.shape) == 3:
        return [write_volume(folder / "volume.nii.gz", prediction)]
    image = prediction.volume.array
    written = [folder / "image.png"]
    written[0].write_bytes(_png((plane(image, 0, *scale_of(image)) * 255).round().astype(np.uint8)))
    if isinstance(prediction.found, Segmented):
        written.append(folder / "overlay.png")
        written[1].write_bytes(_png(painted(prediction.found.labels)))
    return written


def write_volume(path: Path, prediction: Prediction) -> Path:
    """Write the first channel of a volume as NIfTI with its stored values, those of 64 bits as float32 for browsers."""
    array, slope, intercept, affine = prediction.volume
    first = array[:1] if array.dtype.itemsize < 8 else array[:1].astype(np.float32)
    path.write_bytes(nifti_bytes(Volume(first, slope, intercept, affine)))
    return path


def painted(labels: Any) -> Any:
    """A label map (h, w) in its colours (h, w, 4), clear where it is 0."""
    most = int(labels.max())
    colours = np.zeros((most + 1, 4), np.uint8)
    for k in range(1, most + 1):
        colours[k] = [*(round(255 * part) for part in to_rgb(colour_of(k))), 255]
    return colours[labels]


def _png(pixels: Any) -> bytes:
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()
