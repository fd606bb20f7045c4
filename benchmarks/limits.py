"""How far each part of a pre-training step stands from what this machine can do, and how its cost grows.

    python benchmarks/limits.py [--threads 2] [--device cpu] [--repeats 5] [--json FILE]

First the limits, measured on the spot: the rate of matrix products of a transformer's shapes in each precision, and the
memory's bandwidth. Then the step of system A (ViT-B/16, 2 crops of 96^3, 2 views) in its parts, each beside the least
time that its operations or its bytes need at these rates. Then the whole step as crops, batch and network grow. Medians.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from medssl.config import Pretrain
from medssl.device import choose
from medssl.methods import method_class
from medssl.optimisers import optimiser_of, parameter_groups
from medssl.plan import build_encoder
from medssl.step import Step
from medssl.training import Batch, Training
from turns import write_results

SHAPES = [(864, 768, 2304), (864, 768, 3072), (864, 3072, 768)]  # tokens x inputs x outputs, of ViT-B
GROWTH: list[tuple[str, dict[str, Any]]] = [
    ("ViT-B, 2 crops of 96^3", {}),
    ("4 crops", {"batch_size": 4}),
    ("8 crops, in 4 parts", {"batch_size": 8, "accumulate": 4}),
    ("recompute=true", {"recompute": True}),
    ("compile=true", {"compile": True}),
    ("crops of 64^3", {"crop_size": [64] * 3}),
    ("crops of 128^3", {"crop_size": [128] * 3}),
    ("patch 8, crops of 48^3", {"crop_size": [48] * 3, "network": {"name": "vit_base", "patch_size": [8] * 3}}),
    ("ViT-S", {"network": {"name": "vit_small", "patch_size": [16] * 3}}),
    ("ViT-L", {"network": {"name": "vit_large", "patch_size": [16] * 3}}),
]


def main() -> None:
    """Print the three tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--growth", type=int, default=len(GROWTH), help="rows of the last table")
    parser.add_argument("--json", type=Path, help="file for the results")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    found: dict[str, Any] = {"threads": options.threads, "device": options.device, "limits": limits(device, options.repeats)}
    rates = found["limits"]
    print("\n".join(f"{name:28} {value:9.1f}" for name, value in rates.items()))
    found["parts"] = parts(options, rates)
    print("\n| part of the step | s | at least | share of it |\n|---|---:|---:|---:|")
    for name, (seconds, least) in found["parts"].items():
        print(f"| {name} | {seconds:.3f} | {least:.3f} | {least / seconds:.2f} |")
    print("\n| step | parameters | TFLOP | s | crops/s | GFLOP/s |\n|---|---:|---:|---:|---:|---:|")
    found["growth"] = []
    for title, changes in GROWTH[: options.growth]:
        row = grown(options, changes)
        found["growth"].append({"step": title} | row)
        cells = f"{row['parameters'] / 1e6:.0f} M | {row['flop'] / 1e12:.2f} | {row['s']:.2f} | {row['crops_s']:.2f}"
        print(f"| {title} | {cells} | {row['flop'] / row['s'] / 1e9:.0f} |", flush=True)
    if options.json:
        write_results(options, found)


def limits(device: torch.device, repeats: int) -> dict[str, float]:
    """GFLOP/s of matrix products, the median over shapes and passes, and GB/s of an update in place, read and written."""
    found = {}
    for kind in (torch.float32, torch.bfloat16):
        rates = []
        for m, k, n in SHAPES:
            x, w, g = (torch.randn(*shape, device=device).to(kind) for shape in ((m, k), (n, k), (m, n)))
            for product in (lambda x=x, w=w: x @ w.t(), lambda g=g, w=w: g @ w, lambda g=g, x=x: g.t() @ x):
                rates.append(2 * m * k * n / seconds(product, device, repeats) / 1e9)
        found[f"{str(kind).removeprefix('torch.')}, GFLOP/s"] = statistics.median(rates)
    numbers = torch.zeros(2**26, device=device)  # 256 MB, more than any cache
    found["memory, GB/s"] = 2 * numbers.nbytes / seconds(lambda: numbers.add_(1), device, repeats) / 1e9
    return found


def parts(options: argparse.Namespace, rates: dict[str, float]) -> dict[str, tuple[float, float]]:
    """Seconds of each part of the step, and the least that it could take."""
    step, batch, _, method = prepared(options, {})
    kind = "bfloat16" if step.compute.autocast else "float32"
    laps = timed(step, batch, options.repeats)
    forward, backward = flop_of(method, step, batch)
    weights = 4 * sum(p.numel() for p in step.parameters)
    rate, copied = rates[f"{kind}, GFLOP/s"] * 1e9, rates["memory, GB/s"] * 1e9
    return {
        f"forward ({kind})": (laps["forward_s"], forward / rate),
        f"backward ({kind})": (laps["backward_s"], backward / rate),
        "norm and Adam": (laps["optimiser_s"], 8 * weights / copied),  # 1 + 4 reads and 3 writes of each weight
        "all": (laps["step_s"], (forward + backward) / rate + 8 * weights / copied),
    }


def grown(options: argparse.Namespace, changes: dict[str, Any]) -> dict[str, float]:
    """The step with changed settings: parameters, operations, seconds, crops a second."""
    step, batch, settings, method = prepared(options, changes)
    laps = timed(step, batch, max(options.repeats // 2, 1))
    count = sum(p.numel() for p in step.parameters)
    flop = sum(flop_of(method, step, batch))
    return {"parameters": count, "flop": flop, "s": laps["step_s"], "crops_s": settings.batch_size / laps["step_s"]}


def prepared(options: argparse.Namespace, changes: dict[str, Any]) -> tuple[Step, Batch, Pretrain, Any]:
    """A step of the recipe with changes, on noise."""
    settings = Pretrain.model_validate({
        "split": "-", "out": "-", "steps": 1000, "batch_size": 2, "validate_every": 1000, "lr": 1e-4, "optimiser": "adam",
        "crop_size": [96] * 3, "intensity": "percentile", "network": {"name": "vit_base", "patch_size": [16] * 3},
        "method": {"name": "recon_contrast", "temperature": 0.05}, "device": options.device, "threads": options.threads,
    } | changes)  # fmt: skip
    compute = choose(settings)
    method = method_class("recon_contrast")(build_encoder(settings, 1), settings)
    compute.place(method)
    groups = parameter_groups([(method, 1.0)])
    training = Training(method, groups, method, lambda start: [], None, "val_l1", False)
    image, *views = torch.rand(3, settings.batch_size, 1, *settings.crop_size)
    names = [str(k) for k in range(settings.batch_size)]
    batch = {"image": image, "view_0": views[0], "view_1": views[1], "id": names, "data_hash": names}
    return Step(settings, compute, training, optimiser_of(settings, groups)), batch, settings, method


def timed(step: Step, batch: Batch, repeats: int) -> dict[str, float]:
    """The median of each of a step's times, after two steps that warm up."""
    laps = [{k: v for k, v in step(1 + number, batch).items() if k.endswith("_s")} for number in range(repeats + 2)][2:]
    return {name: statistics.median(lap[name] for lap in laps) for name in laps[0]}


def flop_of(method: Any, step: Step, batch: Batch) -> tuple[float, float]:
    """Operations of the matrix products of a whole batch's forward, and of its backward, which takes twice as many.

    Counted in the forward, where autograd hides nothing; the images need no gradient, so that the embedding's is half.
    """
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        method({key: value.to(step.compute.device) if torch.is_tensor(value) else value for key, value in batch.items()})
    total = float(counter.get_total_flops())
    encoder = method.encoder
    patches = 2 * batch["image"].numel()  # of both views: each voxel meets the width once
    return total, 2 * total - 2 * patches * encoder.width


def seconds(work: Callable[[], Any], device: torch.device, repeats: int) -> float:
    """The median seconds of some work, each of several calls."""
    times = []
    for _ in range(2 * repeats + 2):
        began = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - began)
    return statistics.median(times[2:])


if __name__ == "__main__":
    main()
