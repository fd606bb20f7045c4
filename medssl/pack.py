"""Packing: read every voxel of every case once, check it, prepare its geometry, write the store.

A store is named by its geometry; a case in it by its files and their content. What is already there and still true
is copied, what is new or changed is packed, and the file is replaced in one move, so that a reader never meets a
half-written or stale one.
"""

import json
import shutil
import sys
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from monai.data import MetaTensor
from numpy.typing import NDArray
from tqdm import tqdm

from medssl.atomic import atomic_path
from medssl.check import check_copies, check_volume, content_hash
from medssl.problems import InputError, Problem
from medssl.readers import ReadError, Volume, read_header, read_image, read_images
from medssl.splits import Case, Split
from medssl.store import PERCENTILES, POSITIONS, VERSION, Entry, Geometry, Store, write_entry
from transforms.prepare import prepare_geometry


@dataclass(frozen=True)
class Packed:
    """A prepared case, ready to be written."""

    case: Case
    arrays: dict[str, NDArray[Any]]
    attributes: dict[str, Any]


def ensure_store(
    split: Split, parts: Sequence[str], geometry: Geometry, folder: Path, labels: bool, workers: int = 2,
    skip: Collection[str] = (),
) -> tuple[Store, list[Problem]]:  # fmt: skip
    """Give a store with the cases of `parts`, packing what is not there yet, and the problems of those it could not pack.

    With `labels` the labels are packed as well. Cases with a file in `skip` are left out. Progress goes to stderr.
    """
    cases = [case for part in parts for case in split.part(part)]
    cases = [case for case in dict.fromkeys(cases) if not {str(file) for file in files_of(case, labels)} & set(skip)]
    classes = f"-{len(split.labels)}-classes" if labels else ""  # labels were checked against them
    path = folder / f"{split.name}-{geometry.key}{classes}.h5"
    everyone = [case for others in split.parts.values() for case in others]
    kept = {entry.id for entry in still_true(path, everyone, labels)}  # also of parts that this run does not read
    fresh = [case for case in cases if case.id not in kept]
    problems: list[Problem] = []
    if fresh or not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        check_room(path, fresh, geometry)
        problems = write_store(path, split, kept, fresh, geometry, labels, workers)
    store = Store.open(path)
    hashes = {case.id: store.entries[case.id].content for case in cases if case.id in store.entries}
    return store, problems + list(check_copies(split, hashes, parts).values())


def still_true(path: Path, cases: Sequence[Case], labels: bool) -> list[Entry]:
    """List the entries of an existing store whose files are what they were when packed."""
    try:
        store = Store.open(path)
    except (OSError, KeyError, ValueError):
        return []
    wanted = {case.id: [str(file) for file in files_of(case, labels)] for case in cases}
    found = [entry for entry in store.entries.values() if wanted.get(entry.id) == [file[0] for file in entry.files]]
    return [entry for entry in found if all(unchanged(*file) for file in entry.files)]


def unchanged(file: str, size: int, time: int, digest: str) -> bool:
    """Tell whether a file is what it was: same size and time, or else the same content."""
    path = Path(file)
    if not path.is_file() or path.stat().st_size != size:
        return False
    return path.stat().st_mtime_ns == time or sha256(path.read_bytes()).hexdigest() == digest


def files_of(case: Case, labels: bool) -> list[Path]:
    """List the files that a case is made of."""
    return [*case.image, *([case.label] if labels and isinstance(case.label, Path) else [])]


def check_room(path: Path, cases: Sequence[Case], geometry: Geometry) -> None:
    """Estimate the size from the headers and refuse, before anything is written, when the disk has not the room."""
    needed = sum(prepared_bytes(case, geometry) for case in cases) + (path.stat().st_size if path.exists() else 0)
    free = shutil.disk_usage(path.parent).free
    tqdm.write(f"store: packing {len(cases)} cases, at most {needed / 1e6:.0f} MB, into {path}", file=sys.stderr)
    if needed > free:
        raise InputError([Problem(str(path.parent), "free space", f"{free / 1e9:.1f} GB", f"{needed / 1e9:.1f} GB")])


def prepared_bytes(case: Case, geometry: Geometry) -> int:
    """Tell how large a case is when its voxels have the wanted spacing, before the foreground is cropped."""
    try:
        header = read_header(case.image[0])
    except (OSError, ReadError):
        return 0  # it is reported when it is read
    voxels = float(np.prod(header.shape)) * len(case.image) * header.channels
    if geometry.spacing is not None:
        voxels *= float(np.prod(np.divide(header.spacing, geometry.spacing)))
    return int(voxels * (header.dtype.itemsize + 1))


def write_store(
    path: Path,
    split: Split,
    kept: Collection[str],
    fresh: Sequence[Case],
    geometry: Geometry,
    labels: bool,
    workers: int,
) -> list[Problem]:
    """Write kept and fresh cases into a new file and move it into place; gives the problems of cases left out."""
    problems: list[Problem] = []
    with atomic_path(path) as temporary, h5py.File(temporary, "w") as file:
        if kept:
            with h5py.File(path, "r", locking=False) as old:
                for group in old.values():
                    if group.attrs["id"] in kept:
                        old.copy(group, file)
        for packed in pack_all(split, fresh, geometry, labels, workers):
            if isinstance(packed, list):
                problems += packed
            else:
                write_entry(file, sha256(packed.case.id.encode()).hexdigest()[:24], packed.arrays, packed.attributes)
        file.attrs["medssl_store"] = VERSION
        file.close()  # before it is moved into place
    return problems


def pack_all(
    split: Split, cases: Sequence[Case], geometry: Geometry, labels: bool, workers: int
) -> Iterator[Packed | list[Problem]]:
    """Prepare cases on a few threads, in order, holding no more than a few at a time."""
    count, waiting = max(workers, 1), iter(cases)
    with ThreadPoolExecutor(count) as pool, tqdm(total=len(cases), desc="packing", unit="case", disable=None) as bar:

        def submit(most: int) -> list[Future[Packed | list[Problem]]]:
            return [pool.submit(pack_case, split, case, geometry, labels) for case in islice(waiting, most)]

        futures = submit(2 * count)
        while futures:
            yield futures.pop(0).result()
            bar.update()
            futures += submit(1)


def pack_case(split: Split, case: Case, geometry: Geometry, labels: bool) -> Packed | list[Problem]:
    """Read, check and prepare one case; gives its problems instead when it has any."""
    try:
        volume = read_images(case.image)
        label = read_image(case.label) if labels and isinstance(case.label, Path) else None
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
        "affine": affine,
        "spacing": np.linalg.norm(affine[:3, :3], axis=0)[: geometry.spatial_dims],
        "percentiles": np.percentile(values, PERCENTILES),
        "content": content_hash(volume),
        "files": json.dumps([fingerprint(file) for file in files_of(case, labels)]),
    }
    return Packed(case, arrays, attributes)


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


def sampled_positions(
    name: str, values: NDArray[Any], label: NDArray[Any] | None, classes: int, geometry: Geometry
) -> dict[str, NDArray[np.int16]]:
    """Sample voxel positions of each class, or, without a label, of the foreground: class 1."""
    random = np.random.default_rng(list(sha256(name.encode()).digest()[:8]))
    if label is None:
        above = values.mean() if geometry.foreground_above is None else geometry.foreground_above
        masks = {1: (values > above).any(0)}
    else:
        masks = {k: label[0] == k for k in range(classes)}
    positions = {}
    for k, mask in masks.items():
        where = np.flatnonzero(mask)
        chosen = random.choice(where, min(len(where), POSITIONS), replace=False)
        positions[f"positions-{k}"] = np.stack(np.unravel_index(np.sort(chosen), mask.shape), 1).astype(np.int16)
    return positions


def fingerprint(path: Path) -> tuple[str, int, int, str]:
    """Say what a file is now: path, size, modification time and content."""
    state = path.stat()
    return str(path), state.st_size, state.st_mtime_ns, sha256(path.read_bytes()).hexdigest()
