"""Stands in for python and a script: a training whose validations follow from its rate alone, at once.

    stand_in_trial.py SCRIPT RECIPE key=value ... --resume

What else it does lies in `orders.json`, by the name of its run folder: an exit code with an error, a signal to end by, a
step to wait at until it is told to stop, or seconds to wait before it takes its folder.
"""

import fcntl
import json
import math
import os
import signal
import sys
import time
from pathlib import Path

words = dict(word.split("=", 1) for word in sys.argv[3:] if "=" in word)
out = Path(words["out"])
orders = json.loads(Path("orders.json").read_text()).get(out.name, {}) if Path("orders.json").exists() else {}
if "code" in orders:
    print(f"error: {orders['error']}", file=sys.stderr)
    sys.exit(orders["code"])
with Path("calls.txt").open("a") as calls:
    calls.write(" ".join(sys.argv[1:]) + "\n")
time.sleep(orders.get("start", 0))
out.mkdir(parents=True, exist_ok=True)
lock = (out / ".lock").open("a+")
fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
if "finetune" in sys.argv[1]:
    (out / "config.json").write_text(json.dumps({"threads": json.loads(words.get("threads", "null"))}))
height = 1 - abs(math.log10(float(words.get("lr", 1))) + 2.5) / 3
checkpoint = out / "step"  # its lines are whole until there
done = int(checkpoint.read_text()) if checkpoint.exists() else 0
metrics = out / "metrics.jsonl"
kept = [line for line in metrics.read_text().splitlines(True) if json.loads(line)["step"] <= done] if metrics.exists() else []
(out / "new").write_text("".join(kept))
os.replace(out / "new", metrics)
with metrics.open("a") as file:
    for step in range(done + 1, 61):
        file.write(json.dumps({"step": step, "loss": 1.0, "step_s": 0.5}) + "\n")
        if step % 10 == 0:
            file.write(
                json.dumps({"step": step, "val_dice": height * step / 60, "val_loss": -height, "validate_s": 1.0}) + "\n"
            )
            file.flush()
        if orders.get("stay") == step:
            checkpoint.write_text(str(step - 5))
            time.sleep(60)
        if orders.get("signal") == step:
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
(out / "summary.json").write_text(json.dumps({"status": "finished", "seconds": 1.0}))
(out / "report.html").write_text("")
