"""Missing modalities: which channels the cases of a split lack, counted to be said.

A split names them with null, `"image": ["flair.nii.gz", null]`; what is read of such a channel is 0.
"""

from collections.abc import Sequence

from medssl.splits import Split


def lacking(split: Split, parts: Sequence[str]) -> dict[str, dict[str, tuple[int, int]]]:
    """By part and channel's name the number of cases that lack it, and of all cases; only where there are some."""
    counts = {
        part: {
            name: (sum(channel in case.missing for case in split.part(part)), len(split.part(part)))
            for channel, name in split.modality.items()
        }
        for part in parts
    }
    some = {part: {name: found for name, found in names.items() if found[0]} for part, names in counts.items()}
    return {part: names for part, names in some.items() if names}


def lacking_lines(split: Split, parts: Sequence[str]) -> list[str]:
    """Say it for the log, a line a part and channel: "3 of 40 cases of training lack T1c"."""
    return [
        f"{count} of {total} cases of {part} lack {name}"
        for part, names in lacking(split, parts).items()
        for name, (count, total) in names.items()
    ]
