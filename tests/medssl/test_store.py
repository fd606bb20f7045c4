"""The store gives what the files hold, however it was written, interrupted, shared or damaged, and never anything stale."""

import dataclasses
import errno
import fcntl
import json
import os
import pickle
import resource
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import nibabel
import numpy as np
import pytest
from tqdm import tqdm

from medssl import pack
from medssl.pack import Wanted, ensure_store, find_shards, prepared_bytes
from medssl.preparation import prepare_case
from medssl.problems import InputError, RunError
from medssl.readers import read_image
from medssl.splits import Split, read_split
from medssl.store import PERCENTILES, Geometry, Shard, ShardWriter, Store, read_index, shards_beside

GEOMETRY = Geometry(3)
SHAPE = (9, 10, 11)


def save(folder: Path, name: str, seed: int) -> None:
    """A volume in RAS order, so that packing changes nothing, with a label."""
    random = np.random.default_rng(seed)
    image, label = random.integers(-500, 500, SHAPE).astype(np.int16), random.integers(0, 3, SHAPE).astype(np.uint8)
    made = nibabel.Nifti1Image(image, np.diag([1, 2, 3, 1]))
    made.header.set_slope_inter(0.5, 3)
    nibabel.save(made, folder / f"{name}.nii")
    nibabel.save(nibabel.Nifti1Image(label, np.diag([1, 2, 3, 1])), folder / f"{name}_label.nii")


@pytest.fixture
def split(tmp_path: Path) -> Split:
    """Eight labelled volumes."""
    cases = []
    for seed in range(8):
        save(tmp_path, f"v{seed}", seed)
        cases.append({"patient": f"P{seed}", "image": f"v{seed}.nii", "label": f"v{seed}_label.nii"})
    labels = {"0": "background", "1": "one", "2": "two"}
    (tmp_path / "split.json").write_text(json.dumps({"labels": labels, "training": cases}))
    return read_split(tmp_path / "split.json")


def ensure(split: Split, labels: bool = True, **options: Any) -> Store:
    """Pack what is missing; there must be no problem."""
    store, problems = ensure_store(Wanted(split, ["training"], GEOMETRY, labels), split.root / "s" / "store.h5", **options)
    assert problems == []
    return store


def shards_of(path: Path) -> list[Path]:
    """All files of a store."""
    return [path, *shards_beside(path)] if path.exists() else []


def assert_true(store: Store, split: Split) -> None:
    """Every case, read from the store, is what its files hold now."""
    assert list(store.entries) == [case.id for case in split.part("training")]
    for case in split.part("training"):
        entry, volume = store.entries[case.id], read_image(case.image[0])
        assert np.array_equal(store.array(entry.image), volume.array)
        assert np.array_equal(store.array(entry.label), read_image(case.label).array)
        assert (entry.slope, entry.intercept) == (volume.slope, volume.intercept) == (0.5, 3.0)
        assert entry.patient == case.patient
        assert np.array_equal(entry.affine, volume.affine)
        crop = store.view(entry.image, [2, -1, 9], [3, 4, 5])
        assert np.array_equal(crop, volume.array[:, 2:5, 0:3, 9:14])
        for k, extent in entry.positions.items():
            assert {int(store.array(entry.label)[0][tuple(p)]) for p in store.array(extent)} == {k}


@pytest.fixture
def packed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ids of the cases that are prepared from now on."""
    ids: list[str] = []

    def noted(split: Split, case: Any, *rest: Any) -> Any:
        ids.append(case.id)
        return prepare_case(split, case, *rest)

    monkeypatch.setattr(pack, "prepare_case", noted)
    return ids


@pytest.mark.parametrize("cases_a_shard", [1, 3, 8, 100])
def test_any_number_of_shards_holds_the_same(split: Split, cases_a_shard: int) -> None:
    case_bytes = np.prod(SHAPE) * 3  # int16 and a uint8 label, and 3 lists of positions on top
    store = ensure(split, shard_bytes=int(case_bytes * (cases_a_shard - 0.5)) if cases_a_shard > 1 else 1)
    assert_true(store, split)
    if cases_a_shard in {1, 100}:
        assert len(store.shards) == {1: 8, 100: 1}[cases_a_shard]
    assert shards_of(store.shards[0].path) == [shard.path for shard in store.shards]


@pytest.mark.parametrize("shard_bytes", [1, 2**13, 2**30])
def test_only_what_changed_is_packed_again(split: Split, packed: list[str], shard_bytes: int) -> None:
    for name in ("v1.nii", "v2.nii"):
        os.utime(split.root / name, (1, 1))
    ensure(split, shard_bytes=shard_bytes)
    packed.clear()
    os.utime(split.root / "v0.nii")
    ensure(split, shard_bytes=shard_bytes)
    assert packed == []  # another time, the same bytes
    shutil.move(split.root / "v1.nii", split.root / "swap")
    shutil.move(split.root / "v2.nii", split.root / "v1.nii")
    shutil.move(split.root / "swap", split.root / "v2.nii")  # sizes and modification times are as before, too
    save(split.root, "v5", 99)
    assert_true(ensure(split, shard_bytes=shard_bytes), split)
    assert sorted(packed) == ["v1", "v2", "v5"]
    packed.clear()
    first, *others = split.part("training")
    moved = dataclasses.replace(split, parts={"training": (dataclasses.replace(first, patient="P9"), *others)})
    assert_true(ensure(moved, shard_bytes=shard_bytes), moved)
    assert packed == ["v0"]
    if shard_bytes != 2**13:
        assert len(shards_of(split.root / "s" / "store.h5")) == {1: 8, 2**30: 1}[shard_bytes]


def test_data_that_moved_is_not_packed_again(split: Split, packed: list[str], tmp_path: Path) -> None:
    ensure(split)
    packed.clear()
    shutil.copytree(split.root, tmp_path / "new home")
    moved = read_split(tmp_path / "new home" / "split.json")
    assert_true(ensure(moved), moved)
    assert packed == []


def test_cases_of_another_split_of_that_name_stay(split: Split, packed: list[str]) -> None:
    ensure(split)
    cases = split.part("training")
    half = dataclasses.replace(split, parts={"training": cases[:4]})
    save(split.root, "v0", 50)
    assert_true(ensure(half), half)
    packed.clear()
    assert_true(ensure(split), split)
    assert packed == []


def child(work: Callable[[], object]) -> int:
    """Start a copy of this process that does the work; gives its number."""
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        code = 1
        tqdm.set_lock(threading.RLock())  # tqdm's own is shared over a fork: a killed child would keep it for ever
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return pid


def test_killed_at_any_moment_it_serves_whole_cases_and_goes_on(split: Split, packed: list[str]) -> None:
    slow = pack.prepare_case

    def slowly(*words: Any) -> Any:
        time.sleep(0.02)
        return slow(*words)

    pack.prepare_case = slowly  # the fixture `packed` puts the true one back
    random, kept = np.random.default_rng(0), list[int]()
    path = split.root / "s" / "store.h5"
    for _ in range(12):
        pid = child(lambda: ensure(split, shard_bytes=1, workers=1))
        time.sleep(random.uniform(0.0, 0.12))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        store = find_shards(path, GEOMETRY).store
        kept.append(len(store.entries))
        for case in split.part("training"):
            if case.id in store.entries:
                assert np.array_equal(store.array(store.entries[case.id].image), read_image(case.image[0]).array)
    assert kept == sorted(kept)  # nothing finished is lost
    assert kept[-1] > 0
    packed.clear()
    assert_true(ensure(split), split)
    assert len(packed) == 8 - kept[-1]


def test_two_processes_pack_once(split: Split, tmp_path: Path) -> None:
    """The second waits for the first, then finds everything there."""

    def work(name: str) -> None:
        pack.prepare_case = lambda *words: (tmp_path / f"{name}-{words[1].id}").touch() or prepare_case(*words)
        assert_true(ensure(split), split)

    pids = [child(lambda name=name: work(name)) for name in ("first", "second")]
    assert [os.waitpid(pid, 0)[1] for pid in pids] == [0, 0]
    assert len([*tmp_path.glob("first-*"), *tmp_path.glob("second-*")]) == 8


def test_a_file_that_is_replaced_or_written_to(split: Split) -> None:
    store = ensure(split)
    entry, path = store.entries["v3"], store.shards[0].path
    before = store.array(entry.image).copy()
    other = path.with_name("other")
    other.write_bytes(b"\0" * path.stat().st_size)
    os.replace(other, path)  # the open store keeps the file that it opened
    assert np.array_equal(store.array(entry.image), before)
    copy = pickle.dumps(store)
    with pytest.raises(OSError, match=r"found the store changed while in use.*store\.h5"):
        pickle.loads(copy).array(entry.image)
    shutil.rmtree(path.parent)
    store = ensure(split)
    again: Store = pickle.loads(pickle.dumps(store))
    assert np.array_equal(again.array(entry.image), before)
    with path.open("r+b") as file:
        file.truncate(100)  # a mapping would now end the process
    for victim in (store, again):
        with pytest.raises(OSError, match=r"found the store changed while in use.*store\.h5"):
            victim.array(entry.image)


@pytest.mark.parametrize("seed", range(30))
def test_an_interrupted_packing_never_leads_to_stale_data(split: Split, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files change, a packing fails after some shards, others change, and so on: what is served is what the files hold."""
    random, write = np.random.default_rng(seed), pack.write_shard
    left = 0

    def failing(*words: Any) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise RunError("no room")
        write(*words)

    monkeypatch.setattr(pack, "write_shard", failing)
    for _ in range(4):
        for number in random.choice(8, 3, replace=False):
            save(split.root, f"v{number}", int(random.integers(1000)))
        left = int(random.integers(4))
        try:
            assert_true(ensure(split, shard_bytes=int(random.choice([1, 9000, 2**13, 2**20]))), split)
        except RunError:
            continue
    left = 100
    assert_true(ensure(split, shard_bytes=9000), split)


def test_one_store_serves_pretraining_and_finetuning(split: Split, packed: list[str]) -> None:
    """Labels are added to what was packed without them, and then left where they are."""
    both = dataclasses.replace(split, parts={
        "training": split.part("training"),
        "pretraining": tuple(dataclasses.replace(case, label=None) for case in split.part("training")),
    })  # fmt: skip
    assert all(entry.label is None for entry in ensure(both, labels=False).entries.values())
    ensure(both)
    assert len(packed) == 16
    ensure(both, labels=False)
    ensure(both)
    wanted = Wanted(both, ["pretraining", "training"], GEOMETRY, True)
    assert len(wanted.cases) == 8
    assert ensure_store(wanted, split.root / "s" / "store.h5")[1] == []
    assert len(packed) == 16


def test_labels_are_checked_again_when_the_classes_change(split: Split) -> None:
    ensure(split)
    fewer = dataclasses.replace(split, labels={0: "background", 1: "one"})
    _, problems = ensure_store(Wanted(fewer, ["training"], GEOMETRY, True), split.root / "s" / "store.h5")
    assert len(problems) == 8
    assert "class 2" in str(problems[0])


@pytest.mark.parametrize("keep", [0, 1, 100, 5000, -1])
def test_what_is_no_whole_store_is_refused_and_left(split: Split, keep: int) -> None:
    path = split.root / "s" / "store.h5"
    ensure(split)
    broken = path.read_bytes()[:keep]
    path.write_bytes(broken)
    with pytest.raises(InputError, match=r"store\.h5: store: found no whole store"):
        ensure(split)
    assert path.read_bytes() == broken


def test_files_of_others_are_left(split: Split) -> None:
    """HDF5 files with names like those of shards, and shards of another store, are neither read nor touched."""
    path = split.root / "s" / "store.h5"
    ensure(split, shard_bytes=1)
    others = path.with_name("others")
    others.mkdir()
    for file in shards_of(path)[::2]:
        shutil.move(file, others / file.name)
    with h5py.File(path.with_name("store.4.h5"), "w") as file:
        file["weights"] = [1, 2]
    before = {file: file.read_bytes() for file in path.parent.glob("store.*.h5")}
    store = ensure(split, shard_bytes=1)
    assert_true(store, split)
    assert not {shard.path for shard in store.shards} & before.keys()
    assert {file: file.read_bytes() for file in before} == before


def test_a_damaged_further_shard_costs_its_cases_only(split: Split, packed: list[str]) -> None:
    third = ensure(split, shard_bytes=1).shards[2].path
    third.write_bytes(third.read_bytes()[:100])
    packed.clear()
    assert_true(ensure(split, shard_bytes=1), split)
    assert packed == ["v2"]


def test_a_full_disk_is_one_line_and_leaves_no_half_store(split: Split) -> None:
    def work() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        with pytest.raises(RunError, match=r"store\.h5: found .+, expected to write the store there"):
            ensure(split)

    assert os.waitpid(child(work), 0)[1] == 0
    assert list((split.root / "s").glob("*.h5")) == []
    assert_true(ensure(split), split)


def test_a_disk_that_is_too_small_is_refused_before_anything_is_written(split: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    needed = 8 * np.prod(SHAPE) * 3
    assert sum(prepared_bytes(case, GEOMETRY) for case in split.part("training")) == needed
    usage = shutil.disk_usage(split.root)._replace(free=needed - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(InputError, match="free space"):
        ensure(split)
    assert shards_of(split.root / "s" / "store.h5") == []


def test_a_folder_only_for_reading(split: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is there is served, though nothing can be remembered; what is not there is one line."""
    ensure(split)

    def refused(path: Any, flags: int, *words: Any, **named: Any) -> int:
        if flags & (os.O_CREAT | os.O_WRONLY | os.O_RDWR) and "/s/" in str(path):
            raise PermissionError(13, "Permission denied", str(path))
        return os_open(path, flags, *words, **named)

    os_open = os.open
    monkeypatch.setattr(os, "open", refused)  # a mode of the folder would not stop root
    monkeypatch.setattr(pack, "Outlet", refused_outlet)
    monkeypatch.setattr(Path, "write_bytes", refused_outlet)
    os.utime(split.root / "v0.nii")  # to be remembered
    assert_true(ensure(split), split)
    save(split.root, "v0", 77)
    with pytest.raises(RunError, match=r"store\.h5: found Permission denied, expected to write the store there"):
        ensure(split)


def refused_outlet(path: Path, *_: Any) -> None:
    raise PermissionError(13, "Permission denied", str(path))


def test_a_file_system_without_locks(split: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refused)
    assert_true(ensure(split), split)


def test_another_geometry_under_the_same_name_is_refused(split: Split) -> None:
    ensure(split)
    wanted = Wanted(split, ["training"], Geometry(3, (1.0, 1.0, 1.0)), True)
    with pytest.raises(InputError, match="expected 3D, spacing="):
        ensure_store(wanted, split.root / "s" / "store.h5")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_stays_small_however_much_is_read(tmp_path: Path) -> None:
    size, cases, shards = 2**24, 12, 4  # 0.8 GB of zeros, holes on disk
    attributes = {"patient": "", "slope": 1, "intercept": 0, "affine": np.eye(4), "spacing": [1, 1, 1], "content": ""}
    percentiles = np.zeros((1, len(PERCENTILES)), np.float32)
    opened, entries = [], []
    for number in range(shards):
        path = tmp_path / f"{number}.h5"
        with h5py.File(path, "w") as file:
            writer = ShardWriter(file, "store", number, GEOMETRY)
            for k in range(cases):
                data = file.create_dataset(f"big{k}", (1, 256, 256, 256), np.uint8)
                data[0, -1, -1, -1] = 1
                case = attributes | {"id": f"{number}-{k}", "percentiles": percentiles, "classes": 0, "files": []}
                writer.add({"image": np.zeros((1, 1, 1, 1), np.uint8)}, case)
                writer.cases[-1]["arrays"]["image"] = [data.id.get_offset(), "|u1", (1, 256, 256, 256)]
            writer.finish()
        opened.append(Shard(path))
        entries += read_index(opened[-1], number).entries
    store = Store(opened, entries)

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

    before = resident()
    for entry in store.entries.values():
        assert int(store.view(entry.image, [0, 0, 0], [256, 256, 256]).sum()) == 1
        assert resident() - before < 2**28 + 2 * size
    assert shards * cases * size > 2 * (2**28 + 2 * size)


def test_a_channel_that_the_split_no_longer_has_is_not_served(split: Split) -> None:
    def with_channels(*names: str) -> Split:
        first = dataclasses.replace(split.part("training")[0], image=tuple(split.root / name for name in names))
        return dataclasses.replace(split, parts={"training": (first,)}, modality=dict(enumerate(names)))

    for labels in (True, False):
        for names in (("v0.nii", "v1.nii"), ("v0.nii",), ("v0.nii", "v1.nii")):
            entry = next(iter(ensure(with_channels(*names), labels).entries.values()))
            assert entry.image.shape[0] == len(names)
