"""What the system tells a process: to stop (SIGTERM, SIGINT), or to save and go on (SIGUSR1).

A training is never stopped in the middle of a step: within `held` a signal is only noted, and the loop acts on it when
the step is done. Elsewhere there is nothing to save, and Stopped is raised on the spot. A second signal ends the process
wherever it is, and so does the first where nothing is held and the process does not come to an end by itself. Both are the
work of a thread, since Python lets the main thread hear of a signal only between two of its own instructions: not in a long
product, nor while it waits for a rank that does not answer.
"""

import multiprocessing
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from medssl.stopping import Interrupted, Stopped

STOPS = (signal.SIGINT, signal.SIGTERM)
SAVE = signal.SIGUSR1
SAME = 0.5  # seconds in which a process may be told the same twice: by its launcher and by its terminal, or by `timeout`
GRACE = 5.0  # seconds that a process has to end where nothing is held


class Told:
    """What this process was told: `stop` is the signal that asked for it, or 0; `save` whether a checkpoint is wanted."""

    def __init__(self) -> None:
        self.stop = 0
        self.save = False
        self.held = self.breakable = False

    def hear(self, number: int, frame: Any) -> None:
        """Note a signal, as Python hands it to the main thread."""
        if number == SAVE:
            self.save = self.held  # without a training there is nothing to save
        elif not self.stop:
            self.stop = number
            if not self.held:
                raise Stopped(number)

    def wants_checkpoint(self) -> bool:
        """Whether a checkpoint was asked for since the last call."""
        self.save, wanted = False, self.save
        return wanted


_told = Told()


@contextmanager
def listening() -> Iterator[None]:
    """Within the block signals are heard; no process that was started there outlives it.

    Other threads than the main one hear no signals, and within another such block it does nothing.
    """
    global _told  # noqa: PLW0603  a process has one set of signals
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(SAVE) == _told.hear:
        yield
        return
    _told = told = Told()
    ear, mouth = os.pipe()
    os.set_blocking(mouth, False)
    before = {number: signal.signal(number, told.hear) for number in (*STOPS, SAVE)}
    wakeup = signal.set_wakeup_fd(mouth, warn_on_full_buffer=False)
    watcher = threading.Thread(target=_watch, args=(told, ear), daemon=True)
    watcher.start()
    try:
        yield
    finally:
        told.held = True  # the work is done, one way or another
        end_children()
        signal.set_wakeup_fd(wakeup)
        os.write(mouth, b"\0")  # which is no signal; the pipe itself lives on in workers
        watcher.join()
        os.close(mouth)
        os.close(ear)
        for number, handler in before.items():
            signal.signal(number, handler)
        _told = Told()


@contextmanager
def held() -> Iterator[Told]:
    """Within the block signals are noted alone; one that nobody has acted on by its end is acted on then."""
    told = _told
    told.held = True
    try:
        yield told
    finally:
        told.held = told.save = False
    if told.stop:
        raise Stopped(told.stop)


@contextmanager
def breakable() -> Iterator[None]:
    """Within the block, work that can be done again from its start, `give_way` raises Interrupted once a stop was noted."""
    told = _told
    told.breakable = told.held
    try:
        yield
    finally:
        told.breakable = False


def give_way() -> None:
    """Raise Interrupted where this process was told to stop and is at work that can be broken off."""
    if _told.breakable and _told.stop:
        raise Interrupted


def end_children() -> None:
    """End the processes that this one has started and that an error has left: loaders would wait seconds for each."""
    handler = signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch would take it for an accident
    for child in (children := multiprocessing.active_children()):
        child.kill()
    for child in children:
        child.join()
    signal.signal(signal.SIGCHLD, handler)


def end_at_once(number: int) -> None:
    """End this process and those it has started, without another word to Python."""
    for child in multiprocessing.active_children():
        child.kill()
    os.write(2, f"\nended at once by {signal.Signals(number).name}\n".encode())
    os._exit(128 + number)


def deafen(worker: int = 0) -> None:
    """Make a loader's worker deaf: all processes of a run are often told at once, and a step needs its data to be done.

    Its errors go to its parent; what it would print itself is that its parent is gone.
    """
    for number in (*STOPS, SAVE):
        signal.signal(number, signal.SIG_IGN)
    sys.excepthook = lambda *_: None


def _watch(told: Told, ear: int) -> None:
    """Read what signals come, and end the process with the second that asks it to stop."""
    first, at = 0, 0.0
    while True:
        waiting = GRACE if first and not told.held else None
        if not select.select([ear], [], [], waiting)[0]:
            if not told.held:
                end_at_once(first)
            continue
        heard = os.read(ear, 64)
        if 0 in heard:
            return
        for number in heard:
            if number not in STOPS:
                continue
            if not first:
                first, at = number, time.monotonic()
                if not told.held:  # another thread may have got it, and the main thread sleeps on: wake it
                    signal.pthread_kill(threading.main_thread().ident or 0, SAVE)
            elif time.monotonic() - at > SAME:
                end_at_once(number)


os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))  # a worker must not speak into its parent's ear
