"""The plan's preparation, and what makes an answer of the output, as MONAI transforms in the words of a bundle's config.

Each is a table with `_target_`. Resampled intensities stay fractions here, while the store rounds those of integer images:
that, and the order of floating-point sums, is all that differs. `fit` and the brain mask are our own transforms, carried
along (see `carried`), as MONAI has none.
"""

from typing import Any

from medssl.config import Finetune, Percentiles
from medssl.exports.carried import copied
from medssl.exports.source import Source
from medssl.problems import InputError, Problem
from medssl.readers import PICTURES, SUFFIX

Step = dict[str, Any]
FIT, BRAIN = "transforms.fit.FitInsided", "transforms.extract.MaskBackgroundd"


def suffix_of(source: Source) -> str:
    """How the names of the run's images end; that of NIfTI for what MONAI does not read by itself, such as .mat."""
    names = [str(path).lower() for cases in source.split.parts.values() for case in cases for path in case.image[:1]]
    found = next((suffix for name in names for suffix in SUFFIX if name.endswith(suffix)), "")
    return found if found in (*PICTURES, ".nii", ".nrrd") else ".nii.gz"


def refuse_unsuited(source: Source) -> None:
    """Raise InputError for what a bundle can't prepare or undo."""
    settings, where, problems = source.settings, "--to monai-bundle", []
    if settings.roi is not None:
        problems.append(Problem(where, "roi", f"{settings.roi:g}", "a run on whole images: a bundle gets no masks"))
    if settings.fit is not None and source.task == "segmentation":
        problems.append(Problem(where, "fit", str(settings.fit), "a run without, so that labels get back on the image"))
    if problems:
        raise InputError(problems)


def ours(source: Source) -> list[str]:
    """The transforms that are carried along."""
    settings = source.settings
    return [*([BRAIN] if settings.mask == "brain" else []), *([FIT] if settings.fit else [])]


def preprocessing(source: Source) -> list[Step]:
    """From a file to an image (c, *space) of 0..1: in windows, or the crop in its middle."""
    settings = source.settings
    steps = loading(source)
    if settings.mask == "brain":
        steps.append(step(copied(BRAIN)))
    if settings.image_dims == 3:
        steps.append(step("Orientationd", axcodes="RAS", labels=None))
    if settings.spacing is not None:
        steps.append(step("Spacingd", pixdim=settings.spacing, mode="bilinear"))
    if settings.foreground_above is not None:
        above = f"x > {settings.foreground_above!r}"  # an image without any keeps its size
        inside = f"$lambda x: ({above}) if ({above}).any() else x == x"
        steps.append(step("CropForegroundd", source_key="image", select_fn=inside, allow_smaller=True))
    if settings.fit is not None:
        steps.append(step(copied(FIT), size=settings.fit, label_key="label"))
    steps.append(intensity(source))
    if source.task != "segmentation":
        steps.append(step("ResizeWithPadOrCropd", spatial_size=source.size, mode="constant"))
    return [*steps, step("EnsureTyped", dtype="$torch.float32")]


def loading(source: Source) -> list[Step]:
    """A picture's rows come first, as its network knows it; grey pictures are 3 channels where the network wants colours."""
    if suffix_of(source) not in PICTURES:
        return [step("LoadImaged", image_only=False), step("EnsureChannelFirstd")]
    coloured = "image.convert('RGB')"
    grey = "image.convert('L') if image.mode in ('RGB', 'RGBA', 'LA', 'P') else image"
    converter = f"$lambda image: {coloured if source.split.coloured else grey}"
    return [
        step("LoadImaged", reader="PILReader", converter=converter, image_only=False),
        step("EnsureChannelFirstd"),
        step("Transposed", indices=[0, 2, 1]),
    ]


def intensity(source: Source) -> Step:
    """The window, or the percentiles of each channel of the whole image."""
    window = source.settings.intensity
    if isinstance(window, Percentiles):
        limits: dict[str, Any] = {"lower": window.low, "upper": window.high, "channel_wise": True}
        return step("ScaleIntensityRangePercentilesd", **limits, b_min=0.0, b_max=1.0, clip=True)
    return step("ScaleIntensityRanged", a_min=window.low, a_max=window.high, b_min=0.0, b_max=1.0, clip=True)


def inferer(source: Source) -> Step:
    """Windows over the whole image as medssl lays and blends them, or the crop at once."""
    settings = source.settings
    if source.task != "segmentation":
        return {"_target_": "SimpleInferer"}
    assert isinstance(settings, Finetune)
    windows = {"roi_size": source.size, "sw_batch_size": settings.part_size, "overlap": settings.overlap, "mode": "gaussian"}
    return {"_target_": "SlidingWindowInferer", **windows}


def postprocessing(source: Source) -> list[Step]:
    """From the output to a label map on the image's own grid, or to a line of predictions.csv."""
    if source.task == "segmentation":
        kind = "uint8" if len(source.split.labels) <= 256 else "uint16"
        ending = ".png" if suffix_of(source) in PICTURES else ".nii.gz"
        return [
            # class probabilities go back to the image's grid and then become labels, as in `medssl predict`
            step("Activationsd", "pred", softmax=True),
            step("Invertd", "pred", transform="@preprocessing", orig_keys="image", nearest_interp=False, to_tensor=True),
            step("AsDiscreted", "pred", argmax=True),
            step(
                "SaveImaged", "pred", output_dir="@output_dir", output_postfix="seg", output_ext=ending,
                output_dtype=f"$numpy.{kind}", separate_folder=False, resample=False,
            ),
        ]  # fmt: skip
    return [
        step("Lambdad", "pred", func=answer(source)),
        step("SaveClassificationd", "pred", meta_keys="image_meta_dict", output_dir="@output_dir"),
    ]


def answer(source: Source) -> str:
    """What makes calibrated probabilities, or a number in the target's unit, of an output (k,), as Python."""
    output = source.output
    if source.task == "regression":
        return f"$lambda x: {output['mean']!r} + {output['deviation']!r} * x"
    scores = "torch.nn.functional.logsigmoid(x)" if output["loss"] == "log_sigmoid" else "x"
    return f"$lambda x: torch.softmax({scores} / {output['temperature']!r}, 0)"


def step(name: str, key: str = "image", **arguments: Any) -> Step:
    """One transform of a dictionary."""
    return {"_target_": name, "keys": key, **arguments}
