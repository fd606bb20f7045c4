"""Progressive resizing: training begins on small images and ends on large ones, as in fastai's courses (Howard, 2018).

Early steps are cheap and see whole structures; a network that takes images of any size keeps what it learned.
"""

from torch import Tensor
from torch.nn import functional

from medssl.config import Shared
from medssl.training import Batch


def size_at(settings: Shared, step: int) -> list[int]:
    """The voxels of the images of a step, counted from 1; each size has an equal share of the steps."""
    return settings.sizes[(step - 1) * len(settings.sizes) // settings.steps]


class Resizing:
    """Shrinks the crops of a batch, and their labels, to the size of the step."""

    def __init__(self, settings: Shared) -> None:
        self.settings, self.size = settings, settings.crop_size

    def before_step(self, step: int) -> None:
        """Get ready for a step, counted from 1."""
        self.size = size_at(self.settings, step)

    def __call__(self, batch: Batch) -> Batch:
        """Shrink "image" (b, c, *crop_size) by the mean of what a voxel covers, "label" (b, 1, *crop_size) by its middle."""
        if self.size == self.settings.crop_size:
            return batch
        return batch | {key: shrunk(batch[key], self.size, mode) for key, mode in MODES.items() if key in batch}


MODES = {"image": "area", "label": "nearest-exact"}  # the mean of a voxel's surroundings needs no other smoothing


def shrunk(x: Tensor, size: list[int], mode: str) -> Tensor:
    """Resize (b, c, *space) to (b, c, *size); types that are not floating keep their values."""
    return functional.interpolate(x.float(), size=size, mode=mode).to(x.dtype)
