"""Loaders: from the store to batches, with no state but the seed.

Every draw comes from (seed, purpose, epoch, place, crop), so the data of a step is the same for any number of workers,
after a resume in the middle of an epoch and on any number of ranks. Axis letters: b batch, c channel, then space.
"""

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache, partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate, get_worker_info

from medssl.config import Finetune, Percentiles, Pretrain, Shared
from medssl.evaluate import LabelledImage
from medssl.problems import SampleError, first_line, wants_memory
from medssl.processes import dealt
from medssl.ranks import rank, world_size
from medssl.signals import deafen, give_way
from medssl.splits import Case
from medssl.store import Entry, Extent, Store
from transforms.crop import foreground_start, pad_to, random_start
from transforms.memory import Recycled
from transforms.prepare import scale_intensity

PRIME = 4093
TRAINING, VALIDATION = 0, 1  # purposes, so that no validation draw repeats a training draw
Item = dict[str, Any]
CROPS = Recycled()  # fresh pages under every crop and batch would cost more than the scaling
BATCHES: defaultdict[str, Recycled] = defaultdict(partial(Recycled, limit=4))


class Crops(Dataset[Item]):
    """Random crops of a store's cases: {"image": (c, *crop_size) in 0..1, "label"?, "class"?, "number"?, "id", "data_hash"}.

    Item i is crop i % crops_per_case of the case that stands at place i // crops_per_case in an endless row of
    epochs. An epoch has as many places as cases, in an order of its own; cases of more weight come more often.
    """

    def __init__(
        self, store: Store, cases: Sequence[Case], settings: Shared, transform: Callable[[Item], Item] | None = None,
        purpose: int = TRAINING,
    ) -> None:  # fmt: skip
        self.store, self.cases, self.settings, self.purpose = store, list(cases), settings, purpose
        self.transform = transform
        self.crops_per_case = settings.crops_per_case if purpose == TRAINING else 1
        self.rarity = rarity(store, self.cases) if isinstance(settings, Finetune) and settings.balance_classes else {}
        self.weights = np.array([weight_of(case, store, self.rarity) for case in self.cases])
        self.orders: dict[int, NDArray[np.int64]] = {}

    def __len__(self) -> int:
        return len(self.cases) * self.crops_per_case

    def __getitem__(self, index: int) -> Item:
        return self.numbered(index)

    def __getitems__(self, indices: Sequence[int]) -> list[Item]:
        """Read a batch's items, their crops side by side in memory that `collate` takes as it is: a copy less."""
        channels = self.store.entries[self.cases[0].id].image.shape[0]
        crops = BATCHES["image"].empty_like(torch.empty(1).expand(len(indices), channels, *self.settings.read_size))
        return [self.numbered(index, crop) for index, crop in zip(indices, crops, strict=True)]

    def numbered(self, index: int, out: Tensor | None = None) -> Item:
        """Item `index`, its crop in `out` where it fits."""
        place, crop = divmod(index, self.crops_per_case)
        epoch, position = divmod(place, len(self.cases))
        case = self.cases[int(self.order(epoch)[position]) if self.purpose == TRAINING else position]
        draws = np.random.SeedSequence([self.settings.seed, self.purpose, epoch, position, crop])
        with naming(case):
            return self.item(case, self.store.entries[case.id], draws, out)

    def order(self, epoch: int) -> NDArray[np.int64]:
        """The numbers of the cases at an epoch's places, drawn once an epoch."""
        if epoch not in self.orders:
            self.orders = {epoch: epoch_order(self.settings.seed, epoch, self.weights)}
        return self.orders[epoch]

    def item(self, case: Case, entry: Entry, draws: np.random.SeedSequence, out: Tensor | None = None) -> Item:
        """Read one crop, scale it and transform it by these draws; `read_s` and `views_s` say how long both took."""
        began = time.perf_counter()
        start = self.start(entry, np.random.default_rng(draws))
        image = load(self.store, entry, self.settings, start, out)
        item: Item = {"image": image, "id": entry.id, "patient": entry.patient}
        if self.settings.reads_classes and isinstance(case.label, int):
            item["class"] = torch.tensor(case.label)
        if isinstance(case.label, float) and isinstance(self.settings, Finetune):
            item["number"] = torch.tensor(case.label, dtype=torch.float64)  # float32 is too coarse for dates and such
        if entry.label is not None and isinstance(self.settings, Finetune):
            item["label"] = load_label(self.store, entry.label, self.settings, start)
        read = time.perf_counter()
        if self.transform is not None:
            self.transform.set_random_state(seed=int(draws.generate_state(1, np.uint64)[0] >> 2))  # type: ignore[attr-defined]
            item = {key: untracked(value) for key, value in self.transform(item).items()}
        item |= {"data_hash": item_hash(item)}
        return item | {"read_s": read - began, "views_s": time.perf_counter() - read}

    def start(self, entry: Entry, random: np.random.Generator) -> NDArray[np.int64]:
        """Draw a crop's first voxel: in pre-training around the foreground or anywhere, in fine-tuning around a class."""
        centres, places = entry.foreground, entry.positions
        if isinstance(self.settings, Finetune) and places:
            objects = [k for k in places if k > 0]
            background = random.random() >= self.settings.foreground_share or not objects
            classes = [0] if background and 0 in places else objects
            shares = np.array([self.rarity.get(k, 1.0) for k in classes])
            centres = places[int(random.choice(classes, p=shares / shares.sum()))]
        shape, size = entry.shape, self.settings.read_size
        if centres is None or (isinstance(self.settings, Pretrain) and self.settings.crops == "anywhere"):
            return random_start(shape, size, random)
        return foreground_start(self.store.array(centres), shape, size, random)


class Steps:
    """The batches of steps start..stop-1 as lists of item numbers; a rank takes its own share of each part of a batch.

    So part k of a step is the same crops on any number of ranks. `batch_size` is a multiple of parts * ranks.
    """

    def __init__(self, start: int, stop: int, batch_size: int, rank: int = 0, ranks: int = 1, parts: int = 1) -> None:
        self.start, self.stop, self.batch_size = start, stop, batch_size
        self.rank, self.ranks, self.parts = rank, ranks, parts

    def __len__(self) -> int:
        return max(self.stop - self.start, 0)

    def __iter__(self) -> Iterator[list[int]]:
        part = self.batch_size // self.parts
        share = part // self.ranks
        for step in range(self.start, self.stop):
            first = step * self.batch_size + self.rank * share
            yield [first + k * part + item for k in range(self.parts) for item in range(share)]


def training_loader(crops: Crops, start: int) -> "DataLoader[Item]":
    """Load the batches of the steps that are left, from step `start` on."""
    settings = crops.settings
    batches = Steps(start, settings.steps, settings.batch_size, rank(), world_size(), settings.accumulate)
    pinned = torch.cuda.is_available()
    return DataLoader(
        crops, batch_sampler=batches, num_workers=settings.workers, pin_memory=pinned, collate_fn=collate,
        worker_init_fn=deafen,
    )  # fmt: skip


def validation_loader(crops: Crops, most: int | None = None) -> "DataLoader[Item]":
    """Load one fixed crop a case, the same at every validation, in batches of batch_size or a few more, never of one.

    A rank loads the batches `dealt` to it, of all or of the first that hold `most` crops.
    """
    batches = np.array_split(np.arange(len(crops)), max(len(crops) // crops.settings.batch_size, 1))
    wanted = [batch.tolist() for batch in batches if most is None or batch[0] < most]
    return DataLoader(crops, batch_sampler=dealt(wanted), num_workers=0, collate_fn=collate)


def collate(items: Sequence[Item]) -> Item:
    """Make one batch of items: tensors stacked, the rest in lists."""
    batch: Item = {}
    for key, first in items[0].items():
        values = [item[key] for item in items]
        if isinstance(first, Tensor) and get_worker_info() is None:
            shape = first.expand(len(values), *first.shape)
            batch[key] = joined(values) if side_by_side(values) else torch.stack(values, out=BATCHES[key].empty_like(shape))
        elif isinstance(first, float):  # times, which are no data
            batch[key] = values
        else:
            batch[key] = default_collate(values)  # in a worker it stacks in memory shared with the main process
    return batch


def side_by_side(tensors: Sequence[Tensor]) -> bool:
    """Whether tensors lie one after the other in one piece of memory."""
    first = tensors[0]
    storages = {x.untyped_storage().data_ptr() for x in tensors}
    places = [(x.data_ptr(), x.shape, x.dtype, x.is_contiguous()) for x in tensors]
    wanted = [(first.data_ptr() + k * first.nbytes, first.shape, first.dtype, True) for k in range(len(tensors))]
    return len(storages) == 1 and places == wanted


def joined(tensors: Sequence[Tensor]) -> Tensor:
    """Tensors that lie side by side as one, on the same memory."""
    first = tensors[0]
    return first.as_strided((len(tensors), *first.shape), (first.numel(), *first.stride()))


def whole_images(store: Store, cases: Sequence[Case], settings: Shared) -> Iterator[LabelledImage]:
    """Give whole prepared cases with their labels, one at a time."""
    for case in cases:
        give_way()
        with naming(case):
            entry = store.entries[case.id]
            image = scaled(torch.from_numpy(store.array(entry.image)), entry, settings)
            label = np.zeros(entry.shape, np.uint8) if entry.label is None else store.array(entry.label)[0].copy()
        yield LabelledImage(entry.id, entry.patient, image, torch.from_numpy(label), entry.spacing)


@contextmanager
def naming(case: Case) -> Iterator[None]:
    """Within the block an error becomes one that names the case; for want of memory no case is to blame."""
    try:
        yield
    except Exception as error:
        if wants_memory(error):
            raise
        file = case.image[0] if case.image else "made up"
        raise SampleError(f"case {case.id} ({file}): {first_line(error)}") from error


def load(store: Store, entry: Entry, settings: Shared, start: NDArray[np.int64], out: Tensor | None = None) -> Tensor:
    """Read one crop of an image, scaled to 0..1 and padded with 0 where the image is smaller; a slice loses its last axis.

    It is in `out` where it has that shape without padding, otherwise in memory of its own.
    """
    crop = store.view(entry.image, start.tolist(), settings.read_size)
    if out is None or crop.shape != out.shape:
        out = CROPS.empty_like(crop, torch.float32)
    padded = pad_to(scaled(crop, entry, settings, out), settings.read_size)
    return padded if settings.image_dims == settings.spatial_dims else padded.squeeze(-1)


def load_label(store: Store, extent: Extent, settings: Shared, start: NDArray[np.int64]) -> Tensor:
    """Read the same crop of the label, padded with background."""
    return pad_to(store.view(extent, start.tolist(), settings.crop_size).clone(), settings.crop_size)


def scaled(stored: Tensor, entry: Entry, settings: Shared, out: Tensor | None = None) -> Tensor:
    """Bring stored values to 0..1 by the window or by each channel's percentiles of the whole volume, in `out` or new.

    A channel that the case lacks is 0.
    """
    window = settings.intensity
    limits = np.array([[window.low], [window.high]])  # (2, c or 1)
    if isinstance(window, Percentiles):
        limits = np.stack([entry.percentile(window.low), entry.percentile(window.high)])
    # the window in stored units, so that the crop is touched once
    low, high = torch.from_numpy((limits - entry.intercept) / entry.slope)
    image = scale_intensity(stored, low, high, out)
    for channel in entry.missing:  # whatever the window makes of a stored 0
        image[channel] = 0
    return image


def rarity(store: Store, cases: Sequence[Case]) -> dict[int, float]:
    """For each class one over the number of cases that have it."""
    counts = Counter(k for case in cases for k in classes_of(case, store))
    return {k: 1 / count for k, count in counts.items()}


def classes_of(case: Case, store: Store) -> list[int]:
    """The class of a case, or the classes of the objects in its label."""
    if isinstance(case.label, int):
        return [case.label]
    return [k for k in store.entries[case.id].positions if k > 0]


def weight_of(case: Case, store: Store, rarity: Mapping[int, float]) -> float:
    """How often a case is drawn: by its own weight and, with classes balanced, by how rare its classes are."""
    return case.weight * (sum(rarity[k] for k in classes_of(case, store)) if rarity else 1.0)


def epoch_order(seed: int, epoch: int, weights: NDArray[np.float64]) -> NDArray[np.int64]:
    """Give an epoch's places to cases in proportion to their weights, rounded up or down, in random order.

    Systematic sampling: equal steps over the cumulative weights from a random start. With equal weights every case
    has one place.
    """
    random = np.random.default_rng([seed, epoch])
    length = len(weights)
    if np.all(weights == weights[0]):
        return random.permutation(length)
    ends = np.cumsum(weights) * (length / np.sum(weights))
    chosen = np.searchsorted(ends, np.arange(length) + random.random(), side="right").clip(max=length - 1)
    return random.permutation(chosen)


def item_hash(item: Item) -> str:
    """A checksum over the tensors of an item, to show that two runs saw the same data.

    The words of a tensor are folded to PRIME sums, which are multiplied by fixed random odd numbers and added modulo
    2^64: much faster than a CRC. Hardly a tensor has an axis whose stride is PRIME words, so turns and shifts count.
    """
    checksum = 0
    for key in sorted(item):
        if isinstance(item[key], Tensor):
            raw = item[key].contiguous().numpy().reshape(-1).view(np.uint8)
            words = (np.pad(raw, (0, -len(raw) % 8)) if len(raw) % 8 else raw).view(np.uint64)
            whole = len(words) // PRIME * PRIME
            folded = words[:whole].reshape(-1, PRIME).sum(0)
            folded[: len(words) - whole] += words[whole:]
            checksum = (checksum * 31 + int((folded * multipliers()).sum())) % 2**64
    return f"{checksum:016x}"


@lru_cache
def multipliers() -> NDArray[np.uint64]:
    """Fixed random odd numbers."""
    return np.random.default_rng(0).integers(0, 2**63, PRIME, np.uint64) * np.uint64(2) + np.uint64(1)


def untracked(value: Any) -> Any:
    """Take MONAI's metadata off a tensor: batches of plain tensors are smaller and faster."""
    return value.as_tensor() if hasattr(value, "as_tensor") else value
