"""The proof: a run that is killed again and again, each time started anew, ends as the run that was left alone.

Everything that a run leaves is held against the other's, bit for bit; only times, and what says where and with how many
workers it was computed, may differ.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import PIL.Image
import torch
from moments import Kill, set_trap
from started import forked

from medssl import checkpoint
from medssl.cli import script
from medssl.config import Pretrain, Shared

ROOT = Path(__file__).parents[3]
SOON = 30.0  # seconds in which all that a killed process leaves must have ended, on a machine with other work
TIMES = {"seconds", "judging_seconds", "memory_mb", "machine"}  # of a summary, besides what ends in _s
RANKS = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]


@dataclass
class Proof:
    """What was tried, and what came out."""

    kills: Counter[str] = field(default_factory=Counter)
    steps: int = 0  # compared
    lines: int = 0  # compared: of steps and validations
    differences: list[str] = field(default_factory=list)
    slowest: float = 0.0  # seconds from a kill to the end of everything that belonged to the run

    def __str__(self) -> str:
        told = ", ".join(f"{count} {moment}" for moment, count in sorted(self.kills.items()))
        return (
            f"{sum(self.kills.values())} kills, {self.steps} steps and {self.lines} lines compared, "
            f"{len(self.differences)} differences, all over {self.slowest:.1f} s after a kill [{told}]"
        )


def prove(settings: Shared, kills: Sequence[Kill], ranks: int = 1, inside: bool = False) -> Proof:
    """Train straight and with kills, and compare; `inside` without new programs: victims are forks of this process."""
    proof, folder = Proof(), settings.out.parent
    recipe = folder / "recipe.json"
    recipe.write_text(settings.model_dump_json(exclude={"out", "store", "workers"}))
    kind = "pretrain" if isinstance(settings, Pretrain) else "finetune"
    run = straight if ranks > 1 or not inside else within
    run(kind, words(recipe, "straight", workers=2), ranks)
    numbers = cycle((0, 2, 4))
    for kill in kills:
        start = words(recipe, "killed", next(numbers))
        program = [str(ROOT / f"ssl_{kind}.py"), *start]
        seconds = killed_fork(kill, settings, start[1:]) if inside else killed(kill, program, folder, ranks)
        proof.slowest = max(proof.slowest, seconds)
        proof.kills[kill.moment + (", alone" if kill.alone else "")] += 1
        refuse_halves(folder / "killed")
    run(kind, words(recipe, "killed", next(numbers)), ranks)
    compare(folder / "straight", folder / "killed", proof)
    return proof


def words(recipe: Path, name: str, workers: int) -> list[str]:
    """The arguments of a script; each run has a store of its own."""
    folder = recipe.parent
    return [str(recipe), f"out={folder / name}", f"store={folder / name}-store", f"workers={workers}", "--resume"]


def straight(kind: str, arguments: list[str], ranks: int) -> None:
    """Start a script as a user does; it must end well."""
    command = [sys.executable, *(RANKS if ranks > 1 else []), str(ROOT / f"ssl_{kind}.py"), *arguments]
    ended = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False, timeout=600)
    assert ended.returncode == 0, ended.stderr


def within(kind: str, arguments: list[str], ranks: int) -> None:
    """Run a script in this process."""
    assert script(kind, arguments) == 0


def killed(kill: Kill, program: list[str], folder: Path, ranks: int = 1) -> float:
    """Start a victim, which must die of this kill and leave no process; gives the seconds after which none was left."""
    tag = uuid4().hex
    stamp = folder / f"stamp-{tag}"
    command = [sys.executable, *(RANKS if ranks > 1 else []), str(Path(__file__).with_name("victim.py"))]
    process = subprocess.Popen(
        [*command, json.dumps(kill), str(stamp), *program], env=environment() | {"VICTIM": tag},
        start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    _, said = process.communicate(timeout=300)
    assert stamp.exists(), f"{kill} never came, {process.returncode}: {said}"
    assert process.returncode == (1 if ranks > 1 and kill.alone else -9), said
    while left := left_behind(tag):
        assert time.time() - stamp.stat().st_mtime < SOON, f"{kill} left processes {left}"
        time.sleep(0.05)
    seconds = time.time() - stamp.stat().st_mtime
    assert seconds < SOON, f"{kill} ended everything after {seconds:.0f} s"
    stamp.unlink()
    return seconds


def killed_fork(kill: Kill, settings: Shared, arguments: list[str]) -> float:
    """As `killed`, in a fork of this process, which need not import everything anew."""
    stamp = settings.out.parent / f"stamp-{uuid4().hex}"
    with forked(settings, *arguments, change=partial(set_trap, kill, stamp)) as process:
        process.ended(-signal.SIGKILL)
        struck = stamp.stat().st_mtime
        process.left_none(SOON)
    stamp.unlink()
    return time.time() - struck


def environment() -> dict[str, str]:
    """One thread, so that sums are added up in one order, and the sources of this checkout."""
    return os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def left_behind(tag: str) -> list[int]:
    """The processes with this mark in their environment, which every child inherits."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"VICTIM={tag}".encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:  # gone, or another user's
            continue
    return found


def refuse_halves(folder: Path) -> None:
    """Everything that bears its name in a run folder is whole, after whatever kill; metrics.jsonl may end in half a line."""
    if not (folder / "config.json").exists():
        return
    for path in (path for path in sorted(folder.iterdir()) if not path.name.startswith(".")):
        if path.suffix == ".json":
            json.loads(path.read_text())
        elif path.suffix == ".pt":
            checkpoint.load(path)
        elif path.suffix == ".png":
            PIL.Image.open(path).load()
        elif path.suffix == ".npz":
            arrays(path)
        elif path.suffix == ".html":
            assert path.read_text().rstrip().endswith("</html>"), path


def compare(straight: Path, killed: Path, proof: Proof) -> None:
    """Hold everything that two runs left against each other."""
    ours, theirs = lines(killed), lines(straight)
    trained = [line["step"] for line in theirs if "loss" in line]
    assert trained == list(range(1, len(trained) + 1))
    proof.steps, proof.lines = len(trained), len(theirs)
    names, others = ({path.name for path in folder.glob("[!.]*")} for folder in (straight, killed))
    proof.differences += [f"{name}: in one folder only" for name in sorted(names ^ others)]
    proof.differences += [f"metrics.jsonl: {a}, {b}" for a, b in zip(ours, theirs, strict=False) if a != b]
    proof.differences += [f"metrics.jsonl: {len(ours)} lines, {len(theirs)}"] if len(ours) != len(theirs) else []
    for name in sorted(names & others):
        if (straight / name).suffix in READ:
            pairs = [dict(leaves(READ[(folder / name).suffix](folder / name))) for folder in (straight, killed)]
            different = [key for key in pairs[0].keys() | pairs[1].keys() if pairs[0].get(key, "") != pairs[1].get(key, "")]
            proof.differences += [f"{name}: {key}: {[pair.get(key) for pair in pairs]}" for key in sorted(different)]
    assert not proof.differences, "\n".join(proof.differences)[:4000]


def lines(folder: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl, every one whole, floats bit by bit and without times."""
    parsed = [
        json.loads(text, parse_float=lambda x: float(x).hex(), parse_constant=str) for text in (folder / "metrics.jsonl").open()
    ]
    return [{key: value for key, value in line.items() if not key.endswith("_s")} for line in parsed]


def arrays(path: Path) -> dict[str, Any]:
    """The arrays of an .npz."""
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


def plain(path: Path) -> Any:
    """A JSON file without times and places."""
    without = {"config.json": {"out", "store", "workers"}, "summary.json": TIMES, "environment.json": {"started"}}
    content = json.loads(path.read_text())
    return {k: v for k, v in content.items() if k not in without.get(path.name, ()) and not k.endswith("_s")}


def state(path: Path) -> Any:
    """A checkpoint without its clock."""
    content = checkpoint.load(path)
    content.get("progress", {}).pop("seconds", None)
    return content


READ = {
    ".pt": state, ".npz": arrays, ".json": plain, ".csv": Path.read_bytes, ".safetensors": Path.read_bytes,
}  # fmt: skip


def leaves(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of a tree by their path, tensors and arrays as their type, shape and bytes."""
    if isinstance(tree, dict | list | tuple):
        for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
            yield from leaves(value, f"{path}.{key}")
    elif isinstance(tree, torch.Tensor | np.ndarray):
        values = tree.reshape(-1).view(torch.uint8).numpy() if isinstance(tree, torch.Tensor) else tree
        yield path, (str(tree.dtype), tuple(tree.shape), values.tobytes())
    else:
        yield path, tree.hex() if isinstance(tree, float) else tree
