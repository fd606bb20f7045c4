"""What a study will take: the dry run of the scripts, once for every kind of run, each in a process of its own."""

import re
import subprocess
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from medssl.markdown import markdown_table
from medssl.study.plan import Run, word
from medssl.study.runner import ROOT

# they move what a run learns, not what it costs
FREE = {
    "seed", "draw", "labelled", "encoder", "out", "lr", "encoder_lr", "weight_decay", "clip", "follows", "expect", "takes",
    "allow_seen",
}  # fmt: skip
LINES = {"hours": r"^run +([\d.]+) hours", "memory": r"^memory +([\d.]+) GB", "disk": r"^disk +([\d.]+) GB"}
PACKING = re.compile(r"^run .*\bpacking ([\d.]+) (ms|s|h)", re.MULTILINE)
UNITS = {"ms": 3_600_000.0, "s": 3600.0, "h": 1.0}
STORE = re.compile(r"^store +\d+ cases to pack, at most ([\d.]+) GB in (.*)$", re.MULTILINE)


class Cost(NamedTuple):
    """What a dry run said of one run: hours and those of packing, GB of memory, of its folder, and of what it packs."""

    hours: float
    packing: float  # which the first run does for all
    memory: float
    disk: float
    store: float
    folder: str


@dataclass(frozen=True)
class Kind:
    """Runs that cost the same, and what one costs, or why that is not known."""

    runs: list[Run]
    cost: Cost | None
    reason: str = ""


def kinds_of(runs: Iterable[Run]) -> list[list[Run]]:
    """Group runs by what they cost."""
    found: dict[str, list[Run]] = {}
    for run in runs:
        key = f"{run.kind} {run.settings.model_dump_json(exclude=FREE)}"
        found.setdefault(key, []).append(run)
    return list(found.values())


def measured(out: Path, runs: Iterable[Run], launcher: Sequence[str], threads: int, told: Callable[[str], None]) -> list[Kind]:
    """Do the dry run of every kind, as if in the folder `out`; `told` hears which is next."""
    found = []
    for same in kinds_of(runs):
        told(f"dry run of {same[0].name}, as {len(same)} of the runs")
        found.append(Kind(same, *_asked(out, same[0], launcher, threads)))
    return found


def _asked(out: Path, run: Run, launcher: Sequence[str], threads: int) -> tuple[Cost | None, str]:
    """Ask one run's script, without the weights that do not exist yet."""
    own = [] if run.settings.threads else [word("threads", threads)]
    words = [*run.words, "encoder=none", *own, f"out={out / run.name}", "--dry-run"]
    command = [*launcher, str(ROOT / f"ssl_{run.kind}.py"), run.recipe, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    cost = cost_in(done.stdout) if done.returncode == 0 else None
    errors = [line.removeprefix("error: ") for line in done.stderr.splitlines() if line.startswith("error: ")]
    return cost, "" if cost else next(iter(errors), f"exit code {done.returncode}")


def cost_in(text: str) -> Cost | None:
    """Read what a dry run printed; None where it is something else."""
    figures = {name: re.search(line, text, re.MULTILINE) for name, line in LINES.items()}
    if not all(figures.values()):
        return None
    hours, memory, disk = (float(match[1]) for match in figures.values() if match)
    store, packed = STORE.search(text), PACKING.search(text)
    packing = float(packed[1]) / UNITS[packed[2]] if packed else 0.0
    return Cost(max(hours - packing, 0.0), packing, memory, disk, float(store[1]) if store else 0.0, store[2] if store else "")


def told(kinds: Sequence[Kind], jobs: int) -> str:
    """The table of kinds and the sum of all."""
    rows = [
        [kind.runs[0].name, str(len(kind.runs)), *(_figures(kind.cost) if kind.cost else ["-", "-", "-"])] for kind in kinds
    ]
    table = markdown_table(["runs like", "runs", "hours each", "memory GB", "disk GB"], rows)
    known = [(kind.cost, len(kind.runs)) for kind in kinds if kind.cost]
    lines = [f"not estimated: {kind.runs[0].name}: {kind.reason}" for kind in kinds if not kind.cost]
    if known:
        hours = sum(cost.hours * count for cost, count in known) + sum(
            {cost.folder: cost.packing for cost, _ in known}.values()
        )
        memory = sum(sorted((cost.memory for cost, count in known for _ in range(min(count, jobs))), reverse=True)[:jobs])
        stores = {
            cost.folder: cost.store for cost, _ in sorted(known, key=lambda one: one[0].store)
        }  # of those that share one the largest
        disk = sum(cost.disk * count for cost, count in known) + sum(stores.values())
        side = f", {hours / jobs:.2f} with {jobs} side by side" if jobs > 1 else ""
        lines.append(f"together    {hours:.2f} hours{side}; {memory:.2f} GB of memory; {disk:.2f} GB of disk")
    return "\n".join([table, "", *lines])


def _figures(cost: Cost) -> list[str]:
    return [f"{cost.hours:.3f}", f"{cost.memory:.2f}", f"{cost.disk:.3f}"]
