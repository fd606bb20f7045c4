"""The settings that both scripts have, flat; those of a method, network or schedule are a table of their own.

A table is written as its name alone (`network=vit_base`) or with a `name`. Nothing here imports torch.
"""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from medssl.config.intensity import Percentiles, Window
from medssl.config.networks import NetworkSettings, ResNetSettings, SwinSettings, unit_of
from medssl.config.schedules import Constant, FineTune, OneCycle, ScheduleSettings
from medssl.config.tables import Sizes, Table, named

# They say where and how fast, never what: they may differ when a run is resumed.
WITHOUT_EFFECT = {
    "out",
    "store",
    "data_root",
    "workers",
    "checkpoint_every",
    "checkpoint_minutes",
    "recompute",
    "overwrite",
    "follows",
    "expect",
    "takes",
    "saliency",
    "shard",
}
# Of these what they come to is compared when a run is resumed: the cases, the threads, the device, the type of products.
AS_RESOLVED = {"split", "threads", "device", "precision", "compile"}


class Shared(Table):
    """What both scripts need to know."""

    follows: str = Field("", description="the paper or project that the recipe follows")
    expect: str = Field("", description="the number to expect")
    takes: str = Field("", description="the time to expect")
    split: Path = Field(description="the split, a JSON file")
    data_root: Path | None = Field(None, description="folder that the split's paths start from; default: the split's own")
    fold: int | None = Field(None, ge=0, description="fold of the split that is kept for validation; null: its validation part")
    store: Path | None = Field(
        None, description="folder (or one .h5) of prepared data, shared by runs; default: beside the split"
    )
    out: Path = Field(description="the run folder")
    overwrite: bool = Field(False, description="replace a run that is already there")
    seed: int = Field(0, ge=0, description="of everything random")
    steps: int = Field(ge=1, description="training steps")
    batch_size: int = Field(ge=1, description="crops a step, over all ranks")
    accumulate: int = Field(
        1, ge=1, description="parts that a batch is computed in, for less memory; a part's crops are compared with each other"
    )
    recompute: bool = Field(
        False, description="compute the network's blocks again in the backward instead of keeping them: less memory, more time"
    )
    compile: bool = Field(False, description="torch.compile the network's blocks, where there is a compiler")
    crops_per_case: int = Field(1, ge=1, description="crops taken from a case while it is at hand; divides batch_size")
    workers: int = Field(2, ge=0, le=64, description="processes that prepare data, of each rank")
    threads: int | None = Field(None, ge=1, description="CPU threads of a step; default: all cores, by ranks")
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$", description="auto takes a GPU where there is one")
    precision: Literal["auto", "float32", "bfloat16"] = Field("auto", description="auto: bfloat16 where hardware has it")
    shard: bool = Field(
        False, description="several ranks: each keeps a part of all weights, for networks that one device can't hold"
    )
    checkpoint_every: int = Field(500, ge=1, description="steps between checkpoints")
    checkpoint_minutes: float = Field(10.0, gt=0, description="minutes after which one is written whatever the step")
    validate_every: int = Field(ge=1, description="steps between validations")
    checkpoint: Literal["best", "latest"] = Field("best", description="which weights are kept or judged at the end")
    patience: int = Field(0, ge=0, description="stop after so many validations without a better one; 0: never")
    crop_size: Sizes = Field(description="voxels of a crop; two numbers make everything 2D")
    pad: bool = Field(False, description="pad images smaller than a crop with their background instead of refusing them")
    spacing: list[Annotated[float, Field(gt=0)]] | None = Field(None, description="mm a voxel; null keeps the image's own")
    foreground_above: float | None = Field(None, description="crop away the border at or below this intensity; null: do not")
    mask: Literal["none", "brain", "label"] = Field(
        "none", description="darken all but the brain (2D T1 heads), or what the segmentation marks, such as a tumour"
    )
    roi: float | None = Field(
        None,
        ge=0,
        le=100,
        description="cut every image to a square or cube around the object of its case's mask, with this margin as a share of "
        "the object's longest side; every case needs a mask, also one to be predicted; null: whole images",
    )
    fit: Sizes | None = Field(
        None, description="resize every image, its proportions kept, until it just fits into so many voxels; crops are padded"
    )
    intensity: Annotated[
        Window | Percentiles,
        Field(discriminator="name", description="how intensities become 0..1"),
        BeforeValidator(named),
    ]
    network: Annotated[NetworkSettings, Field(discriminator="name", description="the architecture"), BeforeValidator(named)]
    encoder: str = Field("none", description="weights to start from: a run folder, a file, or none")
    lr: float = Field(gt=0, description="learning rate")
    warmup: int = Field(0, ge=0, description="steps over which the rate rises from 0")
    schedule: Annotated[
        ScheduleSettings,
        Field(discriminator="name", description="how rate and momentum go: constant, cosine, one_cycle or fine_tune"),
        BeforeValidator(named),
    ] = Constant()
    weight_decay: float = Field(0.0, ge=0, description="decay of weights, not of biases, norms and positions")
    optimiser: Literal["adamw", "adam", "sgd", "lars"] = Field(
        "adamw", description="lars: SGD whose steps are scaled by layer, for large batches"
    )
    momentum: float = Field(0.9, ge=0, lt=1, description="of sgd and lars, and the first beta of adam and adamw")
    beta2: float = Field(0.999, gt=0, lt=1, description="Adam's memory of squared gradients; 0.95 is common in pre-training")
    clip: float | None = Field(None, gt=0, description="largest gradient norm; null: not clipped")
    ema: float = Field(
        0.0, ge=0, lt=1, description="decay of a running average of the weights, which is validated, kept and judged; 0: off"
    )

    @model_validator(mode="after")
    def fitting(self) -> Self:
        if self.batch_size % self.accumulate:
            raise ValueError(f"accumulate: found {self.accumulate}, expected a divisor of batch_size {self.batch_size}")
        if self.compile and self.recompute:
            raise ValueError("compile: found true, expected false with recompute=true")
        if self.ema and self.shard:
            raise ValueError(f"ema: found {self.ema}, expected 0 with shard=true, where no rank has the weights to average")
        if self.batch_size % self.crops_per_case:
            raise ValueError(
                f"batch_size: found {self.batch_size}, expected a multiple of crops_per_case {self.crops_per_case}"
            )
        if self.spacing is not None and len(self.spacing) != self.image_dims:
            raise ValueError(
                f"spacing: found {self.spacing}, expected {self.image_dims} numbers, one for each axis of an image"
            )
        if self.fit is not None and len(self.fit) != self.spatial_dims:
            raise ValueError(f"fit: found {self.fit}, expected one number for each axis of crop_size {self.crop_size}")
        if self.mask == "brain" and self.image_dims == 3:  # brain, skull base and neck hang together in a volume
            raise ValueError("mask: found brain for volumes, expected none or label, or brains extracted beforehand")
        unit = self.unit
        if len(unit) != self.spatial_dims:
            raise ValueError(
                f"network.patch_size: found {unit}, expected one number for each axis of crop_size {self.crop_size}"
            )
        if any(size % part for size, part in zip(self.crop_size, unit, strict=True)):
            raise ValueError(f"crop_size: found {self.crop_size}, expected multiples of {unit}")
        if isinstance(self.network, ResNetSettings) and self.part_size == 1 and self.crop_size == unit:
            raise ValueError(f"{self.part_name}: found 1, expected at least 2 for the batch norms of {self.network.name}")
        if isinstance(self.network, SwinSettings) and self.crop_size == unit:
            raise ValueError(
                f"crop_size: found {self.crop_size}, expected more than {unit} for the norms of {self.network.name}"
            )
        return self

    @model_validator(mode="after")
    def fitting_schedule(self) -> Self:
        name = self.schedule.name
        if isinstance(self.schedule, OneCycle | FineTune):
            if self.warmup:
                raise ValueError(f"warmup: found {self.warmup}, expected 0 with schedule {name}, whose rate rises by itself")
            if self.momentum != type(self).model_fields["momentum"].default:
                raise ValueError(f"momentum: found {self.momentum}, expected schedule.momentum with schedule {name}")
        return self

    @property
    def part_size(self) -> int:
        """Crops that pass the network together in training, over all ranks."""
        return self.batch_size // self.accumulate

    @property
    def part_name(self) -> str:
        """What `part_size` is made of, for messages."""
        return "batch_size" if self.accumulate == 1 else "batch_size / accumulate"

    @property
    def sizes(self) -> list[list[int]]:
        """The voxels of crops as the network sees them, one after the other in equal shares of the steps."""
        return [self.crop_size]

    @property
    def spatial_dims(self) -> int:
        """2 or 3, chosen once: by the length of crop_size."""
        return len(self.crop_size)

    @property
    def unit(self) -> list[int]:
        """What the sides of a crop must be multiples of."""
        return unit_of(self.network, self.spatial_dims)

    @property
    def image_dims(self) -> int:
        """Axes of the images, which are more than those of a crop where slices are cut out of volumes."""
        return self.spatial_dims

    @property
    def read_size(self) -> list[int]:
        """Voxels of an image that are read for one crop, one number for each of its axes."""
        return self.crop_size

    @property
    def reads_classes(self) -> bool:
        """Whether a batch holds the classes of its cases, where the split knows them."""
        return True

    @property
    def padded(self) -> bool:
        """Whether an image may be smaller than what is read of it."""
        return self.pad or self.fit is not None
