"""Scripts in processes of their own, and the moments in their lives, found by what they write.

A fork of the test begins where the imports are done, and may break something before; ranks are started by torchrun.
"""

import json
import multiprocessing.process
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from medssl.cli import script
from medssl.config import Pretrain, Shared

ROOT = Path(__file__).parents[2]
LONGEST = 240.0  # seconds until anything must have happened


class Started:
    """A process, which leads a session, and what it says on stderr."""

    def __init__(self, pid: int, said: Path) -> None:
        self.pid, self.said, self.code = pid, said, None if pid else 0

    def poll(self) -> int | None:
        """Its exit code, negative for a signal, or None while it lives."""
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.code = os.waitstatus_to_exitcode(status) if pid else None
        return self.code

    def until(self, happened: Callable[[], Any]) -> Any:
        """Wait for something to have happened while it lives; gives what that gave."""
        end = time.monotonic() + LONGEST
        while not (found := happened()):
            assert self.poll() is None, self.said.read_text()
            assert time.monotonic() < end
            time.sleep(0.005)
        return found

    def tell(self, number: int) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def tell_all(self, number: int) -> None:
        """Send a signal to it and all that it has started."""
        os.killpg(self.pid, number)

    def until_gone(self, seconds: float = LONGEST) -> None:
        """Wait until it has ended, or so many seconds."""
        end = time.monotonic() + seconds
        while self.poll() is None and time.monotonic() < end:
            time.sleep(0.005)

    def ended(self, code: int, seconds: float = LONGEST) -> list[str]:
        """The lines that it said before it ended, as it must, in so many seconds."""
        self.until_gone(seconds)
        assert self.code == code, self.said.read_text()
        assert "Traceback" not in self.said.read_text(), self.said.read_text()
        return self.said.read_text().splitlines()

    def children(self) -> list[int]:
        """The processes that it has started, and they, and that live; or that are left of it."""
        found, living = {self.pid}, {pid: fields for pid, fields in stats() if fields[0] != "Z"}
        for _ in living:  # until no generation adds any
            more = {pid for pid, fields in living.items() if int(fields[1]) in found or int(fields[3]) in found} | found
            found, done = more, more == found
            if done:
                break
        return sorted(found - {self.pid})

    def left_none(self, seconds: float = 10.0) -> None:
        """Wait until none of its processes is left, which must be soon."""
        end = time.monotonic() + seconds
        while self.children():
            assert time.monotonic() < end, self.children()
            time.sleep(0.005)


def stats() -> Iterator[tuple[int, list[str]]]:
    """The processes of this machine: their numbers, and state, parent, group, session, ... of each."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = path.read_text()
        except OSError:  # it is gone
            continue
        yield int(path.parent.name), text[text.rindex(")") + 2 :].split()


@contextmanager
def forked(settings: Shared, *words: str, change: Callable[[], object] = lambda: None) -> Iterator[Started]:
    """Run a script with settings as its recipe in a fork, after a change to what it runs; nothing is left of it."""
    command, said = [str(recipe_of(settings)), *words], settings.out.with_suffix(".err")
    said.touch()
    pid = os.fork()
    if not pid:
        os.setsid()
        os.dup2(os.open(said, os.O_WRONLY | os.O_APPEND), 2)
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115  what pytest has in its place is the parent's
        multiprocessing.process._children.clear()  # type: ignore[attr-defined]  # workers of the test's own
        try:
            torch.set_num_threads(1)
            change()
            code = script(kind_of(settings), command)
            sys.stderr.flush()
        finally:
            os._exit(code)
    with nothing_left(Started(pid, said)) as process:
        yield process


@contextmanager
def torchrun(settings: Shared, *words: str, change: str = "", ranks: int = 2) -> Iterator[Started]:
    """Run a script with settings as its recipe on several ranks, after a change in Python to what each runs."""
    recipe, said = recipe_of(settings), settings.out.with_suffix(".err")
    runner = recipe.with_suffix(".py")
    runner.write_text(f"import sys\n{change}\nfrom medssl.cli import script\nsys.exit(script({kind_of(settings)!r}))\n")
    port = f"--master_port={random.randint(20000, 32000)}"
    command = [sys.executable, "-m", "torch.distributed.run", f"--nproc_per_node={ranks}", port, str(runner), str(recipe)]
    with said.open("w") as stderr:
        process = subprocess.Popen(
            [*command, *words], cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, stderr=stderr, start_new_session=True
        )
    with nothing_left(Started(process.pid, said)) as started:
        yield started
    process.returncode = started.code


@contextmanager
def nothing_left(process: Started) -> Iterator[Started]:
    """Within the block a process lives; after it none of its session does."""
    try:
        yield process
    finally:
        for pid in [*process.children(), *([process.pid] if process.poll() is None else [])]:
            os.kill(pid, signal.SIGKILL)
        while process.poll() is None:
            time.sleep(0.005)


def recipe_of(settings: Shared) -> Path:
    """Write settings as a recipe."""
    recipe = settings.out.with_suffix(".json")
    recipe.write_text(settings.model_dump_json())
    return recipe


def kind_of(settings: Shared) -> str:
    """Which script settings are for."""
    return "pretrain" if isinstance(settings, Pretrain) else "finetune"


def rank_of(process: Started, number: int) -> int:
    """The process of a rank."""
    wanted = f"RANK={number}".encode()
    return next(pid for pid in process.children() if wanted in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"))


def lines(folder: Path) -> list[dict[str, Any]]:
    """The whole lines of metrics.jsonl so far."""
    path = folder / "metrics.jsonl"
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


def timeless(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Lines without times, which no two runs share."""
    return [{key: value for key, value in line.items() if not key.endswith("_s")} for line in found]
