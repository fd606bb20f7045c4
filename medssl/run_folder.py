"""The run folder: everything about one training, in files that a person and a program can read.

One process owns a run: a lock on `.lock`, which the system frees when the process is gone. Nothing is written before
all settings and data are known to be good. Of many ranks, which all see the folder, rank 0 owns it and writes.
"""

import json
import os
import platform
import sys
import time
import weakref
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self, TextIO

from tqdm import tqdm

from medssl.atomic import write_atomically
from medssl.checkpoint import LATEST, PREVIOUS
from medssl.conditions import differences, telling
from medssl.config import Shared
from medssl.lines import Lines
from medssl.locks import take_lock
from medssl.problems import InputError, Problem
from medssl.ranks import rank
from medssl.runs import read_metrics
from medssl.stopping import Finished

FILES = (
    "config.json", "environment.json", "split.json", "log.txt", "metrics.jsonl", "progress.png", "checkpoint_latest.pt",
    "checkpoint_previous.pt", "checkpoint_best.pt", "encoder.safetensors", "encoder.json",
    "model.safetensors", "model.json", "views.npz", "embeddings.npz",
    "predictions.csv", "predictions.npz", "summary.json", "report.html",
    "trace.json.gz", ".lock",
)  # fmt: skip
BESIDE = ("rates.json", "rates.png")  # what `medssl rates` leaves in a folder, before there is a run or after

_locks = weakref.WeakSet[TextIO]()  # a fork has them too, and a worker that outlives a killed run would keep its folder locked
os.register_at_fork(after_in_child=lambda: [lock.close() for lock in list(_locks)])


class RunFolder:
    """An open run folder; a silent one is read only and says nothing."""

    def __init__(self, folder: Path, lock: TextIO, config: dict[str, Any], silent: bool = False, loose: bool = False) -> None:
        """`config` as of `config_of`; `loose`: what differs from what the run was made with is warned of, not refused."""
        self.folder, self.config, self.silent, self.loose = folder, config, silent, loose
        self.again = (folder / "config.json").exists()  # it was started before
        self._lock = lock

    @staticmethod
    def check(settings: Shared, kind: str, resume: bool, loose: bool = False) -> None:
        """Raise InputError when the folder holds anything but what is asked for, Finished when the run is complete.

        Writes nothing, so that it can come before the data is read.
        """
        folder = settings.out
        if rank() > 0:
            return
        refuse_strangers(folder)
        if (folder / "config.json").exists() and (resume or not settings.overwrite):
            if not resume:
                state = "a finished run" if finished(folder) else "a run that is not finished"
                raise InputError([Problem(str(folder), "out", state, "a new folder, --resume, or overwrite=true")])
            if not loose:
                refuse_other_settings(folder, config_of(settings, kind))
            if finished(folder):
                raise Finished(f"{folder} is finished")

    @classmethod
    def open(cls, settings: Shared, kind: str, resume: bool = False, loose: bool = False) -> Self:
        """Start a run, or go on with one; raises as `check` does, and InputError when another process has the folder.

        A run without a checkpoint begins anew; one that goes on loosely gets its new settings when it is taken up.
        """
        folder, config = settings.out, config_of(settings, kind)
        if rank() > 0:
            return cls(folder, Path(os.devnull).open("a", encoding="utf-8"), config, silent=True, loose=loose)
        cls.check(settings, kind, resume, loose)
        folder.mkdir(parents=True, exist_ok=True)
        run = cls(folder, lock_of(folder), config, loose=loose)
        run.sweep()
        if settings.overwrite and not resume:
            run.clear()
        if not any(run.path(name).exists() for name in (LATEST, PREVIOUS)):
            run.describe(settings.split)
        return run

    def describe(self, split: Path) -> None:
        """Write what the run is made with and of: environment.json, split.json, config.json; a silent folder is left."""
        if self.silent:
            return
        self.write_json("environment.json", environment())
        write_atomically(self.path("split.json"), split.read_bytes())
        self.write_json("config.json", self.config)

    def path(self, name: str) -> Path:
        """The path of a file of the run."""
        return self.folder / name

    def write_json(self, name: str, content: Any) -> None:
        """Write a JSON file, whole or not at all."""
        write_atomically(self.path(name), (json.dumps(content, indent=1) + "\n").encode())

    def say(self, text: str) -> None:
        """Tell the user, and the log, one line."""
        if self.silent:
            return
        tqdm.write(text, file=sys.stderr)  # above a progress bar, if there is one
        with Lines(self.path("log.txt")) as log:
            log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}")

    def sweep(self) -> None:
        """Remove what was being written when an earlier process was killed: nobody else writes here now."""
        for leftover in self.folder.glob(".partial-????????-*"):
            leftover.unlink(missing_ok=True)

    def clear(self) -> None:
        """Remove the files of an earlier run, and nothing else."""
        self.again = False
        for name in FILES:
            if name != ".lock":
                self.path(name).unlink(missing_ok=True)

    def metrics(self) -> list[dict[str, Any]]:
        """Read all lines of metrics.jsonl; a last line cut short by a crash is left out.

        A silent folder, which none of them is from, has none.
        """
        return [] if self.silent else list(read_metrics(self.path("metrics.jsonl")))

    def open_metrics(self) -> Lines:
        """Open metrics.jsonl for more lines."""
        return Lines(Path(os.devnull) if self.silent else self.path("metrics.jsonl"))

    def keep_metrics_until(self, step: int) -> None:
        """Drop the lines of steps that will be done again, so that each step stands once."""
        if self.silent:
            return
        lines = [json.dumps(line) + "\n" for line in self.metrics() if line["step"] <= step]
        write_atomically(self.path("metrics.jsonl"), "".join(lines).encode())

    def close(self) -> None:
        """Give the folder free."""
        self._lock.close()


def config_of(settings: Shared, kind: str) -> dict[str, Any]:
    """What config.json holds: all settings, and which script they are for."""
    config: dict[str, Any] = json.loads(settings.model_dump_json())
    return config | {"kind": kind}


def finished(folder: Path) -> bool:
    """Tell whether the run in a folder is complete."""
    try:
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return bool(summary.get("status") == "finished") and (folder / "report.html").exists()  # the report comes last


def refuse_strangers(folder: Path) -> None:
    """Raise InputError for a folder that holds something, but no run."""
    if folder.exists() and not folder.is_dir():
        raise InputError([Problem(str(folder), "out", "a file", "a folder")])
    if folder.is_dir() and not (folder / "config.json").exists():
        known = {*FILES, *BESIDE}
        strange = [path.name for path in folder.iterdir() if path.name not in known and not path.name.startswith(".")]
        if strange:
            raise InputError([Problem(str(folder), "out", f"{strange[0]}, which is no file of a run", "an empty folder")])


def refuse_other_settings(folder: Path, config: dict[str, Any]) -> None:
    """Raise InputError, one line a setting, when a run to be resumed was started with other settings."""
    started = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    problems = [
        Problem(str(folder), name, now, f"{before}, as the run was started, or --resume-loose")
        for name, before, now in sorted(differences(telling(started), telling(config)))
    ]
    if problems:
        raise InputError(problems)


def lock_of(folder: Path) -> TextIO:
    """Take the folder for this process; raises InputError when another one has it."""
    lock = (folder / ".lock").open("a+", encoding="utf-8")
    _locks.add(lock)
    if not take_lock(lock):
        lock.seek(0)
        owner = lock.read().strip()
        raise InputError([Problem(str(folder), "out", f"a run in use by process {owner}", "a folder that is free")])
    lock.truncate(0)
    lock.write(str(os.getpid()))
    lock.flush()
    return lock


def environment() -> dict[str, Any]:
    """Say what the run was made with."""
    packages = ("medssl", "torch", "monai", "pytorch-ignite", "numpy", "nibabel", "h5py", "pydantic", "safetensors")
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "packages": {name: version_of(name) for name in packages},
        "started": time.strftime("%Y-%m-%d %H:%M:%S%z"),
    }


def version_of(package: str) -> str | None:
    """The installed version of a package."""
    try:
        return version(package)
    except ImportError:  # importlib.metadata.PackageNotFoundError: run from a checkout that is not installed
        return None


def processor() -> str:
    """The processor's name, which `platform` does not know on Linux."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
