"""What an upload is: told by its first bytes, checked against its name, and its header against the limits.

Nothing is decoded here. Of the formats that `medssl predict` reads, the server takes those that people send.
"""

import zipfile
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from medssl.prediction.inputs import find_cases, open_zip, unzip
from medssl.prediction.model import Model
from medssl.prediction.predict import Limits as Sizes
from medssl.prediction.predict import header_of
from medssl.problems import InputError, Problem
from medssl.readers import ReadError
from medssl.splits import Case
from medssl.web.limits import Limits, Refusal
from medssl.web.upload import Upload

HEAD = 1024  # bytes that tell a format
TAKEN = "PNG, JPEG, NIfTI (.nii, .nii.gz), MATLAB v7.3 (.mat), DICOM (.dcm) or a zip of one DICOM series"


class Kind(NamedTuple):
    """A format: what it is called, the suffix that its file gets here, and the suffixes that a client may give it."""

    title: str
    suffix: str
    names: tuple[str, ...]


PNG = Kind("a PNG", ".png", (".png",))
JPEG = Kind("a JPEG", ".jpg", (".jpg", ".jpeg"))
PACKED = Kind("a gzip file", ".nii.gz", (".nii.gz",))
NIFTI = Kind("a NIfTI file", ".nii", (".nii",))
MATLAB = Kind("a MATLAB or HDF5 file", ".mat", (".mat",))
DICOM = Kind("a DICOM file", ".dcm", (".dcm", ".dicom", ".ima"))
ZIP = Kind("a zip", ".zip", (".zip",))
KINDS = (PNG, JPEG, PACKED, NIFTI, MATLAB, DICOM, ZIP)


def kinds_of(head: bytes) -> list[Kind]:
    """The formats that a file's first bytes fit; an honest file has one."""
    marks = {
        PNG: head.startswith(b"\x89PNG\r\n\x1a\n"),
        JPEG: head.startswith(b"\xff\xd8\xff"),
        PACKED: head.startswith(b"\x1f\x8b\x08"),
        NIFTI: head[344:348] == b"n+1\0" or head[4:8] == b"n+2\0",
        MATLAB: head.startswith((b"MATLAB 5", b"MATLAB 7.3", b"\x89HDF\r\n\x1a\n")),
        DICOM: head[128:132] == b"DICM",
        ZIP: head.startswith((b"PK\3\4", b"PK\5\6")),
    }
    return [kind for kind, found in marks.items() if found]


def kind_of(upload: Upload) -> Kind:
    """The format of an upload; raises Refusal for another one, for a name that tells another, and for two in one file."""
    with upload.path.open("rb") as file:
        head = file.read(HEAD)
    if not head:
        raise Refusal(422, f"{upload.name}: found 0 bytes, expected an image")
    found, lower = kinds_of(head), upload.name.lower()
    named = next((kind for kind in KINDS if lower.endswith(kind.names)), None)
    if not found or (named is None and found != [DICOM]):
        raise Refusal(415, f"{upload.name}: found another format, expected {TAKEN}")
    dressed = found[0] is DICOM and head.startswith((b"MZ", b"\x7fELF", b"#!", b"II*\0", b"MM\0*", b"%PDF", b"<"))
    if len(found) > 1 or dressed or (found[0] is not ZIP and zipfile.is_zipfile(upload.path)):
        raise Refusal(415, f"{upload.name}: found two formats in one file, expected one")
    if named not in (None, found[0]):
        raise Refusal(415, f"{upload.name}: found {found[0].title}, expected {named.title}, as its name says")
    return found[0]


def open_case(model: Model, upload: Upload, limits: Limits) -> Case:
    """The one case of an upload, its header read and within the limits; raises Refusal. It blocks: call it in a thread."""
    kind = kind_of(upload)
    title = title_of(upload.name)
    path = upload.path.rename(upload.path.with_name("image" + kind.suffix))
    try:
        if kind is ZIP:
            refuse_paths(path, upload.name)
            folder = path.with_name("series")
            unzip(path, folder, limits.unpacked, limits.files)
            path.unlink()
            if not folder.is_dir():
                raise InputError([Problem(upload.name, "archive", "no DICOM file", "those of one series")])
            found = find_cases(str(folder), [""])
            if len(found.cases) != 1 or found.problems:
                wrong = [*found.problems, Problem(upload.name, "series", str(len(found.cases)), "one DICOM series")]
                raise InputError(wrong[:1])
            case = replace(found.cases[0], id=title)
        else:
            case = Case(title, "", (path,))
        header_of(model, case, Sizes(limits.voxels, limits.voxels))
    except ReadError as error:
        raise Refusal(422, line_of(InputError([error.problem]), upload)) from None
    except InputError as error:
        raise Refusal(422, line_of(error, upload)) from None
    return case


def title_of(name: str) -> str:
    """A file's name without its suffix: what a case is called."""
    ending = next((ending for kind in KINDS for ending in kind.names if name.lower().endswith(ending)), "")
    return name[: len(name) - len(ending)] or "image"


def refuse_paths(path: Path, name: str) -> None:
    """Raise InputError for an archive whose files mean to lie elsewhere; their names are not used, but tell who sent it."""
    with open_zip(path) as archive:
        names = archive.namelist()
    for member in names:
        if member.startswith("/") or ".." in member.split("/") or "\\" in member or ":" in member:
            raise InputError([Problem(name, "archive", "a path that leads out of it", "plain files")])


def line_of(error: InputError, upload: Upload) -> str:
    """What is wrong, in a line that names the client's file and no folder of the server."""
    found = error.problems[0]
    return str(found._replace(file=upload.name)).replace(str(upload.path.parent), "")
