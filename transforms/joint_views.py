"""Views of the joint-embedding methods: resized crops of a crop with flips and changes of intensity; 2D and 3D.

For SimCLR, Barlow Twins, VICReg and, with local views, SwAV's multi-crop (Caron et al. 2020, arXiv:2006.09882): a few
views of full size and some more that are small and cut from a small part.
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from transforms.corrupt import Size, per_axis, plain
from transforms.in_batches import views_first, without_draws
from transforms.jitter import MEMORY, Jitter, JitterLaw, check_colour, jitter
from transforms.joint_batch import changes_of, jitter_batch, resized
from transforms.memory import Recycled
from transforms.resized_crop import CropBox, CropLaw, Span, resized_crop
from transforms.seeding import random_state
from transforms.views import Views


class JointView(NamedTuple):
    """All that was drawn for one view: which box, at which size, with which changes of intensity."""

    box: CropBox
    size: Sequence[int]
    change: Jitter

    def __call__(self, x: Tensor, memory: Recycled = MEMORY) -> Tensor:
        """The view of ``x`` (c, *spatial): (c, *size)."""
        return jitter(resized_crop(x, self.box, self.size), self.change, owned=True, memory=memory)


class JointViewsd(Views):
    """Views ``view_0`` .. of full size, then the local ones; made by ``joint_views``.

    They are plain tensors: a view has no place in the world any more.
    """

    def __init__(
        self, key: Hashable, views: int, local_views: int, size: Size | None, local_size: Size | None, crop: CropLaw,
        local_crop: CropLaw, intensity: JitterLaw,
    ) -> None:  # fmt: skip
        super().__init__(key, views + local_views)
        self.large = views
        self.size, self.local_size = size, local_size
        self.crop, self.local_crop, self.intensity = crop, local_crop, intensity
        self.memory = (Recycled(), Recycled())  # one for each size

    def draw(self, rng: np.random.RandomState, shape: Sequence[int], local: bool) -> JointView:
        """Draw one view of a crop of ``shape`` (spatial axes)."""
        size = self.size_of_views(shape, local)
        box = (self.local_crop if local else self.crop).draw(rng, shape, size)
        return JointView(box, size, self.intensity.draw(rng))

    def size_of_views(self, shape: Sequence[int], local: bool) -> tuple[int, ...]:
        """The size of large or local views of crops of ``shape`` (spatial axes)."""
        size = shape if self.size is None else per_axis(self.size, len(shape), "size")
        if local:
            half = [-(-n // 2) for n in size]
            size = half if self.local_size is None else per_axis(self.local_size, len(shape), "local_size")
        return tuple(size)

    def draw_views(self, crop: Tensor) -> list[JointView]:
        """Draw the views of a crop (c, *spatial) from their seeds."""
        if self.intensity.colour:
            check_colour(len(crop))
        return [self.draw(random_state(seed), crop.shape[1:], k >= self.large) for k, seed in enumerate(self.seeds)]

    def make(self, crop: Tensor) -> list[Tensor]:
        x = plain(crop)
        return [view(x, self.memory[k >= self.large]) for k, view in enumerate(self.draw_views(x))]

    def draws(self, crop: Tensor) -> dict[Hashable, Any]:
        views = self.draw_views(crop)
        return {
            "draw_boxes": torch.tensor([[view.box.start, view.box.stop] for view in views]),
            "draw_flips": torch.tensor([view.box.flips for view in views]),
            "draw_changes": changes_of([view.change for view in views]),
        }

    def of_batch(self, batch: Mapping[Any, Any], seeds: Sequence[int]) -> dict[Any, Any]:
        image, law = batch[self.key], self.intensity
        draws = [views_first(batch[f"draw_{name}"]) for name in ("boxes", "flips", "changes")]
        views: list[Tensor] = []
        for local in [False, True] if self.views > self.large else [False]:
            boxes, flips, changes = (draw[self.large :] if local else draw[: self.large] for draw in draws)
            size, sigma = self.size_of_views(image.shape[2:], local), changes[..., Jitter._fields.index("blur_sigma")]
            cut = resized(image, boxes, flips, size, sigma, law.blur_sigma[1] if law.blur_prob > 0 else 0.0)
            views += jitter_batch(cut, changes, law, [seed + local for seed in seeds])
        return without_draws(batch) | {f"view_{k}": view for k, view in enumerate(views)}


def joint_views(
    key: Hashable = "image",
    views: int = 2,
    *,
    size: Size | None = None,
    scale: Span = (0.2, 1.0),
    ratio: Span = (3 / 4, 4 / 3),
    flip_prob: float | Sequence[float] = 0.5,
    gamma_prob: float = 0.8,
    gamma: Span = (0.6, 1.6),
    contrast_prob: float = 0.8,
    contrast: float = 0.4,
    brightness_prob: float = 0.8,
    brightness: float = 0.4,
    noise_prob: float = 0.2,
    noise_std: float = 0.05,
    blur_prob: float = 0.5,
    blur_sigma: Span = (0.1, 2.0),
    colour: bool = False,
    saturation_prob: float = 0.8,
    saturation: float = 0.4,
    grey_prob: float = 0.2,
    local_views: int = 0,
    local_size: Size | None = None,
    local_scale: Span = (0.05, 0.2),
) -> JointViewsd:
    """Views of images (c, *spatial) in 0..1: ``views`` of ``size``, then ``local_views`` of ``local_size``.

    Sizes are in voxels, one number or one for each axis; ``size`` is by default the crop's own, ``local_size`` half of
    that. ``scale`` and ``local_scale`` are the shares of the crop that are cut out, ``ratio`` how much an axis is
    stretched against another, ``flip_prob`` one probability or one for each axis: see ``CropLaw``. The changes of
    intensity, those of colour for three channels, and their ranges are ``JitterLaw``'s. Raises ValueError for a value
    out of range and, when called, for a wrong number of axes or channels.
    """
    if local_views < 0:
        raise ValueError(f"local_views: expected 0 or more, found {local_views}")
    for name, voxels in (("size", size), ("local_size", local_size)):
        if voxels is not None and np.less(voxels, 1).any():
            raise ValueError(f"{name}: expected at least 1, found {voxels}")
    intensity = JitterLaw(
        gamma_prob, gamma, contrast_prob, contrast, brightness_prob, brightness, noise_prob, noise_std, blur_prob, blur_sigma,
        colour, saturation_prob, saturation, grey_prob,
    )  # fmt: skip
    crop, local_crop = (CropLaw(share, ratio, flip_prob) for share in (scale, local_scale))
    return JointViewsd(key, views, local_views, size, local_size, crop, local_crop, intensity)
