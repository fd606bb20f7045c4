"""Where the views of pre-training are made: by the loader, crop by crop, or on the device, all those of a batch at once.

On the device the loader's processes only draw, and the main process moves crops alone. What is drawn for a crop is the
same in both places, since it comes from the same seed; the noise in a view is only equal in distribution. On the device
a crop's noise is seeded by its `data_hash`, the checksum over crop and draws: it is the same for any number of workers or
ranks, whatever other crops are in the batch.
"""

from collections.abc import Callable

import torch

from medssl.config import Pretrain
from medssl.device import Compute
from medssl.methods.method import Method
from medssl.training import Batch
from transforms.in_batches import BatchViews, Drawn


def views_place(settings: Pretrain, compute: Compute) -> str:
    """Where views are made, in words."""
    return "on the device in batches" if are_on_device(settings, compute) else "by the loader"


def are_on_device(settings: Pretrain, compute: Compute) -> bool:
    """Whether views are made on the device; a CPU makes them faster crop by crop, and has processes for that."""
    return settings.views_on == "device" or (settings.views_on == "auto" and compute.device.type != "cpu")


def loaded_views(settings: Pretrain, compute: Compute, method: Method) -> BatchViews | Drawn:
    """What the loader applies to a crop: the method's views, or only their draws."""
    views = method.views(settings)
    return Drawn(views) if are_on_device(settings, compute) else views


@torch.no_grad()
def with_views(transform: Callable[[Batch], Batch] | None, batch: Batch) -> Batch:
    """A batch on the device with views in the place of draws; one that has its views from the loader, as it is."""
    if not isinstance(transform, Drawn):
        return batch
    return transform.views.of_batch(batch, [int(checksum, 16) for checksum in batch["data_hash"]])
