"""Label maps of whole images, predicted in overlapping windows along a sweep.

Windows lie where MONAI's `sliding_window_inference` puts them and are blended with its weights, so that both give the same
labels to rounding. They are walked in the order of one axis, and class scores are held only for the slab of the image that
this window or a later one touches: what lies before it becomes labels at once, here or on another grid. A voxel's sum of
weights divides all its classes alike, so that the largest score needs no map of the sums; interpolation does.
Axis letters: b batch, c channel, k class, then the spatial axes (2 or 3).
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import product
from math import ceil, prod
from typing import Protocol

import torch
from monai.data.utils import compute_importance_map
from torch import Tensor
from torch.nn import functional

from medssl.problems import RunError

# Measured on a CPU: a forward of more voxels takes longer a window, as its feature maps are no longer blocks that the
# allocator keeps: UNETR takes 1.59 s a window of 96^3 for four at a time, 1.29 s for one at a time.
MOST_VOXELS_ON_CPU = 2**18

Corner = tuple[int, ...]


class Labels(Protocol):
    """Makes labels of class scores as they become ready, plane by plane along the sweep."""

    needs_sums: bool  # whether scores are wanted divided by the sums of their weights

    def begin(self, size: Sequence[int], axis: int, margins: Corner) -> None:
        """Hear of an image (*size, with so much padding before it) that will be swept along an axis."""
        ...

    def take(self, start: int, scores: Tensor) -> None:
        """Take the scores (k, *spatial) of the planes from `start` on, which follow those before without a gap."""
        ...

    def finish(self) -> Tensor:
        """Give the label map, on the CPU."""
        ...


def label_map(
    forward: Callable[[Tensor], Tensor],
    image: Tensor,
    window: Sequence[int],
    overlap: float = 0.25,
    batch_size: int = 4,
    blend: str = "gaussian",
    progress: Callable[[int, int], None] | None = None,
    labels: Labels | None = None,
) -> Tensor:
    """Predict the label map (*spatial) of an image (c, *spatial); it lies on the CPU, uint8 up to 256 classes, then uint16.

    `labels` makes it of the scores; by default it has the class of the largest score, on the image's own grid.

    `forward` gives class scores (b, k, *window) for crops (b, c, *window), at most `batch_size`, on the image's device.
    `overlap` is a share of the window, `blend` "gaussian" or "constant"; an image smaller than the window is padded with
    zeros. `progress(windows done, all windows)` is called after each forward. RunError where scores are not finite.
    """
    predict = torch.inference_mode()(forward)  # the forward alone, so that the labels can be written to
    size, labels = image.shape[1:], labels or Largest(image.shape[1:])
    image, margins = pad_to(image, window)
    padded = image.shape[1:]
    axis = min(range(len(window)), key=lambda a: window[a] / padded[a])  # of the smallest slab
    corners = sorted(product(*map(starts, padded, window, [overlap] * len(window))), key=lambda corner: corner[axis])
    labels.begin(size, axis, margins)
    slab = Slab(padded, window, axis, compute_importance_map(tuple(window), blend, device=image.device), labels)
    for some in batches(corners, batch_size, prod(window), image.device):
        slab.add(some, predict(torch.stack([image[(slice(None), *box(corner, window))] for corner in some])))
        if progress:
            progress(slab.windows, len(corners))
    slab.finish()
    return labels.finish()


class Largest:
    """The class of the largest score at every voxel of the image."""

    needs_sums = False

    def __init__(self, size: Sequence[int]) -> None:
        self.size, self.labels = tuple(size), torch.empty(0)

    def begin(self, size: Sequence[int], axis: int, margins: Corner) -> None:
        self.axis, self.margins = axis, margins

    def take(self, start: int, scores: Tensor) -> None:
        if not len(self.labels):
            self.labels = torch.empty(self.size, dtype=label_type(len(scores)))
        first = max(start, self.margins[self.axis])
        last = min(start + scores.shape[1 + self.axis], self.margins[self.axis] + self.size[self.axis])
        if first < last:
            inside = [slice(margin, margin + length) for margin, length in zip(self.margins, self.size, strict=True)]
            inside[self.axis] = slice(first - start, last - start)
            found = scores[(slice(None), *inside)].max(0).indices  # five times as fast as argmax
            self.labels.narrow(self.axis, first - self.margins[self.axis], last - first).copy_(found)

    def finish(self) -> Tensor:
        return self.labels


class Slab:
    """The class scores (k, *spatial) of the windows that lie at one place of the sweep; those before it became labels."""

    def __init__(self, size: Sequence[int], window: Sequence[int], axis: int, weight: Tensor, labels: Labels) -> None:
        self.size, self.window, self.axis, self.weight, self.labels = tuple(size), tuple(window), axis, weight, labels
        self.front = 0  # where the slab begins, in voxels of the axis
        self.windows = 0
        self.scores = self.sums = torch.empty(0)

    def add(self, corners: Sequence[Corner], scores: Tensor) -> None:
        """Add the scores (b, k, *window) of windows, which may lie at this place of the sweep or further on."""
        if not torch.stack(scores.aminmax()).isfinite().all():
            # A NaN's largest class is a class like any other: it would hide a broken network behind a low Dice.
            raise RunError("the network's output is not finite: it can't be judged")
        if not self.windows:
            self._allocate(scores.shape[1], scores.device)
        for corner, window_scores in zip(corners, scores.to(self.scores.device), strict=True):
            self._advance(corner[self.axis])
            at = list(corner)
            at[self.axis] = 0
            for total, added in zip(self.scores, window_scores, strict=True):  # one class at a time stays in the cache
                total[box(at, self.window)].addcmul_(added.float(), self.weight)
            if self.labels.needs_sums:
                self.sums[0][box(at, self.window)].add_(self.weight)
        self.windows += len(corners)

    def finish(self) -> None:
        """Let what is left become labels."""
        self._advance(self.size[self.axis])

    def _allocate(self, classes: int, device: torch.device) -> None:
        shape = list(self.size)
        shape[self.axis] = self.window[self.axis]
        # float32, as sums in bfloat16 cost 0.0001 of Dice with a trained UNETR, and float16 overflows at scores of 65504.
        self.scores = torch.zeros(classes, *shape, device=stitching_device(device, 4 * classes * prod(shape)))
        self.weight = self.weight.to(self.scores.device)
        if self.labels.needs_sums:
            self.sums = torch.zeros_like(self.scores[:1])

    def _advance(self, start: int) -> None:
        """Let the slab begin at `start`: what lies before it is done and becomes labels, what lies after it stays."""
        done = start - self.front
        if not done:
            return
        kept = self.window[self.axis] - done
        finished = self.scores.narrow(1 + self.axis, 0, done)
        if self.labels.needs_sums:
            finished.div_(self.sums.narrow(1 + self.axis, 0, done))
        self.labels.take(self.front, finished)
        for total in [*self.scores, *self.sums]:
            # cloned, as the two places of what stays may overlap
            total.narrow(self.axis, 0, kept).copy_(total.narrow(self.axis, done, kept).clone())
            total.narrow(self.axis, kept, done).zero_()
        self.front = start


def label_type(classes: int) -> torch.dtype:
    """The smallest type that holds so many classes."""
    return torch.uint8 if classes <= 256 else torch.uint16


def starts(size: int, window: int, overlap: float) -> list[int]:
    """Where windows begin along an axis, as MONAI places them: the last one ends with the image."""
    step = max(int(window * (1 - overlap)), 1)
    return [min(k * step, size - window) for k in range(ceil((size - window) / step) + 1)]


def box(corner: Sequence[int], size: Sequence[int]) -> tuple[slice, ...]:
    """The index of the voxels of a box."""
    return tuple(slice(start, start + length) for start, length in zip(corner, size, strict=True))


def pad_to(image: Tensor, window: Sequence[int]) -> tuple[Tensor, Corner]:
    """Pad an image (c, *spatial) with zeros to at least the window's size; gives also where the image begins in it."""
    missing = [max(wanted - length, 0) for length, wanted in zip(image.shape[1:], window, strict=True)]
    margins = tuple(voxels // 2 for voxels in missing)
    both_sides = [(before, voxels - before) for before, voxels in zip(margins, missing, strict=True)]
    return functional.pad(image, [side for sides in both_sides[::-1] for side in sides]), margins


def batches(corners: Sequence[Corner], most: int, voxels: int, device: torch.device) -> Iterator[Sequence[Corner]]:
    """Split windows of so many voxels into those of a forward pass."""
    most = at_once(most, voxels, device)
    for start in range(0, len(corners), most):
        yield corners[start : start + most]


def at_once(most: int, voxels: int, device: torch.device) -> int:
    """How many windows of so many voxels go through the network in one forward pass."""
    return min(most, max(MOST_VOXELS_ON_CPU // voxels, 1)) if device.type == "cpu" else most


def stitching_device(device: torch.device, needed: int) -> torch.device:
    """Where so many bytes of class scores are summed: on the network's device, or on the CPU where they would fill a GPU."""
    if device.type != "cuda":
        return device
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # free again, but kept by torch
    return device if needed < (torch.cuda.mem_get_info(device)[0] + unused) // 2 else torch.device("cpu")
