"""Random changes of a labelled crop, for fine-tuning: of image and label map, or of the image alone.

The defaults are those of MONAI's UNETR fine-tuning on BTCV: flips along each axis with probability 0.1, quarter turns
with 0.1, intensity shifts up to 0.1 with 0.5. The rest is off by default.
"""

from collections.abc import Hashable, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import (
    MapTransform,
    RandAdjustContrastd,
    RandAffined,
    RandFlipd,
    RandGaussianNoised,
    RandomizableTransform,
    RandShiftIntensityd,
    Rotate90,
)

from transforms.seeding import Chain, Seeded


class RandChannelDropoutd(Seeded, MapTransform):  # type: ignore[misc]
    """Set each channel that is not empty to 0 with a probability, but never the last of them.

    So that a network learns to do without a modality that some patients lack. Where all would go, the channel with the
    largest draw stays.
    """

    def __init__(self, keys: KeysCollection, prob: float) -> None:
        super().__init__(keys)
        self.prob = prob
        self.draws = np.zeros(0)

    def randomize(self, channels: int) -> None:
        """Draw a number in 0..1 for each channel."""
        self.draws = self.R.random_sample(channels)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        out = dict(data)
        self.randomize(len(out[self.keys[0]]))
        for key in self.keys:
            out[key] = drop_channels(out[key], torch.from_numpy(self.draws), self.prob)
        return out


def drop_channels(x: torch.Tensor, draws: torch.Tensor, prob: float) -> torch.Tensor:
    """Set the channels of ``x`` (c, *spatial) whose draw (c,) is below ``prob`` to 0, except the last one present."""
    present = x.flatten(1).any(1)
    dropped = draws.to(x.device) < prob
    if not (present & ~dropped).any():
        dropped[(draws.to(x.device) - (~present).to(draws)).argmax()] = False
    return _without(x, dropped)


class RandQuarterTurnd(Seeded, RandomizableTransform, MapTransform):  # type: ignore[misc]
    """Turn all keys by 90, 180 or 270 degrees in the first plane whose two sides are equal, so that no shape changes.

    For a cube that is the plane of the first two axes, as in MONAI's ``RandRotate90d``, which would turn a 96x80 crop
    into an 80x96 one. A crop without such a plane stays as it is.
    """

    def __init__(self, keys: Sequence[Hashable], prob: float = 0.1) -> None:
        MapTransform.__init__(self, keys)
        RandomizableTransform.__init__(self, prob)
        self.turns = 0

    def randomize(self, data: Any = None) -> None:
        """Draw whether to turn and how often."""
        super().randomize(None)
        self.turns = int(self.R.randint(1, 4))

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        self.randomize()
        out = dict(data)
        shape = out[self.keys[0]].shape[1:]
        plane = next((axes for axes in combinations(range(len(shape)), 2) if shape[axes[0]] == shape[axes[1]]), None)
        if self._do_transform and plane is not None:
            turn = Rotate90(self.turns, plane)
            out |= {key: turn(out[key]) for key in self.keys}
        return out


class Augment(Chain):
    """A chain whose items at `keys` come out as what they went in: of the same type, plain tensors as plain tensors."""

    def __init__(self, transforms: Sequence[Any], keys: Sequence[Hashable]) -> None:
        super().__init__(transforms)
        self.keys = tuple(keys)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        out = dict(super().__call__(data))
        # MONAI makes a MetaTensor of every item, and floats of what it resamples, but only when the dice say so
        return out | {key: _as_before(out[key], torch.as_tensor(data[key])) for key in self.keys}


class KeepEmptyChannels(Chain):
    """A chain that leaves a channel of the image 0 where it is 0 everywhere, beside others: a missing modality."""

    def __init__(self, transforms: Sequence[Any], key: Hashable) -> None:
        super().__init__(transforms)
        self.key = key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        empty = ~torch.as_tensor(data[self.key]).flatten(1).any(1)
        out = dict(super().__call__(data))
        if len(empty) > 1 and empty.any():
            out[self.key] = _without(out[self.key], empty)
        return out


def augment_segmentation(
    spatial_dims: int = 3, *, image_key: str = "image", label_key: str = "label", **changes: Any
) -> Augment:
    """Change image and label (c, *spatial) alike in space, and the intensity of the image, as `augment_image` does.

    The label is resampled by nearest neighbour.
    """
    return _augment(spatial_dims, (image_key, label_key), **changes)


def augment_image(spatial_dims: int = 3, *, image_key: str = "image", **changes: Any) -> Augment:
    """Change an image (c, *spatial), whose intensities lie in 0..1, in space and in intensity.

    `changes` are those of `augment_segmentation` too: flip_prob, rotate90_prob, shift_prob, shift, affine_prob,
    rotate, scale, noise_prob, noise_std, contrast_prob, gamma, channel_dropout (see RandChannelDropoutd). ``rotate`` is
    the largest angle in radians, ``scale``
    the largest relative change of size (both about every axis, in voxels); what comes in from outside is 0. ``shift``
    is the largest offset, ``noise_std`` the largest deviation of Gaussian noise, ``gamma`` the range of the exponent.
    """
    return _augment(spatial_dims, (image_key,), **changes)


def _augment(
    spatial_dims: int,
    keys: Sequence[Hashable],
    flip_prob: float = 0.1,
    rotate90_prob: float = 0.1,
    shift_prob: float = 0.5,
    shift: float = 0.1,
    affine_prob: float = 0.0,
    rotate: float = 0.15,
    scale: float = 0.1,
    noise_prob: float = 0.0,
    noise_std: float = 0.05,
    contrast_prob: float = 0.0,
    gamma: tuple[float, float] = (0.7, 1.5),
    channel_dropout: float = 0.0,
) -> Augment:
    """The image is the first of the keys; a label may follow."""
    image = keys[0]
    affine = RandAffined(
        keys,
        prob=affine_prob,
        rotate_range=[rotate] * (3 if spatial_dims == 3 else 1),
        scale_range=[scale] * spatial_dims,
        mode=("bilinear", "nearest")[: len(keys)],
        padding_mode="zeros",
    )
    steps = [
        *(RandFlipd(keys, flip_prob, axis) for axis in range(spatial_dims)),
        RandQuarterTurnd(keys, rotate90_prob),
        *([affine] if affine_prob else []),
        *([RandAdjustContrastd(image, contrast_prob, gamma)] if contrast_prob else []),
        *([RandGaussianNoised(image, noise_prob, std=noise_std)] if noise_prob else []),
        RandShiftIntensityd(image, shift, prob=shift_prob),
    ]
    dropout = [RandChannelDropoutd(image, channel_dropout)] if channel_dropout else []
    return Augment([*dropout, KeepEmptyChannels(steps, image)], keys)


def _without(x: torch.Tensor, channels: torch.Tensor) -> torch.Tensor:
    """An image (c, *spatial) with 0 in the channels where ``channels`` (c,) is true."""
    return x.masked_fill(channels.view(-1, *[1] * (x.ndim - 1)), 0)


def _as_before(new: torch.Tensor, old: torch.Tensor) -> torch.Tensor:
    if isinstance(new, MetaTensor) and not isinstance(old, MetaTensor):
        new = new.as_tensor()
    return new.to(old.dtype)
