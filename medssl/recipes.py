"""From a recipe and `key=value` words to settings, with every error of both at once.

A recipe is a JSON file of settings, given by path or by its name under `recipes/`. A value on the command line is
JSON where it reads as JSON (`lr=1e-4`, `crop_size=[96,96,96]`), else text (`out=runs/a`).
"""

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from medssl.config import Finetune, Pretrain, Shared, Table
from medssl.problems import InputError, Problem, nearest

RECIPES = Path(__file__).parent.parent / "recipes"
S = TypeVar("S", bound=Shared)


def read_settings(kind: type[S], recipe: str, words: Sequence[str]) -> S:
    """Read the recipe, put the command line's words over it and check all; raises InputError with every problem."""
    path = find_recipe(recipe)
    values = read_recipe(path)
    values.setdefault("out", f"runs/{path.stem}")
    problems = put_words(values, words, lambda key: key.split("."))
    try:
        settings = kind.model_validate(values)
    except ValidationError as error:
        problems += [explain(kind, str(path), item) for item in error.errors(include_url=False)]
    if problems:
        raise InputError(problems)
    return settings


def read_either(recipe: str, words: Sequence[str]) -> Pretrain | Finetune:
    """Read a recipe of either script: one with a `method` is for pre-training; raises as `read_settings`."""
    named = {word.partition("=")[0].split(".")[0] for word in words} | set(read_recipe(find_recipe(recipe)))
    return read_settings(Pretrain, recipe, words) if "method" in named else read_settings(Finetune, recipe, words)


def find_recipe(recipe: str) -> Path:
    """Find a recipe by path, or by its name under `recipes/`; raises InputError with the nearest name."""
    return find_named(recipe, RECIPES, "recipe")


def find_named(name: str, folder: Path, kind: str) -> Path:
    """Find a JSON file by its path or its name in a folder; raises InputError with the nearest name."""
    for path in (Path(name), folder / f"{name}.json"):
        if path.is_file():
            return path
    names = sorted(path.stem for path in folder.glob("*.json"))
    near = nearest(name, names)
    raise InputError([Problem(name, kind, "no such file", f"{near!r}?" if near else f"a path or one of {', '.join(names)}")])


def recipe_names() -> list[str]:
    """List the recipes that come with the project."""
    return sorted(path.stem for path in RECIPES.glob("*.json"))


def read_recipe(path: Path, kind: str = "recipe") -> dict[str, Any]:
    """Read a JSON file that holds one object; a key given twice is an error."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in pairs]
        twice = {key for key in keys if keys.count(key) > 1}
        if twice:
            raise ValueError(f"{', '.join(sorted(twice))} given twice")
        return dict(pairs)

    try:
        values = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=once)
    except (OSError, ValueError, RecursionError) as error:
        raise InputError([Problem(str(path), kind, str(error), "a JSON object of settings")]) from error
    if not isinstance(values, dict):
        raise InputError([Problem(str(path), kind, type(values).__name__, "a JSON object of settings")])
    return values


def parse(text: str) -> Any:
    """Read a value of the command line: JSON where it is JSON, else the text itself."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def put_words(values: dict[str, Any], words: Sequence[str], place: Callable[[str], list[str]]) -> list[Problem]:
    """Put the command line's words over what a file says, a key where `place` says; gives those that are none."""
    problems = []
    for word in words:
        key, equals, text = word.partition("=")
        if not equals or not key:
            problems.append(Problem("command line", word, "no '='", "key=value"))
        else:
            put(values, place(key), parse(text))
    return problems


def put(values: dict[str, Any], keys: Sequence[str], value: Any) -> None:
    """Set a nested value; a bare name on the way becomes a table with that name."""
    for key in keys[:-1]:
        inner = values.get(key)
        values[key] = dict(inner) if isinstance(inner, dict) else {"name": inner} if isinstance(inner, str) else {}
        values = values[key]
    values[keys[-1]] = value


def explain(kind: type[Table], file: str, item: Any) -> Problem:
    """Put one of pydantic's errors into the project's words."""
    where = [part for part in item["loc"] if not (isinstance(part, str) and "[" in part)]
    named = [str(part) for place, part in enumerate(where) if place != 1 or not tagged(kind, where)]
    field = ".".join(named) or "settings"
    found = shorten(item["input"])
    if item["type"] == "extra_forbidden":
        near = nearest(str(where[-1]), known_keys(kind, where[:-1]))
        return Problem(file, field, "an unknown setting", f"{near!r}?" if near else "a setting that exists")
    if item["type"] == "missing":
        return Problem(file, field, "nothing", f"a value: {description(kind, field)}")
    if item["type"] == "union_tag_invalid":
        tags = item["ctx"]["expected_tags"].replace("'", "")
        near = nearest(item["ctx"]["tag"], tags.split(", "))
        return Problem(file, field, item["ctx"]["tag"], f"{near!r}? One of {tags}" if near else f"one of {tags}")
    if item["type"] == "value_error":  # config.py words them as "FIELD: found FOUND, expected EXPECTED"
        inner, _, rest = str(item["ctx"]["error"]).partition("found ")  # of one field alone without its name
        found, _, expected = rest.partition(", expected ")
        return Problem(file, ".".join([*named, *([inner.removesuffix(": ")] if inner else [])]), found, expected)
    return Problem(file, field, found, re.sub("^(Input|Value|List|String) should ", "", item["msg"]).removeprefix("be "))


def tagged(kind: type[Table], where: Sequence[Any]) -> bool:
    """Tell whether pydantic put the name of a table, `method.simclr.temperature`, where the user writes none."""
    field = kind.model_fields.get(str(where[0])) if len(where) > 1 else None
    return field is not None and field.discriminator is not None


def known_keys(kind: type[Table], where: Sequence[Any]) -> list[str]:
    """List the settings of the table at `where`; the table of a union is told by its tag, which pydantic puts there."""
    if not where:
        return list(kind.model_fields)
    from medssl import config

    tables = [value for value in vars(config).values() if isinstance(value, type) and issubclass(value, config.Table)]
    tags = {str(where[-1])}
    return [
        key
        for table in tables
        if not issubclass(table, Shared)
        for key in table.model_fields
        if tags & names_of(table) or len(where) == 1
    ]


def names_of(table: type) -> set[str]:
    """List the values that the `name` of a table may have."""
    field = getattr(table, "model_fields", {}).get("name")
    return set(getattr(field.annotation, "__args__", ())) if field else set()


def description(kind: type[Table], field: str) -> str:
    """Look up the help text of a setting."""
    found = kind.model_fields.get(field)
    return (found.description if found else None) or "required"


def shorten(value: Any) -> str:
    """Show a value in a few characters."""
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else text[:57] + "..."
