"""Cases by a path template: `{patient}/{visit}_T1.nii.gz`, with a field in braces for what differs between cases.

A field matches within one folder's or file's name, and the same field twice means the same text twice. `{patient}`,
`{class}` and `{part}` mean what they say; any other name only tells cases apart. `.*` at the end stands for the
suffix of any image format.
"""

import dataclasses
import difflib
import re
from collections.abc import Sequence

from medssl.problems import InputError, Problem
from medssl.readers import SUFFIX
from medssl.sources.found import GIVEN_PARTS, Found, FoundCase, bare, is_image, named, shortened

LABEL_FOLDERS = {"labels", "masks", "labelstr", "labelsts"}
_FIELD = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
Fields = tuple[tuple[str, str], ...]  # sorted name and text


class Template:
    """One template; raises InputError for braces that are no field."""

    def __init__(self, text: str, option: str = "--image") -> None:
        self.text = text
        self.fields = tuple(dict.fromkeys(_FIELD.findall(text)))
        rest = _FIELD.sub("", text)
        if "{" in rest or "}" in rest or text.startswith("/") or ".." in text.split("/"):
            raise InputError([Problem("split", option, text, "a path inside FOLDER with fields such as {id}")])
        self._pattern = re.compile(_pattern(text))

    def match(self, path: str) -> Fields | None:
        """The fields of a path, or None where it does not fit."""
        found = self._pattern.fullmatch(path)
        return tuple(sorted(found.groupdict().items())) if found else None

    def paths(self, files: Sequence[str]) -> dict[Fields, list[str]]:
        """By fields, the files that fit."""
        by_fields: dict[Fields, list[str]] = {}
        for path in files:
            fields = self.match(path)
            if fields is not None:
                by_fields.setdefault(fields, []).append(path)
        return by_fields


def from_templates(
    files: Sequence[str], images: Sequence[str], label: str | None = None, name: str = "template", incomplete: bool = False
) -> Found:
    """The cases that fit the templates, one `images` template a channel; raises InputError with every problem.

    An image without a label is a case without one; a label without an image is a problem. Cases without every channel are
    left out, or with `incomplete` kept.
    """
    channels = [Template(text) for text in images]
    labelling = Template(label, "--label") if label else None
    _refuse_fields(channels, labelling)
    problems: list[Problem] = []
    found = [channel.paths(files) for channel in channels]
    for channel, paths in zip(channels, found, strict=True):
        problems += [] if paths else [_nothing(channel, "--image", files)]
    labels = labelling.paths(files) if labelling else {}
    if labelling and not labels:
        problems.append(_nothing(labelling, "--label", files))
    if problems:
        raise InputError(problems)
    problems += _doubled([*found, labels])
    used: set[Fields] = set()
    cases, partly = [], []
    for fields in sorted(set().union(*found)):
        image = tuple(by_fields[fields][0] for by_fields in found if fields in by_fields)
        case, key = _case(fields, image, labelling, labels)
        used.add(key)
        missing = tuple(i for i, by_fields in enumerate(found) if fields not in by_fields)
        if missing:
            partly.append(image[0])
        if incomplete or not missing:
            cases.append(dataclasses.replace(case, missing=missing))
    alone = [paths[0] for key, paths in labels.items() if key not in used]
    problems += shortened(Problem(path, "label", "no image to it", f"one that fits {images[0]}") for path in alone)
    problems += _unknown_parts(files, channels[0])
    if problems:
        raise InputError(problems)
    task = "segmentation" if labelling or "class" not in channels[0].fields else "classification"
    left_out = without_every_channel(partly, incomplete)
    shown = " ".join(f"--image '{text}'" for text in images) + (f" --label '{label}'" if label else "")
    layout = shown if name == "template" else f"{name}, as {shown}"
    return Found(layout, task, cases, left_out=left_out)


def without_every_channel(names: Sequence[str], kept: bool) -> list[str]:
    """Say which cases lack a channel, for the summary."""
    what = "kept, " if kept else "left out, --keep-incomplete keeps them, "
    return [f"{what}cases without every channel: {named(names)}"] if names else []


def from_folder_or_template(files: Sequence[str], text: str) -> tuple[list[FoundCase], list[str]]:
    """The cases of `--unlabelled`, images below a folder or those that fit a template, and the label files passed over."""
    if "{" in text:
        cases = from_templates(files, [text]).cases
        return [FoundCase(case.image, patient=case.patient) for case in cases], []
    folder = text.rstrip("/") + "/"
    everything = [path for path in files if path.startswith(folder) and is_image(path)]
    inside = [path for path in everything if not _is_label(path)]
    if not inside:
        raise InputError([Problem("split", "--unlabelled", f"no image in {text}", "a folder in FOLDER or a template")])
    return [FoundCase((path,)) for path in inside], [path for path in everything if _is_label(path)]


def _is_label(path: str) -> bool:
    """Whether a file is a label by its name or by that of a folder."""
    *folders, name = bare(path.lower()).split("/")
    return bool(LABEL_FOLDERS & set(folders)) or name.endswith("_dseg") or "_mask" in name


def _case(
    fields: Fields, paths: tuple[str, ...], labelling: Template | None, labels: dict[Fields, list[str]]
) -> tuple[FoundCase, Fields]:
    known = dict(fields)
    key = tuple(pair for pair in fields if labelling and pair[0] in labelling.fields)
    label = labels.get(key, [None])[0] if labelling else known.get("class")
    part = GIVEN_PARTS.get(known["part"].lower()) if "part" in known else None
    return FoundCase(paths, label, known.get("patient"), part), key


def _pattern(text: str) -> str:
    any_suffix = "(?i:" + "|".join(re.escape(suffix) for suffix in sorted(SUFFIX, key=len, reverse=True)) + ")"
    ending = any_suffix if text.endswith(".*") else ""
    pieces = _FIELD.split(text.removesuffix(".*"))
    seen: set[str] = set()
    pattern = ""
    for i, piece in enumerate(pieces):
        if i % 2 == 0:
            pattern += re.escape(piece)
        else:
            pattern += f"(?P={piece})" if piece in seen else f"(?P<{piece}>[^/]+?)"
            seen.add(piece)
    return pattern + ending


def _refuse_fields(channels: Sequence[Template], labelling: Template | None) -> None:
    first = channels[0]
    problems = [
        Problem(
            "split", "--image", f"fields {', '.join(other.fields) or 'none'}", f"{', '.join(first.fields)}, as in the first"
        )
        for other in channels[1:]
        if set(other.fields) != set(first.fields)
    ]
    strange = [name for name in (labelling.fields if labelling else ()) if name not in first.fields]
    problems += [
        Problem("split", "--label", f"{{{name}}}", f"fields of --image: {', '.join(first.fields)}") for name in strange
    ]
    if problems:
        raise InputError(problems)


def _nothing(template: Template, option: str, files: Sequence[str]) -> Problem:
    near = difflib.get_close_matches(template.text, files[:2000], n=1, cutoff=0.0)
    return Problem("split", option, f"no file like {template.text}", f"a template; nearest is {near[0]}" if near else "files")


def _doubled(found: Sequence[dict[Fields, list[str]]]) -> list[Problem]:
    doubles = [paths for by_fields in found for paths in by_fields.values() if len(paths) > 1]
    return shortened(
        Problem(paths[1], "file", f"the fields of {paths[0]}", "one file a case: give the suffix") for paths in doubles
    )


def _unknown_parts(files: Sequence[str], template: Template) -> list[Problem]:
    values = {dict(fields)["part"] for fields in template.paths(files)} if "part" in template.fields else set()
    strange = sorted(value for value in values if value.lower() not in GIVEN_PARTS)
    return [Problem("split", "{part}", value, ", ".join(GIVEN_PARTS)) for value in strange]


def stems(files: Sequence[str]) -> set[str]:
    """File names without folder and suffix."""
    return {bare(path).rsplit("/", 1)[-1] for path in files}
