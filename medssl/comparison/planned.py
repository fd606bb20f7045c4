"""The plan of a study, read from the study.json beside its runs: which run belongs to which arm, and what is compared.

Only what a report needs is read, and nothing else is asked for: the runs by folder with their kind, the arms with the runs
and axes of each (a run may be in several), the pairs of arms to compare, and the measure. Where arms list no runs, each run
names its own arm and axes. What failed, and why, stands in failures.json.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
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
    failure: str = ""  # of its last start

    @property
    def state(self) -> str | None:
        """Why there is nothing to read yet; None where the run is finished."""
        run = read_run(self.folder) if is_run(self.folder) else None
        if run is not None and run.finished:
            return None
        if self.failure:
            return f"failed ({self.failure})"
        return f"unfinished ({run.summary.get('status', 'no summary.json')})" if run else "not begun"


@dataclass(frozen=True)
class Study:
    """All runs of a study, once for each arm that they are in, the pairs (arm, baseline) to compare, and the measure if any."""

    folder: Path
    about: str
    runs: list[PlannedRun]
    compare: list[tuple[str, str]]
    measure: str | None

    def planned(self, run: Run) -> list[PlannedRun]:
        """What the study says of a run, for each arm that it is in."""
        return self._by_folder.get(run.folder.resolve(), [])

    @cached_property
    def _by_folder(self) -> dict[Path, list[PlannedRun]]:
        found: dict[Path, list[PlannedRun]] = {}
        for run in self.runs:
            found.setdefault(run.folder.resolve(), []).append(run)
        return found


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
    content = _with_members(content)
    if not isinstance(content, dict) or not isinstance(content.get("runs"), dict) or not content["runs"]:
        raise InputError([Problem(str(path), "runs", "none", "an object with an arm, a kind and axes for each run folder")])
    problems = list(_problems(str(path), content))
    if problems:
        raise InputError(problems)
    why = _failures(folder / "failures.json")
    runs = [
        PlannedRun(folder / name, arm, entry["kind"], dict(axes or {}), why.get(name, ""))
        for name, entry in content["runs"].items()
        for arm, axes in entry.get("members") or [(entry["arm"], entry.get("axes"))]
    ]
    pairs = [(arm, baseline) for arm, baseline in content.get("compare") or []]
    return Study(folder, str(content.get("about") or ""), runs, pairs, content.get("measure"))


def _with_members(content: Any) -> Any:
    """Hang the arms that list their runs on those runs; a pre-training in none of them is its own."""
    arms = content.get("arms") if isinstance(content, dict) else None
    if not isinstance(arms, dict) or not isinstance(content.get("runs"), dict):
        return content
    runs = {name: dict(entry) if isinstance(entry, dict) else entry for name, entry in content["runs"].items()}
    for arm, members in arms.items():
        for member in members if isinstance(members, list) else []:
            entry = runs.get(member.get("run")) if isinstance(member, dict) else None
            if isinstance(entry, dict) and "arm" not in (content["runs"][member["run"]]):
                entry.setdefault("members", []).append((arm, member.get("axes")))
                entry["arm"] = arm
    for name, entry in runs.items():
        if isinstance(entry, dict) and entry.get("kind") == "pretrain":
            entry.setdefault("arm", str(entry.get("of") or name))
    return content | {"runs": runs}


def _failures(path: Path) -> dict[str, str]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {str(name): str(reason) for name, reason in found.items()} if isinstance(found, dict) else {}


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
            arms |= {arm for arm, _ in entry.get("members", [])} | {entry["arm"]}
        if not isinstance(entry.get("axes") or {}, dict):
            yield Problem(path, f"runs.{name}.axes", str(entry.get("axes")), "an object")
    for pair in content.get("compare") or []:
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(name, str) for name in pair):
            yield Problem(path, "compare", str(pair), "pairs [ARM, BASELINE]")
        else:
            for name in (name for name in pair if name not in arms):
                yield Problem(path, "compare", name, f"one of {', '.join(sorted(arms))}")
