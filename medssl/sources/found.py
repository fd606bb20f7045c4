"""What a source finds in a folder: cases with paths relative to it, before anybody divides them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from medssl.problems import InputError, Problem
from medssl.readers import SUFFIX
from medssl.readers.dicom_folder import SUFFIXES as DICOM
from medssl.readers.dicom_folder import visible_folders

GIVEN_PARTS = {
    **dict.fromkeys(("train", "training", "tr"), "training"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "validation"),
    **dict.fromkeys(("test", "testing", "ts"), "test"),
    **dict.fromkeys(("unlabelled", "unlabeled", "pretraining"), "pretraining"),
}
TEXT = (".json", ".csv", ".tsv", ".txt", ".md", ".pdf", ".html", ".xlsx", ".py")  # never images
SHOWN = 20  # lines of one kind of problem; the rest is counted


@dataclass(frozen=True)
class FoundCase:
    """`label` is a path, the name of a class, a number or None; `part` a part of the split that the data set gives.

    `image` are the files of the channels but for those in `missing`; `mask` marks what images may be cut around.
    """

    image: tuple[str, ...]
    label: str | float | None = None
    patient: str | None = None
    part: str | None = None
    weight: float = 1.0
    mask: str | None = None
    missing: tuple[int, ...] = ()

    @property
    def channels(self) -> list[str | None]:
        """A path for each channel, None for a missing one, as a split writes it."""
        paths = iter(self.image)
        return [None if i in self.missing else next(paths) for i in range(len(self.image) + len(self.missing))]

    @property
    def files(self) -> list[str]:
        """Every file of the case."""
        return [path for path in (*self.image, self.label, self.mask) if isinstance(path, str)]


@dataclass
class Found:
    """The cases of one source; `labels` are set where the data set names its classes, `modality` where its channels."""

    layout: str
    task: str
    cases: list[FoundCase]
    labels: dict[int, str] = field(default_factory=dict)
    modality: tuple[str, ...] = ()
    left_out: list[str] = field(default_factory=list)


def list_files(folder: Path) -> tuple[str, ...]:
    """The files below a folder as sorted relative paths, without hidden ones such as the Decathlon's `._x.nii.gz`.

    Raises InputError for a folder that can't be read: the cases in it would be missed.
    """
    found: list[str] = []
    unreadable: list[OSError] = []
    for place, names in visible_folders(folder, unreadable.append):
        here = place.relative_to(folder)
        found += [(here / name).as_posix() for name in names if not name.startswith(".")]
    if unreadable:
        raise InputError(
            shortened(Problem(str(e.filename), "folder", e.strerror or "unreadable", "a readable folder") for e in unreadable)
        )
    return tuple(sorted(found))


def is_image(path: str) -> bool:
    """Whether it is a picture or a volume by its name; .mat and DICOM are sources of their own."""
    return suffix(path) not in {"", ".mat", *DICOM}


def suffix(path: str) -> str:
    """The suffix of an image format, as written, or nothing."""
    lower = path.lower()
    known = max((known for known in SUFFIX if lower.endswith(known)), key=len, default="")
    return path[len(path) - len(known) :].lower() if known else ""


def bare(path: str) -> str:
    """The path without the suffix of its format."""
    return path[: len(path) - len(suffix(path))]


def named(names: Sequence[str]) -> str:
    """How many and the first few, for a line of the summary."""
    return f"{len(names)} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"


def shortened(problems: Iterable[Problem]) -> list[Problem]:
    """The first problems of one kind and a line that counts the others."""
    problems = list(problems)
    if len(problems) <= SHOWN:
        return problems
    last = problems[-1]
    return [*problems[:SHOWN], last._replace(found=f"{len(problems) - SHOWN} more like it")]
