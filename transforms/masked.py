"""An image under boxes of random size, and where they are: the view of an encoder-decoder that restores what is hidden.

Context encoders (Pathak et al. 2016, arXiv:1604.07379) with a number of boxes that is drawn too. Axes: c, then space.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, get_args

import numpy as np
import torch
from monai.utils import get_seed
from torch import Tensor

from transforms.corrupt import Boxes, BoxLaw, Size, draw_seed, in_paint, plain, with_metadata
from transforms.corrupt_batch import filled_up, in_boxes, noise_in_range
from transforms.in_batches import BatchViews, views_first, without_draws
from transforms.jitter import channel_mean
from transforms.memory import Recycled
from transforms.seeding import random_state

Fill = Literal["zero", "mean", "noise"]


class MaskedViewsd(BatchViews):
    """Adds ``view_0``, ``key`` under boxes, and ``mask`` (1, *spatial), True under them; made by ``masked_views``.

    ``key`` itself stays as it is; an array becomes a tensor. Neither shares memory with it.
    """

    def __init__(self, key: Hashable, number: tuple[int, int], law: BoxLaw, fill: Fill) -> None:
        self.key, self.number, self.law, self.fill = key, number, law, fill
        self.seed = 0
        self.memory, self.masks = Recycled(), Recycled()
        self.set_random_state(get_seed())

    def randomize(self, data: Any = None) -> None:
        """Draw the seed of the view."""
        self.seed = draw_seed(self.R)

    def draw(self, rng: np.random.RandomState, shape: tuple[int, ...]) -> tuple[Boxes, int]:
        """Draw the boxes in a crop of ``shape`` (spatial axes) and the seed of the noise in them."""
        fewest, most = self.number
        holes = fewest + int(rng.random_sample() * (most - fewest + 1))
        return replace(self.law, holes=holes).draw(rng, shape), draw_seed(rng)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        self.randomize()
        crop = torch.as_tensor(data[self.key])
        x = plain(crop)
        boxes, seed = self.draw(random_state(self.seed), tuple(x.shape[1:]))
        mask = box_mask(boxes, self.masks.empty_like(x[:1], torch.bool))
        view = self.filled(x, boxes, seed)
        return dict(data) | {self.key: crop, "view_0": with_metadata(view, crop), "mask": mask}

    def drawn(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        self.randomize()
        crop = torch.as_tensor(data[self.key])
        shape = tuple(crop.shape[1:])
        boxes, _ = self.draw(random_state(self.seed), shape)
        return dict(data) | {self.key: crop, "draw_boxes": filled_up([boxes], self.number[1], len(shape))}

    def of_batch(self, batch: Mapping[Any, Any], seeds: Sequence[int]) -> dict[Any, Any]:
        x = batch[self.key]
        mask = in_boxes(views_first(batch["draw_boxes"])[0], x.shape[2:])[:, None]
        value = x.new_zeros(())
        if self.fill == "noise":
            value = noise_in_range(x, 1, seeds)[0]
        elif self.fill == "mean":
            value = x.mean(dim=tuple(range(2, x.ndim)), keepdim=True)
        return without_draws(batch) | {"view_0": torch.where(mask, value, x), "mask": mask}

    def filled(self, x: Tensor, boxes: Boxes, seed: int) -> Tensor:
        """A copy of ``x`` (c, *spatial) with 0, the mean of each channel or noise of its range under ``boxes``."""
        out = self.memory.empty_like(x)
        if self.fill == "noise":
            return in_paint(x, boxes, seed, out=out)
        value = channel_mean(x) if self.fill == "mean" else x.new_zeros(())
        return cover(out.copy_(x), boxes, value)


def masked_views(
    key: Hashable = "image",
    *,
    boxes: tuple[int, int] = (1, 8),
    min_size: Size = 8,
    max_size: Size = 64,
    fill: Fill = "zero",
) -> MaskedViewsd:
    """An image (c, *spatial) under ``boxes`` (fewest, most) of sides ``min_size..max_size`` voxels.

    Number, sides and places are uniform; sizes are one number or one for each axis, and no box is longer than the
    image. Under a box stands zero, the mean of each channel of the image, or noise uniform over the image's range.
    Raises ValueError for an empty range or an unknown ``fill``.
    """
    if len(boxes) != 2 or not 1 <= boxes[0] <= boxes[1]:
        raise ValueError(f"boxes: expected 1 <= fewest <= most, found {boxes}")
    if fill not in get_args(Fill):
        raise ValueError(f"fill: expected one of {', '.join(get_args(Fill))}, found {fill!r}")
    return MaskedViewsd(key, (boxes[0], boxes[1]), BoxLaw(boxes[1], min_size, max_size), fill)


def box_mask(boxes: Boxes, out: Tensor) -> Tensor:
    """Fill ``out`` (1, *spatial), bool: True inside any of ``boxes``."""
    return cover(out.zero_(), boxes, torch.ones((), dtype=torch.bool, device=out.device))


def cover(out: Tensor, boxes: Boxes, value: Tensor) -> Tensor:
    """Write ``value``, one or (c, 1, ...), into the boxes of ``out`` (c, *spatial)."""
    for start, stop in boxes.tolist():
        out[(slice(None), *map(slice, start, stop))] = value
    return out
