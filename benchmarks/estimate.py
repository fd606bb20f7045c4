"""Whether `--dry-run` comes true: what it says of small runs, and what these then take.

    python benchmarks/estimate.py [--folder runs/estimate] [--workers 0 1] [--longer 1] [--turns 3]

On synthetic volumes the demo's pre-training and fine-tuning: a turn is an estimate before there is a store, one with it, the
run, and one more estimate, as a shared machine's speed changes by a third within a minute. `--longer` multiplies the steps.
Times are of the whole program, memory is the largest sum that the program and its processes had of the pages that they share
in proportion. On an idle machine the ratios should be within 0.8 and 1.2.
"""

import argparse
import re
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from runs import ROOT, medssl
from turns import write_results

STEPS = {"pretrain": 240, "finetune": 150}
EVERY = 1.0  # seconds between two looks at the memory, each of which holds the process up for milliseconds


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
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--json", type=Path, help="file for the results")
    options = parser.parse_args()
    folder = options.folder.absolute()
    medssl("synth", str(folder / "data"))
    asked = [(kind, workers) for workers in options.workers for kind in STEPS]
    turns = [row(folder, kind, workers, options.longer) for _ in range(options.turns) for kind, workers in asked]
    if options.json:
        write_results(options, turns)
    print("Medians of the turns; ratios in brackets are the least and the most of one turn\n")
    print("| run | workers | store | said s | took s | ratio | said GB | took GB | ratio |")
    print("|---|---:|---|---:|---:|---:|---:|---:|---:|")
    for kind, workers in asked:
        of_this = [turn for turn in turns if (turn["kind"], turn["workers"]) == (kind, workers)]
        for store in of_this[0]["said"]:
            pairs = [(turn["said"][store], turn["took"]) for turn in of_this]
            seconds, memory = (in_cells([(said[k], took[k]) for said, took in pairs]) for k in range(2))
            print(f"| {kind} | {workers} | {store} | {seconds} | {memory} |")


def in_cells(pairs: Sequence[tuple[float, float]]) -> str:
    """What was said, what it took, and how many times the second the first was: a median each."""
    ratios = [said / took for said, took in pairs]
    said, took, ratio = (statistics.median(of_one) for of_one in (*zip(*pairs, strict=True), ratios))
    return f"{said:.2f} | {took:.2f} | {ratio:.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def row(folder: Path, kind: str, workers: int, longer: float) -> dict[str, Any]:
    """Estimate a run without and with a store, make it, and estimate it again; the first is of a run that packs as well."""
    steps = round(STEPS[kind] * longer)
    words = [
        sys.executable, f"ssl_{kind}.py", f"demo_{kind}", f"split={folder / 'data/split.json'}", f"workers={workers}",
        f"out={folder / f'{kind}-{workers}'}", f"store={folder / 'store'}", f"steps={steps}", f"validate_every={steps // 3}",
        f"checkpoint_every={steps // 2}", "overwrite=true",
    ]  # fmt: skip
    shutil.rmtree(folder / "store", ignore_errors=True)
    without = said(words)
    measured([*words, "steps=1", "warmup=0"])  # which packs
    before, took, after = said(words), measured(words), said(words)
    complete = Said((before.seconds + after.seconds) / 2, (before.memory + after.memory) / 2)
    return {"kind": kind, "workers": workers, "said": {"none": without, "before and after": complete}, "took": took}


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
