"""One trained network or several, ready to be used: built by their descriptions, their weights loaded strictly."""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import file_digest
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from medssl.config import Finetune
from medssl.data import geometry_of
from medssl.device import Compute, choose
from medssl.model_file import Description, model_path, read_model
from medssl.plan import build_encoder
from medssl.problems import InputError, Problem, first_line
from medssl.splits import Split
from medssl.store import Geometry
from medssl.tasks.segmentation import build_segmenter
from networks.features import Encoder
from networks.heads import Classifier

# What the runs of an ensemble have in common: the question, and how an image is prepared for it.
AGREED = ("task", "labels", "modality")
AGREED_SETTINGS = ("crop_size", "spacing", "foreground_above", "mask", "roi", "fit", "intensity")


@dataclass(frozen=True)
class Model:
    """A fine-tuned network in eval mode on its device, and what its file says of it."""

    name: str
    path: Path
    sha256: str  # of the file
    description: Description
    settings: Finetune
    split: Split  # without cases: task, labels and modality
    network: nn.Module
    encoder: Encoder | None
    compute: Compute

    @property
    def task(self) -> str:
        return self.split.task

    @property
    def labels(self) -> dict[int, str]:
        return self.split.labels

    @property
    def geometry(self) -> Geometry:
        """How an image is turned, resampled and cropped for the network."""
        return geometry_of(self.settings)

    @property
    def temperature(self) -> float | None:
        """What a classification's logits are divided by, fitted on validation; None where there is none."""
        found: float | None = self.description.get("temperature")
        return found

    @property
    def target(self) -> str:
        """What the number of a regression is called."""
        return self.labels.get(0, self.split.name)


def load_models(runs: Sequence[Path], device: str = "auto", threads: int | None = None) -> list[Model]:
    """Load the networks of run folders, or of their model.safetensors; raises InputError with a line for each problem.

    Several are an ensemble: they must agree in task, classes and preparation.
    """
    models, problems = [], []
    for run in runs:
        try:
            models.append(load_model(run, device, threads))
        except InputError as error:
            problems += error.problems
    problems += [problem for model in models[1:] for problem in differences(models[0], model)]
    if problems:
        raise InputError(problems)
    return models


def load_model(run: Path, device: str = "auto", threads: int | None = None) -> Model:
    """Load the network of a run folder, or of its model.safetensors; raises InputError."""
    path = model_path(run)
    tensors, description = read_model(path)
    settings = settings_of(path, description, {"device": device, "threads": threads})
    labels = {int(k): str(name) for k, name in description["labels"].items()}
    split = Split(path, str(description["data"]), dict(enumerate(description["modality"])), description["task"], labels, {})
    compute = choose(settings)
    network, encoder = network_of(settings, split)
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        raise InputError([Problem(str(path), "weights", first_line(error), "those of the network it describes")]) from None
    network.to(compute.device).eval()
    with path.open("rb") as file:
        digest = file_digest(file, "sha256").hexdigest()
    name = path.resolve().parent.name if run.is_dir() else path.name
    return Model(name, path, digest, description, settings, split, network, encoder, compute)


def settings_of(path: Path, description: Description, changes: dict[str, Any]) -> Finetune:
    """The settings that the network was trained with, without paths; raises InputError where this version has other ones."""
    missing = {"split": path.name, "out": path.parent}
    try:
        return Finetune.model_validate(description["settings"] | missing | changes)
    except ValidationError as error:
        (first, *_) = error.errors(include_url=False)
        field, found = ".".join(map(str, first["loc"])) or "settings", str(first["msg"])
        raise InputError([Problem(str(path), field, found, "settings of this version of medssl")]) from None


def network_of(settings: Finetune, split: Split) -> tuple[nn.Module, Encoder | None]:
    """Build the network of a task, its weights still random, and give its encoder too."""
    if split.task == "segmentation":
        network, encoder, _ = build_segmenter(settings, split)
        return network, encoder
    encoder = build_encoder(settings, split.channels)
    return Classifier(encoder, len(split.labels) if split.task == "classification" else 1, settings.head), encoder


def differences(first: Model, other: Model) -> list[Problem]:
    """What keeps a run from being one ensemble with the first, a line each."""
    pairs = [(name, first.description.get(name), other.description.get(name)) for name in AGREED]
    kept = first.description["settings"], other.description["settings"]
    pairs += [(name, kept[0].get(name), kept[1].get(name)) for name in AGREED_SETTINGS]
    return [
        Problem(str(other.path.parent), name, _told(theirs), f"{_told(ours)}, as {first.path.parent} has")
        for name, ours, theirs in pairs
        if ours != theirs
    ]


def _told(value: Any) -> str:
    return "none" if value is None else str(value)


class Together(nn.Module):
    """Several networks, or one seen from several sides, as one for windows: (b, c, *window) -> (b, k, *window).

    It gives the logarithm of the sum of all their probabilities. Windows blend logits, which are logarithms too, and a
    constant for all classes changes neither labels nor probabilities, so that one network alone gives its own labels.
    """

    def __init__(self, networks: Sequence[nn.Module], flips: bool, spatial_dims: int) -> None:
        super().__init__()
        self.networks, self.sides = nn.ModuleList(networks), sides_of(spatial_dims) if flips else [()]

    def forward(self, x: Tensor) -> Tensor:
        total: Tensor | None = None
        for network in self.networks:
            for axes in self.sides:
                found = torch.flip(network(torch.flip(x, axes)).float(), axes).log_softmax(1)
                total = found if total is None else torch.logaddexp(total, found)
        assert total is not None
        return total


def sides_of(spatial_dims: int) -> list[tuple[int, ...]]:
    """The axes of (b, c, *space) that are flipped, for every combination: 4 in 2D, 8 in 3D, the image as it is first."""
    axes = range(2, 2 + spatial_dims)
    return [tuple(axis for k, axis in enumerate(axes) if number >> k & 1) for number in range(2**spatial_dims)]
