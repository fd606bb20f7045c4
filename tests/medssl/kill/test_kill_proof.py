"""The proof itself can fail: a bit, a line or a file that differs is seen, a time is not."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from proof import Proof, compare

from medssl import checkpoint


def line(step: int, loss: float = 0.1) -> str:
    return json.dumps({"step": step, "loss": loss + step, "data_hash": f"{step:016x}", "step_s": 0.5}) + "\n"


def leave(folder: Path, odd: int = 0) -> None:
    """Write what a run of four steps could leave; a bit of the optimiser's state is `odd`."""
    (folder / "metrics.jsonl").write_text("".join(map(line, range(1, 5))))
    moments = torch.full((3,), 0.7)
    moments.view(torch.int32)[1] ^= odd
    optimiser = {"state": {0: {"exp_avg": moments, "step": torch.tensor(4.0)}}, "param_groups": [{"lr": 0.1}]}
    state = {"model": {"weight": torch.ones(2, 2)}, "optimiser": optimiser, "progress": {"step": 4, "seconds": 1.5}}
    checkpoint.save_latest(folder, state)
    (folder / "summary.json").write_text(json.dumps({"dice": 0.5, "seconds": 3.1}))


DAMAGES: dict[str, Callable[[Path], object]] = {
    "the last bit of a loss": lambda run: (run / "metrics.jsonl").write_text(
        "".join(map(line, range(1, 4))) + line(4, math.nextafter(4.1, 9) - 4)
    ),
    "a step that stands twice": lambda run: (run / "metrics.jsonl").write_text("".join(map(line, (1, 2, 2, 3, 4)))),
    "a step that is missing": lambda run: (run / "metrics.jsonl").write_text("".join(map(line, (1, 2, 3)))),
    "a bit of the optimiser's state": lambda run: leave(run, odd=1),
    "a score": lambda run: (run / "summary.json").write_text(json.dumps({"dice": math.nextafter(0.5, 1), "seconds": 3.1})),
    "a file that is missing": lambda run: (run / "summary.json").unlink(),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_difference_is_seen(damage: Callable[[Path], object], tmp_path: Path) -> None:
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    straight.mkdir()
    leave(straight)
    shutil.copytree(straight, killed)
    (killed / "summary.json").write_text(json.dumps({"dice": 0.5, "seconds": 99.0}))
    compare(straight, killed, Proof())
    damage(killed)
    with pytest.raises(AssertionError, match=r"metrics|checkpoint_latest|summary"):
        compare(straight, killed, Proof())
