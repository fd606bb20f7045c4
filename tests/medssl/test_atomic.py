"""A file is there whole, or as it was before."""

import os
import time
from pathlib import Path

import pytest

from medssl.atomic import LEFTOVER_AGE_S, atomic_path, write_atomically


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = write_atomically(tmp_path / "a.nii.gz", b"old")

    def fail() -> None:
        with atomic_path(target) as temporary:
            assert temporary.parent == tmp_path
            assert temporary.name.endswith("a.nii.gz")  # writers choose the format by the suffix
            temporary.write_bytes(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert target.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.nii.gz"]
    write_atomically(target, b"new")
    assert target.read_bytes() == b"new"


def test_only_old_leftovers_of_the_same_target_are_removed(tmp_path: Path) -> None:
    names = {".partial-01234567-b.pt": True, ".partial-01234567-a-b.pt": True, ".partial-76543210-b.pt": False}
    for name, old in names.items():
        (tmp_path / name).write_bytes(b"")
        changed = time.time() - (2 * LEFTOVER_AGE_S if old else 0)
        os.utime(tmp_path / name, (changed, changed))
    write_atomically(tmp_path / "b.pt", b"x")
    assert sorted(os.listdir(tmp_path)) == [".partial-01234567-a-b.pt", ".partial-76543210-b.pt", "b.pt"]
