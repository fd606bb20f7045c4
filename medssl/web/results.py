"""The results that the server keeps for a while: each behind an ID that nobody can guess, in a folder of its own."""

import asyncio
import fcntl
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from medssl.splits import Case
from medssl.web.limits import Limits, Refusal

State = Literal["waiting", "running", "done", "refused", "failed"]
PREFIX, LOCK = "medssl-serve-", "lock"
ENDED = ("done", "refused", "failed")


@dataclass
class Job:
    """One image on its way: what is known of it so far. Its slot's thread writes, the server's reads."""

    id: str
    folder: Path
    loop: asyncio.AbstractEventLoop
    model: str = ""
    name: str = ""  # of the client's file
    case: Case | None = None
    flips: bool = False
    state: State = "waiting"
    windows: tuple[int, int] | None = None  # done, all
    error: str | None = None
    warnings: list[str] = field(default_factory=list)
    found: dict[str, Any] | None = None  # the numbers
    files: dict[str, Path] = field(default_factory=dict)
    bytes: int = 0  # of the files
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    ended_at: float | None = None
    read: bool = False  # by its client, after its end
    deleted: bool = False

    def end(self, state: State, error: str | None = None) -> None:
        """Say how it ended; from any thread."""
        self.error, self.ended_at, self.state = error, time.monotonic(), state
        self.loop.call_soon_threadsafe(self.ended.set)

    @property
    def result(self) -> Path:
        """The folder of its results; beside it lies the upload while it is needed."""
        return self.folder / "result"


class Results:
    """All jobs by their IDs, below one folder that only this user can open."""

    def __init__(self, folder: Path, limits: Limits) -> None:
        self.folder, self.limits = folder, limits
        self.jobs: dict[str, Job] = {}

    def new(self, loop: asyncio.AbstractEventLoop) -> Job:
        """A job with a folder that is empty. As all that touches folders, it may take a while: call it in a thread."""
        name = secrets.token_urlsafe(24)
        folder = self.folder / secrets.token_hex(8)  # which is another word than the ID: paths get about
        folder.mkdir(mode=0o700)
        return Job(name, folder, loop)

    def add(self, job: Job) -> None:
        self.jobs[job.id] = job

    def get(self, name: str) -> Job:
        """The job of an ID; raises Refusal where there is none, or none any more."""
        if name not in self.jobs:
            raise Refusal(404, "result: found none of this ID, expected one that is not older than the server keeps them")
        return self.jobs[name]

    def forget(self, job: Job) -> None:
        """Remove a job and its files; those of one that has not ended are removed by its slot."""
        self.jobs.pop(job.id, None)
        job.deleted = True
        if job.ended_at is not None:
            discard(job.folder)

    def tidy(self) -> None:
        """Remove results that are too old, and the oldest ones where all together are too many or too large."""
        now, left = time.monotonic(), self.limits.kept_bytes
        ended = [job for job in list(self.jobs.values()) if job.ended_at is not None]  # a copy: others come meanwhile
        for number, job in enumerate(sorted(ended, key=lambda job: -float(job.ended_at or 0))):
            left -= job.bytes
            if left < 0 or number >= self.limits.kept or now - float(job.ended_at or 0) > self.limits.kept_s:
                self.forget(job)


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder while the server runs; those that killed servers left behind are removed, as they hold patients' images."""
    for left in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with suppress(OSError), (left / LOCK).open("r+b") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # which fails while its server lives
            discard(left)
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    try:
        with (folder / LOCK).open("xb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            (folder / "results").mkdir()
            yield folder / "results"
    finally:
        discard(folder)


def discard(folder: Path) -> None:
    """Remove a folder with all in it, as far as it is there."""
    shutil.rmtree(folder, ignore_errors=True)
