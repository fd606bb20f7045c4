"""A study as it is written: a JSON file that names recipes, axes, and what is compared with what.

`shared` are settings of all runs. A pre-training or an arm is a recipe with settings of its own, the weights that it
starts from, and axes; with `like` it takes all that it does not say itself from another one.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, StringConstraints, ValidationError, field_validator

from medssl.config.tables import Table
from medssl.problems import InputError, Problem, nearest
from medssl.recipes import explain, find_named, put_words, read_recipe

STUDIES = Path(__file__).parents[2] / "studies"
Name = Annotated[str, StringConstraints(pattern=r"^\w[\w.+-]{0,99}$")]
Settings = dict[str, Any]  # by name, `method.temperature` too
Axes = dict[str, list[Any] | dict[str, Settings]]
START = 'none, a run, a file, or {"pretrain": NAME}'


class Trained(Table):
    """What a pre-training of a study and an arm of it have."""

    like: Name | None = Field(None, description="another one that all is taken from which is not said here")
    recipe: str | None = Field(None, description="a path, or a name under recipes/")
    settings: Settings = Field({}, description="settings that replace the recipe's")
    encoder: str | dict[str, str] = Field("none", description=START)
    axes: Axes = Field({}, description="as those of the study; one of the same name takes its place")

    @field_validator("encoder", mode="before")
    @classmethod
    def start(cls, value: Any) -> Any:
        if source_of(value) is None and not (isinstance(value, str) and value):
            raise ValueError(f"found {value}, expected {START}")
        return value

    def over(self, other: "Trained") -> "Trained":
        """This one with what it does not say taken from another one."""
        own = {key: getattr(self, key) for key in self.model_fields_set - {"like", "settings", "axes"}}
        merged = {"settings": laid(other.settings, self.settings), "axes": other.axes | self.axes}
        return other.model_copy(update=own | merged | {"like": other.like})


class Study(Table):
    """The study file."""

    about: str = Field("", description="the question")
    follows: str = Field("", description="the paper or project that the study follows")
    expect: str = Field("", description="the numbers to expect")
    takes: str = Field("", description="the time to expect")
    shared: Settings = Field({}, description="settings of all runs whose script has them")
    pretrain: dict[Name, Trained] = Field({}, description="pre-trainings by name")
    arms: dict[Name, Trained] = Field(min_length=1, description="what is compared, by name: a fine-tuning each")
    axes: Axes = Field({}, description="of all arms: every value with every other; see docs/studies.md")
    compare: list[Annotated[list[str], Field(min_length=2, max_length=2)]] = Field(
        [], description="pairs of an arm and its baseline"
    )
    measure: str | None = Field(None, description="what is compared, such as dice; default: the task's first measure")


def laid(*layers: Settings) -> Settings:
    """Settings laid over others, the last on top: a whole table takes the place of what was said of its parts below."""
    found: Settings = {}
    for layer in layers:
        found = {key: value for key, value in found.items() if not any(key.startswith(f"{name}.") for name in layer)} | layer
    return found


def source_of(encoder: Any) -> str | None:
    """The pre-training of the study that `encoder` names, or None."""
    named = isinstance(encoder, dict) and encoder.keys() == {"pretrain"} and isinstance(encoder["pretrain"], str)
    return str(encoder["pretrain"]) if named else None


def study_names() -> list[str]:
    """List the studies that come with the project."""
    return sorted(path.stem for path in STUDIES.glob("*.json"))


def read_study(name: str, words: Sequence[str] = ()) -> tuple[Path, Study]:
    """Read a study, put the command line's words over it and check its form; raises InputError with every problem.

    A word is a shared setting, `lr=0.1`, or a place in the file, `arms.random.settings.lr=0.1`.
    """
    path = find_named(name, STUDIES, "study")
    content = read_recipe(path, "study")
    problems = put_words(content, words, place_of)
    try:
        study = Study.model_validate(content)
    except ValidationError as error:
        problems += [described(str(path), item) for item in error.errors(include_url=False)]
    if problems:
        raise InputError(list(dict.fromkeys(problems)))
    return path, study


def place_of(key: str) -> list[str]:
    """Where a word belongs in the file; a setting's own dots stay in its name."""
    first, *rest = key.split(".")
    if first not in Study.model_fields:
        return ["shared", key]
    if first in ("pretrain", "arms") and len(rest) > 2 and rest[1] in ("settings", "axes"):
        rest = [*rest[:2], ".".join(rest[2:])]
    elif first in ("shared", "axes") and rest:
        rest = [".".join(rest)]
    return [first, *rest]


def described(file: str, item: Any) -> Problem:
    """Put one of pydantic's errors into the project's words."""
    where = [str(part) for part in item["loc"]]
    if item["type"] == "extra_forbidden":
        near = nearest(where[-1], (Study if len(where) == 1 else Trained).model_fields)
        return Problem(file, ".".join(where), "an unknown key", f"{near!r}?" if near else "a key that exists")
    if where[-1] == "[key]":
        return Problem(file, ".".join(where[:-1]), where[-2], "a name of letters, digits and . + - _")
    if "axes" in where[:3]:
        expected = "a list of values, or a table of settings by name"
        return Problem(file, ".".join(where[: where.index("axes") + 2]), explain(Study, file, item).found, expected)
    return explain(Study, file, item)
