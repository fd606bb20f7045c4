"""The work on one case: read, prepare as in training, predict, bring back to the input's grid. Writes nothing.

Preparation comes from the model's file alone. Axis letters: c channel, k class, then the spatial axes (2 or 3).
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medssl.check import size_at
from medssl.evaluate import predict_volume
from medssl.loaders import scaled
from medssl.prediction.grid import Grid, labels_on
from medssl.prediction.likeness import unlike
from medssl.prediction.model import Model, Together, sides_of
from medssl.preparation import checked_case
from medssl.problems import InputError, RunError, first_line
from medssl.readers import MAX_VOXELS, Header, ReadError, Volume, location, read_header, read_image, read_images
from medssl.scores.calibration import tempered
from medssl.splits import Case
from medssl.store import Entry, Extent
from medssl.tasks.centre import centre_start, output_of
from medssl.tasks.probabilities import log_probabilities
from medssl.windows import box
from networks.saliency import Saliency, Score, evidence, grad_cam, occlusion, probability, shares
from transforms.crop import pad_to

Progress = Callable[[int, int], None]  # windows done, all windows


@dataclass(frozen=True)
class Options:
    """How to predict; nothing here changes how an image is prepared."""

    flips: bool = False  # mean over the image flipped along every combination of axes
    interpolate: Literal["linear", "nearest"] = "linear"  # how a label map comes to the input's grid
    saliency: bool = True


@dataclass(frozen=True)
class Limits:
    """What is refused from the header, before anything is decoded: voxels of the files and of the prepared image."""

    voxels: int = MAX_VOXELS
    prepared: int = MAX_VOXELS


@dataclass(frozen=True)
class Segmented:
    """A label map (*spatial) on the input's grid, uint8 up to 256 classes; voxels by class."""

    labels: NDArray[np.uint8]
    voxels: dict[int, int]


@dataclass(frozen=True)
class Told:
    """What is said of an image as a whole, the crop (c, *crop) that was looked at, and what made the network say so.

    Of a classification `probabilities` are calibrated where all networks have a temperature, `raw` never; `predicted` is
    the class. Of a regression it is the number.
    """

    predicted: float
    crop: Tensor
    saliency: Saliency | None
    probabilities: tuple[float, ...] = ()
    raw: tuple[float, ...] = ()
    calibrated: bool = False
    each: tuple[float, ...] = ()  # the number, or the probability of the predicted class, by every network


@dataclass(frozen=True)
class Prediction:
    """One case predicted: where its voxels lie, its image as read, the result, and what a reader should know."""

    case: Case
    grid: Grid
    volume: Volume
    found: Segmented | Told
    warnings: list[str]
    seconds: dict[str, float]
    hashes: list[tuple[str, str]]  # every file's name and SHA-256; of a series that of all its files
    content: str  # SHA-256 of the intensities
    prepared: tuple[int, ...]  # the shape that the network saw


def predict_case(
    models: Sequence[Model],
    case: Case,
    options: Options = Options(),
    limits: Limits = Limits(),
    progress: Progress | None = None,
) -> Prediction:
    """Predict one case by one network or an ensemble, whose models `load_models` has made sure agree.

    Raises InputError for a case that can't be used, RunError for all else that goes wrong with it. `progress` is called
    after each forward pass; what it raises ends the prediction.
    """
    began = time.perf_counter()
    model = models[0]
    try:
        header = header_of(model, case, limits)
        volume, image, entry = prepared_image(model, case)
    except ReadError as error:
        raise InputError([error.problem]) from None
    ready = time.perf_counter()
    warnings = unlike(model, case, header, entry)
    if options.flips and not model.settings.augment.flip_prob:
        warnings.append("flips: the network was trained without any (augment.flip_prob=0): left and right may be mixed up")
    grid = Grid(volume.array.shape[1:], volume.affine)
    words = (models, image, entry, grid, options, progress)
    found: Segmented | Told = segmented(*words) if model.task == "segmentation" else told(models, image, entry, options)
    seconds = {"reading": ready - began, "predicting": time.perf_counter() - ready}
    hashes = [(path.name, file_hash(path)) for path in case.image]
    return Prediction(case, grid, volume, found, warnings, seconds, hashes, entry.content, entry.shape)


def header_of(model: Model, case: Case, limits: Limits) -> Header:
    """Read the headers of a case; raises ReadError for what the network can't take and what is beyond the limits."""
    headers = [read_header(path) for path in case.image]
    first, name = headers[0], case.image[0]
    channels = sum(header.channels for header in headers) + len(case.missing)
    wanted = model.split.channels
    if channels != wanted and not (channels == 1 and model.split.coloured and not case.missing):
        names = ", ".join(model.split.modality.values())
        raise ReadError(name, "channels", str(channels), f"{wanted} ({names}), as the network was trained")
    if len(first.shape) != model.geometry.spatial_dims:
        raise ReadError(name, "axes", str(len(first.shape)), f"{model.geometry.spatial_dims}, as the network was trained")
    voxels = sum(int(np.prod(header.shape)) * header.channels for header in headers)
    if voxels > limits.voxels:
        raise ReadError(name, "size", f"{voxels} voxels", f"at most {limits.voxels}")
    prepared = prepared_voxels(model, first) * wanted
    if prepared > limits.prepared:
        raise ReadError(name, "size", f"{prepared} voxels at {model.settings.spacing} mm", f"at most {limits.prepared}")
    return first


def prepared_voxels(model: Model, header: Header) -> int:
    """How many voxels a channel has at most while it is prepared: it is resampled first, and then resized to fit."""
    spacing, fit = model.settings.spacing, model.settings.fit or ()
    shape = size_at(header, spacing) if spacing else fit or header.shape
    return max(math.prod(shape), math.prod(fit))


def prepared_image(model: Model, case: Case) -> tuple[Volume, Tensor, Entry]:
    """Read and prepare a case as packing does: its volume, the image (c, *prepared) in 0..1, and its entry; ReadError."""
    geometry = model.geometry
    if geometry.roi is not None and case.mask is None:
        raise ReadError(case.image[0], "mask", "none", f"one: the network sees objects cut out of masks (roi={geometry.roi:g})")
    volume = read_images(case.image)
    mask = read_image(case.mask, label=True) if geometry.roi is not None and case.mask else None
    try:
        found = checked_case(model.split, case, geometry, volume, None, [], False, mask)
    except (RuntimeError, ValueError) as error:
        raise RunError(f"{case.image[0]}: {first_line(error)}") from error
    if isinstance(found, list):
        raise InputError(found)
    shaped, _ = found
    image = shaped.arrays["image"]
    entry = Entry(**shaped.attributes, arrays={"image": Extent(0, 0, image.dtype.str, image.shape)})  # as if it were stored
    return volume, torch.from_numpy(image), entry


def segmented(
    models: Sequence[Model], image: Tensor, entry: Entry, grid: Grid, options: Options, progress: Progress | None
) -> Segmented:
    """Predict the label map of a prepared image on the input's grid, in sliding windows as at judging."""
    model = models[0]
    alone = len(models) == 1 and not options.flips
    networks = [one.network for one in models]
    network = networks[0] if alone else Together(networks, options.flips, model.settings.spatial_dims).eval()
    labels = labels_on(grid, Grid(tuple(image.shape[1:]), entry.affine), options.interpolate)
    settings, compute = model.settings, model.compute
    found = predict_volume(
        network, scaled(image, entry, settings), settings.crop_size, settings.overlap, settings.part_size,
        compute.autocast, progress=progress, labels=labels,
    ).numpy()  # fmt: skip
    counts = np.bincount(found.ravel(), minlength=len(model.labels))
    return Segmented(found, {k: int(counts[k]) for k in model.labels})


def told(models: Sequence[Model], image: Tensor, entry: Entry, options: Options) -> Told:
    """Say the class or the number of a prepared image by the crop in its middle."""
    settings = models[0].settings
    size = settings.read_size
    start = [int(n) for n in centre_start(entry.shape, settings)]
    crop = pad_to(scaled(image[(slice(None), *box(start, size))], entry, settings), size)
    return classified(models, crop, options) if models[0].task == "classification" else estimated(models, crop, options)


def classified(models: Sequence[Model], crop: Tensor, options: Options) -> Told:
    """The class of a crop (c, *crop): the mean of probabilities over networks and flips."""
    raw, calibrated = [], []
    for model in models:
        logits = outputs_of(model, crop, options.flips)
        found = log_probabilities(logits, model.settings.loss).exp().mean(0).numpy()
        raw.append(found)
        calibrated.append(found if model.temperature is None else tempered(found, model.temperature))
    mean, told_mean = np.mean(raw, 0), np.mean(calibrated, 0)
    sure = all(model.temperature is not None for model in models)
    probabilities = told_mean if sure else mean
    k = int(np.argmax(probabilities))
    each = tuple(float(one[k]) for one in (calibrated if sure else raw))
    looked = saliency_of(models, crop, lambda model: _evidence(model, k)) if options.saliency else None
    return Told(k, crop, looked, tuple(probabilities.tolist()), tuple(mean.tolist()), sure, each)


def estimated(models: Sequence[Model], crop: Tensor, options: Options) -> Told:
    """The number of a crop (c, *crop): the mean over networks and flips."""
    each = []
    for model in models:
        targets = model.description["targets"]
        each.append(float((targets["mean"] + targets["deviation"] * outputs_of(model, crop, options.flips)[:, 0]).mean()))
    looked = saliency_of(models, crop, lambda model: lambda outputs: outputs[:, 0]) if options.saliency else None
    return Told(float(np.mean(each)), crop, looked, each=tuple(each))


def outputs_of(model: Model, crop: Tensor, flips: bool) -> Tensor:
    """What a network says of a crop (c, *crop), or of each of its sides: (sides, outputs) in float64.

    One at a time, so that a case alone gets, bit for bit, what judging gave it.
    """
    sides = sides_of(model.settings.spatial_dims) if flips else [()]
    return torch.cat([output_of(model.network, torch.flip(crop[None], axes), model.compute) for axes in sides])


def saliency_of(models: Sequence[Model], crop: Tensor, explained: Callable[[Model], Score]) -> Saliency | None:
    """Where the output comes from, summed over networks; None where the runs were set to show none."""
    kind = models[0].settings.saliency
    if kind == "none":
        return None
    maps = []
    for model in models:
        assert model.encoder is not None
        score = explained(model)
        if kind == "grad_cam":
            looked = grad_cam(model.network, model.encoder, crop, score)
        else:
            looked = occlusion(model.network, crop, score, batch_size=model.settings.batch_size)
        maps.append(looked.map * looked.peak)
    return shares(torch.stack(maps).mean(0))


def _evidence(model: Model, k: int) -> Score:
    of = evidence(k) if model.settings.saliency == "grad_cam" else probability(k)
    return lambda outputs: of(log_probabilities(outputs, model.settings.loss))


def file_hash(path: Path) -> str:
    """The SHA-256 of a file, or that of the hashes of a folder's files in the order of their names."""
    place = location(path)
    if place.is_dir():
        files = sorted(file for file in place.iterdir() if file.is_file() and not file.name.startswith("."))
        return sha256("/".join(map(file_hash, files)).encode()).hexdigest()
    with place.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()
