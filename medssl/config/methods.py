"""The settings of the self-supervised methods, one table each; recipes give the published values.

The views of the joint-embedding methods are random resized crops with flips and changes of intensity, those of the
reconstructing methods hide or corrupt parts of a crop.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from medssl.config.tables import Box, Share, Sizes, Span, Table

Widths = Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1)]


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


class MaskedSettings(Table):
    """System B: restore an image under boxes of random size."""

    name: Literal["masked"]
    boxes: Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=2, max_length=2)] = Field(
        [1, 8], description="fewest and most boxes"
    )
    min_size: Box = Field(8, description="smallest box, voxels, a number or one per axis")
    max_size: Box = Field(64, description="largest box, voxels")
    fill: Literal["zero", "mean", "noise"] = Field("zero", description="what stands in a box")
    loss: Literal["l1", "l2"] = Field("l2", description="distance between the restored image and the image")
    hidden_only: bool = Field(False, description="count only the hidden voxels in the loss; false: all")


class MAESettings(Table):
    """Masked autoencoder: the encoder sees a few patches, a small decoder restores the others."""

    name: Literal["mae"]
    mask_ratio: Annotated[float, Field(gt=0, lt=1)] = Field(0.75, description="share of patches that is hidden")
    decoder_width: int = Field(512, ge=8, description="width of a token in the decoder")
    decoder_layers: int = Field(8, ge=1, description="transformer blocks of the decoder")
    decoder_heads: int = Field(16, ge=1, description="attention heads of the decoder; divides decoder_width")
    normalise: bool = Field(True, description="restore each patch with its mean and deviation taken off")
    background: float = Field(1e-4, ge=0, description="variance at or below which a patch is background and not counted")
    scale: Span = Field([0.2, 1.0], description="share of the crop that is cut out and resized, from, to")
    flip_prob: Share = Field(0.5, description="probability of a flip along each axis")

    @model_validator(mode="after")
    def divisible(self) -> Self:
        if self.decoder_width % self.decoder_heads:
            raise ValueError(
                f"decoder_width: found {self.decoder_width}, expected a multiple of decoder_heads {self.decoder_heads}"
            )
        return self


class JointViews(Table):
    """Views of the joint-embedding methods; intensities are 0..1."""

    scale: Span = Field([0.2, 1.0], description="share of the crop that a view is cut from, from, to")
    ratio: Span = Field([0.75, 1.3333], description="ratio of the sides of what is cut out, from, to")
    flip_prob: Share = Field(0.5, description="probability of a flip along each axis")
    gamma_prob: Share = Field(0.8, description="probability of a gamma change")
    gamma: Span = Field([0.6, 1.6], description="range of the exponent")
    contrast_prob: Share = Field(0.8, description="probability of a change of contrast about the mean")
    contrast: float = Field(0.4, ge=0, lt=1, description="largest relative change of contrast")
    brightness_prob: Share = Field(0.8, description="probability of a change of brightness")
    brightness: float = Field(0.4, ge=0, lt=1, description="largest relative change of brightness")
    noise_prob: Share = Field(0.2, description="probability of Gaussian noise")
    noise_std: float = Field(0.05, ge=0, description="largest deviation of the noise")
    blur_prob: Share = Field(0.5, description="probability of a Gaussian blur")
    blur_sigma: Span = Field([0.1, 2.0], description="range of the blur's deviation, voxels")
    colour: bool = Field(False, description="change saturation and drop colour too; only for three colour channels")
    saturation_prob: Share = Field(0.8, description="probability of a change of saturation, with colour")
    saturation: float = Field(0.4, ge=0, lt=1, description="largest relative change of saturation")
    grey_prob: Share = Field(0.2, description="probability of a grey view, with colour")


class SimCLRSettings(JointViews):
    """SimCLR: tell the two views of a crop from those of all others by NT-Xent."""

    name: Literal["simclr"]
    temperature: float = Field(0.1, gt=0, description="of the contrastive loss")
    projector: Widths = Field([512, 128], description="widths of the projector's layers")
    spare_same_patient: bool = Field(False, description="do not take other cases of the same patient for negatives")


class BarlowSettings(JointViews):
    """Barlow Twins: make the cross-correlation of two views' features the identity."""

    name: Literal["barlow"]
    off_diagonal: float = Field(0.005, ge=0, description="weight of the redundancy term")
    projector: Widths = Field([2048, 2048, 2048], description="widths of the projector's layers (published: 8192 each)")


class VICRegSettings(JointViews):
    """VICReg: equal features of two views, with variance kept up and covariance kept down."""

    name: Literal["vicreg"]
    similarity: float = Field(25.0, ge=0, description="weight of the distance between two views' features")
    variance: float = Field(25.0, ge=0, description="weight of the hinge that keeps each feature's deviation above 1")
    covariance: float = Field(1.0, ge=0, description="weight of the covariance between features")
    projector: Widths = Field([2048, 2048, 2048], description="widths of the projector's layers (published: 8192 each)")


class SwAVSettings(JointViews):
    """SwAV: predict the cluster of one view from the others, clusters of equal size by Sinkhorn's iteration."""

    name: Literal["swav"]
    temperature: float = Field(0.1, gt=0, description="of the prediction")
    epsilon: float = Field(0.05, gt=0, description="smoothness of the assignment")
    rounds: int = Field(3, ge=1, description="rounds of Sinkhorn's iteration")
    prototypes: int = Field(64, ge=2, description="clusters, at most batch_size + queue (published: 3000)")
    projector: Widths = Field([512, 128], description="widths of the projector's layers")
    queue: int = Field(0, ge=0, description="earlier features kept for the assignment, a multiple of batch_size")
    queue_after: int = Field(0, ge=0, description="steps before the queue is used")
    freeze_prototypes: int = Field(0, ge=0, description="steps at the start in which the prototypes stay as they are")
    local_views: int = Field(0, ge=0, description="small views besides the two large ones (published: 6)")
    local_size: Sizes | None = Field(None, description="voxels of a small view; default: half the crop")
    local_scale: Span = Field([0.05, 0.2], description="share of the crop that a small view is cut from, from, to")

    @model_validator(mode="after")
    def ordered(self) -> Self:
        if not self.local_scale[0] <= self.local_scale[1] <= 1:  # the transform would call it `scale`
            raise ValueError(f"local_scale: found {self.local_scale}, expected 0 < low <= high <= 1")
        return self


class PairsSettings(JointViews):
    """System B: a siamese network that tells positive pairs from negative ones."""

    name: Literal["pairs"]
    by: Literal["views", "class"] = Field(
        "views", description="a positive pair is two views of one crop, or two crops of one class (as published; reads classes)"
    )
    embedding: int = Field(128, ge=1, description="width of what the pair's two branches are compared by")


MethodSettings = (
    ReconContrastSettings
    | MaskedSettings
    | PairsSettings
    | SimCLRSettings
    | BarlowSettings
    | SwAVSettings
    | VICRegSettings
    | MAESettings
)
