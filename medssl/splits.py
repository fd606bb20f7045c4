"""Split files: which cases are for pre-training, training, validation and test.

The keys are those of the Medical Segmentation Decathlon's dataset.json and of MONAI's Auto3DSeg data lists; the
schema is in json_splits/README.md. Unlike `monai.data.load_decathlon_datalist`, reading refuses what would spoil a
result: a patient or an image in two parts, paths that leave the data root, doubled or unknown keys. It looks at no
image: that is medssl/check.py.
"""

import dataclasses
import hashlib
import json
import math
import os
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medssl.atomic import write_atomically
from medssl.problems import InputError, Problem, nearest
from medssl.readers import SUFFIX

PARTS = ("pretraining", "training", "validation", "test")
TASKS = ("segmentation", "classification", "regression")

_CASE_KEYS = ("id", "patient", "image", "label", "fold")
_NOTES = ("description", "reference", "licence", "license", "release", "tensorImageSize")
_COUNTS = ("numPretraining", "numTraining", "numValidation", "numTest")
_KEYS = ("name", "modality", "task", "labels", *PARTS, *_NOTES, *_COUNTS)


@dataclass(frozen=True)
class Case:
    """One patient study; `label` is a file, a class index, a number or absent, and None throughout `pretraining`."""

    id: str
    patient: str
    image: tuple[Path, ...]
    label: Path | float | None = None
    fold: int | None = None


@dataclass(frozen=True)
class Split:
    """A split file as read; paths are absolute, `modality` and `labels` map 0, 1, ... to names."""

    file: Path
    name: str
    modality: dict[int, str]
    task: str
    labels: dict[int, str]
    parts: dict[str, tuple[Case, ...]]
    root: Path = Path()

    @property
    def channels(self) -> int:
        return len(self.modality)

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


def take_labelled(split: Split, labelled: int | None, draw: int = 0) -> Split:
    """The split with the first `labelled` training cases of an order, so that 6 of a draw are among its 12.

    Draw 0 is the order of the file; every other draw is its own order of the ids, whatever order the file has.
    Raises InputError when there are fewer cases than asked for.
    """
    cases = split.part("training")
    file = str(split.file)
    if draw < 0:
        raise InputError([Problem(file, "draw", str(draw), "0 or more")])
    if labelled is not None and not 1 <= labelled <= len(cases):
        raise InputError([Problem(file, "labelled", str(labelled), f"1 to {len(cases)}, the cases in training")])
    if draw:
        cases = tuple(sorted(cases, key=lambda case: _order(draw, case.id)))
    return dataclasses.replace(split, parts={**split.parts, "training": cases[:labelled]})


def divide_by_patient(
    cases: Sequence[Mapping[str, Any]], counts: Mapping[str, int], rest: str, seed: int = 0
) -> dict[str, list[dict[str, Any]]]:
    """Give each part in `counts` that many cases, or as few less as whole patients allow, and `rest` the others.

    `cases` have a "patient". The result depends on the seed and the ids of the patients, not on the order of the
    cases, which each part keeps.
    """
    sizes: dict[str, int] = {}
    for case in cases:
        sizes[case["patient"]] = sizes.get(case["patient"], 0) + 1
    free = sorted(sizes, key=lambda patient: _order(seed, patient))
    part_of: dict[str, str] = {}
    for part, count in counts.items():
        part_of |= dict.fromkeys(_fill(free, sizes, count), part)
        free = [patient for patient in free if patient not in part_of]
    divided: dict[str, list[dict[str, Any]]] = {part: [] for part in (rest, *counts)}
    for case in cases:
        divided[part_of.get(case["patient"], rest)].append(dict(case))
    return divided


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


def stem(path: str | Path) -> str:
    """The file's name without the suffix of an image format: `1.2.840.nii.gz` is `1.2.840`."""
    name = Path(path).name
    known = next((suffix for suffix in SUFFIX if name.lower().endswith(suffix)), "")
    return name[: len(name) - len(known)] or name


def _order(seed: int, name: str) -> bytes:
    # A hash keeps its order in every version of Python and numpy, and when cases are added.
    return hashlib.sha256(f"{seed}/{name}".encode()).digest()


def _fill(patients: Sequence[str], sizes: Mapping[str, int], count: int) -> list[str]:
    """Whole patients, early ones first, with `count` cases together or as few less as there is a sum for."""
    last = {0: ""}  # reachable sum -> the last patient of the first way there
    for patient in patients:
        for total in sorted(last, reverse=True):
            if total + sizes[patient] <= count:
                last.setdefault(total + sizes[patient], patient)
        if count in last:
            break
    chosen = []
    total = max(last)
    while total:
        chosen.append(last[total])
        total -= sizes[last[total]]
    return chosen


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
        name = content.get("name", stem(self.file.name.removesuffix(".json")))
        if not isinstance(name, str):
            self.problem("name", show(name), "text")
        seats = [seat for part in PARTS for seat in self.part(part, content.get(part, []))]
        if not seats and not self.problems:
            self.problem("cases", "none", f"some in {', '.join(PARTS)}")
        classes = self.task != "regression" and any(seat.case.label is not None for seat in seats)
        if classes and "labels" not in content:
            self.problem("labels", "none", 'the names of the classes, as {"0": "background", "1": ...}')
        self.overlaps(seats)
        parts = {p: tuple(seat.case for seat in seats if seat.part == p) for p in PARTS if p in content}
        modality = modality or {i: f"image {i}" for i in range(len(seats[0].case.image) if seats else 1)}
        return Split(self.file, name, modality, self.task, self.labels, parts, self.root)

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
        images = [self.path(path, f"{where}.image") for path in paths]
        label = self.label(entry.get("label"), f"{where}.label") if part != "pretraining" else None
        fold = entry.get("fold")
        if fold is not None and (type(fold) is not int or fold < 0):
            self.problem(f"{where}.fold", show(fold), "a whole number from 0")
        if None in images:
            return None
        id = self.identity(entry.get("id", stem(images[0] or "")), f"{where}.id")
        patient = self.identity(entry["patient"], f"{where}.patient") if "patient" in entry else id
        if len(self.problems) > before:
            return None
        return Case(id, patient, tuple(path for path in images if path), label, fold)

    def identity(self, value: Any, where: str) -> str:
        text = str(value) if type(value) is int else value
        if not isinstance(text, str) or not text.strip() or len(text) > 200 or "/" in text or not text.isprintable():
            self.problem(where, show(value), "1 to 200 printable characters without a slash")
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
        number = type(value) is int or (type(value) is float and math.isfinite(value))
        if self.task == "regression" and not number:
            self.problem(where, show(value), "a finite number")
        elif self.task == "classification" and (type(value) is not int or value not in self.labels):
            self.problem(where, show(value), f"a class from 0 to {max(self.labels, default=0)}")
        return value if number else None

    def overlaps(self, seats: Sequence[_Seat]) -> None:
        """Reports images, ids and patients that come twice; one line a case, the most telling of the three."""
        by_image: dict[Path, list[_Seat]] = {}
        by_id: dict[str, list[_Seat]] = {}
        by_patient: dict[str, dict[str, _Seat]] = {}
        told: set[tuple[str, str, str]] = set()
        for seat in seats:
            person = _same(seat.case.patient)
            images = [earlier for path in set(seat.case.image) for earlier in by_image.get(path, [])]
            ids = by_id.get(seat.case.id, [])
            again = next((s for s in images if _apart(s, seat) or s.case.id != seat.case.id), None)
            named = next((s for s in ids if _apart(s, seat) or s.case.image != seat.case.image), None)
            if len(set(seat.case.image)) < len(seat.case.image):
                self.problem(f"{seat}.image", "one file for two channels", "a file a channel")
            elif seat.case.label in seat.case.image:
                self.problem(f"{seat}.label", "the image itself", "a file of its own")
            elif again:
                self.problem(f"{seat}.image", f"the image of {again} ({again.case.id})", "an image once, in one part")
            elif named:
                self.problem(f"{seat}.id", f"{seat.case.id}, the id of {named}", "an id of its own")
            for earlier in by_patient.setdefault(person, {}).values():
                pair = (person, earlier.part, seat.part)
                if _apart(earlier, seat) and earlier.part != seat.part and pair not in told:
                    told.add(pair)
                    if not (again or named):
                        found = f"{seat.case.patient}, who is in {earlier} ({earlier.case.patient})"
                        self.problem(f"{seat}.patient", found, "a patient in one part only")
            by_patient[person].setdefault(seat.part, seat)
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


def _same(patient: str) -> str:
    # P01 and p01 are one patient; so are two ways of writing an accent.
    return unicodedata.normalize("NFKC", patient).casefold().strip()


def _apart(a: _Seat, b: _Seat) -> bool:
    """Whether two cases may share nothing: all pairs of parts but pre-training with training."""
    return {a.part, b.part} != {"pretraining", "training"}
