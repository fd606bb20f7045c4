"""Images by which a self-supervised method can show that it learns, and a training of some seconds on them.

A wave in one of four directions fills the image, under noise. Its direction can't be read off the mean of patches that
are looked at one by one; a network that restores what is hidden, or finds the other view of an image, has to find it.
"""

from functools import lru_cache
from math import log
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from medssl.config import Pretrain, encoder_sizes
from medssl.loaders import collate
from medssl.losses import nt_xent_chance, swav_chance
from medssl.methods import METHODS, method_class
from medssl.methods.method import Method
from medssl.probes.classifiers import Labelled, logistic_regression, standardise
from networks import build_encoder

SIDE, BATCH, IMAGES, TESTED = 16, 32, 192, 300
VIT = {"name": "vit_tiny", "hidden_size": 48, "mlp_size": 96, "layers": 3, "heads": 4, "decoder_channels": 8}
RESNET = {"name": "resnet18", "width": 8, "stem_stride": 1, "stem_pool": False, "decoder_channels": 4}
# weak crops and no flips: the direction of a wave is to survive
VIEWS = {
    "scale": [0.8, 1.0], "ratio": [0.95, 1.05], "flip_prob": 0.0, "gamma_prob": 0.3, "noise_prob": 0.8,
    "noise_std": 0.2, "blur_sigma": [0.3, 1.5],
}  # fmt: skip
SMALL: dict[str, dict[str, Any]] = {
    "recon_contrast": {
        "temperature": 0.1, "contrast": 0.1, "inpaint_holes": 3, "inpaint_min_size": 2, "inpaint_max_size": 6,
        "outpaint_holes": 3, "outpaint_min_size": 4, "outpaint_max_size": 10, "shuffle_size": 3, "shuffle_holes": 4,
    },
    "masked": {"boxes": [2, 4], "min_size": 6, "max_size": 10, "hidden_only": True},
    "pairs": VIEWS,
    "simclr": VIEWS | {"projector": [64, 32]},
    "barlow": VIEWS | {"projector": [128, 128]},
    "swav": VIEWS | {"projector": [64, 32], "prototypes": 8, "epsilon": 0.01},
    "vicreg": VIEWS | {"projector": [128, 128]},
    "mae": {"decoder_width": 32, "decoder_layers": 1, "decoder_heads": 4, "mask_ratio": 0.5, "scale": [0.9, 1.0],
            "flip_prob": 0.0},
}  # fmt: skip
assert set(SMALL) == set(METHODS)


class Learned(NamedTuple):
    """What a training came to; losses are means over its first and last sixth."""

    first: float
    last: float
    before: float  # accuracy of the probe on the encoder as it was drawn
    after: float


def waves(count: int, dims: int, seed: int) -> tuple[Tensor, list[int]]:
    """Images (n, 1, *SIDE) in 0..1 with their classes, all equally often."""
    r, grid = np.random.default_rng(seed), np.stack(np.meshgrid(*[np.arange(SIDE)] * dims, indexing="ij"), -1)
    directions = {2: [(1, 0), (0, 1), (0.7, 0.7), (0.7, -0.7)], 3: [(1, 0, 0), (0, 1, 0), (0, 0, 1), (0.58, 0.58, 0.58)]}[dims]
    classes = [k % 4 for k in range(count)]
    images = np.empty((count, 1, *[SIDE] * dims), np.float32)
    for image, k in zip(images, classes, strict=True):
        phase = grid @ np.array(directions[k]) * 2 * np.pi / SIDE + r.uniform(0, 0.6)
        image[0] = 0.5 + r.uniform(0.2, 0.4) * np.sin(phase) + r.normal(0, 0.2, phase.shape)
    return torch.from_numpy(images.clip(0, 1)), classes


def settings_for(method: str, dims: int, network: dict[str, Any] = VIT, **changes: Any) -> Pretrain:
    """Small settings of a method, with changes of its table."""
    patch = {"patch_size": [4] * dims} if network["name"].startswith("vit") else {}
    return Pretrain.model_validate({
        "split": "split.json", "out": "run", "steps": 1, "validate_every": 1, "batch_size": BATCH, "lr": 3e-3,
        "crop_size": [SIDE] * dims, "intensity": "percentile", "network": network | patch,
        "method": {"name": method} | SMALL[method] | changes,
    })  # fmt: skip


def fresh(settings: Pretrain, seed: int = 0) -> Method:
    """A method around a new encoder."""
    torch.manual_seed(seed)
    encoder = build_encoder(settings.network.name, 1, settings.crop_size, **encoder_sizes(settings.network))  # type: ignore[arg-type]
    method: Method = method_class(settings.method.name)(encoder, settings)
    return method


def items_of(settings: Pretrain, method: Method, count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Phantoms with the method's views, as `medssl.loaders.Crops` gives crops; two images a patient."""
    images, classes = waves(count, settings.spatial_dims, seed)
    views, items = method.views(settings), []
    for k, (image, label) in enumerate(zip(images, classes, strict=True)):
        views.set_random_state(seed=1000 * seed + k)  # type: ignore[attr-defined]
        item = {"image": image, "id": f"c{k}", "patient": f"p{k // 2}", "class": torch.tensor(label)}
        items.append({key: value.clone() if isinstance(value, Tensor) else value for key, value in views(item).items()})
    return items


def batch_of(settings: Pretrain, method: Method, count: int = BATCH, seed: int = 0) -> dict[str, Any]:
    """One batch of different phantoms."""
    return collate(items_of(settings, method, count, seed))


def learned(name: str, dims: int, steps: int, seed: int = 0, lr: float = 3e-3, **changes: Any) -> Learned:
    """Train a method on IMAGES phantoms, each with three draws of its views, and probe its encoder before and after."""
    settings = settings_for(name, dims, **changes)
    method = fresh(settings, seed)
    before = probe(method, dims)
    draws = [items_of(settings, method, IMAGES, seed=k) for k in range(3)]
    optimiser, random, losses = torch.optim.AdamW(method.parameters(), lr=lr), np.random.default_rng(seed), list[float]()
    for step in range(1, steps + 1):
        chosen = random.choice(IMAGES, BATCH, replace=False)
        torch.manual_seed(1000 * seed + step)
        method.train()
        method.before_step(step)
        loss = method(collate([draws[step % 3][k] for k in chosen]))["loss"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    sixth = steps // 6
    return Learned(float(np.mean(losses[:sixth])), float(np.mean(losses[-sixth:])), before, probe(method, dims))


@torch.no_grad()
def probe(method: Method, dims: int) -> float:
    """Accuracy of a logistic regression on 100 labelled phantoms, chosen on 100, judged on TESTED others."""
    method.eval()
    parts = [waves(count, dims, seed) for count, seed in ((100, 101), (100, 102), (TESTED, 103))]
    features = [method.encoder.features(images).pooled.double().numpy() for images, _ in parts]
    labels = [np.array(classes) for _, classes in parts]
    training, validation, test = standardise(*features)
    judged = logistic_regression(Labelled(training, labels[0]), Labelled(validation, labels[1]), test, 4)
    return float((judged.probabilities.argmax(1) == labels[2]).mean())


@lru_cache
def trivial(name: str, dims: int) -> float:
    """The loss of a network that gives every image the same answer, the best one of all: the mean image's grey, one vector."""
    images, _ = waves(IMAGES, dims, 0)
    patch = 4**dims
    return {
        "recon_contrast": float((images - images.mean()).abs().mean()) * (1 + 0.1 * nt_xent_chance(BATCH)),
        "masked": float(images.var()),
        "pairs": log(2),
        "simclr": nt_xent_chance(BATCH),
        "barlow": 128.0,  # no correlation of anything with anything
        "swav": swav_chance(8),
        "vicreg": 25 * 0.99,  # the hinge of a deviation of 0, whose floor is sqrt(1e-4)
        "mae": (patch - 1) / patch,  # patches are divided by their unbiased deviation
    }[name]
