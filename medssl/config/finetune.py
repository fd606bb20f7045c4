"""The settings of ssl_finetune.py."""

from itertools import pairwise
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from medssl.config.networks import UNetSettings, ViTSettings
from medssl.config.schedules import FineTune
from medssl.config.shared import Shared
from medssl.config.tables import Amount, Share, Sizes, Table


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


class Finetune(Shared):
    """Settings of ssl_finetune.py."""

    labelled: Amount | None = Field(
        None, description="labelled cases to train on, below 1 a share of them, a nested subset; null: all"
    )
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
