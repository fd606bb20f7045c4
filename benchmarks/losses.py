"""Self-supervised losses: medssl.losses against their plain forms and MONAI's ContrastiveLoss, on one core.

    python benchmarks/losses.py [--repeats 5] [--rows 64] [--features 8192] [--crops 8] [--size 96]

Barlow Twins and VICReg: forward and backward with (rows, rows) Gram matrices, as medssl does when the rows are fewer
than the features, and with (features, features) matrices, as the papers write it. NT-Xent: forward and backward over
flattened restorations, size^3 values each, at temperature 0.05, where MONAI's is not NaN. The sides take turns in
one process; the median of each is printed, and both values.

Memory: each side runs once in a fresh process of its own, and what is printed is how far the most memory ever resident
(VmHWM of /proc/self/status, so on Linux only) rises above what was resident when both inputs were there. That counts
the gradients of the inputs, which both sides must hold, and nothing of the interpreter, the libraries and the inputs. A call
on tiny inputs before makes the libraries allocate what they keep.
"""

import argparse
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import mse_loss, relu

from medssl.losses import barlow_twins, nt_xent, vicreg
from turns import Found, print_rows, write_results

Loss = Callable[[Tensor, Tensor], Tensor]
TEMPERATURE = 0.05


def plain_barlow_twins(a: Tensor, b: Tensor) -> Tensor:
    """The paper's listing: a (features, features) cross-correlation."""
    a, b = ((x - x.mean(0)) / (x.var(0, correction=0) + 1e-5).sqrt() for x in (a, b))
    correlation = a.T @ b / len(a)
    diagonal = correlation.diagonal()
    return (diagonal - 1).square().sum() + 0.005 * (correlation.square().sum() - diagonal.square().sum())


def plain_vicreg(a: Tensor, b: Tensor) -> Tensor:
    """The paper's listing: the (features, features) covariance of each view."""
    total = 25 * mse_loss(a, b)
    for view in (a, b):
        centred = view - view.mean(0)
        covariance = centred.T @ centred / (len(view) - 1)
        variance = covariance.diagonal()
        total = total + 25 * relu(1 - (view.var(0) + 1e-4).sqrt()).mean() / 2
        total = total + (covariance.square().sum() - variance.square().sum()) / view.shape[1]
    return total


def our_nt_xent(a: Tensor, b: Tensor) -> Tensor:
    """NT-Xent of medssl."""
    return nt_xent(a, b, TEMPERATURE)


def monai_nt_xent(a: Tensor, b: Tensor) -> Tensor:
    """NT-Xent of MONAI."""
    from monai.losses import ContrastiveLoss

    return ContrastiveLoss(temperature=TEMPERATURE)(a, b)  # type: ignore[no-any-return]


NT_XENT: dict[str, Loss] = {"ours": our_nt_xent, "MONAI": monai_nt_xent}


def two_views(rows: int, features: int) -> tuple[Tensor, Tensor]:
    """Two related batches that want gradients: what all rows share, as crops do, each pair's own part, and noise."""
    generator = torch.Generator().manual_seed(0)
    shared, own = torch.randn(features, generator=generator), torch.randn(rows, features, generator=generator)
    a, b = (torch.randn(rows, features, generator=generator).add_(own, alpha=0.3).add_(shared) for _ in range(2))
    return a.requires_grad_(), b.requires_grad_()


def forward_and_backward(loss: Loss, a: Tensor, b: Tensor) -> float:
    """The value, after its gradient has been computed."""
    a.grad = b.grad = None
    value = loss(a, b)
    value.backward()  # type: ignore[no-untyped-call]
    return value.item()


def compare(name: str, sides: dict[str, Loss], rows: int, features: int, repeats: int) -> Found:
    """Values and median times; the first side is ours."""
    a, b = two_views(rows, features)
    times: dict[str, list[float]] = {side: [] for side in sides}
    values = {side: forward_and_backward(loss, a, b) for side, loss in sides.items()}
    for _ in range(repeats):
        for side, loss in sides.items():
            start = time.thread_time()  # not the clock on the wall, which also counts the turns of other processes
            forward_and_backward(loss, a, b)
            times[side].append(1000 * (time.thread_time() - start))
    (ours, mine), (theirs, other) = ((side, float(np.median(seen))) for side, seen in times.items())
    both = {"its value": values[theirs], "our value": values[ours]}
    return {"loss": name, "against": theirs, "what": "ms", "its": other, "ours": mine, "ratio": other / mine} | both


def resident_mib(field: str) -> float:
    """A field of /proc/self/status in MiB: VmRSS, resident now, or VmHWM, the most ever."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[field].split()[0]) / 1024


def print_additional_memory(side: str, rows: int, features: int) -> None:
    """In a process of its own: MiB that one forward and backward needs beside the inputs."""
    forward_and_backward(NT_XENT[side], *two_views(2, 64))
    a, b = two_views(rows, features)
    before = resident_mib("VmRSS")
    forward_and_backward(NT_XENT[side], a, b)
    print(resident_mib("VmHWM") - before)


def additional_memory(side: str, rows: int, features: int) -> float:
    """`print_additional_memory` in a fresh process."""
    command = [sys.executable, __file__, "--side", side, "--crops", str(rows), "--features", str(features)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def main() -> None:
    """Print times, memory, ratios and values."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5, help="timed turns of each side")
    parser.add_argument("--rows", type=int, default=64, help="batch of Barlow Twins and VICReg")
    parser.add_argument("--features", type=int, default=8192, help="their embedding")
    parser.add_argument("--crops", type=int, default=8, help="batch of NT-Xent")
    parser.add_argument("--size", type=int, default=96, help="side of the restored cubes, voxels")
    parser.add_argument("--json", type=Path, help="file for the results")
    parser.add_argument("--side", choices=NT_XENT, help=argparse.SUPPRESS)
    settings = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", category=UserWarning)
    if settings.side:
        return print_additional_memory(settings.side, settings.crops, settings.features)

    rows, features, repeats = settings.rows, settings.features, settings.repeats
    print(f"forward and backward, one core, median of {repeats}; {rows} rows of {features} features,")
    found = [
        compare("Barlow Twins", {"ours": barlow_twins, "plain": plain_barlow_twins}, rows, features, repeats),
        compare("VICReg", {"ours": vicreg, "plain": plain_vicreg}, rows, features, repeats),
    ]
    rows, features = settings.crops, settings.size**3
    print(f"NT-Xent of {rows} crops of {settings.size}^3, temperature {TEMPERATURE}; its memory beside the inputs")
    found.append(compare("NT-Xent", NT_XENT, rows, features, repeats))
    ours, theirs = (additional_memory(side, rows, features) for side in NT_XENT)
    found.append(found[-1] | {"what": "MiB", "its": theirs, "ours": ours, "ratio": theirs / ours})
    print_rows(found, words=3)
    if settings.json:
        write_results(settings, found)
    return None


if __name__ == "__main__":
    main()
