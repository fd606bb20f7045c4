"""The settings of both scripts: typed, bounded, each with a description that is also its help text.

Shared settings are flat. Those of one method or one network are a table of their own (`method.temperature=0.1`),
written as the name alone (`network=vit_base`) or as a table with a `name`. Nothing here imports torch.
"""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from networks import NETWORKS

Sizes = Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=2, max_length=3)]
Box = Annotated[list[Annotated[int, Field(ge=1)]] | Annotated[int, Field(ge=1)], Field()]
Share = Annotated[float, Field(ge=0, le=1)]
Percentage = Annotated[float, Field(ge=0, le=100)]

# They say where and how fast, never what: they may differ when a run is resumed.
WITHOUT_EFFECT = {"out", "store", "data_root", "workers", "checkpoint_every", "overwrite", "follows", "expect", "takes"}


class Table(BaseModel):
    """A group of settings; an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


def named(value: Any) -> Any:
    """Read a bare name as a table that has nothing but its name."""
    return {"name": value} if isinstance(value, str) else value


class Limits(Table):
    """Two ends that become 0 and 1."""

    @model_validator(mode="after")
    def ordered(self) -> Self:
        low, high = getattr(self, "low", 0.0), getattr(self, "high", 1.0)
        if low >= high:
            raise ValueError(f"low: found {low}, expected less than high {high}")
        return self


class Window(Limits):
    """Intensities low..high become 0..1, the same for every image; CT in Hounsfield units."""

    name: Literal["window"]
    low: float = Field(description="intensity that becomes 0")
    high: float = Field(description="intensity that becomes 1")


class Percentiles(Limits):
    """Two percentiles of each volume become 0 and 1; MR, whose intensities have no unit."""

    name: Literal["percentile"]
    low: Percentage = Field(0.5, description="percentile that becomes 0, a multiple of 0.5")
    high: Percentage = Field(99.5, description="percentile that becomes 1, a multiple of 0.5")


class ViTSettings(Table):
    """A vision transformer; the sizes not given are those that its name stands for."""

    name: Literal["vit_tiny", "vit_small", "vit_base", "vit_large"]
    patch_size: Sizes = Field([16, 16, 16], description="voxels of a patch, one number an axis")
    hidden_size: int = Field(ge=8, description="width of a token")
    mlp_size: int = Field(ge=8, description="width inside a block's perceptron")
    layers: int = Field(ge=2, le=64, description="transformer blocks")
    heads: int = Field(ge=1, description="attention heads; divides hidden_size")
    feature_size: int = Field(16, ge=1, description="channels of the UNETR decoder at full resolution")
    decoder_channels: int = Field(16, ge=1, description="channels between the two transposed convolutions in pre-training")

    @model_validator(mode="before")
    @classmethod
    def sizes_of_the_name(cls, value: Any) -> Any:
        sizes = NETWORKS.get(str(value.get("name")), ("", {}))[1] if isinstance(value, dict) else {}
        return sizes | value if isinstance(value, dict) else value

    @model_validator(mode="after")
    def divisible(self) -> Self:
        if self.hidden_size % self.heads:
            raise ValueError(f"hidden_size: found {self.hidden_size}, expected a multiple of heads {self.heads}")
        return self


class UNetSettings(Table):
    """A residual U-Net, always trained from scratch: the baseline."""

    name: Literal["unet"]
    channels: Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=2)] = Field(
        NETWORKS["unet"][1]["channels"], description="channels of each level, full resolution first"
    )


class ReconContrastSettings(Table):
    """System A: restore the crop from two corrupted views, and tell the pairs of reconstructions apart."""

    name: Literal["recon_contrast"]
    temperature: float = Field(0.005, gt=0, description="of the contrastive loss; as documented (the tutorial's code: 0.05)")
    contrast: float = Field(1.0, ge=0, description="weight of the contrastive term c in r + contrast * c * r")
    restored_views: Literal[1, 2] = Field(1, description="views whose restoration counts in r; the tutorial takes the first")
    outpaint_share: Share = Field(0.5, description="probability of out-painting a view instead of in-painting it")
    inpaint_holes: int = Field(6, ge=1, description="holes filled with noise when in-painting")
    inpaint_min_size: Box = Field(5, description="smallest hole, voxels, a number or one per axis")
    inpaint_max_size: Box = Field(32, description="largest hole, voxels")
    outpaint_holes: int = Field(6, ge=1, description="boxes kept when out-painting")
    outpaint_min_size: Box = Field(20, description="smallest kept box, voxels")
    outpaint_max_size: Box = Field(64, description="largest kept box, voxels")
    shuffle_prob: Share = Field(0.8, description="probability of shuffling voxels inside boxes")
    shuffle_holes: int = Field(10, ge=1, description="boxes whose voxels are shuffled")
    shuffle_size: Box = Field(8, description="size of a shuffled box, voxels")


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
    crops_per_case: int = Field(1, ge=1, description="crops taken from a case while it is at hand; divides batch_size")
    workers: int = Field(2, ge=0, le=64, description="processes that prepare data")
    threads: int | None = Field(None, ge=1, description="CPU threads of a step; default: all cores")
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$", description="auto takes a GPU where there is one")
    precision: Literal["auto", "float32", "bfloat16"] = Field("auto", description="auto: bfloat16 where hardware has it")
    checkpoint_every: int = Field(500, ge=1, description="steps between checkpoints")
    validate_every: int = Field(ge=1, description="steps between validations")
    checkpoint: Literal["best", "latest"] = Field("best", description="which weights are kept or judged at the end")
    patience: int = Field(0, ge=0, description="stop after so many validations without a better one; 0: never")
    crop_size: Sizes = Field(description="voxels of a crop; two numbers make everything 2D")
    pad: bool = Field(False, description="pad images smaller than a crop with their background instead of refusing them")
    spacing: list[Annotated[float, Field(gt=0)]] | None = Field(None, description="mm a voxel; null keeps the image's own")
    foreground_above: float | None = Field(None, description="crop away the border at or below this intensity; null: do not")
    intensity: Annotated[
        Window | Percentiles,
        Field(discriminator="name", description="how intensities become 0..1"),
        BeforeValidator(named),
    ]
    network: Annotated[
        ViTSettings | UNetSettings, Field(discriminator="name", description="the architecture"), BeforeValidator(named)
    ]
    encoder: str = Field("none", description="weights to start from: a run folder, a file, or none")
    lr: float = Field(gt=0, description="learning rate")
    warmup: int = Field(0, ge=0, description="steps over which the rate rises from 0")
    schedule: Literal["constant", "cosine"] = Field("constant", description="the rate after the warm-up")
    weight_decay: float = Field(0.0, ge=0, description="decay of weights, not of biases, norms and positions")
    beta2: float = Field(0.999, gt=0, lt=1, description="AdamW's memory of squared gradients; 0.95 is common in pre-training")
    clip: float | None = Field(None, gt=0, description="largest gradient norm; null: not clipped")

    @model_validator(mode="after")
    def fitting(self) -> Self:
        if self.batch_size % self.crops_per_case:
            raise ValueError(
                f"batch_size: found {self.batch_size}, expected a multiple of crops_per_case {self.crops_per_case}"
            )
        if self.spacing is not None and len(self.spacing) != self.spatial_dims:
            raise ValueError(
                f"spacing: found {self.spacing}, expected {self.spatial_dims} numbers, one for each axis of crop_size"
            )
        unit = unit_of(self.network)
        if len(unit) != self.spatial_dims and isinstance(self.network, ViTSettings):
            raise ValueError(
                f"network.patch_size: found {unit}, expected one number for each axis of crop_size {self.crop_size}"
            )
        if any(size % part for size, part in zip(self.crop_size, unit, strict=False)):
            raise ValueError(f"crop_size: found {self.crop_size}, expected multiples of {unit[: self.spatial_dims]}")
        return self

    @property
    def spatial_dims(self) -> int:
        """2 or 3, chosen once: by the length of crop_size."""
        return len(self.crop_size)


def unit_of(network: ViTSettings | UNetSettings) -> list[int]:
    """Tell what the sides of a crop must be multiples of."""
    return network.patch_size if isinstance(network, ViTSettings) else [2 ** (len(network.channels) - 1)] * 3


class Pretrain(Shared):
    """Settings of ssl_pretrain.py."""

    method: Annotated[ReconContrastSettings, BeforeValidator(named)] = Field(description="the self-supervised objective")

    @model_validator(mode="after")
    def fitting_method(self) -> Self:
        if self.batch_size < 2:
            raise ValueError("batch_size: found 1, expected at least 2 for a contrastive loss to have negative pairs")
        if not isinstance(self.network, ViTSettings):
            raise ValueError(f"network: found {self.network.name}, expected vit_* for the method {self.method.name}")
        return self


class Finetune(Shared):
    """Settings of ssl_finetune.py."""

    labelled: int | None = Field(None, ge=1, description="labelled cases to train on, a nested subset; null: all")
    draw: int = Field(0, ge=0, description="which nested subset: 0 is the order of the split, k > 0 a shuffle")
    encoder_lr: float = Field(1.0, ge=0, description="rate of the encoder relative to lr")
    freeze_steps: int = Field(0, ge=0, description="steps at the start in which the encoder stays as it is")
    foreground_share: Share = Field(0.5, description="share of crops centred on a labelled voxel; the rest on background")
    balance_classes: bool = Field(False, description="draw cases and crops of rare classes as often as of common ones")
    augment: Augment = Field(Augment(), description="random changes of a crop")
    overlap: Annotated[float, Field(ge=0, lt=1)] = Field(0.25, description="of sliding windows at validation and test")
    allow_seen: bool = Field(False, description="judge also cases that the encoder was pre-trained on; the report says so")
    judge: Literal["test", "validation"] = Field("test", description="the part that is judged once, at the end")

    @model_validator(mode="after")
    def no_encoder_in_a_baseline(self) -> Self:
        if self.encoder != "none" and not isinstance(self.network, ViTSettings):
            raise ValueError(f"encoder: found {self.encoder}, expected none for the network {self.network.name}")
        return self
