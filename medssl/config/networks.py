"""The settings of the networks, one table a family."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from medssl.config.tables import Sizes, Table
from networks import NETWORKS

Normalise = Literal["none", "imagenet"]
Stages = Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=4, max_length=4)]
NORMALISED = "imagenet: the mean and deviation of natural images, for weights trained with them"


class ViTSettings(Table):
    """A vision transformer; the sizes not given are those that its name stands for."""

    name: Literal["vit_tiny", "vit_small", "vit_base", "vit_large"]
    patch_size: Sizes = Field([16, 16, 16], description="voxels of a patch, one number an axis")
    hidden_size: int = Field(ge=8, description="width of a token")
    mlp_size: int = Field(ge=8, description="width inside a block's perceptron")
    layers: int = Field(ge=2, le=64, description="transformer blocks")
    heads: int = Field(ge=1, description="attention heads; divides hidden_size")
    decoder: Literal["unetr", "tokens"] = Field(
        "unetr", description="for segmentation: unetr sees the tokens and the image, tokens what the encoder made of it alone"
    )
    feature_size: int = Field(16, ge=1, description="channels of the UNETR decoder at full resolution")
    decoder_channels: int = Field(16, ge=1, description="channels between the two transposed convolutions in pre-training")
    normalise: Normalise = Field("none", description=NORMALISED)

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


class ResNetSettings(Table):
    """A residual network of 18 or 50 layers; in 2D with the keys and outputs of the common ImageNet weights."""

    name: Literal["resnet18", "resnet50"]
    width: int = Field(64, ge=4, description="channels of the first stage; each further stage doubles them")
    stem_stride: Literal[1, 2] = Field(2, description="stride of the first convolution; 1 for small images")
    stem_pool: bool = Field(True, description="the pooling after it; false for small images")
    decoder: Literal["unet", "fcn"] = Field(
        "unet", description="for segmentation: unet sees all maps and the image, fcn scores the last three maps alone"
    )
    feature_size: int = Field(16, ge=1, description="channels of the U-Net decoder at full resolution, doubled by each halving")
    decoder_channels: int = Field(16, ge=1, description="channels of the decoder at full resolution in pre-training")
    normalise: Normalise = Field("none", description=NORMALISED)

    @property
    def stride(self) -> int:
        """Voxels of the image along an axis for one position of the last feature map."""
        return 8 * self.stem_stride * (2 if self.stem_pool else 1)


class SwinSettings(Table):
    """The Swin transformer of Swin UNETR; by default with the sizes of the weights of Tang et al., 2022."""

    name: Literal["swin_unetr"]
    width: int = Field(48, ge=12, multiple_of=12, description="channels after the patches of 2, doubled by each stage")
    depths: Stages = Field([2, 2, 2, 2], description="blocks of each of the four stages")
    heads: Stages = Field([3, 6, 12, 24], description="attention heads of each stage; divides its channels")
    window: int = Field(7, ge=2, description="patches along an axis that attend to each other")
    decoder_channels: int = Field(16, ge=1, description="channels of the decoder at full resolution in pre-training")
    normalise: Normalise = Field("none", description=NORMALISED)

    @property
    def decoder(self) -> str:
        """Swin UNETR's own."""
        return "unetr"

    @property
    def feature_size(self) -> int:
        """Channels of the decoder at full resolution, which in Swin UNETR are those of the patches."""
        return self.width

    @model_validator(mode="after")
    def divisible(self) -> Self:
        if any(self.width * 2**stage % heads for stage, heads in enumerate(self.heads)):
            raise ValueError(
                f"heads: found {self.heads}, expected divisors of the channels {self.width}, doubled by each stage"
            )
        return self


class UNetSettings(Table):
    """A residual U-Net, always trained from scratch: the baseline."""

    name: Literal["unet"]
    channels: Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=2)] = Field(
        NETWORKS["unet"][1]["channels"], description="channels of each level, full resolution first"
    )


NetworkSettings = ViTSettings | ResNetSettings | SwinSettings | UNetSettings
EncoderSettings = ViTSettings | ResNetSettings | SwinSettings


def unit_of(network: NetworkSettings, axes: int) -> list[int]:
    """Tell what the sides of a crop must be multiples of."""
    if isinstance(network, ViTSettings):
        return network.patch_size
    if isinstance(network, SwinSettings):
        return [32] * axes
    return [network.stride if isinstance(network, ResNetSettings) else 2 ** (len(network.channels) - 1)] * axes


def encoder_sizes(network: EncoderSettings) -> dict[str, Any]:
    """The arguments of `networks.build_encoder` besides its name, channels and image size."""
    return network.model_dump(exclude={"name", "decoder", "feature_size", "decoder_channels"})


def title_of(network: NetworkSettings, task: str) -> str:
    """The network's name in summaries and tables, where runs of one name are one arm: with the decoder that was chosen."""
    if task == "segmentation" and not isinstance(network, UNetSettings) and network.decoder != "unetr":
        return f"{network.name}-{network.decoder}"
    return network.name
