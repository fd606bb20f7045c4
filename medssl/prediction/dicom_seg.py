"""A label map as a DICOM segmentation that refers to the series it was made of, by highdicom (the extra `dicomseg`).

Classes have codes of this program's own scheme, 99MEDSSL, as names of classes are free words; the names stand beside them.
"""

import warnings
from pathlib import Path
from typing import Any

import numpy as np

from medssl import __version__
from medssl.prediction.model import Model
from medssl.prediction.predict import Prediction, Segmented
from medssl.problems import InputError, Problem, first_line
from medssl.readers.dicom import frames_in_order, is_dicom

SCHEME = "99MEDSSL"
NAME = 64  # characters of a DICOM short text that is shown


def refuse_without_highdicom() -> None:
    """Raise InputError where highdicom is not installed."""
    try:
        import highdicom  # noqa: F401
    except ImportError:
        expected = "highdicom: pip install -e '.[dicomseg]'"
        raise InputError([Problem("--dicom-seg", "package", "none", expected)]) from None


def write_dicom_seg(path: Path, prediction: Prediction, found: Segmented, model: Model) -> None:
    """Write the classes above 0 of a DICOM case as binary segments; raises InputError for a case of other files."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it shows the names of patients that are not written as it likes
            segmentation_of(prediction, found, model).save_as(path)
    except (AttributeError, ValueError, TypeError) as error:  # what highdicom raises for tags that it needs
        place = str(prediction.case.image[0])
        raise InputError([Problem(place, "--dicom-seg", first_line(error), "the tags of a whole DICOM series")]) from error


def segmentation_of(prediction: Prediction, found: Segmented, model: Model) -> Any:
    """Make highdicom's segmentation; raises as `write_dicom_seg`, and what highdicom raises."""
    source = prediction.case.image[0]
    if len(prediction.case.image) > 1 or not is_dicom(source):
        expected = "one DICOM series or file: a DICOM segmentation refers to it"
        raise InputError([Problem(str(source), "--dicom-seg", "another format or several files", expected)])
    import highdicom
    import pydicom

    order = frames_in_order(source)
    images = [pydicom.dcmread(file) for file in dict.fromkeys(file for file, _ in order)]
    labels = found.labels[None] if found.labels.ndim == 2 else np.ascontiguousarray(found.labels.T)  # (slice, row, column)
    if len(images) == 1:  # highdicom goes by the order of the frames in the file
        labels = labels[np.argsort([frame for _, frame in order])]
    by = highdicom.AlgorithmIdentificationSequence(
        name=f"medssl {model.name}"[:NAME], version=__version__, family=_code("113076", "DCM", "Segmentation")
    )
    for image in images:  # which highdicom asks for, and anonymisers take away
        image.setdefault("SliceThickness", prediction.grid.spacing[-1] if labels.shape[0] > 1 else 1.0)
    return highdicom.seg.Segmentation(
        source_images=images,
        pixel_array=labels.astype(np.uint8 if len(model.labels) <= 256 else np.uint16),
        segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[_segment(k, name, by) for k, name in sorted(model.labels.items()) if k],
        series_instance_uid=highdicom.UID(),
        series_number=100,
        sop_instance_uid=highdicom.UID(),
        instance_number=1,
        manufacturer="medssl",
        manufacturer_model_name="medssl",
        software_versions=__version__,
        device_serial_number=model.sha256[:16],
        content_label="SEGMENTATION",
        content_description="research use only",
        series_description=f"medssl {model.name}, research use only"[:NAME],
    )


def _segment(k: int, name: str, by: Any) -> Any:
    import highdicom

    return highdicom.seg.SegmentDescription(
        segment_number=k,
        segment_label=name[:NAME],
        segmented_property_category=_code("123037004", "SCT", "Anatomical Structure"),
        segmented_property_type=_code(str(k), SCHEME, name[:NAME]),
        algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=by,
    )


def _code(value: str, scheme: str, meaning: str) -> Any:
    from highdicom.sr import CodedConcept

    return CodedConcept(value, scheme, meaning)
