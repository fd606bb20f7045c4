"""The figshare brain tumour set 1512427 (Cheng): one .mat file a slice, with patient, class and tumour mask."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from medssl.problems import InputError, Problem
from medssl.readers import Header, ReadError, read_header
from medssl.sources.found import Found, FoundCase, shortened

CLASSES = {0: "meningioma", 1: "glioma", 2: "pituitary"}  # the files count from 1
MASK = {0: "background", 1: "tumour"}


def figshare(folder: Path, files: Sequence[str], task: str) -> Found | None:
    """The cases of .mat files; a label is the class, or for segmentation the file itself, which holds the mask.

    Beside a class the file is the case's mask, too.
    """
    from tqdm import tqdm

    paths = [path for path in files if path.lower().endswith(".mat")]
    if not paths:
        return None
    with ThreadPoolExecutor(4) as pool:
        read = pool.map(_header, [folder / path for path in paths])
        headers = list(tqdm(read, "headers", len(paths), disable=None, leave=False))
    problems = [header.problem for header in headers if isinstance(header, ReadError)]
    cases = []
    for path, header in zip(paths, headers, strict=True):
        if isinstance(header, ReadError):
            continue
        if task != "segmentation" and header.label not in {1, 2, 3}:
            problems.append(Problem(str(folder / path), "cjdata/label", str(header.label), "1, 2 or 3"))
            continue
        label = path if task == "segmentation" else CLASSES[int(header.label or 1) - 1]
        cases.append(FoundCase((path,), label, header.patient, mask=None if task == "segmentation" else path))
    if problems:
        raise InputError(shortened(problems))
    return Found(f"figshare .mat, {task}", task, cases, MASK if task == "segmentation" else CLASSES, ("T1c",))


def _header(path: Path) -> Header | ReadError:
    try:
        return read_header(path)
    except ReadError as error:
        return error
