"""Packing: read every voxel of every case once, check it, prepare its geometry, write the store.

A store is named by its geometry; a case in it is true while the bytes of its files are what they were. What is new or
changed is packed into shards that are moved into place when they are whole, so that a reader never meets a half-written
or stale one, and a killed packing goes on after the shards it finished.
"""

import fcntl
import shutil
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from io import FileIO
from itertools import chain, count, islice
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from tqdm import tqdm

from medssl.atomic import atomic_path
from medssl.check import check_copies
from medssl.fingerprints import Fingerprints
from medssl.preparation import Prepared, files_of, prepare_case
from medssl.problems import InputError, Problem, RunError
from medssl.readers import ReadError, read_header
from medssl.splits import Case, Split
from medssl.store import Entry, Geometry, ShardWriter, Store, attributes_of, number_of, shard_path, shards_of

SHARD = 2**32  # bytes of prepared data after which the next shard begins


@dataclass(frozen=True)
class Wanted:
    """What a store shall hold: cases of a split, prepared by a geometry, with or without labels."""

    split: Split
    parts: Sequence[str]
    geometry: Geometry
    labels: bool

    @property
    def cases(self) -> list[Case]:
        """The cases of the parts, each once."""
        return list(dict.fromkeys(case for part in self.parts for case in self.split.part(part)))

    def path_in(self, folder: Path) -> Path:
        """Where the store lies in a folder of stores: named by split, geometry, and the classes its labels were checked by."""
        classes = f"-{len(self.split.labels)}-classes" if self.labels else ""
        return folder / f"{self.split.name}-{self.geometry.key}{classes}.h5"


def ensure_store(
    wanted: Wanted, path: Path, workers: int = 2, skip: Collection[str] = (), shard_bytes: int = SHARD
) -> tuple[Store, list[Problem]]:
    """Give the store at `path`, packing what is not there yet, and the problems of the cases it could not pack.

    Cases with a file in `skip` are left out. Progress goes to stderr. Raises InputError when the disk has not the room
    and RunError when writing fails.
    """
    cases = [case for case in wanted.cases if not {str(file) for file in files_of(case, wanted.labels)} & set(skip)]
    path.parent.mkdir(parents=True, exist_ok=True)
    with packing_alone(path), Fingerprints(path) as fingerprints:
        store = Store.open(shards_of(path))
        if store.geometry not in {None, wanted.geometry}:  # only a name given by hand can lead here
            raise InputError([Problem(str(path), "store", f"one prepared as {store.geometry}", str(wanted.geometry))])
        true = still_true(store, wanted, fingerprints)
        fresh = [case for case in cases if case.id not in true]
        problems: list[Problem] = []
        if fresh:
            check_room(path, fresh, wanted.geometry)
            problems = write_shards(path, store, true, wanted, fresh, fingerprints, workers, shard_bytes)
            store = Store.open(shards_of(path))
    good = {case.id for case in fresh} | true.keys()
    store.entries = {case.id: store.entries[case.id] for case in wanted.cases if case.id in good & store.entries.keys()}
    hashes = {entry.id: entry.content for entry in store.entries.values()}
    return store, problems + list(check_copies(wanted.split, hashes, wanted.parts).values())


@contextmanager
def packing_alone(path: Path) -> Iterator[None]:
    """Wait until no other process packs this store; the system frees the lock of a process that is gone."""
    try:
        lock = path.with_suffix(".lock").open("a")
    except OSError:  # a folder that is only for reading, where nobody packs
        yield
        return
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            tqdm.write(f"store: waiting for another process that packs {path}", file=sys.stderr)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def still_true(store: Store, wanted: Wanted, fingerprints: Fingerprints) -> dict[str, Entry]:
    """The entries whose patient and files are what they were when packed, also of parts that are not asked for."""
    cases = {case.id: case for others in wanted.split.parts.values() for case in others}

    def true(entry: Entry) -> bool:
        case = cases.get(entry.id)  # a case of another split of the same name stays while its own files do
        files = files_of(case, wanted.labels) if case else [Path(path) for path, _ in entry.files]
        return (case is None or case.patient == entry.patient) and [fingerprints.of(file) for file in files] == [
            digest for _, digest in entry.files
        ]

    return {id: entry for id, entry in store.entries.items() if true(entry)}


def check_room(path: Path, cases: Sequence[Case], geometry: Geometry) -> None:
    """Estimate the size from the headers and refuse, before anything is written, when the disk has not the room."""
    needed = sum(prepared_bytes(case, geometry) for case in cases)
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


def write_shards(
    path: Path,
    store: Store,
    true: Mapping[str, Entry],
    wanted: Wanted,
    fresh: Sequence[Case],
    fingerprints: Fingerprints,
    workers: int,
    shard_bytes: int,
) -> list[Problem]:
    """Write fresh cases into new shards; gives the problems of cases left out.

    Shards with an entry that is no longer true, and a last one that is not full, are written again without it.
    """
    again = {number for number, shard in enumerate(store.shards) if shard.path.stat().st_size < shard_bytes / 2}
    again |= {entry.image.shard for id, entry in store.entries.items() if id not in true}
    kept = {shard.path for number, shard in enumerate(store.shards) if number not in again}
    taken = {number_of(path, file) for file in kept}
    numbers = (number for number in count() if number not in taken)
    problems: list[Problem] = []

    def packed() -> Iterator[Prepared]:
        for entry in (entry for entry in true.values() if entry.image.shard in again):
            yield Prepared({name: store.array(extent) for name, extent in entry.arrays.items()}, attributes_of(entry))
        for result in pack_all(wanted, fresh, fingerprints, workers):
            if isinstance(result, Prepared):
                yield result
            else:
                problems.extend(result)

    cases, written = packed(), set()
    while first := next(cases, None):
        file = shard_path(path, next(numbers))
        write_shard(file, wanted.geometry, chain([first], cases), shard_bytes)
        written.add(file)
    for file in set(shards_of(path)) - kept - written:
        file.unlink()
    return problems


def write_shard(path: Path, geometry: Geometry, cases: Iterator[Prepared], shard_bytes: int) -> None:
    """Write cases into one file until it is full, and move it into place; raises RunError when it can't be written."""
    try:
        with atomic_path(path) as temporary, Outlet(temporary, "w+") as outlet:
            with h5py.File(outlet, "w") as file:
                shard = ShardWriter(file, geometry)
                for prepared in cases:
                    shard.add(*prepared)
                    if shard.bytes >= shard_bytes or outlet.failure:
                        break
                shard.finish()
            if outlet.failure:
                raise outlet.failure
    except OSError as error:
        raise RunError(f"{path}: found {error.strerror or error}, expected room to write the store") from error


class Outlet(FileIO):
    """A file that keeps its first failure and swallows what comes after it.

    HDF5 writes while it closes, too; failing there it prints a page and may not close at all.
    """

    failure: OSError | None = None

    def write(self, data: Any) -> int:
        rest = memoryview(data)
        try:
            while rest and not self.failure:
                rest = rest[super().write(rest) :]
        except OSError as error:
            self.failure = error
        return len(data)

    def truncate(self, size: int | None = None) -> int:
        try:
            return self.tell() if self.failure else super().truncate(size)
        except OSError as error:
            self.failure = error
            return self.tell()


def pack_all(
    wanted: Wanted, cases: Sequence[Case], fingerprints: Fingerprints, workers: int
) -> Iterator[Prepared | list[Problem]]:
    """Prepare cases on a few threads, in order, holding no more than a few at a time."""
    threads, waiting = max(workers, 1), iter(cases)
    with ThreadPoolExecutor(threads) as pool, tqdm(total=len(cases), desc="packing", unit="case", disable=None) as bar:

        def submit(most: int) -> list[Future[Prepared | list[Problem]]]:
            chosen = islice(waiting, most)
            return [
                pool.submit(prepare_case, wanted.split, case, wanted.geometry, wanted.labels, fingerprints) for case in chosen
            ]

        futures = submit(2 * threads)
        try:
            while futures:
                yield futures.pop(0).result()
                bar.update()
                futures += submit(1)
        finally:
            pool.shutdown(cancel_futures=True)
