"""What is wrong with an input, in one line: file, field, what was found, what was expected."""

import difflib
import errno
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

LONGEST = 300  # characters of a line; a terminal shows it in two or three rows


class Problem(NamedTuple):
    """One thing that keeps an input from being used."""

    file: str
    field: str
    found: str
    expected: str

    def __str__(self) -> str:
        field = _shorten(printable(self.field), 39)
        found, expected = (_shorten(printable(part), 75) for part in (self.found, self.expected))
        rest = f": {field}: found {found}, expected {expected}"
        # A path can be thousands of characters long, and its end says more than its start.
        return _shorten(printable(self.file), LONGEST - len(rest), keep="end") + rest


class InputError(Exception):
    """Settings, a split or data that can't be used; a script prints a line a problem and exits with 2."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = list(problems)


class Gathering:
    """Collects the problems of several steps: `with gathering: step()` goes on after an InputError."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        if isinstance(error, InputError):
            self.problems += error.problems
            return True
        return False

    def raise_any(self) -> None:
        """Raise InputError with all problems, if there are any."""
        if self.problems:
            raise InputError(self.problems)


class RunError(Exception):
    """A failure while running; a script prints its message and exits with 1."""


class NotFiniteError(RunError):
    """A training step whose loss or gradients are no numbers."""


class SampleError(RunError):
    """A case that could not be read or prepared while training; its message names the case."""

    def __init__(self, message: str) -> None:
        # torch raises a worker's error again with that process's traceback as its message
        super().__init__(message.rstrip().splitlines()[-1].removeprefix(f"{__name__}.{type(self).__name__}: "))


def printable(text: str) -> str:
    """The text on one line: control, format and surrogate characters as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def nearest(name: str, valid: Iterable[str]) -> str | None:
    """The valid name that looks most like `name`, or None where none does."""
    close = difflib.get_close_matches(name.lower(), list(valid), n=1, cutoff=0.6)
    return close[0] if close else None


def _shorten(text: str, longest: int, keep: str = "start") -> str:
    if len(text) <= longest:
        return text
    return "..." + text[3 - longest :] if keep == "end" else text[: longest - 3] + "..."


def first_line(error: BaseException) -> str:
    """What another library complained about, in a few words: the first cause, as MONAI wraps errors in its own."""
    while error.__cause__:
        error = error.__cause__
    return (str(error) or type(error).__name__).splitlines()[0][:120]


def wants_memory(error: BaseException) -> bool:
    """Whether there was no memory left: of Python, numpy, torch or the system."""
    if isinstance(error, RunError):  # which has said so
        return False
    named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"  # torch's, on a GPU
    told = ("DefaultCPUAllocator", "Caught MemoryError", "Caught _ArrayMemoryError")  # torch's, and of numpy's from a worker
    return named or getattr(error, "errno", None) == errno.ENOMEM or any(words in str(error) for words in told)


def wanted_memory(error: BaseException) -> str:
    """How much was wanted at once, where the error says so."""
    found = re.search(r"allocate ([\d.]+ ?[A-Za-z]+)", str(error))
    return f"{found[1]} wanted at once" if found else first_line(error)


def is_rank_gone(error: BaseException) -> bool:
    """Whether torch tells, in the words of what ranks talk by, that another rank is gone."""
    return any(word in str(error) for word in ("gloo", "NCCL", "ProcessGroup"))


def failure(error: BaseException) -> str:
    """One line on why a run failed."""
    if isinstance(error, RunError):
        return _shorten(printable(str(error)), LONGEST)
    if wants_memory(error):
        return f"out of memory ({wanted_memory(error)}): smaller crops, a smaller batch_size or fewer workers need less"
    if isinstance(error, OSError) and error.filename is not None:
        return _shorten(printable(f"{error.filename}: found {error.strerror}, expected to read or write it"), LONGEST)
    handing_over = isinstance(error, ConnectionError | EOFError)
    if handing_over or str(error).startswith("DataLoader worker"):  # torch's words for a worker that is gone
        return worker_gone("DataLoader worker gone in the middle of a batch" if handing_over else str(error))
    if is_rank_gone(error):
        return "found another rank gone, expected it to live; what it said is the reason"
    return first_line(error)


def worker_gone(words: str) -> str:
    """One line on a worker's death; torch takes each bus error for want of shared memory."""
    if "Bus error" in words:
        return "found a worker killed by a bus error, expected to read the store (is its disk gone?) and room in /dev/shm"
    found = words.splitlines()[0].rstrip(". ")[:120]
    return f"found {found}, expected it to live; memory may be short: fewer workers= need less"
