"""Run a script or a command of medssl as usual, but for a kill that waits for its moment.

python victim.py KILL STAMP PROGRAM [arguments ...]: KILL is a `Kill` as a JSON list, STAMP the file that it leaves.
"""

import json
import os
import runpy
import sys
from pathlib import Path

from moments import Kill, set_trap

SHARD = 2**19  # bytes


def main() -> None:
    """Lay the trap, then run the program as if nothing was."""
    planned, stamp, program, *arguments = sys.argv[1:]
    kill = Kill(*json.loads(planned))
    if int(os.environ.get("RANK", "0")) == kill.rank:
        set_trap(kill, Path(stamp))
    if kill.moment.startswith("store"):  # many shards of a small data set
        from medssl.pack import ensure_store

        ensure_store.__defaults__ = (*(ensure_store.__defaults__ or ())[:-1], SHARD)
    sys.argv = [program, *arguments]
    if program == "medssl":
        from medssl.cli import main as command

        sys.exit(command())
    runpy.run_path(program, run_name="__main__")


if __name__ == "__main__":
    main()
