"""What is exported: a finished run read back with its network, and in plain words what goes in and what comes out."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from torch import Tensor, nn

from medssl import __version__
from medssl.config import Finetune, Pretrain, UNetSettings, encoder_sizes
from medssl.model_file import model_path, read_model
from medssl.plan import ENCODER
from medssl.problems import InputError, Problem
from medssl.recipes import explain
from medssl.runs import Run, is_run, read_run
from medssl.splits import Split, read_split
from networks import build_encoder
from networks.complete import build
from networks.transfer import TransferError, read_weights

ENCODER_TASK = "encoder"  # what a pre-training run is exported for


@dataclass(frozen=True)
class Source:
    """A run, its settings and split, and the network that it ended with, on the CPU and in evaluation.

    That is a whole network of (b, c, *space) -> class scores or numbers, or of a pre-training run the encoder alone.
    """

    run: Run
    settings: Pretrain | Finetune
    split: Split
    network: nn.Module
    licence: str = "unknown"

    @property
    def task(self) -> str:
        return self.split.task if isinstance(self.settings, Finetune) else ENCODER_TASK

    @property
    def size(self) -> list[int]:
        """Voxels of an image as the network sees it."""
        return self.settings.crop_size

    @cached_property
    def arguments(self) -> dict[str, Any]:
        """What `networks.complete.build`, or of an encoder `networks.build_encoder`, made the network from."""
        return arguments_of(self.settings, self.split)

    @property
    def preparation(self) -> dict[str, Any]:
        """How an image is prepared, in the order in which it is done."""
        settings = self.settings
        return {
            "mask": settings.mask,
            "orientation": "RAS" if settings.image_dims == 3 else None,
            "roi": settings.roi,
            "spacing": settings.spacing,
            "foreground_above": settings.foreground_above,
            "fit": settings.fit,
            "intensity": settings.intensity.model_dump(),
        }

    @property
    def output(self) -> dict[str, Any]:
        """What the network's output means."""
        if self.task == ENCODER_TASK:
            return {"name": "features"}
        if self.task == "regression":
            targets = self.run.encoder["method"]["targets"]
            return {"name": "number", "is": "mean + deviation * output", **targets}
        labels = {"labels": {str(k): name for k, name in self.split.labels.items()}}
        if self.task == "segmentation":
            return {"name": "class scores of every voxel", "is": "the class of the largest score", **labels}
        assert isinstance(self.settings, Finetune)
        temperature = (self.run.summary.get("calibration") or {}).get("temperature") or 1.0
        scores = "log_sigmoid(output)" if self.settings.loss == "log_sigmoid" else "output"
        told = {"name": "class scores of the image", "is": f"softmax({scores} / temperature)", "temperature": temperature}
        return told | {"loss": self.settings.loss, **labels}

    @property
    def description(self) -> dict[str, Any]:
        """All that a program has to know besides the network and its weights."""
        inputs = {"channels": self.split.channels, "modality": list(self.split.modality.values()), "size": self.size}
        return {
            "medssl": __version__,
            "task": self.task,
            "input": inputs | {"type": "float32", "range": [0, 1]},
            "output": self.output,
            "preparation": self.preparation,
            "plan": self.plan,
        }

    @property
    def plan(self) -> dict[str, Any]:
        """The plan that is saved with the encoder, without the folders of this machine; empty for a baseline."""
        plan = dict(self.run.encoder)
        if "started_from" in plan:
            plan["started_from"] = Path(plan["started_from"]).name
        if "ancestry" in plan:
            plan["ancestry"] = [before | {"file": Path(before["file"]).name} for before in plan["ancestry"]]
        return plan


def read_source(folder: Path, licence: str = "unknown") -> Source:
    """Read a finished run and load its network; raises InputError where there is none."""
    if not is_run(folder):
        raise InputError([Problem(str(folder), "run", "no config.json", "the folder of a finished run")])
    run = read_run(folder)
    if not run.finished:
        raise InputError([Problem(str(folder), "run", "a run that is not finished", "a finished one: --resume ends it")])
    settings = settings_of(run)
    split = split_of_run(run, settings)
    arguments, state = arguments_of(settings, split), weights_of(run, settings)
    network = build(**arguments) if isinstance(settings, Finetune) else build_encoder(**arguments)
    try:
        network.load_state_dict(state)
    except RuntimeError:
        raise InputError([Problem(str(folder), "weights", "others than config.json says", "those of the run")]) from None
    return Source(run, settings, split, network.eval(), licence)


def settings_of(run: Run) -> Pretrain | Finetune:
    """The settings of a run, as its config.json has them."""
    kind = Pretrain if run.kind == "pretrain" else Finetune
    content = {key: value for key, value in run.config.items() if key != "kind"}
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        problems = [explain(kind, str(run.folder / "config.json"), item) for item in error.errors()]
        raise InputError(problems) from None


def split_of_run(run: Run, settings: Pretrain | Finetune) -> Split:
    """The split that a run keeps a copy of; the images themselves need not be there any more."""
    root = settings.data_root or settings.split.parent
    return read_split(run.folder / "split.json", root if root.is_dir() else run.folder)


def weights_of(run: Run, settings: Pretrain | Finetune) -> dict[str, Tensor]:
    """The weights that a run chose at its end: of the whole network, or of the encoder it pre-trained."""
    if isinstance(settings, Pretrain):
        path = run.folder / ENCODER
        try:
            return read_weights(path)[0]
        except TransferError as error:
            found, _, expected = str(error).removeprefix("found ").partition(", expected ")
            raise InputError([Problem(str(path), "encoder", found, expected)]) from None
    return read_model(model_path(run.folder))[0]


def arguments_of(settings: Pretrain | Finetune, split: Split) -> dict[str, Any]:
    """The arguments of `networks.complete.build`, or of a pre-training those of `networks.build_encoder`."""
    network = settings.network
    where = {"name": network.name, "in_channels": split.channels, "image_size": settings.crop_size}
    sizes = {"channels": network.channels} if isinstance(network, UNetSettings) else encoder_sizes(network)
    if isinstance(settings, Pretrain):
        return where | sizes
    where["outputs"] = len(split.labels) if split.task != "regression" else 1
    if split.task != "segmentation":
        return where | {"head": settings.head} | sizes
    if isinstance(network, UNetSettings):
        return where | sizes
    return (
        where
        | {"decoder": network.decoder, "feature_size": network.feature_size, "any_size": bool(settings.progressive)}
        | sizes
    )
