"""Packing: read every voxel of every case once, check it, prepare its geometry, write the store.

A store is named by its geometry; a case in it is true while the bytes of its files are what they were. What is new or
changed is packed into shards that are moved into place when they are whole, so that a reader never meets a half-written
or stale one, and a killed packing goes on after the shards it finished.
"""

import glob
import os
import resource
import secrets
import shutil
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, count, islice
from pathlib import Path

import h5py
import numpy as np
from tqdm import tqdm

from medssl.atomic import atomic_path
from medssl.check import check_copies
from medssl.fingerprints import Fingerprints
from medssl.locks import take_lock
from medssl.outlet import Outlet
from medssl.preparation import Prepared, files_of, prepare_case
from medssl.problems import InputError, Problem, RunError
from medssl.readers import ReadError, read_header
from medssl.splits import Case, Split
from medssl.store import Entry, Geometry, Index, Shard, ShardWriter, Store, read_index, shard_path, shards_beside

SHARD = 2**29  # bytes of prepared data after which the next shard begins; a killed packing loses at most that


@dataclass(frozen=True)
class Wanted:
    """What a store shall hold: cases of a split, prepared by a geometry, with or without labels."""

    split: Split
    parts: Sequence[str]
    geometry: Geometry
    labels: bool

    @property
    def reads_labels(self) -> bool:
        """Whether label files are read: to be kept, or only to hide what they mark."""
        return self.labels or self.geometry.mask == "label"

    def files(self, case: Case) -> list[Path]:
        """The files of a case that are read."""
        return files_of(case, self.reads_labels, self.geometry.roi is not None)

    @property
    def cases(self) -> list[Case]:
        """The cases of the parts, each once; one that is in pre-training and in training with its label."""
        cases: dict[str, Case] = {}
        for case in (case for part in self.parts for case in self.split.part(part)):
            if case.id not in cases or case.label is not None:
                cases[case.id] = case
        return list(cases.values())

    def path_in(self, folder: Path) -> Path:
        """Where the store lies in a folder of stores."""
        return folder / f"{self.split.name}-{self.geometry.key}.h5"


@dataclass(frozen=True)
class Found:
    """The shards there are of a store, and where they stand."""

    store: Store
    indices: list[Index]


def ensure_store(
    wanted: Wanted, path: Path, workers: int = 2, skip: Collection[str] = (), shard_bytes: int = SHARD
) -> tuple[Store, list[Problem]]:
    """Give the store at `path`, packing what is not there yet, and the problems of the cases it could not pack.

    Cases with a file in `skip` are left out. Progress goes to stderr. Raises InputError when the disk has not the room
    or `path` is no store of this geometry, and RunError when writing fails.
    """
    cases = [case for case in wanted.cases if not {str(file) for file in wanted.files(case)} & set(skip)]
    path.parent.mkdir(parents=True, exist_ok=True)
    with packing_alone(path):
        fingerprints = Fingerprints(path)
        found = find_shards(path, wanted.geometry)
        true = still_true(found.store, wanted, fingerprints)
        fresh = [case for case in cases if case.id not in true]
        problems: list[Problem] = []
        if fresh:
            problems = write_shards(path, found, true, wanted, fresh, fingerprints, workers, shard_bytes)
            found = find_shards(path, wanted.geometry)
            true = still_true(found.store, wanted, fingerprints)
        fingerprints.save()
    store = found.store
    store.entries = {case.id: true[case.id] for case in cases if case.id in true}
    hashes = {entry.id: entry.content for entry in store.entries.values()}
    return store, problems + list(check_copies(wanted.split, hashes, wanted.parts).values())


@contextmanager
def packing_alone(path: Path) -> Iterator[None]:
    """Wait until no other process packs this store; the system frees the lock of a process that is gone."""
    try:
        lock = os.open(path.with_suffix(".lock"), os.O_RDONLY | os.O_CREAT, 0o666)
    except OSError:  # a folder that is only for reading, where nobody packs
        yield
        return
    try:
        if not take_lock(lock):
            tqdm.write(f"store: waiting for another process that packs {path}", file=sys.stderr)
            take_lock(lock, wait=True)
        for leftover in path.parent.glob(f".partial-????????-{glob.escape(path.stem)}.*"):
            leftover.unlink(missing_ok=True)  # of a packing that was killed
        yield
    finally:
        os.close(lock)


def find_shards(path: Path, geometry: Geometry) -> Found:
    """Open the shards of the store at `path`; of a case in two the one that was written later counts.

    Raises InputError when `path` is another file, damaged, or of another geometry: it may be somebody's only copy.
    """
    allow_open_files(2 * len(shards_beside(path)) + 100)
    shards, indices = list[Shard](), list[Index]()
    for file in [path, *shards_beside(path)] if path.exists() else []:
        try:
            shard = Shard(file)
            index = read_index(shard, len(shards))
        except ValueError as error:
            if file == path:
                expected = "a store, or a name that is free: remove or rename it"
                raise InputError([Problem(str(path), "store", f"no whole store ({error})", expected)]) from None
            continue
        if indices and index.store != indices[0].store:  # of another store, whose name goes on as ours does
            continue
        if index.geometry != geometry:  # only a name given by hand can lead here
            raise InputError([Problem(str(file), "store", f"one prepared as {index.geometry}", str(geometry))])
        shards.append(shard)
        indices.append(index)
    entries = chain.from_iterable(index.entries for index in sorted(indices, key=lambda index: index.serial))
    return Found(Store(shards, entries), indices)


def allow_open_files(number: int) -> None:
    """Raise this process's limit of open files as far as it may: each shard has two."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < number != resource.RLIM_INFINITY:
        resource.setrlimit(resource.RLIMIT_NOFILE, (number if hard == resource.RLIM_INFINITY else min(number, hard), hard))


def still_true(store: Store, wanted: Wanted, fingerprints: Fingerprints) -> dict[str, Entry]:
    """The entries whose patient and files are what they were when packed, also of parts that are not asked for."""
    cases = {case.id: case for others in wanted.split.parts.values() for case in others}
    cases |= {case.id: case for case in wanted.cases}

    def true(entry: Entry) -> bool:
        case = cases.get(entry.id)
        digests = [digest for _, digest in entry.files]
        if case is None:  # a case of another split of the same name stays while its own files do
            return [fingerprints.of(Path(path)) for path, _ in entry.files] == digests
        files = wanted.files(case)
        if wanted.labels and isinstance(case.label, Path) and entry.classes != len(wanted.split.labels):
            return False
        # a label that was packed and is not asked for does not matter, a channel does
        more = len(digests) - len(files) in (0, int(entry.label is not None))
        same = [fingerprints.of(file) for file in files] == digests[: len(files)]
        channels = entry.image.shape[0] == wanted.split.channels  # a grey picture has three beside coloured ones
        return more and same and channels and (case.patient, case.missing) == (entry.patient, entry.missing)

    return {id: entry for id, entry in store.entries.items() if true(entry)}


def check_room(path: Path, fresh: Sequence[Case], again: int, geometry: Geometry) -> None:
    """Estimate the size from the headers and refuse, before anything is written, when the disk has not the room."""
    needed = sum(prepared_bytes(case, geometry) for case in fresh) + again
    free = shutil.disk_usage(path.parent).free
    tqdm.write(f"store: packing {len(fresh)} cases, at most {needed / 1e6:.1f} MB, into {path}", file=sys.stderr)
    if needed > free:
        raise InputError([Problem(str(path.parent), "free space", f"{free / 1e9:.1f} GB", f"{needed / 1e9:.1f} GB")])


def prepared_bytes(case: Case, geometry: Geometry) -> int:
    """Tell how large a case is at most: at the wanted spacing or size, before the foreground is cropped."""
    try:
        header = read_header(case.image[0])
    except (OSError, ReadError):
        return 0  # it is reported when it is read
    channels = len(case.image) * header.channels + len(case.missing)
    voxels = float(np.prod(header.shape)) * channels
    if geometry.spacing is not None:
        voxels *= float(np.prod(np.divide(header.spacing, geometry.spacing)))
    if geometry.fit is not None:
        rest = header.shape[len(geometry.fit) :]  # the slices of a volume stay as many
        voxels = float(np.prod(geometry.fit) * np.prod(rest)) * channels
    return int(voxels * (min(header.dtype.itemsize, 4) + 1))


def write_shards(
    path: Path,
    found: Found,
    true: Mapping[str, Entry],
    wanted: Wanted,
    fresh: Sequence[Case],
    fingerprints: Fingerprints,
    workers: int,
    shard_bytes: int,
) -> list[Problem]:
    """Write fresh cases into new shards; gives the problems of cases left out.

    Shards that hold anything no longer true or superseded, and those less than half full, are written again without.
    """
    kept = [entry for entry in true.values() if entry.id not in {case.id for case in fresh}]
    again = set()
    for number, index in enumerate(found.indices):
        live = sum(entry.image.shard == number for entry in kept)
        if live < len(index.entries) or found.store.shards[number].state[0] < shard_bytes / 2:
            again.add(number)
    copied = [entry for entry in kept if entry.image.shard in again]
    check_room(path, fresh, sum(array_bytes(entry) for entry in copied), wanted.geometry)
    problems: list[Problem] = []

    def prepared() -> Iterator[Prepared]:
        for entry in copied:
            arrays = {name: found.store.array(extent) for name, extent in entry.arrays.items()}
            yield Prepared(arrays, {name: value for name, value in vars(entry).items() if name != "arrays"})
        for result in pack_all(wanted, fresh, fingerprints, workers):
            if isinstance(result, Prepared):
                yield result
            else:
                problems.extend(result)

    store = found.indices[0].store if found.indices else secrets.token_hex(8)
    serials = count(max((index.serial for index in found.indices), default=0) + 1)
    old = [found.store.shards[number].path for number in sorted(again)]
    free = (file for file in (shard_path(path, number) for number in count()) if not file.exists())
    names, cases, written = chain(old, free), prepared(), set()
    while first := next(cases, None):
        file = next(names)
        write_shard(file, (store, next(serials), wanted.geometry), chain([first], cases), shard_bytes)
        fingerprints.save()
        written.add(file)
    for file in set(old) - written - {path}:  # the first shard says which store this is, and stays
        file.unlink()
    return problems


def array_bytes(entry: Entry) -> int:
    """The size of a case in the store."""
    return sum(extent.bytes for extent in entry.arrays.values())


def write_shard(path: Path, head: tuple[str, int, Geometry], cases: Iterator[Prepared], shard_bytes: int) -> None:
    """Write cases into one file until it is full, and move it into place; raises RunError when it can't be written."""
    try:
        with atomic_path(path) as temporary, Outlet(temporary, "w+") as outlet:
            with h5py.File(outlet, "w", alignment_threshold=512, alignment_interval=64) as file:
                shard = ShardWriter(file, *head)
                for prepared in cases:
                    shard.add(*prepared)
                    if shard.bytes >= shard_bytes or outlet.failure:
                        break
                shard.finish()
            if outlet.failure:
                raise outlet.failure
    except OSError as error:
        raise RunError(f"{path}: found {error.strerror or error}, expected to write the store there") from error


def pack_all(
    wanted: Wanted, cases: Sequence[Case], fingerprints: Fingerprints, workers: int
) -> Iterator[Prepared | list[Problem]]:
    """Prepare cases on a few threads, in order, holding no more than a few at a time."""
    threads, waiting = max(workers, 1), iter(cases)
    with ThreadPoolExecutor(threads) as pool, tqdm(total=len(cases), desc="packing", unit="case", disable=None) as bar:

        def submit(most: int) -> list[Future[Prepared | list[Problem]]]:
            words = (wanted.geometry, wanted.labels, fingerprints)
            return [pool.submit(prepare_case, wanted.split, case, *words) for case in islice(waiting, most)]

        futures = submit(2 * threads)
        try:
            while futures:
                yield futures.pop(0).result()
                bar.update()
                futures += submit(1)
        finally:
            pool.shutdown(cancel_futures=True)
