"""Whether an image looks like those that a network was trained on: what is unlike is told, and predicted all the same.

A number of channels that the network does not take is no matter of likeness, but an error.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from medssl.check import ras_axes
from medssl.plan import digests_of
from medssl.prediction.model import Model
from medssl.readers import Header, has_geometry
from medssl.readers.dicom import modality
from medssl.splits import Case
from medssl.store import Entry

SPACING = 1.5  # times coarser or finer than any training image, where nothing is resampled
RESAMPLED = 3.0  # the same where all images are brought to one spacing
SIZE = 2.0  # times larger or smaller
CONTRAST = 5.0  # times the range of intensities
FAMILIES = {  # DICOM's modalities by words that name channels
    "CT": ("CT", "HU"),
    "MR": ("MR", "MRI", "T1", "T1W", "T1C", "T1CE", "T1GD", "T2", "T2W", "FLAIR", "PD", "ADC", "DWI", "BOLD", "SWI"),
    "PT": ("PT", "PET", "SUV", "FDG"),
    "US": ("US", "ULTRASOUND"),
    "XR": ("CR", "DX", "XR", "XRAY", "X-RAY", "MG"),
}
X_RAYS = ("CR", "DX", "MG", "RG")


def unlike(model: Model, case: Case, header: Header, entry: Entry) -> list[str]:
    """Say how a case differs from the training images, a line each; `entry` is the case as prepared."""
    known: dict[str, Any] = model.description["training"]
    found = [_modality(model, case), _spacing(model, case, header, known), _size(entry, known)]
    found += [_intensity(model, entry, known, channel) for channel in range(model.split.channels)]
    if digests_of(entry) & set(model.description.get("seen") or []):
        found.append("this very image was seen in training: what is said of it does not show how new ones do")
    return [line for line in found if line]


def _modality(model: Model, case: Case) -> str | None:
    """What the DICOM files of a case say made them, against what the channels are called."""
    named = {family for name in model.split.modality.values() if (family := _family(name))}
    tag = modality(case.image[0])
    family = "XR" if tag in X_RAYS else tag
    if not named or family not in FAMILIES or family in named:
        return None
    return f"modality: found {tag}, the network was trained on {', '.join(model.split.modality.values())}"


def _family(name: str) -> str | None:
    words = name.upper().replace("_", " ").split()
    return next((family for family, known in FAMILIES.items() if any(word in known for word in words)), None)


def _spacing(model: Model, case: Case, header: Header, known: dict[str, Any]) -> str | None:
    if not known.get("spacing") or not has_geometry(case.image[0]):
        return None
    here = [header.spacing[axis] for axis in ras_axes(header)]
    low, high = known["spacing"]
    most = RESAMPLED if model.settings.spacing else SPACING
    if len(here) == len(low) and any(n * most < a or n > b * most for n, a, b in zip(here, low, high, strict=True)):
        return f"spacing: found {_by(here)} mm, the training images have {_span(low, high)} mm"
    return None


def _size(entry: Entry, known: dict[str, Any]) -> str | None:
    if not known.get("size"):
        return None
    here, (low, high) = np.multiply(entry.shape, entry.spacing).tolist(), known["size"]
    if any(n * SIZE < a or n > b * SIZE for n, a, b in zip(here, low, high, strict=True)):
        return f"size: found {_by(here)} mm as prepared, the training images have {_span(low, high)} mm"
    return None


def _intensity(model: Model, entry: Entry, known: dict[str, Any], channel: int) -> str | None:
    """Where intensities have a unit, how low and high they lie; percentiles of each volume bring any scale to 0..1."""
    if not known.get("levels") or channel in entry.missing or model.settings.intensity.name != "window":
        return None
    low, _, high = (float(entry.percentile(q)[channel]) for q in (0.5, 50.0, 99.5))
    (first, _, last), (later, _, most) = known["levels"][0][channel], known["levels"][1][channel]
    contrast = [last - later, most - first]  # the least and the largest range of one image, roughly
    narrow, wide = max(contrast[0], 0.0), contrast[1]
    apart = low > most or high < first
    if apart or high - low > CONTRAST * wide or (high - low) * CONTRAST < narrow:
        name = model.split.modality[channel]
        return (
            f"intensity: found {low:.6g} to {high:.6g} in {name}, the training images begin at {first:.6g} to {later:.6g} "
            f"and end at {last:.6g} to {most:.6g}"
        )
    return None


def _by(numbers: Sequence[float]) -> str:
    return "x".join(f"{number:.4g}" for number in numbers)


def _span(low: Sequence[float], high: Sequence[float]) -> str:
    same = all(math.isclose(a, b, rel_tol=1e-3) for a, b in zip(low, high, strict=True))
    return _by(low) if same else f"{_by(low)} to {_by(high)}"
