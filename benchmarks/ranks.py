"""Two processes of one thread against one of two: the pre-training step of system A on many ranks.

    python benchmarks/ranks.py [--crop 96] [--batch 8] [--accumulate 4] [--ranks 2] [--shard] [--json FILE]

The same network, seed, batches and settings: ViT-B/16 autoencoder with `recon_contrast`, whose contrast is over all crops
of a part, on every rank. One process with as many threads as there are ranks, and the ranks with one thread each, take the
same steps in turns, in fresh processes; figures are medians of the turns. `exchange` is what the gradients alone take
between ranks that do nothing else, as a share of their step: only the last part of a batch sends them, so it falls with
`--accumulate`. `difference` is the greatest of the losses of all steps, relative to one process.
"""

import argparse
import multiprocessing
import socket
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed

from medssl.config import Pretrain
from medssl.device import choose
from medssl.loaders import Steps
from medssl.methods.recon_contrast import ReconContrast
from medssl.optimisers import optimiser_of, parameter_groups
from medssl.parallel import spread
from medssl.ranks import rank
from medssl.step import Step
from medssl.training import Batch, Training
from networks import build_encoder
from turns import write_results

EXCHANGES = 5  # whose median is the time of one


def main() -> None:
    """Time both ways in turns and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--crop", type=int, default=96)
    parser.add_argument("--batch", type=int, default=8, help="crops a step, over all ranks; each has two views")
    parser.add_argument("--accumulate", type=int, default=4, help="parts of a batch; the last one sends gradients")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--hidden", type=int, default=768)
    parser.add_argument("--patch", type=int, default=16)
    parser.add_argument("--shard", action="store_true")
    parser.add_argument("--float32", action="store_true")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--steps", type=int, default=3, help="timed steps of a turn, after one that warms up")
    parser.add_argument("--json", type=Path, help="file for the results")
    options = parser.parse_args()
    ways = {"1 rank": (1, options.ranks), f"{options.ranks} ranks": (options.ranks, 1)}
    turns = [{name: one_turn(*way, options) for name, way in ways.items()} for _ in range(options.turns)]
    alone = turns[0]["1 rank"]["losses"]
    rows = {}
    for name, (_, threads) in ways.items():
        row = {key: statistics.median(turn[name][key] for turn in turns) for key in ("s", "exchange_s")}
        found = [abs(ours / theirs - 1) for turn in turns for ours, theirs in zip(turn[name]["losses"], alone, strict=True)]
        rows[name] = row | {"threads": threads, "crops_per_s": options.batch / row["s"], "difference": max(found)}
    print(f"| {'way':9} | threads | {'s':>7} | crops/s | {'ratio':>5} | exchange | difference |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for name, row in rows.items():
        ratio, share = rows["1 rank"]["s"] / row["s"], row["exchange_s"] / row["s"]
        cells = f"{row['threads']:7} | {row['s']:7.3f} | {row['crops_per_s']:7.3f} | {ratio:5.2f} | {share:8.1%}"
        print(f"| {name:9} | {cells} | {row['difference']:10.1e} |")
    if options.json:
        write_results(options, rows)


def one_turn(ranks: int, threads: int, options: argparse.Namespace) -> dict[str, Any]:
    """Take the steps in fresh processes; gives the figures of the first."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        where = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    with multiprocessing.get_context("spawn").Pool(ranks) as pool:
        words = [(number, ranks, threads, where, options) for number in range(ranks)]
        figures: dict[str, Any] = pool.starmap(one_rank, words, chunksize=1)[0]
    return figures


def one_rank(number: int, ranks: int, threads: int, where: str, options: argparse.Namespace) -> dict[str, Any]:
    """What each process does: its share of every step; seconds of the median one, of an exchange, and all losses."""
    torch.set_num_threads(threads)
    if ranks > 1:
        distributed.init_process_group("gloo", rank=number, world_size=ranks, init_method=where)
    settings = settings_of(threads, options)
    torch.manual_seed(0)
    method = ReconContrast(build_encoder("vit_base", 1, settings.crop_size, **sizes_of(options)), settings)
    spread(method, method.encoder, settings)
    groups = parameter_groups([(method, 1.0)])
    training = Training(method, groups, method, lambda start: [], None, "val_l1", False)
    step = Step(settings, choose(settings), training, optimiser_of(settings, groups))
    times, losses = [], []
    for taken, items in enumerate(Steps(0, options.steps + 1, options.batch, rank(), ranks, options.accumulate), 1):
        batch = batch_of(items, options.crop)
        told = step(taken, batch)
        times.append(told["step_s"])
        losses.append(told["loss"])
    exchange_s = 0.0 if ranks == 1 else exchange_seconds(sum(p.numel() for group in groups for p in group["params"]))
    return {"s": statistics.median(times[1:]), "losses": losses, "exchange_s": exchange_s}


def exchange_seconds(numbers: int) -> float:
    """The time of the sum of so many numbers over all ranks, in DDP's buckets of 25 MB."""
    buckets = torch.zeros(numbers).split(25 * 2**20 // 4)
    times = []
    for _ in range(EXCHANGES):
        distributed.barrier()
        began = time.perf_counter()
        for bucket in buckets:
            distributed.all_reduce(bucket)
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def batch_of(items: list[int], crop: int) -> Batch:
    """Noise that depends on the number of an item alone, with its views."""

    def drawn(item: int, view: int) -> Tensor:
        return torch.rand(1, crop, crop, crop, generator=torch.Generator().manual_seed(3 * item + view))

    tensors = {
        key: torch.stack([drawn(item, view) for item in items]) for view, key in enumerate(("image", "view_0", "view_1"))
    }
    return tensors | {"id": [str(item) for item in items], "data_hash": [""] * len(items)}


def sizes_of(options: argparse.Namespace) -> dict[str, Any]:
    """The network's sizes, by default those of ViT-B/16."""
    heads = max(options.hidden // 64, 1)
    return {
        "hidden_size": options.hidden, "mlp_size": 4 * options.hidden, "layers": options.layers, "heads": heads,
        "patch_size": [options.patch] * 3,
    }  # fmt: skip


def settings_of(threads: int, options: argparse.Namespace) -> Pretrain:
    """The settings of the recipe, as far as a step reads them."""
    return Pretrain.model_validate({
        "split": "-", "out": "-", "steps": 100, "batch_size": options.batch, "accumulate": options.accumulate,
        "validate_every": 100, "lr": 1e-4, "crop_size": [options.crop] * 3, "intensity": "percentile", "threads": threads,
        "network": {"name": "vit_base"} | sizes_of(options), "method": {"name": "recon_contrast", "temperature": 0.05},
        "device": "cpu", "shard": options.shard, "precision": "float32" if options.float32 else "auto",
    })  # fmt: skip


if __name__ == "__main__":
    main()
