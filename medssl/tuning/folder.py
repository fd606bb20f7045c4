"""The folder of a search; what is in it is a person's or `medssl report`'s to read, but for the search itself.

tune.json       what is searched, and every trial: its settings, value, state, seconds and steps
optuna.sqlite   the search as optuna keeps it
trials/NNN/     an ordinary run folder each
logs/NNN.txt    what a trial said on stderr when it was last started
best.json       the recipe with the settings of the best trial
report.html
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, TextIO

from medssl.atomic import write_atomically
from medssl.conditions import differences, telling
from medssl.config import Finetune, Shared
from medssl.locks import take_lock
from medssl.problems import InputError, Problem
from medssl.recipes import find_recipe, parse, put, read_recipe
from medssl.run_folder import config_of
from medssl.study.folder import user_of
from medssl.tuning.space import Choice, Space

FILE = "tune.json"


@dataclass(frozen=True)
class Wanted:
    """What is searched: a recipe with words over it, the settings that they make, and the space."""

    recipe: str
    words: tuple[str, ...]
    settings: Shared
    space: Space

    @property
    def kind(self) -> str:
        """The script that makes a trial."""
        return "finetune" if isinstance(self.settings, Finetune) else "pretrain"

    def content(self) -> dict[str, Any]:
        """What tune.json says of it."""
        return {
            "kind": "tune",
            "script": self.kind,
            "recipe": self.recipe,
            "words": list(self.words),
            "space": {name: str(values) for name, values in self.space.items()},
            "ranges": {name: _ends(values) for name, values in self.space.items()},
            "settings": config_of(self.settings, self.kind),
            "split": sha256(self.settings.split.read_bytes()).hexdigest(),
        }


class SearchFolder:
    """The folder of one search, checked against what is wanted."""

    def __init__(self, out: Path, wanted: Wanted) -> None:
        self.out, self.wanted = out, wanted
        self._lock: TextIO | None = None

    def check(self) -> None:
        """Raise InputError, a line each, where the folder holds another search, or none."""
        if self.out.exists() and not self.out.is_dir():
            raise InputError([Problem(str(self.out), "out", "a file", "a folder")])
        before = read_search(self.out)
        here = sorted(path.name for path in self.out.glob("*") if not path.name.startswith("."))
        if here and not before:
            raise InputError([Problem(str(self.out), "out", f"{here[0]} and no {FILE}", "an empty folder, or this search's")])
        if before:
            problems = [
                Problem(str(self.out), name, now, f"{was}, as it was started, or another --out")
                for name, was, now in differences(_asked(before), _asked(self.wanted.content()))
            ]
            if problems:
                raise InputError(problems)

    def open(self) -> None:
        """Take the folder for this process; raises as `check` does, and where another process has it."""
        self.check()
        self.out.mkdir(parents=True, exist_ok=True)
        self._lock = (self.out / ".lock").open("a")
        if not take_lock(self._lock):
            found = "a search that another process makes"
            raise InputError([Problem(str(self.out), "out", found, "a folder that is free")])
        if not read_search(self.out):  # first of all, without it a folder is not the search's
            self.write(self.wanted.content())
        for name in ("trials", "logs"):
            (self.out / name).mkdir(exist_ok=True)

    def close(self) -> None:
        """Give the folder free."""
        if self._lock is not None:
            self._lock.close()

    @property
    def database(self) -> Path:
        return self.out / "optuna.sqlite"

    def trial(self, number: int) -> Path:
        """The run folder of a trial."""
        return self.out / "trials" / f"{number:03d}"

    def log(self, number: int) -> Path:
        """The file of what a trial says on stderr."""
        return self.out / "logs" / f"{number:03d}.txt"

    def user(self, number: int) -> str:
        """The process that makes a trial at the moment, as that of a search that was killed; empty where none does."""
        return user_of(self.trial(number))

    def write(self, content: Mapping[str, Any]) -> None:
        """Write tune.json, whole or not at all."""
        write_atomically(self.out / FILE, (json.dumps(content, indent=1) + "\n").encode())

    def write_best(self, chosen: Mapping[str, Any], expect: str) -> Path:
        """Write the recipe with the chosen settings, which the scripts take as it is."""
        recipe = read_recipe(find_recipe(self.wanted.recipe))
        for key, equals, text in (word.partition("=") for word in self.wanted.words):
            put(recipe, key.split("."), parse(text) if equals else None)
        for name, value in chosen.items():
            put(recipe, name.split("."), value)
        tuned = f"{', '.join(chosen)} by medssl tune on validation"
        recipe["follows"] = "; ".join(filter(None, [str(recipe.get("follows") or ""), tuned]))
        recipe |= {"expect": expect, "out": str(self.out / "best")}
        head = {key: recipe[key] for key in ("follows", "expect", "takes") if key in recipe}
        return write_atomically(self.out / "best.json", (json.dumps(head | recipe, indent=1) + "\n").encode())


def read_search(folder: Path) -> dict[str, Any]:
    """What tune.json says; empty where a folder has none."""
    try:
        found = json.loads((folder / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _asked(content: Mapping[str, Any]) -> dict[str, Any]:
    """What makes a search the same."""
    space = {f"space, {name}": values for name, values in content["space"].items()}
    return telling(content["settings"]) | space | {"content of the split": content["split"][:16]}


def _ends(values: Any) -> dict[str, Any]:
    """A range or a choice for the report."""
    if isinstance(values, Choice):
        return {"of": [parse(word) for word in values.words]}
    return {"from": values.low, "to": values.high, "log": values.log}
