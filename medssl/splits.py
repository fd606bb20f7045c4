"""Split files: which cases are for pre-training, training, validation and test.

The keys are those of the Medical Segmentation Decathlon's dataset.json and of MONAI's Auto3DSeg data lists; the
schema is in json_splits/README.md. Unlike `monai.data.load_decathlon_datalist`, reading refuses what would spoil a
result: a patient or an image in two parts, paths that leave the data root, doubled or unknown keys. It looks at no
image: that is medssl/check.py.
"""

import json
import os
import re
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medssl.atomic import write_atomically
from medssl.patients import group_patients
from medssl.problems import InputError, Problem, nearest
from medssl.readers import SUFFIX

PARTS = ("pretraining", "training", "validation", "test")
TASKS = ("segmentation", "classification", "regression")
GROUPINGS = ("patient", "image")

NAME = "1 to 200 printable characters without a slash"

_CASE_KEYS = ("id", "patient", "image", "label", "mask", "fold", "weight")
_NOTES = ("description", "reference", "licence", "license", "release", "tensorImageSize")
_COUNTS = ("numPretraining", "numTraining", "numValidation", "numTest")
_KEYS = ("name", "modality", "task", "labels", "grouped_by", "empty_labels", *PARTS, *_NOTES, *_COUNTS)


@dataclass(frozen=True)
class Case:
    """One patient study; `label` is a file, a class (int), a number (float) or absent, and None throughout `pretraining`.

    `image` are the files that there are, in the order of the channels; `missing` are the channels without one.
    """

    id: str
    patient: str
    image: tuple[Path, ...]
    label: Path | float | None = None
    fold: int | None = None
    weight: float = 1.0  # how often it is drawn, relative to others
    mask: Path | None = None  # a file that marks an object which images may be cut around; in segmentation the label does
    missing: tuple[int, ...] = ()


@dataclass(frozen=True)
class Split:
    """A split file as read; paths are absolute, `modality` and `labels` map 0, 1, ... to names.

    `grouped_by` is "image" where the patients were unknown, so that parts may share some. With `empty_labels` a label
    map without any object is meant, as that of a slice beside the tumour; otherwise it is taken for a mistake.
    """

    file: Path
    name: str
    modality: dict[int, str]
    task: str
    labels: dict[int, str]
    parts: dict[str, tuple[Case, ...]]
    root: Path = Path()
    grouped_by: str = GROUPINGS[0]
    empty_labels: bool = False

    @property
    def channels(self) -> int:
        return len(self.modality)

    @property
    def coloured(self) -> bool:
        """Whether the channels are red, green and blue; a grey picture among them has three equal ones."""
        return list(self.modality.values()) == ["R", "G", "B"]

    def part(self, name: str) -> tuple[Case, ...]:
        """The cases of one part, none where the split lacks it; raises KeyError for a name that is no part."""
        if name not in PARTS:
            raise KeyError(f"{name} is none of {', '.join(PARTS)}")
        return self.parts.get(name, ())


def read_split(path: str | Path, data_root: str | Path | None = None) -> Split:
    """Read a split whose paths are relative to `data_root` (by default the split's folder).

    Raises InputError with every problem of the file at once. Paths are compared as written: links are not followed.
    """
    reading = _Reading(Path(path), Path(data_root) if data_root is not None else Path(path).parent)
    split = reading.split()
    if reading.problems:
        raise InputError(reading.problems)
    return split


def write_split(path: str | Path, content: Mapping[str, Any]) -> None:
    """Write a split file with a case a line, whole or not at all."""
    path = Path(path)
    entries = []
    for key, value in content.items():
        if isinstance(value, list) and value:
            text = "[\n" + ",\n".join("  " + json.dumps(case, ensure_ascii=False) for case in value) + "\n ]"
        else:
            text = json.dumps(value, ensure_ascii=False)
        entries.append(f" {json.dumps(key)}: {text}")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, ("{\n" + ",\n".join(entries) + "\n}\n").encode())


def natural(text: str) -> tuple[tuple[int, int, str], ...]:
    """A sort key that puts 2 before 10."""
    pieces = re.split(r"(\d+)", text.casefold())
    return tuple((0, int(piece), piece) if piece.isdecimal() else (1, 0, piece) for piece in pieces if piece)


def stem(path: str | Path) -> str:
    """The file's name without the suffix of an image format: `1.2.840.nii.gz` is `1.2.840`."""
    name = Path(path).name
    known = next((suffix for suffix in SUFFIX if name.lower().endswith(suffix)), "")
    return name[: len(name) - len(known)] or name


def is_name(text: str) -> bool:
    """Whether it can be the id of a case or a patient: NAME in words."""
    return bool(text.strip()) and len(text) <= 200 and "/" not in text and text.isprintable()


@dataclass(frozen=True)
class _Seat:
    """Where a case sits in the file."""

    part: str
    index: int
    case: Case

    def __str__(self) -> str:
        return f"{self.part}[{self.index}]"


class _Reading:
    """Read one split file and gathers its problems on the way."""

    def __init__(self, file: Path, root: Path) -> None:
        self.file = file
        self.root = Path(os.path.abspath(root))
        self.problems: list[Problem] = []
        self.task = TASKS[0]
        self.labels: dict[int, str] = {}
        self.grouped_by = GROUPINGS[0]

    def problem(self, field: str, found: object, expected: str) -> None:
        self.problems.append(Problem(str(self.file), field, str(found), expected))

    def split(self) -> Split:
        content = self.content()
        self.keys(content, _KEYS, "")
        if not self.problems and not self.root.is_dir():
            self.problem("data_root", self.root, "an existing folder")
        self.labels = self.names(content, "labels")
        modality = self.names(content, "modality")
        self.task = content.get("task", self.task)
        if self.task not in TASKS:
            self.problem("task", show(self.task), f"one of {', '.join(TASKS)}")
        self.grouped_by = content.get("grouped_by", self.grouped_by)
        if self.grouped_by not in GROUPINGS:
            self.problem("grouped_by", show(self.grouped_by), " or ".join(GROUPINGS))
        empty_labels = content.get("empty_labels", False)
        if type(empty_labels) is not bool:
            self.problem("empty_labels", show(empty_labels), "true or false")
        name = self.identity(content.get("name", stem(self.file.name.removesuffix(".json"))), "name")
        seats = [seat for part in PARTS for seat in self.part(part, content.get(part, []))]
        if not seats and not self.problems:
            self.problem("cases", "none", f"some in {', '.join(PARTS)}")
        classes = self.task != "regression" and any(seat.case.label is not None for seat in seats)
        if classes and "labels" not in content:
            self.problem("labels", "none", 'the names of the classes, as {"0": "background", "1": ...}')
        self.overlaps(seats)
        parts = {p: tuple(seat.case for seat in seats if seat.part == p) for p in PARTS if p in content}
        modality = modality or {i: f"image {i}" for i in range(_channels_of(seats[0].case) if seats else 1)}
        return Split(self.file, name, modality, self.task, self.labels, parts, self.root, self.grouped_by, empty_labels)

    def content(self) -> dict[str, Any]:
        def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
            counts = Counter(key for key, _ in pairs)
            for key in (key for key, count in counts.items() if count > 1):
                self.problem(key, "the key twice in one object", "every key once")
            return dict(pairs)

        def constant(name: str) -> None:
            raise ValueError(f"{name} is no JSON")

        try:
            content = json.loads(self.file.read_bytes().decode("utf-8-sig"), object_pairs_hook=once, parse_constant=constant)
        except OSError as error:
            self.problem("file", error.strerror, "a split file")
        except (ValueError, RecursionError) as error:
            self.problem("file", error, "JSON in UTF-8")
        else:
            if isinstance(content, dict):
                return content
            self.problem("file", show(content), "a JSON object")
        raise InputError(self.problems)

    def keys(self, entry: dict[str, Any], valid: Sequence[str], where: str) -> None:
        """Reports unknown keys and reads a misspelt one as the key it was meant to be, so that it makes one line."""
        for key in [key for key in entry if key not in valid]:
            near = nearest(key, [name for name in valid if name not in entry])
            hint = f"{near} (nearest valid key)" if near else f"one of {', '.join(valid)}"
            self.problem(where + key, "an unknown key", hint)
            if near:
                entry[near] = entry.pop(key)

    def names(self, content: dict[str, Any], key: str) -> dict[int, str]:
        value = content.get(key, {})
        if not isinstance(value, dict) or not all(isinstance(name, str) and name for name in value.values()):
            self.problem(key, show(value), 'names by number, as {"0": ...}')
            return {}
        if sorted(value) != sorted(map(str, range(len(value)))):
            self.problem(key, f"keys {', '.join(value)}", f"0 to {len(value) - 1}")
            return {}
        if len(set(value.values())) < len(value) and key == "labels":
            self.problem(key, "one name twice", "a name of its own for every class")
        return {int(number): value[number] for number in sorted(value, key=int)}

    def part(self, part: str, entries: Any) -> list[_Seat]:
        if not isinstance(entries, list):
            self.problem(part, show(entries), "a list of cases")
            return []
        cases = [(i, self.case(entry, part, f"{part}[{i}]")) for i, entry in enumerate(entries)]
        return [_Seat(part, i, case) for i, case in cases if case is not None]

    def case(self, entry: Any, part: str, where: str) -> Case | None:
        before = len(self.problems)
        if isinstance(entry, str):  # as the test cases of a Decathlon file
            entry = {"image": entry}
        if not isinstance(entry, dict):
            self.problem(where, show(entry), "an object with an image")
            return None
        self.keys(entry, _CASE_KEYS, where + ".")
        image = entry.get("image")
        paths = image if isinstance(image, list) and image else [image]
        missing = tuple(i for i, path in enumerate(paths) if path is None and isinstance(image, list))
        if len(missing) == len(paths):
            self.problem(f"{where}.image", "null for every channel", "a path for at least one")
            return None
        images = [self.path(path, f"{where}.image") for i, path in enumerate(paths) if i not in missing]
        mask = self.mask(entry.get("mask"), f"{where}.mask")
        label = self.label(entry.get("label"), f"{where}.label") if part != "pretraining" else None
        fold = entry.get("fold")
        if fold is not None and (type(fold) is not int or fold < 0):
            self.problem(f"{where}.fold", show(fold), "a whole number from 0")
        weight = entry.get("weight", 1.0)
        if not _is_number(weight) or weight <= 0:
            self.problem(f"{where}.weight", show(weight), "a finite number above 0")
        if None in images:
            return None
        id = self.identity(entry.get("id", stem(images[0] or "")), f"{where}.id")
        patient = self.identity(entry["patient"], f"{where}.patient") if "patient" in entry else id
        if len(self.problems) > before:
            return None
        files = tuple(path for path in images if path)
        return Case(id, patient, files, label, fold, float(weight), mask, missing)

    def identity(self, value: Any, where: str) -> str:
        text = str(value) if type(value) is int else value
        if not isinstance(text, str) or not is_name(text):
            self.problem(where, show(value), NAME)
        return str(text)

    def path(self, value: Any, where: str) -> Path | None:
        if not isinstance(value, str) or not value or "\0" in value:
            self.problem(where, show(value), "a path" if not where.endswith("image") else "a path, or one a channel")
            return None
        path = Path(os.path.normpath(self.root / value))
        if Path(value).is_absolute() or not path.is_relative_to(self.root) or path == self.root:
            self.problem(where, value, "a relative path inside the data root")
            return None
        return path

    def label(self, value: Any, where: str) -> Path | float | None:
        if value is None:
            return None
        if self.task == "segmentation":
            return self.path(value, where)
        number = _is_number(value)
        if self.task == "regression" and not number:
            self.problem(where, show(value), "a finite number")
        elif self.task == "classification" and (type(value) is not int or value not in self.labels):
            self.problem(where, show(value), f"a class from 0 to {max(self.labels, default=0)}")
        if not number:
            return None
        return float(value) if self.task == "regression" else value  # 2 is a number among 0.5 and 1.5, and no class

    def mask(self, value: Any, where: str) -> Path | None:
        if value is None:
            return None
        if self.task == "segmentation":
            self.problem(where, show(value), "none in segmentation, whose label marks the objects")
            return None
        return self.path(value, where)

    def overlaps(self, seats: Sequence[_Seat]) -> None:
        """Reports images, ids and patients that come twice; one line a case, the most telling of the three."""
        by_image: dict[Path, list[_Seat]] = {}
        by_id: dict[str, list[_Seat]] = {}
        by_patient: dict[str, dict[tuple[str, int | None], _Seat]] = {}
        told: set[tuple[str, str, str]] = set()
        people = people_of(self.grouped_by, [seat.case for seat in seats])
        for seat in seats:
            person = people[who(seat.case)]
            images = [earlier for path in set(seat.case.image) for earlier in by_image.get(path, [])]
            ids = by_id.get(seat.case.id, [])
            again = next((s for s in images if _apart(s, seat) or s.case.id != seat.case.id), None)
            named = next((s for s in ids if _apart(s, seat) or _files_of(s.case) != _files_of(seat.case)), None)
            other = next((s for s in ids if people[who(s.case)] != person), None)
            if len(set(seat.case.image)) < len(seat.case.image):
                self.problem(f"{seat}.image", "one file for two channels", "a file a channel")
            elif seat.case.label in seat.case.image and not seat.case.image[0].name.lower().endswith(".mat"):
                self.problem(f"{seat}.label", "the image itself", "a file of its own")
            elif seat.case.mask in seat.case.image and not seat.case.image[0].name.lower().endswith(".mat"):
                self.problem(f"{seat}.mask", "the image itself", "a file of its own")
            elif again:
                self.problem(f"{seat}.image", f"the image of {again} ({again.case.id})", "an image once, in one part")
            elif named:
                self.problem(f"{seat}.id", f"{seat.case.id}, the id of {named}", "an id of its own")
            elif other:
                found = f"{seat.case.patient}, but {other.case.patient} in {other}"
                self.problem(f"{seat}.patient", found, "one patient an id")
            for earlier in by_patient.setdefault(person, {}).values():
                pair = (person, earlier.part, seat.part)
                if _apart_patients(earlier, seat) and pair not in told:
                    told.add(pair)
                    if not (again or named or other):
                        found = f"{seat.case.patient}, who is in {earlier} ({earlier.case.patient})"
                        what = "fold" if earlier.part == seat.part else "part"
                        self.problem(f"{seat}.patient", found, f"a patient in one {what} only")
            by_patient[person].setdefault((seat.part, seat.case.fold), seat)
            by_id.setdefault(seat.case.id, []).append(seat)
            for path in set(seat.case.image):
                by_image.setdefault(path, []).append(seat)


def show(value: object) -> str:
    """A JSON value in a few words, for a problem's `found`."""
    if value is None:
        return "nothing"
    if isinstance(value, (list, dict)):
        return f"a {'list' if isinstance(value, list) else 'table'} of {len(value)}"
    return json.dumps(value, ensure_ascii=False)


def _channels_of(case: Case) -> int:
    """The channels of a case with a file for each."""
    return len(case.image) + len(case.missing)


def _files_of(case: Case) -> tuple[tuple[Path, ...], tuple[int, ...]]:
    """The images of a case and which channels they are."""
    return case.image, case.missing


def _is_number(value: Any) -> bool:
    """Whether it is a JSON number that a float can hold."""
    return type(value) in (int, float) and abs(value) <= sys.float_info.max


def who(case: Case) -> tuple[str, str]:
    """What a case is known by among others."""
    return case.id, case.patient


def people_of(grouped_by: str, cases: Sequence[Case]) -> dict[tuple[str, str], str]:
    """By id and patient, what is the same for two cases of one patient; see medssl/patients.py."""
    unknown = {who(case) for case in cases if grouped_by == "image" and case.patient == case.id}
    groups = group_patients(case.patient for case in cases if who(case) not in unknown)
    return {who(case): f"{case.id}/" if who(case) in unknown else groups[case.patient] for case in cases}


def _apart(a: _Seat, b: _Seat) -> bool:
    """Whether two cases may share nothing: all pairs of parts but pre-training with training."""
    return {a.part, b.part} != {"pretraining", "training"}


def _apart_patients(a: _Seat, b: _Seat) -> bool:
    """Whether two cases may share no patient: those of two folds neither, as each fold is held out in turn."""
    if a.part != b.part:
        return _apart(a, b)
    return a.part == "training" and a.case.fold != b.case.fold and None not in (a.case.fold, b.case.fold)
