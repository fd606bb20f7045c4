"""The fixture that makes a run of any kind."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from made_runs import KINDS, dims_of, write_run


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """Make the run of a kind in KINDS, with changes; its images are named, but need not exist."""

    def make(kind: str, **changes: Any) -> Path:
        return write_run(tmp_path / kind.replace(" ", "_"), dims_of(kind), **KINDS[kind] | changes)

    return make
