"""One case from its files to what the store keeps: read, checked, geometry prepared, percentiles and positions taken."""

from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.data import MetaTensor
from numpy.typing import NDArray

from medssl.check import check_volume, content_hash
from medssl.fingerprints import Fingerprints
from medssl.problems import Problem
from medssl.readers import ReadError, Volume, read_image, read_images
from medssl.splits import Case, Split
from medssl.store import PERCENTILES, POSITIONS, Geometry
from transforms.prepare import prepare_geometry


class Prepared(NamedTuple):
    """A prepared case, ready to be written: arrays by name, and the rest of its Entry."""

    arrays: Mapping[str, NDArray[Any]]
    attributes: Mapping[str, Any]


def files_of(case: Case, labels: bool) -> list[Path]:
    """List the files that a case is made of."""
    return [*case.image, *([case.label] if labels and isinstance(case.label, Path) else [])]


def prepare_case(
    split: Split, case: Case, geometry: Geometry, labels: bool, fingerprints: Fingerprints
) -> Prepared | list[Problem]:
    """Read, check and prepare one case; gives its problems instead when it has any."""
    files = [(str(file), fingerprints.of(file)) for file in files_of(case, labels)]  # before they are read: see Fingerprints
    try:
        volume = read_images(case.image)
        label = read_image(case.label, label=True) if labels and isinstance(case.label, Path) else None
    except ReadError as error:
        return [error.problem]
    if volume.array.ndim - 1 != geometry.spatial_dims:
        found, expected = f"{volume.array.ndim - 1}D", f"{geometry.spatial_dims}D, as crop_size has"
        return [Problem(str(case.image[0]), "image", found, expected)]
    problems = check_volume(case, volume, label, split.labels)
    if problems:
        return problems
    image_array, label_array, affine = prepare(volume, label, geometry)
    if 0 in image_array.shape:
        return [Problem(str(case.image[0]), "image", "no voxel", f"intensities above {geometry.foreground_above}")]
    values = volume._replace(array=image_array).values()
    arrays = {"image": image_array} | ({} if label_array is None else {"label": label_array})
    arrays |= sampled_positions(case.id, values, label_array, len(split.labels), geometry)
    attributes = {
        "id": case.id,
        "patient": case.patient,
        "slope": volume.slope,
        "intercept": volume.intercept,
        "affine": affine.tolist(),
        "spacing": np.linalg.norm(affine[:3, :3], axis=0)[: geometry.spatial_dims].tolist(),
        "percentiles": [percentiles(channel) for channel in values],
        "content": content_hash(volume),
        "files": files,
    }
    return Prepared(arrays, attributes)


def prepare(volume: Volume, label: Volume | None, geometry: Geometry) -> tuple[NDArray[Any], NDArray[Any] | None, NDArray[Any]]:
    """Bring image and label to the wanted orientation and spacing and crop them; the image keeps its integer type."""
    keys = ["image"] if label is None else ["image", "label"]
    above = geometry.foreground_above
    stored = None if above is None else (above - volume.intercept) / volume.slope
    data = {"image": MetaTensor(torch.from_numpy(volume.array.astype(np.float32)), affine=torch.from_numpy(volume.affine))}
    if label is not None:
        data["label"] = MetaTensor(torch.from_numpy(label.array.astype(np.float32)), affine=torch.from_numpy(label.affine))
    prepared = prepare_geometry(keys, geometry.spacing, geometry.orientation, stored, geometry.spatial_dims)(data)
    image = prepared["image"].numpy()
    kind = volume.array.dtype
    if kind.kind in "iu":
        limits = np.iinfo(kind)
        image = np.clip(np.rint(image), limits.min, limits.max)
    classes = None if label is None else np.rint(prepared["label"].numpy())
    small = np.uint8 if classes is not None and classes.max(initial=0) < 256 else np.uint16
    return image.astype(kind), None if classes is None else classes.astype(small), prepared["image"].affine.numpy()


def percentiles(values: NDArray[np.float32]) -> list[float]:
    """The values at PERCENTILES, linearly between neighbours as numpy.percentile gives them, by one sort."""
    ordered = np.sort(values, axis=None)
    ranks = PERCENTILES / 100 * (ordered.size - 1)
    below = np.floor(ranks).astype(np.int64)
    above = np.minimum(below + 1, ordered.size - 1)
    low, high = ordered[below].astype(np.float64), ordered[above].astype(np.float64)
    result: list[float] = (low + (high - low) * (ranks - below)).tolist()
    return result


def sampled_positions(
    name: str, values: NDArray[Any], label: NDArray[Any] | None, classes: int, geometry: Geometry
) -> dict[str, NDArray[np.int16]]:
    """Sample voxel positions of each class that there is, or, without a label, of the foreground: class 1."""
    random = np.random.default_rng(list(sha256(name.encode()).digest()[:8]))
    if label is None:
        above = values.mean() if geometry.foreground_above is None else geometry.foreground_above
        masks = {1: (values > above).any(0)}
    else:
        masks = {k: label[0] == k for k in range(classes)}
    positions = {}
    for k, mask in masks.items():
        where = np.flatnonzero(mask)
        if len(where):
            chosen = random.choice(where, min(len(where), POSITIONS), replace=False)
            positions[f"positions-{k}"] = np.stack(np.unravel_index(np.sort(chosen), mask.shape), 1).astype(np.int16)
    return positions
