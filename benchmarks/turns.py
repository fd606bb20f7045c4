"""What the benchmarks of a step share: every way in turns, each in a fresh process, medians of the turns and their table."""

import argparse
import json
import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from medssl.markdown import markdown_table

Found = dict[str, Any]  # a row of a table
Rows = dict[str, dict[str, float]]  # of each way: s, loss, memory_mb


def parser_of(description: str) -> argparse.ArgumentParser:
    """The arguments that every benchmark of a step has."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--crop", type=int, default=96)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--steps", type=int, default=3, help="timed steps of a turn, after one that warms up")
    parser.add_argument("--json", type=Path, help="file for the results")
    return parser


def in_turns(ways: Sequence[str], turns: int, turn: Callable[..., dict[str, float]], *words: Any) -> Rows:
    """Call `turn(way, *words)` for one way after the other, so that a busy machine hits all alike; medians of the turns."""
    made = [{way: in_a_process(turn, way, *words) for way in ways} for _ in range(turns)]
    return {way: {key: statistics.median(one[way][key] for one in made) for key in made[0][way]} for way in ways}


def in_a_process(work: Callable[..., Any], *words: Any) -> Any:
    """Call a function in a fresh process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(work, words)


def measured(prepare: Callable[[], Callable[[], float]], threads: int, device: str, steps: int) -> dict[str, float]:
    """Seconds of the median step, the loss of the first, and the most memory, above what was there before `prepare`.

    `prepare` gives the function that takes a step; the step gives its loss, so that a GPU is done.
    """
    torch.set_num_threads(threads)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    take, times, losses = prepare(), [], []
    for _ in range(steps + 1):
        began = time.perf_counter()
        losses.append(take())
        times.append(time.perf_counter() - began)
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1e3
    memory = torch.cuda.max_memory_allocated(device) / 1e6 if torch.device(device).type == "cuda" else peak
    return {"s": statistics.median(times[1:]), "loss": losses[0], "memory_mb": memory}


def report(rows: Rows, options: argparse.Namespace) -> None:
    """Print the table, the first way being what the others are compared with, and write the JSON file if one is named."""
    print_rows([beside_first(rows, way) | {"first loss": f"{row['loss']:.5f}"} for way, row in rows.items()])
    if options.json:
        write_results(options, rows)


def beside_first(rows: Rows, way: str) -> Found:
    """Seconds and memory of a way, and how they compare with the first way's."""
    first, row = next(iter(rows.values())), rows[way]
    ratios = {"faster": first["s"] / row["s"], "memory MB": row["memory_mb"], "of it": row["memory_mb"] / first["memory_mb"]}
    return {"way": way, "s": row["s"]} | ratios


def print_rows(rows: Sequence[Found], words: int = 1) -> None:
    """Print rows as a Markdown table, numbers with four digits; the first `words` columns stand left."""
    cells = [[value if isinstance(value, str) else f"{value:.4g}" for value in row.values()] for row in rows]
    print(markdown_table(list(rows[0]), cells, words))


def write_results(options: argparse.Namespace, results: Any) -> None:
    """Write what was asked for and what came out."""
    asked = {key: str(value) if isinstance(value, Path) else value for key, value in vars(options).items()}
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(asked | {"results": results}, indent=1) + "\n")


def refuse_other_losses(rows: Rows, tolerances: dict[str, float]) -> None:
    """Stop where a way's first loss is farther from the first way's than its relative tolerance: it computes another thing."""
    expected = next(iter(rows.values()))["loss"]
    for way, tolerance in tolerances.items():
        if abs(rows[way]["loss"] / expected - 1) > tolerance:
            raise SystemExit(f"error: {way}: found a first loss of {rows[way]['loss']:.6f}, expected {expected:.6f}")
