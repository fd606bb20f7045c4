"""Locks on open files, by which processes of one machine, or of several that share a disk, keep out of each other's way."""

import errno
import fcntl
from typing import IO, Any

NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS}  # of some cluster file systems


def take_lock(file: IO[Any] | int, shared: bool = False, wait: bool = False) -> bool:
    """Lock an open file until it is closed or the process is gone; False where another process has it and we do not wait.

    Where the file system has no locks nobody has it.
    """
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
    return True
