"""Stores and reports whose writer is killed: nothing half-written is ever read, and the next start ends as one alone would."""

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fabricated_runs import finetune_run
from moments import Kill
from proof import killed, leaves

from medssl.cli import main
from medssl.pack import find_shards
from medssl.store import Geometry, Store
from medssl.synth import make_dataset

pytestmark = [pytest.mark.kill, pytest.mark.slow]
PACKING = ("store: reading a case", "store: between two cases", "store: no index yet", "store: half a shard",
           "store: shard unmoved", "store: shard moved", "store: half of the fingerprints")  # fmt: skip
ROUNDS = 3  # in each of which the store gains a shard


def test_a_store_whose_packing_is_killed(tmp_path: Path, record_property: Callable[[str, Any], None]) -> None:
    split = make_dataset(tmp_path / "volumes", cases=36, dims=3)
    stores = [tmp_path / name / "store.h5" for name in ("straight", "killed")]
    words = [["pack", str(split), str(store), "--labels"] for store in stores]
    assert main(words[0]) == 0
    expected, kills, read = contents(stores[0]), Counter[str](), 0
    for nth in range(1, ROUNDS + 1):
        for moment in PACKING:
            killed(Kill(moment, nth=nth if moment in PACKING[:2] else 1), ["medssl", *words[1]], tmp_path)
            kills[moment] += 1
            found = contents(stores[1])
            read += len(found)
            assert all(value == expected[key] for key, value in found.items()), moment
        assert 0 < len(found) < len(expected)
    assert main(words[1]) == 0
    assert contents(stores[1]) == expected
    assert not list(stores[1].parent.glob(".partial-*"))
    told = ", ".join(f"{count} {moment}" for moment, count in kills.items())
    record_property("killed: store", f"{kills.total()} kills, {read} arrays read in between, 0 differences [{told}]")


def contents(path: Path) -> dict[tuple[str, str], Any]:
    """All that a store gives away: every field of a case by its name, every array."""
    store: Store = find_shards(path, Geometry(3)).store
    fields = {}
    for entry in store.entries.values():
        told = {name: value for name, value in vars(entry).items() if name != "arrays"}
        told |= {name: np.array(store.array(extent)) for name, extent in entry.arrays.items()}
        fields |= {(entry.id, name): list(leaves(value)) for name, value in told.items()}
    return fields


ONE = ("report: importing", "report: reading the run", "report: drawing", "report: half", "report: unsynced",
       "report: unmoved", "report: moved")  # fmt: skip
MANY = ("report: drawing", "report: summary half", "report: summary moved", "report: half", "report: unmoved", "report: moved")


@pytest.mark.parametrize(("name", "moments"), {"a run": ONE, "a comparison": MANY}.items())
def test_a_report_whose_writer_is_killed(
    name: str, moments: tuple[str, ...], tmp_path: Path, record_property: Callable[[str, Any], None]
) -> None:
    folder, straight = tmp_path / "runs", tmp_path / "straight"
    if name == "a run":
        finetune_run(folder, {f"p{k}_a": [0.5 + k / 20, 0.4] for k in range(5)})
    for k, encoder in enumerate(("none", "encoder.safetensors") if name == "a comparison" else ()):
        finetune_run(folder / str(k), {f"p{n}_a": [0.5 + n / 20 + k / 10, 0.4] for n in range(5)}, encoder=encoder)
    shutil.copytree(folder, straight)
    assert main(["report", str(folder)]) == 0
    expected, written, kills = files(folder), files(straight), Counter[str]()
    for before in ({}, {"report.html": b"old"}):  # the first report, and one in the place of another
        for moment in moments:
            shutil.rmtree(folder)
            shutil.copytree(straight, folder)
            for path, content in before.items():
                (folder / path).write_bytes(content)
            killed(Kill(moment), ["medssl", "report", str(folder)], tmp_path)
            kills[moment] += 1
            for path, content in files(folder).items():
                assert content in (expected[path], (written | before).get(path)), f"{moment}: {path}"
            assert main(["report", str(folder)]) == 0
            assert files(folder) == expected
    told = ", ".join(f"{count} {moment}" for moment, count in kills.items())
    record_property(f"killed: report of {name}", f"{kills.total()} kills, 0 halves [{told}]")


def files(folder: Path) -> dict[str, bytes]:
    """The files of a folder that bear a name, by their path in it."""
    found = [path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}
