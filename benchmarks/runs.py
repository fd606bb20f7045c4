"""What the study scripts share: runs of the project's own scripts, resumable, one thread each, some side by side."""

import json
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
ONE_THREAD = ("threads=1", "workers=0")


class Wanted(NamedTuple):
    """A run to be made: script, recipe, its folder, and the settings that differ from the recipe's."""

    script: str
    recipe: str
    out: Path
    words: Sequence[str] = ()


def make(run: Wanted) -> None:
    """Train a run to its end, or go on with it; a finished one is left as it is."""
    words = [*ONE_THREAD, *run.words, f"out={run.out}", "--resume"]
    subprocess.run([sys.executable, f"ssl_{run.script}.py", run.recipe, *words], cwd=ROOT, check=True)


def make_all(runs: Sequence[Wanted], jobs: int) -> None:
    """Make runs that do not wait for each other; where one fails, no further one begins."""
    with ThreadPoolExecutor(jobs) as pool:
        made = [pool.submit(make, run) for run in runs]
        try:
            for run in made:
                run.result()
        except subprocess.CalledProcessError:
            pool.shutdown(cancel_futures=True)
            raise


def medssl(*words: str) -> None:
    """Run a `medssl` command."""
    subprocess.run([sys.executable, "-m", "medssl.cli", *words], cwd=ROOT, check=True)


def summary(folder: Path) -> dict[str, Any]:
    """The figures of a finished run."""
    read: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return read
