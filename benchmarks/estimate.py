"""Whether `--dry-run` comes true: what it says of small runs, and what these then take.

    python benchmarks/estimate.py [--folder runs/estimate] [--workers 0 1] [--longer 1]

On synthetic volumes the demo's pre-training and fine-tuning, each estimated twice, before there is a store and after, and
then run; `--longer` multiplies the steps. Times are of the whole program, memory is the largest sum that the program and
its processes had of the pages that they share in proportion. On an idle machine the ratios should be within 0.8 and 1.2.
"""

import argparse
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from runs import ROOT, medssl
from turns import write_results

STEPS = {"pretrain": 240, "finetune": 150}
EVERY = 0.1  # seconds between two looks at the memory


class Said(NamedTuple):
    """What was said, or found: seconds and GB."""

    seconds: float
    memory: float


def main() -> None:
    """Estimate and run each kind with each number of workers, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("runs/estimate"))
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--longer", type=float, default=1.0)
    parser.add_argument("--json", type=Path, help="file for the results")
    options = parser.parse_args()
    folder = options.folder.absolute()
    medssl("synth", str(folder / "data"))
    rows = [row(folder, kind, workers, round(STEPS[kind] * options.longer)) for workers in options.workers for kind in STEPS]
    if options.json:
        write_results(options, rows)
    print("| run | workers | store | said s | took s | ratio | said GB | took GB | ratio |")
    print("|---|---:|---|---:|---:|---:|---:|---:|---:|")
    for found in rows:
        took = found["took"]
        for store, guess in found["said"].items():
            seconds, memory = (f"{a:.2f} | {b:.2f} | {a / b:.2f}" for a, b in zip(guess, took, strict=True))
            print(f"| {found['kind']} | {found['workers']} | {store} | {seconds} | {memory} |")


def row(folder: Path, kind: str, workers: int, steps: int) -> dict[str, Any]:
    """Estimate a run without and with a store, and make it; the first estimate is of a run that packs as well."""
    words = [
        sys.executable, f"ssl_{kind}.py", f"demo_{kind}", f"split={folder / 'data/split.json'}", f"workers={workers}",
        f"out={folder / f'{kind}-{workers}'}", f"store={folder / 'store'}", f"steps={steps}", f"validate_every={steps // 3}",
        f"checkpoint_every={steps // 2}", "overwrite=true",
    ]  # fmt: skip
    shutil.rmtree(folder / "store", ignore_errors=True)
    without = said(words)
    measured([*words, "steps=1", "warmup=0"])  # which packs
    return {"kind": kind, "workers": workers, "said": {"none": without, "complete": said(words)}, "took": measured(words)}


def said(words: Sequence[str]) -> Said:
    """What `--dry-run` says."""
    text = subprocess.run([*words, "--dry-run"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    print(text, file=sys.stderr)
    run, memory = re.search(r"^run +([\d.]+) hours(?:, (\d+) s)?", text, re.M), re.search(r"^memory +([\d.]+) GB", text, re.M)
    assert run is not None
    assert memory is not None
    return Said(float(run[2] or 3600 * float(run[1])), float(memory[1]))


def measured(words: Sequence[str]) -> Said:
    """Run it: its wall time, and the most memory that it and its processes had."""
    began, most = time.monotonic(), 0.0
    with subprocess.Popen(words, cwd=ROOT) as process:
        while process.poll() is None:
            most = max(most, sum(proportional_bytes(one) for one in [process.pid, *children_of(process.pid)]))
            time.sleep(EVERY)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, words)
    return Said(time.monotonic() - began, most / 1e9)


def children_of(process: int) -> list[int]:
    """The processes that a process started and that live."""
    try:
        return [int(word) for word in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    except OSError:
        return []


def proportional_bytes(process: int) -> float:
    """A process's resident bytes, those shared by n processes counted by 1/n; 0 when it is gone."""
    try:
        text = Path(f"/proc/{process}/smaps_rollup").read_text()
    except OSError:
        return 0.0
    return sum(float(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("Pss:"))


if __name__ == "__main__":
    main()
