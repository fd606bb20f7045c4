"""What a run asks for and says when its images are cut to the object of a mask (`roi=`).

Cut and whole images are never mixed: with `roi=` every case of every part that is used needs a mask, and the scores are
for images that come with one. Segmentation is refused, where the mask would be the answer.
"""

from collections.abc import Sequence

from medssl.config import Finetune, Shared
from medssl.problems import Problem
from medssl.splits import Case, Split


def without_mask(split: Split, part: str) -> list[Case]:
    """The cases of a part that name no mask."""
    return [case for case in split.part(part) if case.mask is None]


def region_problems(settings: Shared, split: Split, parts: Sequence[str]) -> list[Problem]:
    """Find what keeps images from being cut to their objects: a line for each part with cases that have no mask."""
    if settings.roi is None:
        return []
    if isinstance(settings, Finetune) and split.task == "segmentation":
        expected = "null for segmentation, whose label would say where to look"
        return [Problem("settings", "roi", f"{settings.roi:g}", expected)]
    expected = f"a mask for every case, for roi={settings.roi:g}"
    bare = {part: [case.id for case in without_mask(split, part)] for part in parts}
    return [
        Problem(str(split.file), part, f"{len(ids)} without a mask ({', '.join(ids[:3])})", expected)
        for part, ids in bare.items()
        if ids
    ]


def region_line(settings: Shared) -> list[str]:
    """Say in a line that images are cut, for the log; nothing where they are not."""
    if settings.roi is None:
        return []
    return [f"images are cut to the objects of their masks, with a margin of {settings.roi:g} of the longest side"]
