"""The plan of a study, read from the study.json beside its runs: which run belongs to which arm, and what is compared.

Only what a report needs is read, and nothing else is asked for: the runs by folder with arm, kind and axes, the pairs of
arms to compare, and the measure.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medssl.problems import InputError, Problem
from medssl.runs import Run, is_run, read_run

STUDY = "study.json"


@dataclass(frozen=True)
class PlannedRun:
    """A run that the study has or shall have; `axes` are the values that tell it from the others of its arm."""

    folder: Path
    arm: str
    kind: str
    axes: dict[str, Any] = field(default_factory=dict)

    @property
    def state(self) -> str | None:
        """Why there is nothing to read yet; None where the run is finished."""
        if not is_run(self.folder):
            return "not begun"
        run = read_run(self.folder)
        return None if run.finished else f"unfinished ({run.summary.get('status', 'no summary.json')})"


@dataclass(frozen=True)
class Study:
    """All runs of a study by their resolved folder, the pairs (arm, baseline) to compare, and the measure if it names one."""

    folder: Path
    about: str
    runs: dict[Path, PlannedRun]
    compare: list[tuple[str, str]]
    measure: str | None

    def planned(self, run: Run) -> PlannedRun | None:
        """What the study says of a run."""
        return self.runs.get(run.folder.resolve())

    def of_kind(self, kind: str) -> list[PlannedRun]:
        """The runs of pre-training, or of fine-tuning."""
        return [run for run in self.runs.values() if run.kind == kind]


def is_study(folder: Path) -> bool:
    """Tell whether a folder holds a study."""
    return (folder / STUDY).is_file()


def read_study(folder: Path) -> Study:
    """Read the study.json of a folder; raises InputError with all that is wrong in it."""
    path = folder / STUDY
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError([Problem(str(path), "content", str(error), "a JSON object")]) from None
    if not isinstance(content, dict) or not isinstance(content.get("runs"), dict) or not content["runs"]:
        raise InputError([Problem(str(path), "runs", "none", "an object with an arm, a kind and axes for each run folder")])
    problems = list(_problems(str(path), content))
    if problems:
        raise InputError(problems)
    runs = {
        (folder / name).resolve(): PlannedRun(folder / name, entry["arm"], entry["kind"], dict(entry.get("axes") or {}))
        for name, entry in content["runs"].items()
    }
    pairs = [(arm, baseline) for arm, baseline in content.get("compare") or []]
    return Study(folder, str(content.get("about") or ""), runs, pairs, content.get("measure"))


def _problems(path: str, content: dict[str, Any]) -> Iterator[Problem]:
    """Runs without an arm or a kind, and comparisons of arms that are not there."""
    arms = set()
    for name, found in content["runs"].items():
        entry = found if isinstance(found, dict) else {}
        if not isinstance(entry.get("arm"), str):
            yield Problem(path, f"runs.{name}.arm", str(entry.get("arm")), "the name of its arm")
        elif entry.get("kind") not in ("pretrain", "finetune"):
            yield Problem(path, f"runs.{name}.kind", str(entry.get("kind")), "pretrain or finetune")
        elif entry["kind"] == "finetune":
            arms.add(entry["arm"])
        if not isinstance(entry.get("axes") or {}, dict):
            yield Problem(path, f"runs.{name}.axes", str(entry.get("axes")), "an object")
    for pair in content.get("compare") or []:
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(name, str) for name in pair):
            yield Problem(path, "compare", str(pair), "pairs [ARM, BASELINE]")
        else:
            for name in (name for name in pair if name not in arms):
                yield Problem(path, "compare", name, f"one of {', '.join(sorted(arms))}")
