"""Run folders read back: what a training wrote about itself, without torch and without opening a weight file."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medssl.problems import Gathering, InputError, Problem
from medssl.scores.classes import Judged, read_predictions
from medssl.scores.numbers import Estimate, read_estimates
from medssl.scores.voxels import Score, read_scores

DEPTH = 3  # folders below the one named: an arm's folder, a seed's folder, and one between


@dataclass(frozen=True)
class Run:
    """One run folder; a file that is not there is an empty dictionary or list."""

    folder: Path
    config: dict[str, Any]
    summary: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    encoder: dict[str, Any] = field(default_factory=dict)
    split: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def kind(self) -> str:
        return str(self.summary.get("kind") or self.config.get("kind") or "run")

    @property
    def task(self) -> str:
        """What a fine-tuning was for."""
        return str(self.summary.get("task", "segmentation"))

    @property
    def finished(self) -> bool:
        return self.summary.get("status", "finished") == "finished" and bool(self.summary)

    @property
    def network(self) -> str:
        table = self.summary.get("network") or self.config.get("network") or "network"
        return str(table.get("name", "network") if isinstance(table, dict) else table)

    @property
    def pretrained(self) -> bool:
        return self.summary.get("encoder", self.config.get("encoder", "none")) not in (None, "none", "")

    @property
    def encoder_name(self) -> str:
        """The run, or the file, that the encoder comes from."""
        path = Path(str(self.summary.get("encoder", self.config.get("encoder", "none"))))
        return path.parent.name if path.name == "encoder.safetensors" else path.name

    @property
    def key(self) -> tuple[int, int]:
        """(seed, draw): what two runs share when they are a pair."""
        return tuple(int(self.summary.get(name, self.config.get(name)) or 0) for name in ("seed", "draw"))  # type: ignore[return-value]

    @property
    def labelled(self) -> int | None:
        count = self.summary.get("labelled", self.config.get("labelled"))
        return None if count is None else int(count)

    @property
    def units(self) -> str:
        """What intervals resample: whole patients, or images where the split divides those."""
        return "images" if self.split.get("grouped_by") == "image" else "patients"

    def metrics(self) -> list[dict[str, Any]]:
        """Read metrics.jsonl; a last line cut short by a kill is left out."""
        return list(read_metrics(self.folder / "metrics.jsonl"))

    def scores(self) -> list[Score]:
        """Read predictions.csv; raises InputError where it can't be read."""
        path = self.folder / "predictions.csv"
        try:
            return read_scores(path)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError([Problem(str(path), "scores", str(error), "a line for each case and class")]) from None

    def predictions(self) -> tuple[dict[int, str], list[Judged]]:
        """Read the predictions.csv of a classification: classes and cases; raises InputError where it can't be read."""
        path = self.folder / "predictions.csv"
        try:
            return read_predictions(path)
        except (OSError, ValueError) as error:
            raise InputError([Problem(str(path), "predictions", str(error), "a line for each case")]) from None

    def estimates(self) -> list[Estimate]:
        """Read the predictions.csv of a regression; raises InputError where it can't be read."""
        path = self.folder / "predictions.csv"
        try:
            return read_estimates(path)
        except (OSError, ValueError) as error:
            raise InputError([Problem(str(path), "predictions", str(error), "a line for each case")]) from None


def is_run(folder: Path) -> bool:
    """Tell whether a folder is a run: it holds the run's settings."""
    return (folder / "config.json").is_file()


def read_run(folder: Path) -> Run:
    """Read the JSON files of a run folder; raises InputError naming each that can't be read."""
    names = {
        "config": "config",
        "summary": "summary",
        "environment": "environment",
        "encoder": "encoder",
        "split": "split",
    }
    found: dict[str, dict[str, Any]] = {}
    problems: list[Problem] = []
    for name, attribute in names.items():
        path = folder / f"{name}.json"
        try:
            found[attribute] = _json_object(path)
        except FileNotFoundError:
            if name == "config":
                problems.append(Problem(str(folder), "config.json", "no such file", "a run folder"))
        except (OSError, ValueError) as error:
            problems.append(Problem(str(path), "content", str(error), "a JSON object"))
    if problems:
        raise InputError(problems)
    return Run(folder, **found)


def find_runs(folder: Path) -> list[Run]:
    """Read every run below a folder, in the order of their paths; raises InputError with all that can't be read."""
    return read_runs(_run_folders(folder, DEPTH))


def read_runs(folders: Iterable[Path]) -> list[Run]:
    """Read run folders; raises InputError with all that can't be read."""
    runs, problems = list[Run](), Gathering()
    for folder in folders:
        with problems:
            runs.append(read_run(folder))
    problems.raise_any()
    return runs


def _run_folders(folder: Path, depth: int) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.is_dir() and not path.name.startswith("."):
            if is_run(path):
                yield path
            elif depth > 1:
                yield from _run_folders(path, depth - 1)


def _json_object(path: Path) -> dict[str, Any]:
    value = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(value, dict):
        raise ValueError(f"a {type(value).__name__}")
    return value


def read_metrics(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a metrics.jsonl, one dictionary each; a last line cut short by a kill is left out."""
    if not path.is_file():
        return
    with open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                value = json.loads(line)
            except ValueError:
                continue
            if isinstance(value, dict):
                yield value
