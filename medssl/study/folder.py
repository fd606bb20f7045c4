"""The folder of a study: the state of every run is its own folder, and nothing else remembers it.

study.json      the study as it was read, its arms and its runs, for the report and for people
pretrain/ runs/ the run folders
logs/           what each run's last start said on stderr; its process has the lock of that, also before it has its folder's
failures.json   the runs that failed when they were last started, and why
summary.json, report.html  as `medssl report` writes them
"""

import json
from collections.abc import Iterable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from medssl.atomic import write_atomically
from medssl.conditions import SHORT, differences, telling
from medssl.locks import take_lock
from medssl.problems import InputError, Problem
from medssl.run_folder import config_of, finished
from medssl.study.plan import Plan, Run

PLACES = ("pretrain", "runs")


class StudyFolder:
    """A study's folder, checked against its plan."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.out = plan, plan.out
        self._lock: TextIO | None = None

    def check(self, runs: Iterable[Run] | None = None) -> None:
        """Raise InputError where the folder holds runs that the study has not, no study, or runs of other settings.

        With `runs` the settings of these alone count.
        """
        problems = [*self._strangers(), *self._others(self.plan.runs.values() if runs is None else runs)]
        if problems:
            raise InputError(problems)

    def open(self, alone: bool) -> None:
        """Take the folder, alone or beside others that take runs of it, and write the plan; raises as `check` does."""
        self.check()
        self.out.mkdir(parents=True, exist_ok=True)
        self._lock = (self.out / ".lock").open("a")
        if not take_lock(self._lock, shared=not alone):
            found = "a study that another process runs"
            raise InputError([Problem(str(self.out), "out", found, "a folder that is free")])
        content = (json.dumps(content_of(self.plan), indent=1) + "\n").encode()
        if not (self.out / "study.json").is_file() or (self.out / "study.json").read_bytes() != content:
            write_atomically(self.out / "study.json", content)
        (self.out / "logs").mkdir(exist_ok=True)  # after study.json, without which a folder is not the study's

    def path(self, run: Run) -> Path:
        """The folder of a run."""
        return self.out / run.name

    def done(self, run: Run) -> bool:
        """Whether a run is complete."""
        return finished(self.path(run))

    def started(self, run: Run) -> dict[str, Any]:
        """The settings that a run was started with; empty where it was not."""
        return _json(self.path(run) / "config.json")

    def summary(self, run: Run) -> dict[str, Any]:
        """The figures of a finished run."""
        return _json(self.path(run) / "summary.json")

    def user(self, run: Run) -> str:
        """The process that has a run at the moment, on this machine or another one; empty where none has."""
        return user_of(self.path(run))

    def log(self, run: Run) -> Path:
        """The file of what a run says on stderr."""
        return self.out / "logs" / f"{run.name.replace('/', '-')}.txt"

    def write_failures(self, failures: Mapping[str, str], runs: Iterable[str]) -> None:
        """Keep why some of these runs failed, beside what is known of others; without any failure no file stays."""
        path = self.out / "failures.json"
        with (self.out / ".failures.lock").open("a") as lock:  # what others write between our reading and writing would be lost
            take_lock(lock, wait=True)
            others = {name: why for name, why in _json(path).items() if name not in set(runs)}
            if told := others | dict(failures):
                write_atomically(path, (json.dumps(told, indent=1) + "\n").encode())
            else:
                path.unlink(missing_ok=True)

    def _strangers(self) -> list[Problem]:
        """Run folders that this study has not, and a folder that holds anything but a study."""
        folder = str(self.out)
        if self.out.exists() and not self.out.is_dir():
            return [Problem(folder, "out", "a file", "a folder")]
        here = sorted(path.name for path in self.out.glob("*") if not path.name.startswith("."))
        if here and not (self.out / "study.json").is_file():
            return [Problem(folder, "out", f"{here[0]} and no study.json", "an empty folder, or one of this study")]
        runs = sorted(f"{place}/{path.parent.name}" for place in PLACES for path in (self.out / place).glob("*/config.json"))
        if strange := [name for name in runs if name not in self.plan.runs]:
            many = f" and {len(strange) - 1} more" if len(strange) > 1 else ""
            expected = "runs of this study alone: another folder, or remove it"
            return [Problem(folder, "runs", f"{strange[0]}{many}, which is not of this study", expected)]
        return []

    def _others(self, runs: Iterable[Run]) -> list[Problem]:
        """Runs that were started with other settings or another split, a line for each kind of difference."""
        found: dict[tuple[str, str, str], Problem] = {}
        for run in runs:
            if started := self.started(run):
                before, wanted = telling(started), telling(config_of(run.settings, run.kind))
                copy = self.path(run) / "split.json"
                if copy.is_file() and run.settings.split.is_file():
                    before, wanted = before | _content(copy), wanted | _content(run.settings.split)
                for name, was, now in sorted(differences(before, wanted)):
                    problem = Problem(str(self.path(run)), name, now, f"{was}, as the run was started")
                    found.setdefault(problem[1:], problem)
        return list(found.values())


def user_of(folder: Path) -> str:
    """The process that has a run folder at the moment, on this machine or another one; empty where none has."""
    lock = folder / ".lock"
    try:
        with lock.open("r+") as file:
            if take_lock(file):
                return ""
    except FileNotFoundError:
        return ""
    except PermissionError:  # somebody else's run, which is theirs to make
        pass
    return lock.read_text(errors="replace").strip() or "unknown"


def open_log(log: Path) -> BinaryIO | None:
    """Open what a process shall write to, anew and with a lock that it keeps until it ends; None while another one has it."""
    file = log.open("ab")
    if not take_lock(file):
        file.close()
        return None
    file.truncate(0)
    return file


def threads_of(run: Run, before: Mapping[str, Any]) -> dict[str, Any]:
    """The threads of a started run, which it keeps where the study leaves them open: their number moves last digits."""
    return {"threads": before["threads"]} if run.settings.threads is None and "threads" in before else {}


def content_of(plan: Plan) -> dict[str, Any]:
    """What study.json holds: the study, the members of each arm with their axes, and the runs."""
    arms: dict[str, list[dict[str, Any]]] = {arm: [] for arm in plan.study.arms}
    for member in plan.members:
        arms[member.arm].append({"run": member.run, "axes": member.axes})
    runs = {
        run.name: {
            "kind": run.kind,
            "of": run.of,
            "axes": run.axes,
            "needs": run.needs,
            "recipe": run.recipe,
            "settings": run.words,
        }
        for run in plan.runs.values()
    }
    return {
        "kind": "study",
        "name": plan.file.stem,
        "about": plan.study.about,
        "measure": plan.study.measure,
        "compare": plan.study.compare,
        "arms": arms,
        "runs": runs,
        "study": plan.study.model_dump(mode="json", exclude_unset=True),
    }


def _content(split: Path) -> dict[str, str]:
    return {"content of the split": sha256(split.read_bytes()).hexdigest()[:SHORT]}


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
