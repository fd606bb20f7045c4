"""Attention on a CPU: in pieces, as our blocks take it, at once, as MONAI's blocks do, and torch's fused one.

    python benchmarks/attention.py [--threads 2] [--repeats 7] [--json FILE]

Forward and backward from projected tokens to joined heads, for batches of several sizes in each type. All ways take turns in
one process; medians. `apart` is how far the gradients of ours lie from those at once, relative to the largest.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from networks.attention import attend, joined, split
from turns import print_rows, write_results

SHAPES = [  # what, images, heads, tokens, width of a head
    ("ViT-B/16, 4 views of 96^3", 4, 12, 216, 64),
    ("ViT-B/16, 16 views of 96^3", 16, 12, 216, 64),
    ("ViT-B/16, 4 views of 128^3", 4, 12, 512, 64),
    ("ViT-B/8, 2 views of 96^3", 2, 12, 1728, 64),
    ("ViT-B/16, 32 views of 224^2", 32, 12, 196, 64),
    ("small, 8 views of 32^3, patch 4", 8, 6, 512, 32),
]


def at_once(projected: Tensor, heads: int, scale: float) -> Tensor:
    """Attention as it is written."""
    q, k, v = split(projected, heads)
    return joined(torch.softmax((q * scale) @ k.transpose(-1, -2), -1) @ v)


def fused(projected: Tensor, heads: int, scale: float) -> Tensor:
    """Attention by torch's own."""
    q, k, v = split(projected, heads)
    return joined(functional.scaled_dot_product_attention(q, k, v, scale=scale))


WAYS: dict[str, Callable[[Tensor, int, float], Tensor]] = {"at once": at_once, "fused": fused, "in pieces": attend}


def main() -> None:
    """Print a row for each shape and type."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", type=Path, help="file for the results")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = [row(*shape, kind, options.repeats) for kind in (torch.bfloat16, torch.float32) for shape in SHAPES]
    print_rows(rows, 2)
    if options.json:
        write_results(options, rows)


def row(name: str, images: int, heads: int, tokens: int, width: int, kind: torch.dtype, repeats: int) -> dict[str, Any]:
    """Median milliseconds of each way, after one that warms up, and how often ours is faster than at once."""
    torch.manual_seed(0)
    projected, above = (torch.randn(images, tokens, n * heads * width, dtype=kind) for n in (3, 1))
    times: dict[str, list[float]] = {way: [] for way in WAYS}
    gradients: dict[str, Tensor] = {}
    for _ in range(repeats + 1):
        for way, attention in WAYS.items():
            given, began = projected.clone().requires_grad_(), time.perf_counter()
            attention(given, heads, width**-0.5).backward(above)
            times[way].append(1000 * (time.perf_counter() - began))
            assert given.grad is not None
            gradients[way] = given.grad
    medians = {f"{way}, ms": statistics.median(times[way][1:]) for way in WAYS}
    ours, theirs = gradients["in pieces"], gradients["at once"]
    apart = ((ours - theirs).abs().max() / theirs.abs().max()).item()
    faster = medians["at once, ms"] / medians["in pieces, ms"]
    return {"type": str(kind).removeprefix("torch."), "batch": name} | medians | {"faster": faster, "apart": apart}


if __name__ == "__main__":
    main()
