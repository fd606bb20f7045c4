"""The whole pre-training loop of MONAI's self-supervised tutorial, written with MONAI's own parts; run by `loop.py`.

    python benchmarks/tutorial_loop.py RECIPE.json VALIDATION.pt OUT

After https://github.com/Project-MONAI/tutorials, self_supervised_pretraining/vit_unetr_ssl: `Dataset` without a cache, its
transforms in worker processes, `ViTAutoEnc`, a forward for each view, L1 and `ContrastiveLoss`, Adam, float32; the best
weights are saved with the optimiser. Different here: sizes and rates are those of the recipe; the weights start as ours do and
validation reads crops and views that are given, both from VALIDATION.pt; and, in its favour, the workers are started once and
not for each epoch. It writes a line a step and a validation into OUT/metrics.jsonl, in the form of our runs.
"""

import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import DataLoader, Dataset
from monai.losses import ContrastiveLoss
from monai.networks.nets import ViTAutoEnc
from monai.transforms import (
    Compose,
    CropForegroundd,
    EnsureChannelFirstd,
    LoadImaged,
    RandSpatialCropSamplesd,
    ScaleIntensityRanged,
    ScaleIntensityRangePercentilesd,
    Spacingd,
    SpatialPadd,
)
from monai.utils import set_determinism
from torch import Tensor, nn
from torch.nn import functional

from views import VIEWS, monai_views

Recipe = dict[str, Any]


def main() -> None:
    """Train from the first step to the last."""
    recipe, given, out = (
        json.loads(Path(sys.argv[1]).read_text()),
        torch.load(sys.argv[2], weights_only=True),
        Path(sys.argv[3]),
    )
    torch.set_num_threads(recipe["threads"])
    set_determinism(recipe["seed"])
    device = torch.device(recipe["device"])
    network = network_of(recipe).to(device)
    network.load_state_dict(given["weights"])
    optimiser = torch.optim.Adam(network.parameters(), lr=recipe["lr"])
    step = step_of(network, optimiser, recipe["method"]["temperature"], device)
    out.mkdir()
    best = float("inf")
    say(f"pre-training on {device}, the tutorial's way")
    with (out / "metrics.jsonl").open("w") as metrics:
        for number, (batch, waited) in enumerate(clocked(loader(recipe)), 1):
            began = time.perf_counter()
            line = {"step": number, "loss": step(batch), "data_s": waited, "step_s": time.perf_counter() - began}
            metrics.write(json.dumps(line) + "\n")
            if number % recipe["validate_every"] == 0 or number == recipe["steps"]:
                value = validated(network, given["batches"], device)
                if value < best:
                    best = value
                    state = {"step": number, "model": network.state_dict(), "optimiser": optimiser.state_dict()}
                    torch.save(state, out / "best_model.pt")
                metrics.write(json.dumps({"step": number, "val_l1": value}) + "\n")
                say(f"step {number}: val_l1 {value:.4f}")


def say(text: str) -> None:
    """Tell one line at once, to be timed by who reads it."""
    print(text, file=sys.stderr, flush=True)


def network_of(recipe: Recipe) -> ViTAutoEnc:
    """The network of the recipe."""
    table = recipe["network"]
    return ViTAutoEnc(
        in_channels=1,
        img_size=tuple(recipe["crop_size"]),
        patch_size=tuple(table["patch_size"]),
        hidden_size=table["hidden_size"],
        mlp_dim=table["mlp_size"],
        num_layers=table["layers"],
        num_heads=table["heads"],
    )


def transforms_of(recipe: Recipe) -> Compose:
    """From a file to crops with their views; a step that the recipe has no use for is left out, in the loop's favour."""
    crop, window = recipe["crop_size"], recipe["intensity"]
    limits = {"b_min": 0.0, "b_max": 1.0, "clip": True}
    steps: list[Callable[..., Any]] = [LoadImaged("image"), EnsureChannelFirstd("image")]
    if recipe["spacing"]:
        steps.append(Spacingd("image", pixdim=recipe["spacing"], mode="bilinear"))
    if window["name"] == "window":
        steps.append(ScaleIntensityRanged("image", a_min=window["low"], a_max=window["high"], **limits))
        steps.append(CropForegroundd("image", source_key="image", allow_smaller=True))
    else:
        steps.append(ScaleIntensityRangePercentilesd("image", lower=window["low"], upper=window["high"], **limits))
    steps.append(SpatialPadd("image", spatial_size=crop))
    steps.append(RandSpatialCropSamplesd("image", roi_size=crop, num_samples=recipe["crops_per_case"], random_size=False))
    return Compose([*steps, monai_views(crop[0])])


def loader(recipe: Recipe) -> DataLoader:
    """The batches of all steps, the volumes of each epoch in an order of its own."""
    split, root = json.loads(Path(recipe["split"]).read_text()), Path(recipe["data_root"])
    files = [{"image": str(root / case["image"])} for case in split["pretraining"]]
    volumes = recipe["batch_size"] // recipe["crops_per_case"]  # of a step
    places, random = volumes * recipe["steps"], np.random.default_rng(recipe["seed"])
    order = [k for _ in range(-(-places // len(files))) for k in random.permutation(len(files))][:places]
    data = Dataset([files[k] for k in order], transforms_of(recipe))
    return DataLoader(data, batch_size=volumes, num_workers=recipe["workers"])


def clocked(batches: DataLoader) -> Iterator[tuple[dict[str, Tensor], float]]:
    """Batches, and how long each was waited for in seconds."""
    began = time.perf_counter()
    for batch in batches:
        yield batch, time.perf_counter() - began
        began = time.perf_counter()


def step_of(
    network: nn.Module, optimiser: torch.optim.Optimizer, temperature: float, device: torch.device
) -> Callable[[dict[str, Tensor]], float]:
    """A training step."""
    contrast = ContrastiveLoss(temperature=temperature)

    def step(batch: dict[str, Tensor]) -> float:
        image, first, second = (batch[name].to(device) for name in ("image", *VIEWS))
        optimiser.zero_grad()
        one, two = network(first)[0], network(second)[0]
        reconstruction = functional.l1_loss(one, image)
        loss = reconstruction + contrast(one.flatten(1), two.flatten(1)) * reconstruction
        loss.backward()
        optimiser.step()
        return float(loss.item())

    return step


def validated(network: nn.Module, batches: list[dict[str, Tensor]], device: torch.device) -> float:
    """The mean L1 of the restored first views."""
    network.eval()
    with torch.no_grad():
        sums = [
            functional.l1_loss(network(batch[VIEWS[0]].to(device))[0], batch["image"].to(device)).item() * len(batch["image"])
            for batch in batches
        ]
    network.train()
    return sum(sums) / sum(len(batch["image"]) for batch in batches)


if __name__ == "__main__":
    main()
