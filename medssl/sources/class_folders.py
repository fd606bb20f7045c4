"""A folder a class: `CLASS/x.png`, or `train/CLASS/x.png` and `test/CLASS/x.png`; and one folder of images alone."""

from collections.abc import Sequence

from medssl.sources.found import GIVEN_PARTS, Found, is_image
from medssl.sources.template import from_templates, stems

NO_CLASS = {
    "images",
    "labels",
    "masks",
    "imagestr",
    "labelstr",
    "imagests",
    "labelsts",
    "derivatives",
    "pretraining",
    "unlabelled",
}


def class_folders(files: Sequence[str]) -> Found | None:
    """Every image lies in a class's folder, perhaps in that of a part; None where the folders look like patients."""
    images = [path for path in files if is_image(path) and "/" in path]  # those in FOLDER itself are no class
    split = [path.split("/") for path in images]
    if images and all(len(names) == 3 and names[0].lower() in GIVEN_PARTS for names in split):
        template, classes = "{part}/{class}/{id}.*", {names[1] for names in split}
    elif images and all(len(names) == 2 for names in split):
        template, classes = "{class}/{id}.*", {names[0] for names in split}
    else:
        return None
    lower = {name.lower() for name in classes}
    if len(classes) < 2 or lower & (NO_CLASS | set(GIVEN_PARTS)) or any(name.startswith("sub-") for name in lower):
        return None
    if len(images) <= 8 * len(classes) and _alike(images):
        return None
    return from_templates(files, [template], name="class folders")


def _alike(images: Sequence[str]) -> bool:
    """Whether folders hold files of the same names, as T1.nii.gz and mask.nii.gz of one patient a folder do."""
    return len(stems(images)) * 2 <= len(images)


def flat(files: Sequence[str]) -> Found | None:
    """Images beside each other and nothing that labels them."""
    images = [path for path in files if is_image(path) and "/" not in path]
    return from_templates(files, ["{id}.*"], name="images without labels") if images else None
