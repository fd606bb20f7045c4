"""In-painting, out-painting and pixel shuffling: the corruptions of MONAI's self-supervised ViT autoencoder.

They follow ``RandCoarseDropout`` and ``RandCoarseShuffle`` of MONAI: boxes that lie inside the crop, sizes drawn for
each axis, noise uniform between the crop's minimum and maximum, every channel shuffled separately. The defaults are
those of its tutorial for 96^3 crops. Context encoders: Pathak et al. 2016, arXiv:1604.07379; shuffling:
arXiv:1707.07103.

Each transform draws boxes and one seed; a plain function then applies them to a tensor on any device. Axes: c d h w.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

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
Number = TypeVar("Number", int, float)
Size = int | Sequence[int]  # voxels, one number or one for each spatial axis


@dataclass(frozen=True)
class BoxLaw:
    """How boxes are drawn: their number and the range of their sides.

    A side is uniform over the integers ``min_size..max_size`` of its axis, then clipped to the crop's; the position is
    uniform over those where the whole box lies inside. ``growing`` draws each side between that of the box before and
    ``max_size``, as MONAI does: its loop overwrites the lower bound, so that six boxes of 5..32 are 27 wide on average
    and not 18.5. Raises ValueError for an empty range.
    """

    holes: int
    min_size: Size
    max_size: Size
    growing: bool = False

    def __post_init__(self) -> None:
        if self.holes < 1:
            raise ValueError(f"holes: expected at least 1, found {self.holes}")
        if np.less(self.min_size, 1).any() or np.less(self.max_size, self.min_size).any():
            raise ValueError(f"sizes: expected 1 <= min_size <= max_size, found {self.min_size} and {self.max_size}")

    def draw(self, rng: np.random.RandomState, shape: Sequence[int]) -> Boxes:
        """Draw boxes, which may overlap, inside a crop of ``shape`` (spatial axes only).

        Raises ValueError if the sizes are neither one number nor one for each axis.
        """
        low, high = list(per_axis(self.min_size, len(shape), "min_size")), per_axis(self.max_size, len(shape), "max_size")
        boxes = []
        for draws in rng.random_sample((self.holes, len(shape), 2)).tolist():  # plain numbers: so few are slow in NumPy
            start, stop = [], []
            for axis, (for_side, for_start) in enumerate(draws):
                side = low[axis] + int(for_side * (high[axis] - low[axis] + 1))
                if self.growing:
                    low[axis] = side
                side = min(side, shape[axis])
                start.append(int(for_start * (shape[axis] - side + 1)))
                stop.append(start[-1] + side)
            boxes.append((start, stop))
        return np.array(boxes, dtype=np.int64)


def per_axis(value: Number | Sequence[Number], axes: int, name: str) -> Sequence[Number]:
    """``value`` for each of ``axes``; raises ValueError with ``name`` for another number of values."""
    values = value if isinstance(value, Sequence) else [value] * axes
    if len(values) != axes:
        raise ValueError(f"{name}: expected one number or {axes}, one for each spatial axis, found {value}")
    return values


def draw_seed(rng: np.random.RandomState) -> int:
    """A seed of 53 bits."""
    return int(rng.random_sample() * 2**53)


def in_paint(x: Tensor, boxes: Boxes, seed: int, *, limits: Limits | None = None, out: Tensor | None = None) -> Tensor:
    """A copy of ``x`` (c, *spatial) with noise inside ``boxes``, drawn for each voxel and channel on its own.

    The noise is uniform between ``limits``, by default the minimum and maximum of ``x``. ``out`` takes the copy.
    """
    out = x.clone() if out is None else out.copy_(x)
    sizes = len(x) * (boxes[:, 1] - boxes[:, 0]).prod(axis=1)
    noise = _sliced(uniform_noise(x.new_empty(int(sizes.sum())), limits or limits_of(x), seed))
    voxels, start = _sliced(out), 0
    for region, size in zip(_regions(boxes), sizes.tolist(), strict=True):
        hole = voxels[region]
        hole[...] = noise[start : start + size].reshape(hole.shape)
        start += size
    return out


def out_paint(x: Tensor, boxes: Boxes, seed: int, *, limits: Limits | None = None, out: Tensor | None = None) -> Tensor:
    """A copy of ``x`` (c, *spatial) that keeps what is inside ``boxes`` and has noise, as above, everywhere else."""
    out = uniform_noise(torch.empty_like(x) if out is None else out, limits or limits_of(x), seed)
    voxels, kept = _sliced(out), _sliced(x)
    for region in _regions(boxes):
        voxels[region] = kept[region]
    return out


def shuffle_boxes(x: Tensor, boxes: Boxes, seed: int, *, out: Tensor | None = None) -> Tensor:
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


def uniform_noise(out: Tensor, limits: Limits, seed: int) -> Tensor:
    """Fill ``out``, of any type and on any device, with noise uniform between ``limits``.

    On the CPU it takes 65536 levels: four from each 64-bit word of SFC64 (its raw stream, the same in every NumPy).
    That takes a quarter of the time of ``torch.rand``, and out-painting is mostly noise.
    """
    low, high = limits
    floating = out.dtype in (torch.float32, torch.float64) and out.is_contiguous()
    noise = out.view(-1) if floating else torch.empty(out.numel(), device=out.device)
    if out.device.type == "cpu":
        step = (high - low) / 2**16
        centre = torch.tensor((low + high + step) / 2, dtype=noise.dtype)  # levels are -2^15..2^15 - 1: half a step more
        words = np.random.SFC64(seed).random_raw(-(-len(noise) // 4))
        noise.copy_(torch.from_numpy(words.view(np.int16))[: len(noise)])
        torch.add(centre, noise, alpha=step, out=noise)
    else:
        noise.uniform_(generator=torch.Generator(out.device).manual_seed(seed)).mul_(high - low).add_(low)
    if high - low < max(abs(low), abs(high)) / 16:  # only then can rounding leave the range
        noise.clamp_(low, high)
    return out if floating else out.copy_(noise.view(out.shape))


class _RandBoxes(Seeded, RandomizableTransform, MapTransform):  # type: ignore[misc]
    """Draw boxes and a seed, then apply ``corrupt`` to each key.

    All keys share the boxes, so they need equal spatial shapes; the noise or order in them differs from key to key,
    as in MONAI. Items are tensors or arrays (c, *spatial); arrays become tensors, a ``MetaTensor`` stays one. Nothing
    is written into an input; with probability ``1 - prob`` it is passed on as it is.
    """

    corrupt: Callable[[Tensor, Boxes, int], Tensor]

    def __init__(self, keys: KeysCollection, prob: float, law: BoxLaw, allow_missing_keys: bool) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        RandomizableTransform.__init__(self, prob)
        self.law = law
        self.boxes: Boxes = np.zeros((0, 2, 0), np.int64)
        self.seed = 0

    def randomize(self, shape: Sequence[int]) -> None:
        """Draw whether to corrupt, the boxes for a crop of ``shape`` (spatial axes) and the seed of the noise."""
        super().randomize(None)
        if self._do_transform:
            self.boxes, self.seed = self.law.draw(self.R, shape), draw_seed(self.R)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        out = dict(data)
        crops = {key: torch.as_tensor(out[key]) for key in self.key_iterator(out)}
        shapes = {tuple(crop.shape[1:]) for crop in crops.values()}
        if len(shapes) > 1:
            raise ValueError(f"{', '.join(map(str, crops))}: expected equal spatial shapes, found {sorted(shapes)}")
        for shape in shapes:
            self.randomize(shape)
        for number, (key, crop) in enumerate(crops.items()):
            corrupted = self.corrupt(plain(crop), self.boxes, self.seed + number) if self._do_transform else crop
            out[key] = with_metadata(corrupted, crop)
        return out


def plain(x: Tensor) -> Tensor:
    """``x`` without metadata: a ``MetaTensor`` checks its own in every operation, and there are dozens of them here."""
    return x.as_tensor() if isinstance(x, MetaTensor) else x


def with_metadata(x: Tensor, source: Tensor) -> Tensor:
    """``x`` with the metadata of ``source``, if that has any."""
    if not isinstance(source, MetaTensor) or x is source:
        return x
    tracked: Tensor = MetaTensor(x).copy_meta_from(source)
    return tracked


class RandInPaintd(_RandBoxes):
    """Replace boxes of the crop by noise, uniform between its minimum and maximum."""

    corrupt = staticmethod(in_paint)

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
        super().__init__(keys, prob, BoxLaw(holes, min_size, max_size, growing), allow_missing_keys)


class RandOutPaintd(_RandBoxes):
    """Keep boxes of the crop and replace the rest by noise, uniform between its minimum and maximum."""

    corrupt = staticmethod(out_paint)

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
        super().__init__(keys, prob, BoxLaw(holes, min_size, max_size, growing), allow_missing_keys)


class RandPixelShuffled(_RandBoxes):
    """Shuffle the voxels inside boxes of the crop, each channel on its own."""

    corrupt = staticmethod(shuffle_boxes)

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
        super().__init__(keys, prob, BoxLaw(holes, min_size, max_size, growing), allow_missing_keys)


def _regions(boxes: Boxes) -> list[tuple[slice, ...]]:
    return [(slice(None), *map(slice, starts, stops)) for starts, stops in boxes.tolist()]


def _sliced(x: Tensor) -> Any:
    """What to take boxes of: on the CPU a NumPy view of the same memory, whose slices cost a tenth of a tensor's."""
    if x.device.type != "cpu":
        return x
    # as integers of the same width, since NumPy has no bfloat16
    return x.view({1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[x.element_size()]).numpy()
