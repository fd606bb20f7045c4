"""The store gives what the files hold, however it was written, interrupted, shared or damaged, and never anything stale."""

import dataclasses
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
from medssl.pack import Wanted, ensure_store, prepared_bytes
from medssl.preparation import percentiles, prepare_case
from medssl.problems import InputError, RunError
from medssl.readers import read_image
from medssl.splits import Split, read_split
from medssl.store import PERCENTILES, Geometry, ShardWriter, Store, shards_of

GEOMETRY = Geometry(3)
SHAPE = (9, 10, 11)


def save(folder: Path, name: str, seed: int) -> None:
    """A volume in RAS order, so that packing changes nothing, with a label."""
    random = np.random.default_rng(seed)
    image, label = random.integers(-500, 500, SHAPE).astype(np.int16), random.integers(0, 3, SHAPE).astype(np.uint8)
    made = nibabel.Nifti1Image(image * 0.5 + 3, np.diag([1, 2, 3, 1]), dtype=np.int16)
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


def ensure(split: Split, **options: Any) -> Store:
    """Pack what is missing; there must be no problem."""
    store, problems = ensure_store(Wanted(split, ["training"], GEOMETRY, True), split.root / "s" / "store.h5", **options)
    assert problems == []
    return store


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
    assert len({shard.path.name for shard in store.shards}) == len(store.shards)


@pytest.mark.parametrize("shard_bytes", [1, 2**13, 2**30])
def test_only_what_changed_is_packed_again(split: Split, packed: list[str], shard_bytes: int) -> None:
    ensure(split, shard_bytes=shard_bytes)
    packed.clear()
    os.utime(split.root / "v0.nii")
    ensure(split, shard_bytes=shard_bytes)
    assert packed == []  # another time, the same bytes
    shutil.move(split.root / "v1.nii", split.root / "swap")
    shutil.move(split.root / "v2.nii", split.root / "v1.nii")
    shutil.move(split.root / "swap", split.root / "v2.nii")  # sizes and modification times as before
    save(split.root, "v5", 99)
    assert_true(ensure(split, shard_bytes=shard_bytes), split)
    assert sorted(packed) == ["v1", "v2", "v5"]
    packed.clear()
    first, *others = split.part("training")
    moved = dataclasses.replace(split, parts={"training": (dataclasses.replace(first, patient="P9"), *others)})
    assert_true(ensure(moved, shard_bytes=shard_bytes), moved)
    assert packed == ["v0"]
    names = [path.name for path in shards_of(split.root / "s" / "store.h5")]
    assert len(names) == len(set(names)) == {1: 8, 2**30: 1}.get(shard_bytes, len(names))


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
        store = Store.open(shards_of(path))
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
    with pytest.raises(OSError, match=r"store\.h5: found the store changed"):
        pickle.loads(copy).array(entry.image)
    shutil.rmtree(path.parent)
    store = ensure(split)
    again: Store = pickle.loads(pickle.dumps(store))
    assert np.array_equal(again.array(entry.image), before)
    with path.open("r+b") as file:
        file.truncate(100)  # a mapping would now end the process
    for victim in (store, again):
        with pytest.raises(OSError, match=r"store\.h5: found the store changed"):
            victim.array(entry.image)


@pytest.mark.parametrize("keep", [0, 1, 100, 5000, -1])
def test_a_damaged_or_foreign_shard_is_written_anew(split: Split, keep: int) -> None:
    ensure(split)
    path = split.root / "s" / "store.h5"
    path.write_bytes(path.read_bytes()[:keep])
    assert_true(ensure(split), split)
    with h5py.File(path, "w") as file:
        file["image"] = [1, 2]
    assert_true(ensure(split), split)


def test_a_full_disk_is_one_line_and_leaves_no_half_store(split: Split) -> None:
    def work() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        with pytest.raises(RunError, match=r"store\.h5: found .+, expected room to write the store"):
            ensure(split)

    assert os.waitpid(child(work), 0)[1] == 0
    assert [path for path in (split.root / "s").iterdir() if path.suffix == ".h5"] == []
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
    ensure(split)
    opened = Path.open

    def refused(path: Path, mode: str = "r", *words: Any, **named: Any) -> Any:
        if set(mode) & set("aw+"):
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, mode, *words, **named)

    monkeypatch.setattr(Path, "open", refused)  # a mode of the folder would not stop root
    assert_true(ensure(split), split)


def test_another_geometry_under_the_same_name_is_refused(split: Split) -> None:
    ensure(split)
    wanted = Wanted(split, ["training"], Geometry(3, (1.0, 1.0, 1.0)), True)
    with pytest.raises(InputError, match="expected 3D, spacing="):
        ensure_store(wanted, split.root / "s" / "store.h5")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_stays_small_however_much_is_read(tmp_path: Path) -> None:
    size, cases = 2**24, 48  # 0.8 GB of zeros, holes on disk
    with h5py.File(tmp_path / "store.h5", "w") as file:
        writer = ShardWriter(file, GEOMETRY)
        attributes = {"id": "", "patient": "", "slope": 1, "intercept": 0, "affine": np.eye(4).tolist(), "spacing": [1, 1, 1]}
        places = {}
        for k in range(cases):
            data = file.create_dataset(f"big{k}", (1, 256, 256, 256), np.uint8)
            data[0, -1, -1, -1] = 1
            places[k] = data.id.get_offset()
            writer.add({"image": np.zeros((1, 1, 1, 1), np.uint8)}, attributes | {
                "id": str(k), "percentiles": [[0] * len(PERCENTILES)], "content": "", "files": [],
            })  # fmt: skip
            writer.index[-1]["arrays"]["image"] = [places[k], "|u1", (1, 256, 256, 256)]
        writer.finish()
    store = Store.open([tmp_path / "store.h5"])

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

    before = resident()
    for entry in store.entries.values():
        assert int(store.view(entry.image, [0, 0, 0], [256, 256, 256]).sum()) == 1
        assert resident() - before < 2**28 + 2 * size
    assert cases * size > 2 * (2**28 + 2 * size)


@pytest.mark.parametrize("values", [np.arange(7), np.random.default_rng(0).normal(size=(3, 50, 7)), np.ones(1)])
def test_percentiles_are_numpys(values: np.ndarray) -> None:
    np.testing.assert_allclose(percentiles(values.astype(np.float32)), np.percentile(values, PERCENTILES), rtol=1e-5, atol=1e-6)
