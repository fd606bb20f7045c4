"""In-painting, out-painting and pixel shuffling: the corruptions of MONAI's self-supervised ViT autoencoder.

They follow ``RandCoarseDropout`` and ``RandCoarseShuffle`` of MONAI: boxes that lie inside the crop, sizes drawn for
each axis, noise uniform between the crop's minimum and maximum, every channel shuffled separately. The defaults are
those of its tutorial for 96^3 crops. Context encoders: Pathak et al. 2016, arXiv:1604.07379; shuffling:
arXiv:1707.07103.

Each transform draws boxes and one seed; a plain function then applies them to a tensor on any device. Axes: c d h w.
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, RandomizableTransform
from numpy.typing import NDArray
from torch import Tensor

from transforms.seeding import Seeded

Boxes = NDArray[np.int64]  # (box, 2, axis): for each box its first corner and the corner one past its last voxel
Limits = tuple[float, float]
Size = int | Sequence[int]  # voxels, one number or one for each spatial axis


def draw_boxes(
    rng: np.random.RandomState,
    shape: Sequence[int],
    holes: int,
    min_size: Size,
    max_size: Size,
    *,
    growing: bool = False,
) -> Boxes:
    """Draw ``holes`` boxes inside a volume of ``shape`` (spatial axes only); they may overlap.

    A side is uniform over the integers ``min_size..max_size`` of its axis, then clipped to the volume's; the position
    is uniform over those where the whole box lies inside. ``growing`` draws each side between that of the box before
    and ``max_size``, as MONAI does: its loop overwrites the lower bound, so that six boxes of 5..32 are 27 wide on
    average and not 18.5. Raises ValueError if a size fits neither one axis nor all.
    """
    low, high = list(_per_axis(min_size, len(shape))), _per_axis(max_size, len(shape))
    boxes = []
    for draws in rng.random_sample((holes, len(shape), 2)).tolist():  # plain numbers: so few are slower in NumPy
        start, stop = [], []
        for axis, (for_side, for_start) in enumerate(draws):
            side = low[axis] + int(for_side * (high[axis] - low[axis] + 1))
            if growing:
                low[axis] = side
            side = min(side, shape[axis])
            start.append(int(for_start * (shape[axis] - side + 1)))
            stop.append(start[-1] + side)
        boxes.append((start, stop))
    return np.array(boxes, dtype=np.int64)


def in_paint(x: Tensor, boxes: Boxes, seed: int, limits: Limits | None = None) -> Tensor:
    """A copy of ``x`` (c, *spatial) with noise inside ``boxes``, drawn for each voxel and channel on its own.

    The noise is uniform between ``limits``, by default the minimum and maximum of ``x``.
    """
    out = x.clone()
    sizes = len(x) * (boxes[:, 1] - boxes[:, 0]).prod(axis=1)
    noise, voxels, start = _sliced(uniform_noise(int(sizes.sum()), x, seed, limits)), _sliced(out), 0
    for region, size in zip(_regions(boxes), sizes.tolist(), strict=True):
        hole = voxels[region]
        hole[...] = noise[start : start + size].reshape(hole.shape)
        start += size
    return out


def out_paint(x: Tensor, boxes: Boxes, seed: int, limits: Limits | None = None) -> Tensor:
    """A copy of ``x`` (c, *spatial) that keeps what is inside ``boxes`` and has such noise everywhere else."""
    out = uniform_noise(x.numel(), x, seed, limits).view(x.shape)
    voxels, kept = _sliced(out), _sliced(x)
    for region in _regions(boxes):
        voxels[region] = kept[region]
    return out


def shuffle_boxes(x: Tensor, boxes: Boxes, seed: int, out: Tensor | None = None) -> Tensor:
    """A copy of ``x`` (c, *spatial) with the voxels inside each box permuted, or, with ``out=x``, ``x`` itself so.

    Every channel has its own permutation; where boxes overlap, a later one permutes what the earlier ones left.
    """
    out = x.clone() if out is None else out.copy_(x)
    voxels, generator = _sliced(out), torch.Generator(x.device).manual_seed(seed)
    for region in _regions(boxes):
        for channel in voxels[region]:
            row = channel.reshape(-1)
            order = torch.randperm(len(row), generator=generator, device=x.device)
            channel[...] = row[_sliced(order)].reshape(channel.shape)
    return out


def limits_of(x: Tensor) -> Limits:
    """The minimum and maximum of ``x``."""
    low, high = x.aminmax()
    return float(low), float(high)


def uniform_noise(n: int, x: Tensor, seed: int, limits: Limits | None = None) -> Tensor:
    """``n`` values uniform between ``limits`` (by default those of ``x``), of the type of ``x`` and on its device.

    On the CPU they take 65536 levels: four from each 64-bit word of SFC64 (its raw stream, the same in every NumPy).
    That takes a quarter of the time of ``torch.rand``, and out-painting is mostly noise.
    """
    low, high = limits_of(x) if limits is None else limits
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    if x.device.type == "cpu":
        step = (high - low) / 2**16
        centre = torch.tensor((low + high + step) / 2, dtype=dtype)  # levels are -2^15..2^15 - 1, so half a step more
        words = np.random.SFC64(seed).random_raw(-(-n // 4))
        noise = torch.from_numpy(words.view(np.int16))[:n].to(dtype)
        torch.add(centre, noise, alpha=step, out=noise)
    else:
        generator = torch.Generator(x.device).manual_seed(seed)
        noise = torch.rand(n, generator=generator, device=x.device, dtype=dtype).mul_(high - low).add_(low)
    if high - low < max(abs(low), abs(high)) / 16:  # only then can rounding leave the range
        noise.clamp_(low, high)
    return noise.to(x.dtype)


class _RandBoxes(Seeded, RandomizableTransform, MapTransform):  # type: ignore[misc]
    """Draw boxes and a seed, then apply ``corrupt`` to each key.

    All keys share the boxes, so they need equal spatial shapes; the noise or order in them differs from key to key,
    as in MONAI. Items are tensors or arrays (c, *spatial); arrays become tensors, a ``MetaTensor`` stays one. Nothing
    is written into an input; with probability ``1 - prob`` it is passed on as it is.
    """

    def __init__(
        self,
        keys: KeysCollection,
        prob: float,
        holes: int,
        min_size: Size,
        max_size: Size,
        *,
        growing: bool = False,
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        RandomizableTransform.__init__(self, prob)
        if holes < 1:
            raise ValueError(f"holes: expected at least 1, found {holes}")
        if np.less(min_size, 1).any() or np.less(max_size, min_size).any():
            raise ValueError(f"sizes: expected 1 <= min_size <= max_size, found {min_size} and {max_size}")
        self.holes, self.min_size, self.max_size, self.growing = holes, min_size, max_size, growing
        self.boxes: Boxes = np.zeros((0, 2, 0), np.int64)
        self.seed = 0

    def randomize(self, shape: Sequence[int]) -> None:
        """Draw whether to corrupt, the boxes for a crop of ``shape`` (spatial axes) and the seed of the noise."""
        super().randomize(None)
        if self._do_transform:
            self.boxes = draw_boxes(self.R, shape, self.holes, self.min_size, self.max_size, growing=self.growing)
            self.seed = int(self.R.random_sample() * 2**53)

    def corrupt(self, x: Tensor, seed: int) -> Tensor:
        """Apply the plain function of this transform to what was drawn."""
        raise NotImplementedError

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        out = dict(data)
        crops = {key: torch.as_tensor(out[key]) for key in self.key_iterator(out)}
        shapes = {tuple(crop.shape[1:]) for crop in crops.values()}
        if len(shapes) > 1:
            raise ValueError(f"{', '.join(map(str, crops))}: expected equal spatial shapes, found {sorted(shapes)}")
        for shape in shapes:
            self.randomize(shape)
        for number, (key, crop) in enumerate(crops.items()):
            out[key] = self._corrupted(crop, self.seed + number) if self._do_transform else crop
        return out

    def _corrupted(self, crop: Tensor, seed: int) -> Tensor:
        if not isinstance(crop, MetaTensor):
            return self.corrupt(crop, seed)
        # a MetaTensor checks its metadata in every operation, some 50 of them here
        corrupted: Tensor = MetaTensor(self.corrupt(crop.as_tensor(), seed)).copy_meta_from(crop)
        return corrupted


class RandInPaintd(_RandBoxes):
    """Replace boxes of the crop by noise, uniform between its minimum and maximum."""

    limits: Limits | None = None  # of the noise, for one who knows them already

    def __init__(
        self,
        keys: KeysCollection,
        prob: float = 1.0,
        holes: int = 6,
        min_size: Size = 5,
        max_size: Size = 32,
        *,
        growing: bool = False,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, prob, holes, min_size, max_size, growing=growing, allow_missing_keys=allow_missing_keys)

    def corrupt(self, x: Tensor, seed: int) -> Tensor:
        return in_paint(x, self.boxes, seed, self.limits)


class RandOutPaintd(_RandBoxes):
    """Keep boxes of the crop and replace the rest by noise, uniform between its minimum and maximum."""

    limits: Limits | None = None  # of the noise, for one who knows them already

    def __init__(
        self,
        keys: KeysCollection,
        prob: float = 1.0,
        holes: int = 6,
        min_size: Size = 20,
        max_size: Size = 64,
        *,
        growing: bool = False,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, prob, holes, min_size, max_size, growing=growing, allow_missing_keys=allow_missing_keys)

    def corrupt(self, x: Tensor, seed: int) -> Tensor:
        return out_paint(x, self.boxes, seed, self.limits)


class RandPixelShuffled(_RandBoxes):
    """Shuffle the voxels inside boxes of the crop, each channel on its own."""

    def __init__(
        self,
        keys: KeysCollection,
        prob: float = 1.0,
        holes: int = 10,
        min_size: Size = 8,
        max_size: Size = 8,
        *,
        growing: bool = False,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, prob, holes, min_size, max_size, growing=growing, allow_missing_keys=allow_missing_keys)

    def corrupt(self, x: Tensor, seed: int) -> Tensor:
        return shuffle_boxes(x, self.boxes, seed)


def _per_axis(size: Size, axes: int) -> Sequence[int]:
    sizes = size if isinstance(size, Sequence) else [size] * axes
    if len(sizes) != axes:
        raise ValueError(f"size: expected one number or {axes}, one for each spatial axis, found {size}")
    return sizes


def _regions(boxes: Boxes) -> list[tuple[slice, ...]]:
    return [(slice(None), *map(slice, starts, stops)) for starts, stops in boxes.tolist()]


def _sliced(x: Tensor) -> Any:
    """What to take boxes of: on the CPU a NumPy view of the same memory, whose slices cost a tenth of a tensor's."""
    if x.device.type != "cpu":
        return x
    # as integers of the same width, since NumPy has no bfloat16
    return x.view({1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[x.element_size()]).numpy()
