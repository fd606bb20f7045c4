"""Whole images predicted in windows: ours against MONAI's `sliding_window_inference`, used the tutorial's way.

    python benchmarks/windows.py [--size 256 256 192] [--crop 96] [--overlap 0.25] [--blend constant] [--threads 2]

Same weights, same image, same windows and blending: the UNETR of the tutorial (ViT-B/16, 14 classes) with random weights.
The tutorial predicts four windows at a time in float32. Each way runs in a process of its own, in turns; the figures are
medians of the turns, `memory` is the most that process had above imports, network and image (on Linux only), and `--json`
has the processor's seconds as well. How far the labels agree is measured with a small UNETR that is first trained on a
phantom of as many classes, as random weights give noise.
"""

import argparse
import math
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from monai.inferers.utils import sliding_window_inference
from monai.losses import DiceCELoss
from monai.networks.nets import UNETR
from torch import Tensor, nn

from losses import resident_mib
from medssl.device import has_bfloat16
from medssl.evaluate import dice, predict_volume
from networks import build_encoder
from networks.unetr import unetr
from turns import beside_first, in_a_process, in_turns, print_rows, write_results

CLASSES, BATCH = 14, 4
WAYS = ("tutorial", "medssl, float32", "medssl")
SMALL = {"channels": 3, "hidden": 192}


def main() -> None:
    """Time every way in turns, compare the labels of a trained network, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, nargs=3, default=(256, 256, 192))
    parser.add_argument("--crop", type=int, default=96)
    parser.add_argument("--overlap", type=float, default=0.25)
    parser.add_argument("--blend", choices=("constant", "gaussian"), default="constant")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--turns", type=int, default=1)
    parser.add_argument("--steps", type=int, default=400, help="of the small network's training")
    parser.add_argument("--json", type=Path, help="file for the results")
    options = parser.parse_args()
    where = (options.overlap, options.blend, options.threads, options.device)
    words = (options.size, options.crop, *where)
    timed = in_turns(WAYS, options.turns, one_turn, *words)
    agreement = in_a_process(agreement_with_tutorial, options.steps, *where)
    rows = {way: timed[way] | agreement[way] for way in WAYS}
    agreed = {way: {"same Dice": f"{row['dice_with_tutorial']:.5f}", "Dice": row["dice"]} for way, row in rows.items()}
    print_rows([beside_first(rows, way) | agreed[way] for way in rows])
    if options.json:
        write_results(options, rows)


def one_turn(
    way: str, size: Sequence[int], crop: int, overlap: float, blend: str, threads: int, device: str
) -> dict[str, float]:
    """Predict one image one way: seconds and memory."""
    torch.set_num_threads(threads)
    network = network_of(way, crop).to(device)
    image = torch.rand(1, *size, generator=torch.Generator().manual_seed(0)).to(device)
    on_gpu = image.device.type == "cuda"
    if on_gpu:
        predict(way, network, image[:, :crop, :crop, :crop], crop, overlap, blend)  # warms up
        torch.cuda.reset_peak_memory_stats(device)
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts anew: two networks were held while ours was filled
    before = torch.cuda.memory_allocated(device) / 1e6 if on_gpu else resident_mib("VmRSS") * 1.048576
    began, cpu_began = time.perf_counter(), time.process_time()
    predict(way, network, image, crop, overlap, blend)  # gives labels on the CPU, so that a GPU is done
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu_began
    peak = torch.cuda.max_memory_allocated(device) / 1e6 if on_gpu else resident_mib("VmHWM") * 1.048576
    return {"s": seconds, "cpu_s": cpu_seconds, "memory_mb": peak - before}


def predict(way: str, network: nn.Module, image: Tensor, crop: int, overlap: float, blend: str) -> Tensor:
    """The label map of an image (c, *spatial), on the CPU."""
    if way == "tutorial":
        with torch.no_grad():
            scores = sliding_window_inference(image[None], (crop,) * 3, BATCH, network, overlap, blend)
            return torch.argmax(scores, dim=1)[0].cpu()
    bfloat16 = torch.bfloat16 if way == "medssl" and has_bfloat16(image.device) else None
    return predict_volume(network, image, (crop,) * 3, overlap, BATCH, bfloat16, blend)


def agreement_with_tutorial(steps: int, overlap: float, blend: str, threads: int, device: str) -> dict[str, dict[str, float]]:
    """Dice of each way's labels with the tutorial's and with the truth: means over the classes that either has."""
    torch.set_num_threads(threads)
    crop, size = 48, (112, 96, 96)
    weights = trained(crop, steps, torch.device(device))
    image, truth = phantom(size, seed=1)
    networks = {way: network_of(way, crop, **SMALL, weights=weights).to(device) for way in WAYS}
    found = {way: predict(way, networks[way], image.to(device), crop, overlap, blend) for way in WAYS}
    organs = range(1, CLASSES)
    return {
        way: {
            "dice_with_tutorial": float(np.nanmean(dice(labels, found["tutorial"], organs))),
            "worst_class": float(np.nanmin(dice(labels, found["tutorial"], organs))),
            "dice": float(np.nanmean(dice(labels, truth, organs))),
        }
        for way, labels in found.items()
    }


def trained(crop: int, steps: int, device: torch.device) -> dict[str, Tensor]:
    """The weights of a small UNETR that has learned to tell the phantom's organs apart."""
    network = network_of("tutorial", crop, **SMALL).train().to(device)
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, total_steps=steps)
    criterion = DiceCELoss(to_onehot_y=True, softmax=True)
    for step in range(steps):
        image, label = (part[None].to(device) for part in phantom((crop,) * 3, seed=1000 + step))
        optimiser.zero_grad()
        with torch.autocast(device.type, torch.bfloat16, enabled=has_bfloat16(device)):
            logits = network(image)
        criterion(logits.float(), label[None]).backward()
        optimiser.step()
        schedule.step()
    return network.state_dict()


def phantom(size: Sequence[int], seed: int) -> tuple[Tensor, Tensor]:
    """Ellipsoids in a noisy image of three channels, coloured by class: the image (3, *size) and the label map (*size)."""
    random = torch.Generator().manual_seed(seed)
    places = torch.stack(torch.meshgrid(*map(torch.arange, size), indexing="ij"), -1).float()
    label = torch.zeros(*size, dtype=torch.long)
    for k in range(math.prod(size) // 6000):
        centre, radii = torch.rand(2, 3, generator=random)
        inside = (((places - centre * torch.tensor(size)) / (6 + 8 * radii)) ** 2).sum(-1) < 1
        label[inside] = 1 + k % (CLASSES - 1)
    colours = torch.stack([label % 3, label // 3 % 3, label // 9]) / 2
    return colours + 0.2 * torch.randn(colours.shape, generator=random), label


def network_of(
    way: str, crop: int, channels: int = 1, hidden: int = 768, weights: dict[str, Tensor] | None = None
) -> nn.Module:
    """The tutorial's UNETR, MONAI's or ours, with the same weights: by default those of one seed."""
    torch.manual_seed(0)
    network: nn.Module = UNETR(
        channels, CLASSES, (crop,) * 3, feature_size=16, hidden_size=hidden, mlp_dim=4 * hidden, num_heads=hidden // 64
    )
    if weights:
        network.load_state_dict(weights)
    if way == "tutorial":
        return network.eval()
    sizes = {"hidden_size": hidden, "mlp_size": 4 * hidden, "layers": 12, "heads": hidden // 64, "patch_size": [16] * 3}
    ours = unetr(build_encoder("vit_base", channels, [crop] * 3, **sizes), CLASSES)
    ours.load_state_dict(network.state_dict())
    return ours.eval()


if __name__ == "__main__":
    main()
