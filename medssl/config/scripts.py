"""The settings of both scripts: typed, bounded, each with a description that is also its help text.

Shared settings are flat. Those of one method or one network are a table of their own (`method.temperature=0.1`),
written as the name alone (`network=vit_base`) or as a table with a `name`. Nothing here imports torch.
"""

from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from medssl.config.intensity import Percentiles, Window
from medssl.config.methods import JointViews, MAESettings, MethodSettings, PairsSettings, SwAVSettings
from medssl.config.networks import NetworkSettings, ResNetSettings, UNetSettings, ViTSettings, unit_of
from medssl.config.schedules import Constant, FineTune, OneCycle, ScheduleSettings
from medssl.config.tables import Share, Sizes, Table, named
from medssl.methods import networks_for

# They say where and how fast, never what: they may differ when a run is resumed.
WITHOUT_EFFECT = {
    "out",
    "store",
    "data_root",
    "workers",
    "checkpoint_every",
    "recompute",
    "overwrite",
    "follows",
    "expect",
    "takes",
    "saliency",
    "shard",
}


class Augment(Table):
    """Random changes of a labelled crop; system A's are the defaults."""

    flip_prob: Share = Field(0.1, description="probability of a flip along each axis")
    rotate90_prob: Share = Field(0.1, description="probability of a quarter turn in a plane of equal sides")
    shift_prob: Share = Field(0.5, description="probability of an intensity shift")
    shift: float = Field(0.1, ge=0, description="largest intensity shift, of the 0..1 range")
    affine_prob: Share = Field(0.0, description="probability of a small rotation and scaling")
    rotate: float = Field(0.15, ge=0, description="largest rotation, radians")
    scale: float = Field(0.1, ge=0, lt=1, description="largest relative change of scale")
    noise_prob: Share = Field(0.0, description="probability of Gaussian noise")
    contrast_prob: Share = Field(0.0, description="probability of a gamma change")
    channel_dropout: Share = Field(
        0.0, description="probability of setting a channel to 0, never the last one present; for missing modalities"
    )


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


class Pretrain(Shared):
    """Settings of ssl_pretrain.py."""

    method: Annotated[
        MethodSettings, Field(discriminator="name", description="the self-supervised objective"), BeforeValidator(named)
    ]
    region: Sizes | None = Field(
        None, description="voxels that are read for views to be cut from, more or fewer than crop_size; default: crop_size"
    )
    crops: Literal["foreground", "anywhere"] = Field(
        "foreground", description="around a foreground voxel drawn at random, or anywhere in the image, all places alike"
    )
    slices: bool = Field(False, description="cut 2D crops out of 3D volumes: axial slices")
    views_on: Literal["auto", "loader", "device"] = Field(
        "auto",
        description="where views are made: by the loader, crop by crop, or on the device in batches, from the same draws with "
        "other noise; auto: on the device if that is a GPU",
    )

    @model_validator(mode="after")
    def fitting_method(self) -> Self:
        name = self.method.name
        if self.network.name not in networks_for(name):
            expected = f"one of {', '.join(networks_for(name))} for the method {name}"
            raise ValueError(f"network: found {self.network.name}, expected {expected}")
        if name not in ("masked", "mae") and self.part_size < 2:
            raise ValueError(f"{self.part_name}: found 1, expected at least 2 for {name}, which compares the crops of a batch")
        for field, size in self.method:
            if field.endswith("_size") and isinstance(size, list) and len(size) != self.spatial_dims:
                raise ValueError(f"method.{field}: found {size}, expected {self.spatial_dims} numbers, one for each axis")
        if self.region is not None and not isinstance(self.method, JointViews | MAESettings):
            raise ValueError(f"region: found {self.region}, expected null for {name}, whose views have the crop's size")
        if self.region is not None and len(self.region) != self.spatial_dims:
            raise ValueError(f"region: found {self.region}, expected one number for each axis of crop_size {self.crop_size}")
        if self.slices and self.spatial_dims != 2:
            raise ValueError(f"slices: found true with crop_size {self.crop_size}, expected a crop_size of two numbers")
        if isinstance(self.schedule, FineTune):
            raise ValueError(
                "schedule: found fine_tune, expected constant, cosine or one_cycle: it frees a pre-trained encoder"
            )
        return self

    @model_validator(mode="after")
    def fitting_clusters(self) -> Self:
        method = self.method
        if not isinstance(method, SwAVSettings):
            return self
        if method.prototypes > self.part_size + method.queue:
            most = f"{self.part_size + method.queue}, {self.part_name} + method.queue"
            raise ValueError(f"method.prototypes: found {method.prototypes}, expected at most {most}")
        if method.queue % self.part_size:
            raise ValueError(f"method.queue: found {method.queue}, expected a multiple of {self.part_name} {self.part_size}")
        patch = self.network.patch_size if isinstance(self.network, ViTSettings) else [1] * self.spatial_dims
        if method.local_views and any(n % p for n, p in zip(self.local_size, patch, strict=True)):
            raise ValueError(f"method.local_size: found {self.local_size}, expected multiples of the patch {patch}")
        if any(n > whole for n, whole in zip(self.local_size, self.crop_size, strict=True)):
            raise ValueError(f"method.local_size: found {self.local_size}, expected no more than crop_size {self.crop_size}")
        return self

    @property
    def reads_classes(self) -> bool:
        return isinstance(self.method, PairsSettings) and self.method.by == "class"

    @property
    def reads_labels(self) -> bool:
        """Whether labels of pre-training cases are read, which only a setting can ask for."""
        return self.reads_classes or self.mask == "label"

    @property
    def label_free(self) -> bool:
        """Whether nothing that somebody marked is read of pre-training cases: no label and no mask."""
        return not self.reads_labels and self.roi is None

    @property
    def local_size(self) -> list[int]:
        """Voxels of SwAV's small views."""
        wanted = self.method.local_size if isinstance(self.method, SwAVSettings) else None
        return wanted or [size // 2 for size in self.crop_size]

    @property
    def image_dims(self) -> int:
        return 3 if self.slices else self.spatial_dims

    @property
    def read_size(self) -> list[int]:
        return (self.region or self.crop_size) + [1] * self.slices


class Finetune(Shared):
    """Settings of ssl_finetune.py."""

    labelled: int | None = Field(None, ge=1, description="labelled cases to train on, a nested subset; null: all")
    draw: int = Field(0, ge=0, description="which nested subset: 0 is the order of the split, k > 0 a shuffle")
    encoder_lr: float = Field(1.0, ge=0, description="rate of the encoder relative to lr")
    rates: Literal["encoder", "slice", "layers"] = Field(
        "encoder",
        description="encoder: one rate for all of it; slice: encoder_lr for its lower half, the square root for the upper; "
        "layers: the rate falls by layer_decay a layer",
    )
    layer_decay: float = Field(0.75, gt=0, le=1, description="rate of a layer relative to the one above, with rates=layers")
    freeze_steps: int = Field(0, ge=0, description="steps at the start in which the encoder stays as it is")
    unfreeze_every: int = Field(
        0,
        ge=0,
        description="steps after which one more part of the encoder, as in rates, is freed from the top; 0: all at once",
    )
    frozen_norm: Literal["eval", "train"] = Field(
        "eval", description="a frozen encoder's batch norms: eval keeps their statistics too, train goes on averaging"
    )
    mixup: float = Field(
        0.0, ge=0, description="alpha of the Beta distribution by which training images are mixed, not for segmentation; 0: off"
    )
    progressive: list[Sizes] = Field(
        [],
        description="smaller sizes to start with, each for an equal share of the steps; crops are shrunk to them. "
        "Validation and judging are at crop_size",
    )
    foreground_share: Share = Field(0.5, description="share of crops centred on a labelled voxel; the rest on background")
    balance_classes: bool = Field(False, description="draw cases and crops of rare classes as often as of common ones")
    head: Literal["linear", "mlp"] = Field(
        "linear",
        description="of a class or a number: linear on the pooled vector, or fastai's mlp on mean and maximum, with dropout",
    )
    loss: Literal["cross_entropy", "log_sigmoid"] = Field(
        "cross_entropy", description="classification; log_sigmoid: cross-entropy of the classes' sigmoids divided by their sum"
    )
    class_weights: Literal["none", "balanced"] = Field(
        "none", description="classification: weights of the loss; balanced: one over a class's share of the training cases"
    )
    label_smoothing: float = Field(
        0.0, ge=0, lt=1, description="classification: share of the target that all classes get alike"
    )
    regression_loss: Literal["l2", "l1", "huber"] = Field(
        "l2", description="regression: of the error in deviations of the training targets; huber: l2 up to 1, then l1"
    )
    augment: Augment = Field(Augment(), description="random changes of a crop")
    overlap: Annotated[float, Field(ge=0, lt=1)] = Field(0.25, description="of sliding windows at validation and test")
    tolerance: float = Field(2.0, gt=0, description="segmentation: mm that surfaces may lie apart in the surface Dice")
    allow_seen: bool = Field(False, description="judge also cases that the encoder was pre-trained on; the report says so")
    saliency: Literal["none", "grad_cam", "occlusion"] = Field(
        "grad_cam",
        description="whole images judged: where an output is sensitive, shown on some cases; occlusion: many forward passes",
    )
    judge: Literal["test", "validation"] = Field("test", description="the part that is judged once, at the end")

    @model_validator(mode="after")
    def classes_balanced_once(self) -> Self:
        if self.balance_classes and self.class_weights != "none":
            raise ValueError(f"class_weights: found {self.class_weights}, expected none with balance_classes=true")
        return self

    @model_validator(mode="after")
    def norms_in_the_head(self) -> Self:
        if self.head == "mlp" and self.part_size == 1:
            raise ValueError(f"{self.part_name}: found 1, expected at least 2 for the batch norms of head=mlp")
        return self

    @model_validator(mode="after")
    def fine_tuned_by_its_schedule_alone(self) -> Self:
        if not isinstance(self.schedule, FineTune):
            return self
        if not 1 <= self.freeze_steps < self.steps:
            expected = f"1 to {self.steps - 1}, fewer than steps, with schedule fine_tune"
            raise ValueError(f"freeze_steps: found {self.freeze_steps}, expected {expected}")
        for field in ("encoder_lr", "rates", "unfreeze_every"):
            found, default = getattr(self, field), type(self).model_fields[field].default
            if found != default:
                raise ValueError(f"{field}: found {found}, expected {default}, as schedule fine_tune has its own")
        if isinstance(self.network, UNetSettings):
            raise ValueError("schedule: found fine_tune, expected another for the network unet, which has no encoder to free")
        return self

    @model_validator(mode="after")
    def freed_or_frozen(self) -> Self:
        if self.unfreeze_every and self.encoder_lr == 0:
            raise ValueError(f"unfreeze_every: found {self.unfreeze_every}, expected 0 with encoder_lr=0, which frees nothing")
        return self

    @model_validator(mode="after")
    def growing(self) -> Self:
        for k, (size, larger) in enumerate(pairwise(self.sizes)):
            found = f"progressive: found {size}, expected"
            if len(size) != self.spatial_dims:
                raise ValueError(f"{found} one number for each axis of crop_size {self.crop_size}")
            if any(n % part for n, part in zip(size, self.unit, strict=True)):
                raise ValueError(f"{found} multiples of {self.unit}")
            if size == larger or any(n > m for n, m in zip(size, larger, strict=False)):
                expected = "a smaller size than crop_size" if k + 2 == len(self.sizes) else "sizes that rise, so one below"
                raise ValueError(f"{found} {expected} {larger}")
            single = self.part_size == 1 or isinstance(self.network, UNetSettings)  # batch norms see other images too
            if size == self.unit and single and not isinstance(self.network, ViTSettings):
                raise ValueError(f"{found} more than {self.unit} for the norms of {self.network.name}")
        return self

    @property
    def sizes(self) -> list[list[int]]:
        return [*self.progressive, self.crop_size]

    @model_validator(mode="after")
    def no_label_in_the_image(self) -> Self:
        if self.mask == "label":
            raise ValueError("mask: found label, expected none or brain: a case to be predicted has no label")
        return self

    @model_validator(mode="after")
    def no_encoder_in_a_baseline(self) -> Self:
        if self.encoder != "none" and isinstance(self.network, UNetSettings):
            raise ValueError(f"encoder: found {self.encoder}, expected none for the network {self.network.name}")
        return self
