"""Cases from a CSV or TSV table: columns image, label, mask, patient, part and weight, under these names or others.

Of several image columns, one a channel, a cell may be empty: a modality that this case lacks.
"""

import csv
import io
import math
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from medssl.problems import InputError, Problem, nearest
from medssl.readers import location
from medssl.readers.image import known_patient
from medssl.sources.found import GIVEN_PARTS, Found, FoundCase, named, shortened

COLUMNS = ("image", "label", "mask", "patient", "part", "weight")
EMPTY = {"", "n/a", "na", "nan", "null", "none"}  # in lower case; BIDS writes n/a, pandas and R the others
PARTS = {"split", "set", "subset", "fold"}  # what people call a column of parts


@dataclass(frozen=True)
class Row:
    """One row; `line` counts from 1, the header's line."""

    line: int
    values: dict[str, str]


def read_table(path: Path) -> tuple[list[str], list[Row]]:
    """The column names and rows of a table in UTF-8, with commas, semicolons or tabs; raises InputError."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise InputError([Problem(str(path), "file", error.strerror or "nothing", "a table")]) from None
    except UnicodeDecodeError:
        raise InputError([Problem(str(path), "file", "another encoding", "a table in UTF-8")]) from None
    said = re.match(r"sep=(.)\r?\n", text, re.IGNORECASE)  # as Excel writes it
    text = "\n" + text[said.end() :] if said else text
    header = text.lstrip().splitlines()[0] if text.strip() else ""
    delimiter = said[1] if said else max("\t;,", key=header.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        lines = [(reader.line_num, [value.strip() for value in row]) for row in reader if any(map(str.strip, row))]
    except csv.Error as error:
        raise InputError([Problem(str(path), f"line {reader.line_num}", str(error), "a table")]) from None
    names = lines[0][1] if lines else []
    while names and not names[-1]:
        names.pop()
    lines = [(line, [*values[: len(names)], *(v for v in values[len(names) :] if v)]) for line, values in lines]
    doubled = [name for name, count in Counter(names).items() if count > 1]
    problems = [Problem(str(path), "columns", f"{name or 'no name'} twice", "a name once") for name in doubled]
    if len(lines) < 2:
        problems.append(Problem(str(path), "file", f"{len(lines)} lines", "a header and rows"))
    uneven = [(line, values) for line, values in lines[1:] if len(values) != len(names)]
    problems += shortened(
        Problem(str(path), f"line {line}", f"{len(values)} fields", f"{len(names)}, as in the header")
        for line, values in uneven
    )
    if problems:
        raise InputError(problems)
    return names, [Row(line, dict(zip(names, values, strict=True))) for line, values in lines[1:]]


def find_column(names: Sequence[str], name: str) -> str | None:
    """The column of that name, or the only one that is called so in other case."""
    alike = [other for other in names if other.casefold() == name.casefold()]
    return name if name in names else alike[0] if len(alike) == 1 else None


def from_table(folder: Path, path: Path, task: str, renamed: Mapping[str, str]) -> Found:
    """The cases of a table whose paths start from the folder; raises InputError with every problem of every row."""
    names, rows = read_table(path)
    wanted = [name.strip() for name in renamed.get("image", "image").split(",")]
    missing = [
        name for name in [*wanted, *(renamed[key] for key in COLUMNS[1:] if key in renamed)] if not find_column(names, name)
    ]
    if missing:
        raise InputError([_no_column(path, name, names) for name in missing])
    images = [find_column(names, name) or name for name in wanted]
    column = {key: find_column(names, renamed.get(key, key)) or key for key in COLUMNS[1:]}
    if "mask" not in renamed and (task == "segmentation" or column["mask"] in {*images, column["label"]}):
        del column["mask"]
    reading = _Rows(folder, path, task)
    cases = [reading.case(row, images, column) for row in rows]
    if reading.problems:
        raise InputError(shortened(reading.problems))
    notes = _unused_columns(names, {*images, *column.values()})
    if reading.blank:
        words = ", ".join(sorted(reading.blank))
        notes.append(f"labels taken for none: {reading.blank.total()} that say {words}")
    return Found(f"table {path.name}, column {' and '.join(images)}", task, cases, left_out=notes)


def _unused_columns(names: Sequence[str], used: set[str]) -> list[str]:
    unused = [name for name in names if name not in used]
    part = next((name for name in unused if name.casefold() in PARTS), None) if "part" not in used & set(names) else None
    hint = f"; for the parts of {part}: --columns part={part}" if part else ""
    return [f"columns that are not used: {named(unused)}{hint}"] if unused else []


class _Rows:
    """Reads rows and gathers their problems."""

    def __init__(self, folder: Path, file: Path, task: str) -> None:
        self.folder, self.file, self.task = folder, file, task
        self.problems: list[Problem] = []
        self.first: dict[str, int] = {}  # image -> line
        self.blank: Counter[str] = Counter()  # words that stand for no label

    def case(self, row: Row, images: Sequence[str], column: Mapping[str, str]) -> FoundCase:
        missing = tuple(i for i, name in enumerate(images) if len(images) > 1 and row.values[name].lower() in EMPTY)
        there = [name for i, name in enumerate(images) if i not in missing]
        paths = tuple(self.path(row, name) for name in there)
        if not there:
            self.problem(row, images[0], "no image of any channel", "at least one")
            paths = ("",)
        earlier = self.first.setdefault(paths[0], row.line)
        if earlier != row.line and paths[0]:
            self.problem(row, there[0], f"the image of line {earlier}", "an image once")
        text = {key: row.values.get(name, "") for key, name in column.items()}
        self.blank.update([text["label"]] if text["label"] and text["label"].lower() in EMPTY else [])
        text = {key: "" if value.lower() in EMPTY else value for key, value in text.items()}
        part = GIVEN_PARTS.get(text["part"].lower())
        if text["part"] and part is None:
            self.problem(row, column["part"], text["part"], "train, validation, test or unlabelled")
        label = self.label(row, column["label"]) if text["label"] else None
        mask = self.path(row, column["mask"]) if text.get("mask") else None
        weight = self.weight(row, column["weight"], text["weight"])
        return FoundCase(paths, label, known_patient(text["patient"]), part, weight, mask, missing)

    def label(self, row: Row, name: str) -> str | float | None:
        if self.task == "segmentation":
            return self.path(row, name)
        text = row.values[name]
        return text if self.task == "classification" else self.number(row, name, text)

    def weight(self, row: Row, name: str, text: str) -> float:
        value = self.number(row, name, text) if text else 1.0
        if value <= 0:
            self.problem(row, name, text, "a number above 0")
        return value

    def number(self, row: Row, name: str, text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            self.problem(row, name, text, "a number, as 0.5")
            return 1.0
        return value

    def path(self, row: Row, name: str) -> str:
        text = row.values[name].replace("\\", "/")
        root = os.path.abspath(self.folder)
        full = os.path.normpath(os.path.join(root, text))
        if not text:
            self.problem(row, name, "nothing", "a path")
        elif not full.startswith(root + os.sep):
            self.problem(row, name, text, "a path inside FOLDER")
        elif not location(full).exists():
            self.problem(row, name, f"no file {text}", "a path that starts from FOLDER")
        return os.path.relpath(full, root).replace(os.sep, "/") if text else ""

    def problem(self, row: Row, name: str, found: str, expected: str) -> None:
        self.problems.append(Problem(str(self.file), f"line {row.line}, {name}", found, expected))


def _no_column(path: Path, name: str, names: Sequence[str]) -> Problem:
    near = nearest(name, names)
    expected = f"{near} (nearest) by --columns" if near else f"one of {', '.join(names)} by --columns"
    return Problem(str(path), "columns", f"no {name}", expected)
