"""Stands in for python and a script: leaves a run folder without training, fails, or waits to be stopped.

    stand_in.py SCRIPT RECIPE key=value ... --resume

What it does lies in `stand_in.json` beside it, by the run's name: seconds to wait before it takes the run's folder and after,
or an error to end with.
"""

import fcntl
import json
import os
import signal
import sys
import time
from pathlib import Path


def main() -> None:
    words = dict(word.split("=", 1) for word in sys.argv[3:] if "=" in word)
    out = Path(words["out"])
    orders = json.loads(Path("stand_in.json").read_text()).get(out.name, {}) if Path("stand_in.json").exists() else {}
    with Path("calls.txt").open("a") as calls:
        calls.write(f"{Path(sys.argv[1]).name} {out.name} threads={words.get('threads')}\n")
    if words["encoder"].startswith("out/"):
        assert (Path(words["encoder"]) / "summary.json").exists()
    if "error" in orders:
        sys.exit(f"something before\nerror: {orders['error']}")
    time.sleep(orders.get("start", 0))
    out.mkdir(parents=True, exist_ok=True)
    lock = (out / ".lock").open("a+")
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if orders.get("killed"):
        os.kill(os.getpid(), signal.SIGKILL)
    end = time.monotonic() + orders.get("wait", 0)
    while time.monotonic() < end:
        time.sleep(0.02)
    (out / "summary.json").write_text(json.dumps({"status": "finished", "task": "segmentation", "dice": 0.5, "seconds": 1.0}))
    (out / "report.html").write_text("")


if __name__ == "__main__":
    main()
