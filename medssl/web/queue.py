"""Who is next: a few slots that predict, each a thread with networks of its own, and a bounded queue before them.

A place is taken before the first byte of an image is read and given back when its prediction ends, so that memory and
disk are bounded by the places; who finds none is told at once when to come again.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from queue import SimpleQueue

from medssl.problems import failure
from medssl.web.limits import Limits, Refusal
from medssl.web.results import Job, State, discard

log = logging.getLogger("medssl.web")
Work = Callable[[Job, Callable[[], None]], None]  # does a job; the second argument raises where it has to stop


class Stopping(Exception):
    """Ends a prediction whose time is over, or that nobody waits for any more."""


class Queue:
    """Hands jobs to the slots in the order in which they came."""

    def __init__(self, works: Sequence[Work], limits: Limits) -> None:
        self.limits = limits
        self.lock = threading.Lock()
        self.taken = 0  # places
        self.waiting: SimpleQueue[Job] = SimpleQueue()
        self.order: list[str] = []  # of the jobs that wait
        self.seconds = 1.0  # that a prediction takes, roughly
        self.draining = self.stopped = False
        self.slots = [threading.Thread(target=self._serve, args=(work,), daemon=True) for work in works]

    def start(self) -> None:
        for slot in self.slots:
            slot.start()

    def refuse(self) -> None:
        """Raise Refusal where no place is free now, with the seconds after which one may be."""
        if self.draining:
            raise Refusal(503, "server: found it stopping, expected it to run", retry_after=30)
        if self.taken >= self.limits.places:
            again = min(60, max(1, round(self.seconds * self.taken / self.limits.slots / 2)))
            raise Refusal(503, f"queue: found all {self.taken} places taken, try again in {again} s", retry_after=again)

    @contextmanager
    def place(self) -> Iterator[Callable[[Job], None]]:
        """Hold a place while an image is received, and give the function that puts it into the queue with that place.

        Raises as `refuse`.
        """
        with self.lock:
            self.refuse()
            self.taken += 1
        handed = False

        def hand_over(job: Job) -> None:
            nonlocal handed
            handed = True
            with self.lock:
                self.order.append(job.id)
            self.waiting.put(job)

        try:
            yield hand_over
        finally:
            if not handed:
                self._give_back()

    def ahead(self, job: Job) -> int:
        """How many images come before a job."""
        with self.lock:
            return self.order.index(job.id) + len(self.slots) if job.id in self.order else 0

    @property
    def idle(self) -> bool:
        return self.taken == 0

    def drain(self) -> None:
        """Take nothing new."""
        self.draining = True

    def stop(self) -> None:
        """End what runs at the next window, and all that waits."""
        self.draining = self.stopped = True

    def _give_back(self) -> None:
        with self.lock:
            self.taken -= 1

    def _serve(self, work: Work) -> None:
        while True:
            job = self.waiting.get()
            with self.lock:
                self.order.remove(job.id)
            began = time.monotonic()
            try:
                self._do(work, job, began + self.limits.predict_s)
            finally:
                self.seconds = 0.8 * self.seconds + 0.2 * (time.monotonic() - began)
                self._give_back()

    def _do(self, work: Work, job: Job, until: float) -> None:
        def check() -> None:
            if self.stopped:
                raise Stopping("server: found it stopping, expected it to run; send the image again later")
            if job.deleted:
                raise Stopping("result: found it deleted")
            if time.monotonic() > until:
                raise Stopping(f"prediction: found no end after {self.limits.predict_s:g} s, which is all the time it gets")

        job.state = "running"
        state: State = "failed"
        error: str | None = None
        try:
            check()
            work(job, check)
            state = "done"
        except Stopping as reason:
            error = str(reason)
        except Refusal as refusal:
            state, error = "refused", refusal.line
        except Exception as other:  # whatever it is, the slot goes on with the next image
            log.exception("a prediction failed")
            error = f"{job.name}: {failure(other)}".replace(str(job.folder), "")
        if state != "done":
            discard(job.folder)
        job.end(state, error)
        if job.deleted:
            discard(job.folder)
