"""One case from its files to what the store keeps: read, checked, geometry prepared, percentiles and positions taken."""

from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.data import MetaTensor
from numpy.typing import NDArray

from medssl.check import check_volume, content_hash
from medssl.fingerprints import Fingerprints
from medssl.problems import Problem, RunError, first_line
from medssl.readers import ReadError, Volume, read_image, read_images
from medssl.splits import Case, Split
from medssl.store import FOREGROUND, PERCENTILES, POSITIONS, Geometry
from transforms.extract import brain_mask
from transforms.prepare import prepare_geometry


class Prepared(NamedTuple):
    """A prepared case, ready to be written: arrays by name, and the rest of its Entry."""

    arrays: Mapping[str, NDArray[Any]]
    attributes: Mapping[str, Any]


def files_of(case: Case, labels: bool, masks: bool) -> list[Path]:
    """List the files that a case is made of; a label comes last, as it may be left away."""
    marks = [case.mask if masks else None, case.label if labels else None]
    return [*case.image, *(path for path in marks if isinstance(path, Path))]


def prepare_case(
    split: Split, case: Case, geometry: Geometry, labels: bool, fingerprints: Fingerprints
) -> Prepared | list[Problem]:
    """Read, check and prepare one case; gives its problems instead when it has any. RunError names it for all else."""
    try:
        masked = geometry.mask == "label"
        wanted = files_of(case, labels or masked, geometry.roi is not None)
        files = [(str(file), fingerprints.of(file)) for file in wanted]  # before they are read
        volume = read_images(case.image)
        label = read_image(case.label, label=True) if (labels or masked) and isinstance(case.label, Path) else None
        if masked and label is None:
            return [Problem(str(case.image[0]), "label", "none", "a segmentation of what mask=label hides")]
        if geometry.roi is not None and case.mask is None:
            return [Problem(str(case.image[0]), "mask", "none", "one, to cut the image around, or roi=null")]
        mask = read_image(case.mask, label=True) if geometry.roi is not None and case.mask else None
        return prepared_case(split, case, geometry, volume, label, files, labels, mask)
    except ReadError as error:
        return [error.problem]
    except Exception as error:
        raise RunError(f"case {case.id} ({case.image[0]}): {first_line(error)}") from error


def prepared_case(
    split: Split,
    case: Case,
    geometry: Geometry,
    volume: Volume,
    label: Volume | None,
    files: list[tuple[str, str]],
    labels: bool,
    mask: Volume | None = None,
) -> Prepared | list[Problem]:
    """Check and prepare a case that has been read, with positions to draw crops from."""
    found = checked_case(split, case, geometry, volume, label, files, labels, mask)
    if isinstance(found, list):
        return found
    shaped, values = found
    places = positions(case.id, values, shaped.arrays.get("label"), shaped.attributes["classes"], geometry)
    return shaped._replace(arrays={**shaped.arrays, **places})


def checked_case(
    split: Split,
    case: Case,
    geometry: Geometry,
    volume: Volume,
    label: Volume | None,
    files: list[tuple[str, str]],
    labels: bool,
    mask: Volume | None = None,
) -> tuple[Prepared, NDArray[np.float32]] | list[Problem]:
    """Check and prepare a case that has been read; gives also the intensities (c, *spatial) of the channels it has."""
    if volume.array.ndim - 1 != geometry.spatial_dims:
        found, expected = f"{volume.array.ndim - 1}D", f"{geometry.spatial_dims}D, as crop_size has"
        return [Problem(str(case.image[0]), "image", found, expected)]
    problems = check_volume(case, volume, label, split, mask)
    if problems:
        return problems
    channels = [content_hash(volume._replace(array=channel[None])) for channel in volume.array]
    content = channels[0] if len(channels) == 1 else content_hash(volume)
    volume = hide(compact(volume), label, geometry.mask)
    if split.coloured and len(volume.array) == 1 and not case.missing:
        volume = volume._replace(array=volume.array.repeat(3, axis=0))
    label = label if labels else None
    image, classes, affine = prepare(volume, label, geometry, mask)
    if 0 in image.shape:
        return [Problem(str(case.image[0]), "image", "no voxel", f"intensities above {geometry.foreground_above}")]
    values = volume._replace(array=image).values()
    arrays = {"image": with_missing(image, case.missing)} | ({} if classes is None else {"label": classes})
    attributes = {
        "id": case.id,
        "patient": case.patient,
        "slope": volume.slope,
        "intercept": volume.intercept,
        "affine": affine,
        "spacing": np.linalg.norm(affine[:3, :3], axis=0)[: geometry.spatial_dims].tolist(),
        "percentiles": with_missing(np.array([percentiles(channel) for channel in values], np.float32), case.missing),
        "content": content,
        "classes": 0 if classes is None else len(split.labels),
        "files": files,
        "missing": case.missing,
        "channels": channels,
    }
    return Prepared(arrays, attributes), values


def compact(volume: Volume) -> Volume:
    """The same intensities in a type of at most 4 bytes that torch computes with; only huge integers are rounded."""
    array, kind = volume.array, volume.array.dtype
    if kind.kind in "iu" and kind.itemsize >= 4 and kind != np.int32:
        fits = array.min() >= -(2**31) and array.max() < 2**31
        return volume._replace(array=array.astype(np.int32)) if fits else Volume(volume.values(), 1.0, 0.0, volume.affine)
    if kind == np.float64 or volume.slope < 0:  # a falling slope would turn "above" into "below"
        return Volume(volume.values(), 1.0, 0.0, volume.affine)
    return volume


def hide(volume: Volume, label: Volume | None, mask: str) -> Volume:
    """Set what a mask hides to the least intensity of each channel."""
    if mask == "none":
        return volume
    if mask == "brain":
        hidden = ~brain_mask(torch.from_numpy(volume.values())).numpy()
    else:
        assert label is not None
        hidden = label.values() > 0
    least = volume.array.min(axis=tuple(range(1, volume.array.ndim)), keepdims=True)
    return volume._replace(array=np.where(hidden, least, volume.array))


def with_missing(channels: NDArray[Any], missing: Sequence[int]) -> NDArray[Any]:
    """Put zeros into the places of the channels that a case lacks: (c, ...) -> (c with them, ...)."""
    for place in missing:  # in rising order
        channels = np.insert(channels, place, 0, axis=0)
    return channels


def prepare(
    volume: Volume, label: Volume | None, geometry: Geometry, mask: Volume | None = None
) -> tuple[NDArray[Any], NDArray[Any] | None, NDArray[Any]]:
    """Bring image and label to the wanted orientation and spacing and crop them; the image keeps its integer type.

    Label and mask lie where the image does: they were checked to, or their format can't say.
    """
    keys = ["image"] if label is None else ["image", "label"]
    above = geometry.foreground_above
    stored = None if above is None else (above - volume.intercept) / volume.slope
    kind = volume.array.dtype
    exact = np.float64 if kind == np.int32 else np.float32
    data = {"image": MetaTensor(torch.from_numpy(volume.array.astype(exact)), affine=torch.from_numpy(volume.affine))}
    if label is not None:
        data["label"] = MetaTensor(torch.from_numpy(label.values()), affine=data["image"].affine)
    if mask is not None:
        data["mask"] = MetaTensor(torch.from_numpy(mask.values()), affine=data["image"].affine)
    steps = prepare_geometry(
        keys, geometry.spacing, geometry.orientation, stored, geometry.spatial_dims,
        fit=geometry.fit, roi=geometry.roi, mask_key="mask",
    )  # fmt: skip
    prepared = steps(data)
    image = prepared["image"].numpy()
    if kind.kind in "iu":
        limits = np.iinfo(kind)
        image = np.clip(np.rint(image), limits.min, limits.max)
    classes = None if label is None else np.rint(prepared["label"].numpy())
    small = np.uint8 if classes is not None and classes.max(initial=0) < 256 else np.uint16
    return image.astype(kind), None if classes is None else classes.astype(small), prepared["image"].affine.numpy()


def percentiles(values: NDArray[np.float32]) -> NDArray[np.float64]:
    """The values at PERCENTILES, linearly between neighbours as numpy.percentile gives them, by one sort."""
    ordered = np.sort(values, axis=None)
    ranks = PERCENTILES / 100 * (ordered.size - 1)
    below = np.floor(ranks).astype(np.int64)
    above = np.minimum(below + 1, ordered.size - 1)
    low, high = ordered[below].astype(np.float64), ordered[above].astype(np.float64)
    result: NDArray[np.float64] = low + (high - low) * (ranks - below)
    return result


def positions(
    name: str, values: NDArray[Any], label: NDArray[Any] | None, classes: int, geometry: Geometry
) -> dict[str, NDArray[Any]]:
    """Sample voxel positions (n, axes) of the foreground and of each class that the label has.

    The foreground is what lies above the geometry's value, or above the mean, in any channel.
    """
    random = np.random.default_rng(list(sha256(name.encode()).digest()[:8]))
    shape = values.shape[1:]
    kind = np.int16 if max(shape) < 2**15 else np.int32
    above = values.mean() if geometry.foreground_above is None else geometry.foreground_above
    sampled = {}
    for place in (FOREGROUND, *range(classes)):
        where = np.flatnonzero((values > above).any(0) if place == FOREGROUND else label == place)
        if len(where):
            most = min(POSITIONS, max(100, len(where) // 20))  # a small image needs no more
            chosen = np.sort(random.choice(where, min(len(where), most), replace=False))
            sampled[f"positions-{place}"] = np.stack(np.unravel_index(chosen, shape), 1).astype(kind)
    return sampled
