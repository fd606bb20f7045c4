"""The settings of ssl_pretrain.py."""

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from medssl.config.methods import JointViews, MAESettings, MethodSettings, PairsSettings, SwAVSettings
from medssl.config.networks import ViTSettings
from medssl.config.schedules import FineTune
from medssl.config.shared import Shared
from medssl.config.tables import Amount, Sizes, named
from medssl.methods import networks_for


class Pretrain(Shared):
    """Settings of ssl_pretrain.py."""

    method: Annotated[
        MethodSettings, Field(discriminator="name", description="the self-supervised objective"), BeforeValidator(named)
    ]
    unlabelled: Amount | None = Field(
        None,
        description="pre-training cases to learn from, below 1 a share of them: whole patients in an order of the seed's, "
        "nested; null: all",
    )
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
