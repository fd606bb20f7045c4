"""Decodes JPEG, JPEG-LS and JPEG 2000 in a process of its own.

gdcm, which pydicom asks, ends its whole process on some broken files, and of others it only writes to stderr that they
are corrupt. So a helper decodes: a thread starts one with its first compressed file, and it ends with that thread. This
file runs as the helper and imports nothing of medssl.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import weakref
from typing import IO, Any, cast

import numpy as np
import numpy.typing as npt

_helpers = threading.local()


class DecoderError(Exception):
    """Why the pixels could not be decoded."""


def decode(path: str) -> npt.NDArray[Any]:
    """The pixels of a DICOM file as pydicom gives them; raises DecoderError."""
    helper: _Helper | None = getattr(_helpers, "current", None)
    if helper is None or helper.pid != os.getpid():  # a forked process must not talk to its parent's helper
        helper = _helpers.current = _Helper()
    try:
        return helper.decode(path)
    except DecoderError:
        raise
    except BaseException as error:
        _helpers.current = None  # also after Ctrl-C: its answer would be taken for that of the next file
        if isinstance(error, (OSError, ValueError)):
            raise DecoderError("the decoder ended") from None
        raise


class _Helper:
    def __init__(self) -> None:
        self.pid = os.getpid()
        command = [sys.executable, "-P", __file__]  # -P: the modules beside this one must not stand in for others
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL)
        weakref.finalize(self, _end, self.process, self.pid)

    def decode(self, path: str) -> npt.NDArray[Any]:
        to, back = cast(IO[bytes], self.process.stdin), cast(IO[bytes], self.process.stdout)
        to.write(json.dumps(path).encode() + b"\n")
        to.flush()
        answer = json.loads(back.readline())
        if "error" in answer:
            raise DecoderError(answer["error"])
        dtype = np.dtype(answer["dtype"])
        return np.frombuffer(bytearray(back.read(answer["bytes"])), dtype).reshape(answer["shape"])


def _end(process: subprocess.Popen[bytes], pid: int) -> None:
    with contextlib.suppress(OSError):
        cast(IO[bytes], process.stdin).close()  # the helper reads no further path and ends
        cast(IO[bytes], process.stdout).close()
    if pid == os.getpid():
        process.wait()


def _serve() -> None:
    from pydicom.pixels import pixel_array

    signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # a cluster tells all processes of a job
    answers = os.fdopen(os.dup(1), "wb")
    with tempfile.TemporaryFile() as said:  # by the codecs
        for stream in (1, 2):
            os.dup2(said.fileno(), stream)
        for line in sys.stdin.buffer:
            said.truncate(0)
            try:
                array = np.ascontiguousarray(pixel_array(json.loads(line)))
                said.seek(0)
                _refuse_corrupt(said.read().decode(errors="replace"))
                answer = {"shape": array.shape, "dtype": array.dtype.str, "bytes": array.nbytes}
            except Exception as error:  # each decoder raises its own
                array, answer = np.empty(0), {"error": str(error) or type(error).__name__}
            answers.write(json.dumps(answer).encode() + b"\n")
            answers.write(array.data)
            answers.flush()


def _refuse_corrupt(said: str) -> None:
    """Raise what libjpeg only warns of; bytes too many between its segments do no harm."""
    for line in said.splitlines():
        if "Corrupt" in line and "extraneous" not in line:
            raise ValueError(line)


if __name__ == "__main__":
    _serve()
