"""Views of a crop: corrupted copies with draws of their own, beside the untouched crop.

``recon_contrast_views`` is the corruption of MONAI's self-supervised tutorial, a ViT autoencoder trained by
reconstruction and contrast: each view is in-painted or out-painted; then, with probability 0.8, the voxels of small
boxes are shuffled.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.transforms import Randomizable, Transform
from monai.utils import get_seed

from transforms.corrupt import RandInPaintd, RandOutPaintd, RandPixelShuffled, Size, limits_of, shuffle_boxes
from transforms.seeding import Chain, Choice, Seeded, random_state


class Viewsd(Seeded, Transform):  # type: ignore[misc]
    """Add ``view_0``, ``view_1``, ... to the dictionary: copies of ``key``, each corrupted by its own draws.

    ``corrupt`` is a dictionary transform, or composition, that acts on ``key``. It sees only that item and is seeded
    anew for each view, so that view k depends on the seed and k alone, not on the number of views or what earlier
    ones drew. ``key`` itself stays as it is (an array becomes a tensor) and shares no memory with a view;
    ``copy=False`` saves the copy before each view, for a ``corrupt`` that never writes into its input.
    """

    def __init__(self, corrupt: Callable[[Any], Any], key: Hashable = "image", views: int = 2, copy: bool = True) -> None:
        if views < 1:
            raise ValueError(f"views: expected at least 1, found {views}")
        self.corrupt, self.key, self.views, self.copy = corrupt, key, views, copy
        self.seeds = [0] * views
        self.set_random_state(get_seed())

    def randomize(self, data: Any = None) -> None:
        """Draw one seed for each view."""
        self.seeds = [int(seed) for seed in self.R.randint(2**62, size=self.views, dtype=np.int64)]

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        self.randomize()
        crop = torch.as_tensor(data[self.key])
        views = {f"view_{number}": self._view(crop, seed) for number, seed in enumerate(self.seeds)}
        return dict(data) | {self.key: crop} | views

    def _view(self, crop: torch.Tensor, seed: int) -> Any:
        if isinstance(self.corrupt, Randomizable):
            self.corrupt.set_random_state(state=random_state(seed))
        view = self.corrupt({self.key: crop.clone() if self.copy else crop})[self.key]
        return view.clone() if view is crop else view


class _ShuffleInPlaced(RandPixelShuffled):
    """Shuffles without a copy, behind a transform that has just made one: a third of a view's time."""

    def corrupt(self, x: torch.Tensor, seed: int) -> torch.Tensor:
        return shuffle_boxes(x, self.boxes, seed, out=x)


class _ReconContrastViewsd(Viewsd):
    """Looks for the limits of the noise once for all views."""

    def __init__(self, paints: Sequence[RandInPaintd | RandOutPaintd], *args: Any, **kwargs: Any) -> None:
        self.paints = paints
        super().__init__(*args, **kwargs)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        limits = limits_of(torch.as_tensor(data[self.key]))
        for paint in self.paints:
            paint.limits = limits
        return super().__call__(data)


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
) -> Viewsd:
    """The views of reconstruction with contrast; the defaults are the tutorial's for 96^3 crops.

    Each view is out-painted with probability ``outpaint_share``, else in-painted; then shuffled with
    ``shuffle_prob``. Sizes are in voxels, one number or one for each axis. ``growing`` draws them as MONAI does, and
    so as they were for the tutorial's numbers: each painted box at least as large as the one before (see
    ``draw_boxes``); without it in-painting corrupts a third as much. Raises ValueError for a share or size out of
    range.
    """
    paints = (
        RandInPaintd(key, 1.0, inpaint_holes, inpaint_min_size, inpaint_max_size, growing=growing),
        RandOutPaintd(key, 1.0, outpaint_holes, outpaint_min_size, outpaint_max_size, growing=growing),
    )
    shuffle = _ShuffleInPlaced(key, shuffle_prob, shuffle_holes, shuffle_size, shuffle_size)
    corrupt = Chain([Choice(paints, weights=[1 - outpaint_share, outpaint_share]), shuffle])
    return _ReconContrastViewsd(paints, corrupt, key, views, copy=False)
