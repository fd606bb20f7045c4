"""Views of a crop: corrupted copies with draws of their own, beside the untouched crop.

``recon_contrast_views`` is the corruption of MONAI's self-supervised tutorial, a ViT autoencoder trained by
reconstruction and contrast: each view is in-painted or out-painted; then, with probability 0.8, the voxels of small
boxes are shuffled.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.transforms import Randomizable
from monai.utils import get_seed
from torch import Tensor

from transforms.corrupt import (
    Boxes,
    BoxLaw,
    Limits,
    Size,
    draw_seed,
    in_paint,
    limits_of,
    out_paint,
    per_axis,
    plain,
    shuffle_boxes,
    with_metadata,
)
from transforms.corrupt_batch import filled_up, paint, shuffle
from transforms.in_batches import BatchViews, views_first, without_draws
from transforms.memory import Recycled
from transforms.seeding import random_state


class Views(BatchViews):
    """Adds ``view_0``, ``view_1``, ... to the dictionary: copies of ``key``, each corrupted by its own draws.

    View k depends on the seed and k alone, not on the number of views or what earlier ones drew. ``key`` itself stays as
    it is; an array becomes a tensor. No view shares memory with it.
    """

    def __init__(self, key: Hashable, views: int) -> None:
        if views < 1:
            raise ValueError(f"views: expected at least 1, found {views}")
        self.key, self.views = key, views
        self.seeds = [0] * views
        self.set_random_state(get_seed())

    def randomize(self, data: Any = None) -> None:
        """Draw one seed for each view."""
        self.seeds = [draw_seed(self.R) for _ in range(self.views)]

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        self.randomize()
        crop = torch.as_tensor(data[self.key])
        return dict(data) | {self.key: crop} | {f"view_{k}": view for k, view in enumerate(self.make(crop))}

    def drawn(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        self.randomize()
        crop = torch.as_tensor(data[self.key])
        return dict(data) | {self.key: crop} | self.draws(crop)

    def make(self, crop: Tensor) -> list[Tensor]:
        """Make the views from the seeds drawn."""
        raise NotImplementedError

    def draws(self, crop: Tensor) -> dict[Hashable, Any]:
        """What is drawn from the same seeds, for `of_batch`."""
        raise NotImplementedError


class Viewsd(Views):
    """Add ``view_0``, ``view_1``, ...: copies of ``key``, each corrupted by its own draws; ``key`` stays as it is.

    ``corrupt`` is any dictionary transform, or composition, that acts on ``key``. It is given a copy of that item alone,
    so it may write into its input, and is seeded anew for each view. What it does is not known, so not of a batch.
    """

    def __init__(self, corrupt: Callable[[Any], Any], key: Hashable = "image", views: int = 2) -> None:
        self.corrupt = corrupt
        super().__init__(key, views)

    def make(self, crop: Tensor) -> list[Tensor]:
        return [self.view(crop, seed) for seed in self.seeds]

    def view(self, crop: Tensor, seed: int) -> Tensor:
        """Make the view of one seed."""
        if isinstance(self.corrupt, Randomizable):
            self.corrupt.set_random_state(state=random_state(seed))
        view: Tensor = self.corrupt({self.key: crop.clone()})[self.key]
        return view


class Corruption(NamedTuple):
    """All that was drawn for one view: which painting in which boxes, and the boxes to shuffle afterwards, if any."""

    paint: Callable[..., Tensor]
    boxes: Boxes
    shuffled: Boxes | None
    seed: int

    def __call__(self, x: Tensor, limits: Limits | None = None, out: Tensor | None = None) -> Tensor:
        """A corrupted copy of ``x`` (c, *spatial), in ``out`` if given."""
        view = self.paint(x, self.boxes, self.seed, limits=limits, out=out)
        return view if self.shuffled is None else shuffle_boxes(view, self.shuffled, self.seed + 1, out=view)


class ReconContrastViewsd(Views):
    """The views of reconstruction with contrast; made by ``recon_contrast_views``.

    A choice between ``in_paint`` and ``out_paint``, then ``shuffle_boxes``, in one piece: the range of the noise is looked
    for once for all views, nothing is copied in between, and the memory of views that are gone is used again.
    """

    def __init__(
        self, key: Hashable, views: int, outpaint: tuple[float, BoxLaw], inpaint: BoxLaw, shuffle: tuple[float, BoxLaw]
    ) -> None:
        super().__init__(key, views)
        self.outpaint, self.inpaint, self.shuffle = outpaint, inpaint, shuffle
        self.memory = Recycled()

    def draw(self, rng: np.random.RandomState, shape: Sequence[int]) -> Corruption:
        """Draw what happens to one view of a crop of ``shape`` (spatial axes)."""
        outside, shuffles = rng.random_sample(2) < (self.outpaint[0], self.shuffle[0])
        paint, law = (out_paint, self.outpaint[1]) if outside else (in_paint, self.inpaint)
        boxes = law.draw(rng, shape)
        return Corruption(paint, boxes, self.shuffle[1].draw(rng, shape) if shuffles else None, draw_seed(rng))

    def corruptions(self, shape: Sequence[int]) -> list[Corruption]:
        """Draw what happens to each view from its seed."""
        return [self.draw(random_state(seed), shape) for seed in self.seeds]

    def make(self, crop: Tensor) -> list[Tensor]:
        x = plain(crop)
        limits = limits_of(x)
        return [with_metadata(corrupt(x, limits, self.memory.empty_like(x)), crop) for corrupt in self.corruptions(x.shape[1:])]

    def draws(self, crop: Tensor) -> dict[Hashable, Any]:
        shape, most = crop.shape[1:], max(self.outpaint[1].holes, self.inpaint.holes)
        drawn = self.corruptions(shape)
        return {
            "draw_outside": torch.tensor([corruption.paint is out_paint for corruption in drawn]),
            "draw_boxes": filled_up([corruption.boxes for corruption in drawn], most, len(shape)),
            "draw_shuffled": filled_up([corruption.shuffled for corruption in drawn], self.shuffle[1].holes, len(shape)),
        }

    def of_batch(self, batch: Mapping[Any, Any], seeds: Sequence[int]) -> dict[Any, Any]:
        image = batch[self.key]
        outside, boxes, shuffled = (views_first(batch[f"draw_{name}"]) for name in ("outside", "boxes", "shuffled"))
        views = paint(image, boxes, outside, seeds)
        largest = per_axis(self.shuffle[1].max_size, image.ndim - 2, "shuffle_size")
        views = shuffle(views, shuffled, largest, [seed + 1 for seed in seeds])
        return without_draws(batch) | {f"view_{k}": view for k, view in enumerate(views)}


def recon_contrast_views(
    key: Hashable = "image",
    views: int = 2,
    *,
    outpaint_share: float = 0.5,
    inpaint_holes: int = 6,
    inpaint_min_size: Size = 5,
    inpaint_max_size: Size = 32,
    outpaint_holes: int = 6,
    outpaint_min_size: Size = 20,
    outpaint_max_size: Size = 64,
    shuffle_prob: float = 0.8,
    shuffle_holes: int = 10,
    shuffle_size: Size = 8,
    growing: bool = True,
) -> ReconContrastViewsd:
    """The views of reconstruction with contrast; the defaults are the tutorial's for 96^3 crops.

    Each view is out-painted with probability ``outpaint_share``, else in-painted; then shuffled with ``shuffle_prob``.
    Sizes are in voxels, one number or one for each axis. ``growing`` draws them as MONAI does, and so as they were for
    the tutorial's numbers: each painted box at least as large as the one before (see ``BoxLaw``); without it in-painting
    corrupts a third as much. Raises ValueError for a share or size out of range.
    """
    for name, share in (("outpaint_share", outpaint_share), ("shuffle_prob", shuffle_prob)):
        if not 0 <= share <= 1:
            raise ValueError(f"{name}: expected 0..1, found {share}")
    return ReconContrastViewsd(
        key,
        views,
        outpaint=(outpaint_share, BoxLaw(outpaint_holes, outpaint_min_size, outpaint_max_size, growing)),
        inpaint=BoxLaw(inpaint_holes, inpaint_min_size, inpaint_max_size, growing),
        shuffle=(shuffle_prob, BoxLaw(shuffle_holes, shuffle_size, shuffle_size)),
    )
