"""Segmentation: UNETR over a transformer, a U-Net or FCN over a ResNet, or a U-Net from scratch.

Dice and cross-entropy; whole images in sliding windows.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from monai.losses import DiceCELoss
from torch import Tensor, nn
from tqdm import tqdm

from medssl.atomic import atomic_path, write_atomically
from medssl.config import Finetune, UNetSettings
from medssl.device import Compute
from medssl.evaluate import evaluate_segmentation, mean_dice, prediction_arrays
from medssl.loaders import whole_images
from medssl.losses import at_least_float32
from medssl.plan import build_encoder, start_encoder
from medssl.processes import dealt
from medssl.run_folder import RunFolder
from medssl.scores.voxels import scores_csv, summarise
from medssl.splits import Split
from medssl.store import Store
from medssl.training import Batch
from networks import builder
from networks.complete import segmenter
from networks.features import Encoder
from networks.transfer import Report
from transforms.augment import augment_segmentation


class Segmentation:
    """A class for every voxel, validated by Dice, judged by Dice, surface Dice, HD95 and volume."""

    watched = "val_dice"
    higher_is_better = True

    def __init__(self, settings: Finetune, split: Split) -> None:
        self.settings, self.split = settings, split
        self.network, self.encoder, self.loaded = build_segmenter(settings, split)
        self.criterion = DiceCELoss(to_onehot_y=True, softmax=True, include_background=True)

    def warnings(self) -> list[str]:
        return []

    def augment(self) -> Callable[[Batch], Batch]:
        return augment_segmentation(spatial_dims=self.settings.spatial_dims, **self.settings.augment.model_dump())

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        return {"loss": self.criterion(at_least_float32(self.network(batch["image"])), batch["label"].long())}

    def validate(self, store: Store, compute: Compute) -> dict[str, float]:
        images = whole_images(store, dealt(self.split.part("validation")), self.settings)
        return {"val_dice": mean_dice(self.network, images, self.split.labels, *self.windows(compute))}

    def judge(self, run: RunFolder, store: Store, compute: Compute) -> dict[str, Any]:
        settings, cases = self.settings, self.split.part(self.settings.judge)
        with tqdm(total=len(cases), desc=f"judging {settings.judge}", unit="case", disable=None) as bar:
            result = evaluate_segmentation(
                self.network,
                whole_images(store, cases, settings),
                self.split.labels,
                *self.windows(compute),
                tolerance=settings.tolerance,
                progress=lambda case, dice: bar.update() and None,
            )
        write_atomically(run.path("predictions.csv"), scores_csv(result.rows))
        with atomic_path(run.path("predictions.npz")) as temporary:
            np.savez_compressed(temporary, **prediction_arrays(result.kept))
        return summarise(result.rows) | {"tolerance": settings.tolerance, "volume_unit": f"mm{settings.spatial_dims}"}

    def headline(self, scores: dict[str, Any]) -> str:
        return f"Dice {'none could be scored' if scores['dice'] is None else format(scores['dice'], '.4f')}"

    def windows(self, compute: Compute) -> tuple[list[int], float, int, torch.dtype | None]:
        """How whole images are predicted: window, overlap, windows a forward pass, precision."""
        settings = self.settings
        return settings.crop_size, settings.overlap, settings.part_size, compute.autocast


def build_segmenter(settings: Finetune, split: Split) -> tuple[nn.Module, Encoder | None, Report | None]:
    """Build the network, its encoder started from `encoder=`; gives both and what was loaded."""
    classes, network = len(split.labels), settings.network
    if isinstance(network, UNetSettings):
        torch.manual_seed(settings.seed)
        return builder(network.name)(settings.spatial_dims, split.channels, classes, network.channels), None, None
    encoder = build_encoder(settings, split.channels)
    decoded = segmenter(encoder, classes, network.feature_size, network.decoder, any_size=bool(settings.progressive))
    return decoded, encoder, start_encoder(encoder, settings)
