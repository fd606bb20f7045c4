"""Loaders: from the store to batches, with no state but the seed.

Every draw comes from (seed, purpose, epoch, case, crop), so the data of a step is the same for any number of workers,
after a resume in the middle of an epoch and on any number of ranks. Axis letters: b batch, c channel, then space.
"""

import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from medssl.config import Finetune, Percentiles, Shared
from medssl.evaluate import LabelledImage
from medssl.store import Entry, Extent, Store
from transforms.crop import foreground_start, pad_to, random_start
from transforms.prepare import scale_intensity

TRAINING, VALIDATION = 0, 1  # purposes, so that no validation draw repeats a training draw
Item = dict[str, Any]


class Crops(Dataset[Item]):
    """Random crops of a store's cases: {"image": (c, *crop_size) in 0..1, "label"?, "id", "data_hash", views}.

    Item i is crop i % crops_per_case of the case that stands at place i // crops_per_case in an endless row of
    epochs, each a new permutation of the cases.
    """

    def __init__(
        self, store: Store, ids: Sequence[str], settings: Shared, transform: Callable[[Item], Item] | None = None,
        purpose: int = TRAINING,
    ) -> None:  # fmt: skip
        self.store, self.ids, self.settings, self.purpose = store, list(ids), settings, purpose
        self.transform = transform
        self.crops_per_case = settings.crops_per_case if purpose == TRAINING else 1

    def __len__(self) -> int:
        return len(self.ids) * self.crops_per_case

    def __getitem__(self, index: int) -> Item:
        place, crop = divmod(index, self.crops_per_case)
        epoch, position = divmod(place, len(self.ids))
        order = permutation(self.settings.seed, epoch, len(self.ids)) if self.purpose == TRAINING else range(len(self.ids))
        case = int(order[position])
        draws = np.random.SeedSequence([self.settings.seed, self.purpose, epoch, case, crop])
        entry = self.store.entries[self.ids[case]]
        start = self.start(entry, np.random.default_rng(draws))
        item: Item = {"image": load(self.store, entry, self.settings, start), "id": entry.id}
        if entry.label is not None:
            item["label"] = load_label(self.store, entry.label, self.settings, start)
        if self.transform is not None:
            self.transform.set_random_state(seed=int(draws.generate_state(1, np.uint64)[0] >> 2))  # type: ignore[attr-defined]
            item = {key: untracked(value) for key, value in self.transform(item).items()}
        return item | {"data_hash": content_hash(item)}

    def start(self, entry: Entry, random: np.random.Generator) -> NDArray[np.int64]:
        """Draw a crop's first voxel: around the foreground, or around a class when there are labels."""
        classes = sorted(entry.positions)
        if isinstance(self.settings, Finetune):
            objects = [k for k in classes if k > 0]
            background = random.random() >= self.settings.foreground_share or not objects
            classes = [0] if background and 0 in classes else objects
        shape, size = entry.shape, self.settings.crop_size
        if not classes:
            return random_start(shape, size, random)
        positions = self.store.array(entry.positions[int(random.choice(classes))])
        return foreground_start(positions, shape, size, random)


class Steps:
    """The batches of steps start..stop-1 as lists of item numbers; a rank takes its own share of each."""

    def __init__(self, start: int, stop: int, batch_size: int, rank: int = 0, ranks: int = 1) -> None:
        self.start, self.stop, self.batch_size, self.rank, self.ranks = start, stop, batch_size, rank, ranks

    def __len__(self) -> int:
        return max(self.stop - self.start, 0)

    def __iter__(self) -> Iterator[list[int]]:
        share = self.batch_size // self.ranks
        for step in range(self.start, self.stop):
            first = step * self.batch_size + self.rank * share
            yield list(range(first, first + share))


def training_loader(crops: Crops, start: int) -> "DataLoader[Item]":
    """Load the batches of the steps that are left, from step `start` on."""
    settings = crops.settings
    batches = Steps(start, settings.steps, settings.batch_size)
    return DataLoader(crops, batch_sampler=batches, num_workers=settings.workers, pin_memory=torch.cuda.is_available())


def validation_loader(crops: Crops) -> "DataLoader[Item]":
    """Load one fixed crop a case, the same at every validation."""
    return DataLoader(crops, batch_size=crops.settings.batch_size, num_workers=0)


def whole_images(store: Store, ids: Sequence[str], settings: Shared) -> Iterator[LabelledImage]:
    """Give whole prepared cases with their labels, one at a time."""
    for entry in (store.entries[id] for id in ids):
        image = scaled(store.array(entry.image), entry, settings)
        label = store.array(entry.label)[0] if entry.label is not None else np.zeros(entry.shape, np.uint8)
        yield LabelledImage(entry.id, entry.patient, torch.from_numpy(image), torch.from_numpy(label.copy()), entry.spacing)


def load(store: Store, entry: Entry, settings: Shared, start: NDArray[np.int64]) -> Tensor:
    """Read one crop of an image, scaled to 0..1 and padded with 0 where the image is smaller."""
    crop = store.crop(entry.image, start, settings.crop_size)
    return pad_to(torch.from_numpy(scaled(crop, entry, settings)), settings.crop_size)


def load_label(store: Store, extent: Extent, settings: Shared, start: NDArray[np.int64]) -> Tensor:
    """Read the same crop of the label, padded with background."""
    return pad_to(torch.from_numpy(store.crop(extent, start, settings.crop_size)), settings.crop_size)


def scaled(stored: NDArray[Any], entry: Entry, settings: Shared) -> NDArray[np.float32]:
    """Bring stored values to 0..1 by the window or by the volume's own percentiles."""
    window = settings.intensity
    low, high = window.low, window.high
    if isinstance(window, Percentiles):
        low, high = entry.percentile(low), entry.percentile(high)
    # the window in stored units, so that the crop is touched once
    low, high = ((end - entry.intercept) / entry.slope for end in (low, high))
    result: NDArray[np.float32] = np.asarray(scale_intensity(torch.from_numpy(stored.astype(np.float32)), low, high))
    return result


@lru_cache(maxsize=8)
def permutation(seed: int, epoch: int, length: int) -> NDArray[np.int64]:
    """The order of the cases in an epoch."""
    return np.random.default_rng([seed, epoch]).permutation(length)


def content_hash(item: Item) -> str:
    """A checksum over the tensors of an item, to show that two runs saw the same data."""
    checksum = 0
    for key in sorted(item):
        if isinstance(item[key], Tensor):
            checksum = zlib.crc32(item[key].contiguous().numpy().data, checksum)
    return f"{checksum:08x}"


def untracked(value: Any) -> Any:
    """Take MONAI's metadata off a tensor: batches of plain tensors are smaller and faster."""
    return value.as_tensor() if hasattr(value, "as_tensor") else value
