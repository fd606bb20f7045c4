"""What is to be predicted: the cases of a file, of several channels, of a folder, of DICOM series, of a zip, of a split.

Nothing here needs a label. A name taken from a file or a split is never used as a path as it is: see `safe_names`.
"""

import hashlib
import io
import re
import stat
import unicodedata
import zipfile
import zlib
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from medssl.problems import InputError, Problem
from medssl.readers import FORMATS, SUFFIX, ReadError
from medssl.readers.dicom import SUFFIXES, find_series
from medssl.readers.dicom_folder import visible_folders
from medssl.splits import Case, natural, read_split, stem

LONGEST = 100  # characters of a name
NNUNET = re.compile(r"^(.*)_(\d{4})$")  # CASE_0000: the channel's number at the end
ZIPPED = 2**33  # bytes that an archive may unpack to
MEMBERS = 10_000  # files in an archive
LISTING = 4 * 2**20  # bytes of an archive's list of files, which takes ten times as many in memory
PACKED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # of bzip2 and LZMA zipfile unpacks any amount at once


class Found(NamedTuple):
    """The cases of an input; `single` where it is one image by its kind, whose results need no folder of their own."""

    cases: list[Case]
    single: bool
    problems: list[Problem]  # of what lies beside the cases and can't be read


def find_cases(
    where: str, channels: Sequence[str], *, part: str = "test", data_root: Path | None = None, mask: Path | None = None
) -> Found:
    """Find the cases of an input; raises InputError where there is none.

    `where` is an image, channels with commas between them (an empty one is missing), a folder of images or of DICOM
    series, or a split. `channels` are the names of the model's. In a folder, files of one case that end in _0000, _0001, ...
    or have a channel's name between dashes or underscores, are its channels; so are files of one folder called by it alone.
    """
    path = Path(where)
    if "," in where and not path.exists():
        return Found([_of_channels(where, channels, mask)], True, [])
    if not path.exists() and "#" not in path.name:
        raise InputError([Problem(where, "input", "no such file or folder", "an image, a folder, a DICOM series or a split")])
    if path.suffix.lower() == ".json":
        return _refuse_mask(Found(list(_of_split(path, part, data_root)), False, []), mask)
    if not path.is_dir():
        return Found([Case(stem(path) or "case", "", (path,), mask=mask)], True, [])
    passed: list[ReadError] = []
    series = find_series(path, passed)
    cases = [Case(_series_name(one.folder, one.uid, one.needs_uid), one.patient or "", (one.path,)) for one in series]
    images, doubled = _of_folder(path, channels, {one.folder for one in series})
    problems = [*(error.problem for error in passed), *doubled]
    if not cases and not images:
        raise InputError(problems or [Problem(where, "input", "a folder without images", FORMATS)])
    if len(cases) == 1 and not images:
        return Found([replace(cases[0], mask=mask)], True, problems)
    return _refuse_mask(Found(named_apart([*images, *cases]), False, problems), mask)


def unzip(archive: Path, folder: Path, most_bytes: int = ZIPPED, most_files: int = MEMBERS) -> Path:
    """Unpack the DICOM files of an archive into a folder, under numbers for names; raises InputError.

    Sizes are counted while unpacking, whatever the archive declares. Links, encrypted files, other methods than deflate
    and too many files are refused; what is no DICOM file is left out, a path inside the archive is never used.
    """
    with open_zip(archive) as packed:
        members = [member for member in packed.infolist() if not member.filename.endswith("/")]
        if len(members) > most_files:
            raise InputError([Problem(archive.name, "files", str(len(members)), f"at most {most_files}")])
        left, folders = most_bytes, {str(Path(member.filename).parent) for member in members}
        several = len(folders) > 1
        places = {name: folder / f"{n:04d}" if several else folder for n, name in enumerate(sorted(folders))}
        for number, member in enumerate(members):
            if stat.S_ISLNK(member.external_attr >> 16) or member.flag_bits & 1:
                raise InputError([Problem(archive.name, "archive", "a link or an encrypted file", "plain files")])
            if member.compress_type not in PACKED:
                raise InputError([Problem(archive.name, "archive", "bzip2, LZMA or the like", "deflated or stored files")])
            place = places[str(Path(member.filename).parent)]
            place.mkdir(parents=True, exist_ok=True)
            left -= _unpack(archive, packed, member, place / f"{number:06d}.dcm", left)
    return folder


@contextmanager
def open_zip(archive: Path) -> Iterator[zipfile.ZipFile]:
    """Open an archive; raises InputError where it is broken, or what the block reads of it."""
    try:
        with _Archive(io.FileIO(archive)) as file, zipfile.ZipFile(file) as packed:
            yield packed
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, ValueError) as error:
        raise InputError([Problem(archive.name, "archive", str(error) or type(error).__name__, "a whole zip")]) from None


class _Archive(io.BufferedReader):
    """The file of an archive; zipfile reads its list of files in one piece, and makes an object of each."""

    def read(self, size: int | None = -1) -> bytes:
        if size is not None and size > LISTING:
            raise zipfile.BadZipFile(f"a list of files of {size} bytes")
        return super().read(size)


def _unpack(archive: Path, packed: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path, most: int) -> int:
    """Write one member if it is DICOM; gives its bytes."""
    size = 0
    with packed.open(member) as source:
        head = source.read(132)
        if head[128:] != b"DICM":
            return 0
        with target.open("wb") as file:
            part = head
            while part:
                size += len(part)
                if size > most:
                    raise InputError([Problem(archive.name, "size", "more bytes unpacked", f"at most {most} left")])
                file.write(part)
                part = source.read(2**20)
    return size


def safe_names(cases: Sequence[Case]) -> list[str]:
    """A name for each case's results: letters, digits, dots, dashes and underscores, none like another.

    A name that had to be changed, or is another one's but for upper and lower case, ends in a few digits of a hash.
    """
    wanted = [_safe(case.id) for case in cases]
    counts = Counter(name.casefold() for name in wanted)
    return [
        name if name == case.id and counts[name.casefold()] == 1 else f"{name}-{case_digest(case, number)}"
        for number, (name, case) in enumerate(zip(wanted, cases, strict=True))
    ]


def _safe(text: str) -> str:
    plain = "".join(c if c.isalnum() or c in "._-+" else "_" for c in unicodedata.normalize("NFC", text))
    return plain.lstrip(".-")[:LONGEST] or "case"


def case_digest(case: Case, number: int) -> str:
    """Eight digits for the name of a case's results, others for each case of an input, whatever their ids."""
    return hashlib.sha256("\0".join([case.id, *map(str, case.image), str(number)]).encode("utf-8", "replace")).hexdigest()[:8]


def named_apart(cases: Sequence[Case]) -> list[Case]:
    """The cases in natural order of their ids, those of one id told apart by as many folders of their files as it takes."""
    groups: dict[str, list[Case]] = {}
    for case in cases:
        groups.setdefault(case.id, []).append(case)
    apart = [replace(case, id=id) for group in groups.values() for case, id in zip(group, _ids_apart(group), strict=True)]
    return sorted(apart, key=lambda case: natural(case.id))


def _ids_apart(cases: Sequence[Case]) -> list[str]:
    """An id for each case of one id; their files' whole names are in it where two lie in one folder."""
    files = [case.image[0] for case in cases]
    shared = len({file.parent for file in files}) < len(files)
    ids = [file.name if shared else case.id for case, file in zip(cases, files, strict=True)]
    for above in range(max(len(file.parts) for file in files)):
        found = ["-".join((*file.parts[-1 - above : -1], id)) for file, id in zip(files, ids, strict=True)]
        if len(set(found)) == len(found):
            break
    return found


def _of_channels(where: str, channels: Sequence[str], mask: Path | None) -> Case:
    """One case by its files with commas between, in the order of the model's channels."""
    paths = [part.strip() for part in where.split(",")]
    if len(paths) != len(channels) or not any(paths):
        expected = f"{len(channels)}: {', '.join(channels)}; empty for one that is missing"
        raise InputError([Problem(where, "channels", str(len(paths)), expected)])
    missing = tuple(k for k, path in enumerate(paths) if not path)
    files = tuple(Path(path) for path in paths if path)
    lost = [Problem(str(path), "input", "no such file or folder", "a channel's image") for path in files if not path.exists()]
    if lost:
        raise InputError(lost)
    name, _ = _channel_of(stem(files[0]), channels)
    return Case(name or stem(files[0]), "", files, mask=mask, missing=missing)


def _of_split(path: Path, part: str, data_root: Path | None) -> Sequence[Case]:
    split = read_split(path, data_root)
    if not split.part(part):
        there = ", ".join(name for name, cases in split.parts.items() if cases)
        raise InputError([Problem(str(path), part, "no cases", f"a part with cases: {there}")])
    return split.part(part)


def _of_folder(folder: Path, channels: Sequence[str], taken: Collection[Path]) -> tuple[list[Case], list[Problem]]:
    """The images of a folder and those below it, without the folders of DICOM series, where a picture is a note.

    Of several files of one channel the first is taken, each other one is a problem.
    """
    places = [(place, names) for place, names in visible_folders(folder, lambda error: None) if place not in taken]
    files = [place / name for place, names in places for name in sorted(names)]
    formats = tuple(suffix for suffix in SUFFIX if suffix not in SUFFIXES)
    images = [file for file in files if file.name.lower().endswith(formats) and not file.name.startswith(".")]
    if len(channels) == 1:
        return [Case(_channel_of(stem(file), channels)[0], "", (file,)) for file in images], []
    cases: list[Case] = []
    problems: list[Problem] = []
    groups: dict[tuple[Path, str], dict[int, Path]] = {}
    for file in images:
        name, channel = _channel_of(stem(file), channels)
        name = name or file.parent.name
        if channel is None:  # one file with all channels
            cases.append(Case(name, "", (file,)))
        elif channel in (group := groups.setdefault((file.parent, name), {})):
            found = f"a second file of {channels[channel]}"
            problems.append(Problem(str(file), "channel", found, f"{group[channel].name} alone"))
        else:
            group[channel] = file
    for (_, name), group in groups.items():
        missing = tuple(k for k in range(len(channels)) if k not in group)
        cases.append(Case(name, "", tuple(group[k] for k in sorted(group)), missing=missing))
    return cases, problems


def _channel_of(name: str, channels: Sequence[str]) -> tuple[str, int | None]:
    """A file's case and its channel, by nnU-Net's number or by the channel's name as a word; None where neither is there.

    The case is empty where the file is called by its channel alone.
    """
    numbered = NNUNET.match(name)
    if numbered and int(numbered[2]) < len(channels):
        return numbered[1], int(numbered[2])
    if len(channels) == 1:
        return name, None
    words = re.split(r"([_\-. ])", name)
    known = {channel.casefold(): k for k, channel in enumerate(channels)}
    places = [i for i, word in enumerate(words) if word.casefold() in known]
    if len(places) != 1:
        return name, None
    (i,) = places
    rest = "".join(words[: max(i - 1, 0)] + words[i + 1 :]).strip("_-. ")
    return rest, known[words[i].casefold()]


def _series_name(folder: Path, uid: str, several: bool) -> str:
    return f"{folder.name}-{uid.rsplit('.', 1)[-1]}" if several else stem(folder) or "series"


def _refuse_mask(found: Found, mask: Path | None) -> Found:
    if mask is not None:
        raise InputError([Problem("--mask", "mask", "one for several cases", "one image, or a split whose cases name masks")])
    return found
