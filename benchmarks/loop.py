"""Seconds from the start of a pre-training to the same validation L1, data loading included: ours against the tutorial's loop.

    python benchmarks/loop.py [--steps 150] [--turns 1] [--threads 2] [--workers 4] [--json FILE]
    python benchmarks/loop.py --data Task04_Hippocampus [--json FILE]

Both sides are commands: `ssl_pretrain.py`, which first packs its store (empty each time), and `tutorial_loop.py`, the loop
of MONAI's self-supervised tutorial written with MONAI's own parts. Same volumes, network, first weights, batch, rate, loss
(r + c r at temperature 0.05), number of steps and workers; ours in bfloat16 where the hardware has it. Both validate at the
same steps on the same crops with the same corrupted views, made before the clocks start, each in its own precision. The clock
starts with the process and includes imports, packing, validations and saved weights. In each turn, which has a seed of its
own, the figure is the L1 that both reach, the worse of the two best; `faster` is the ratio of the seconds at which each was
first there.

The volumes are synthetic CT (`ct_volumes.py`) at 2 mm and -57..164 HU as in the tutorial, or those of the Medical
Segmentation Decathlon's Task04 as they are, by percentiles. Boxes are as much smaller than the tutorial's as the crop is. Both
cut their crops out of a volume's foreground box at random (`crops=anywhere`): around foreground voxels, medssl's default, the
two crops of a volume differ more, the contrast falls sooner and the L1 of the first steps later.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from ct_volumes import write_volumes
from medssl.config import Pretrain
from medssl.device import choose
from medssl.pretrain import fixed_crops, on_device, prepared
from medssl.problems import Gathering
from medssl.runs import read_metrics
from turns import in_a_process, write_results
from views import VIEWS, boxes

ROOT = Path(__file__).parents[1]
WAYS = ("tutorial", "medssl")
CT: dict[str, Any] = {"crop": 96, "patch": 16, "hidden": 512, "layers": 12, "heads": 8, "batch": 2, "steps": 150, "every": 10}
MR: dict[str, Any] = {"crop": 32, "patch": 4, "hidden": 192, "layers": 8, "heads": 6, "batch": 4, "steps": 250, "every": 25}
Curve = list[tuple[float, int, float]]  # of validations: seconds since the process started, step, L1


def main() -> None:
    """Run both sides in turns and print what each took."""
    options = arguments()
    results = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        split, root = data_of(options, folder / "volumes")
        for seed in range(options.turns):
            results.append(one_turn(recipe_of(options, split, root, seed), folder / f"turn_{seed}"))
            print_turn(results[-1], seed)
    print(f"\n{options.crop}^3 crops, {options.batch} a step, {options.steps} steps, seeds 0 to {options.turns - 1}: ", end="")
    print(f"the same L1 {statistics.median(turn['faster'] for turn in results):.2f} times as fast (median)")
    if options.json:
        write_results(options, results)


def arguments() -> argparse.Namespace:
    """Read the command line; sizes not given are those of the data."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="the Decathlon's Task04_Hippocampus instead of synthetic CT")
    for name, value in CT.items():
        between = "steps between validations; " * (name == "every")
        parser.add_argument(f"--{name}", type=int, help=f"{between}default: CT {value}, hippocampus {MR[name]}")
    parser.add_argument("--volumes", type=int, default=10, help="synthetic ones to train on")
    parser.add_argument("--validation", type=int, default=4, help="synthetic ones to validate on")
    parser.add_argument("--shape", type=int, nargs=3, default=[320, 320, 120], help="voxels of a synthetic one")
    parser.add_argument("--spacing", type=float, nargs=3, default=[1.0, 1.0, 2.5], help="its mm")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--workers", type=int, default=4, help="processes of both loaders; the tutorial's number")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--turns", type=int, default=1, help="each with a seed of its own")
    parser.add_argument("--json", type=Path, help="file for the results")
    options = parser.parse_args()
    for name, value in (CT if options.data is None else MR).items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    return options


def data_of(options: argparse.Namespace, folder: Path) -> tuple[Path, Path]:
    """The split and the folder that its paths start from."""
    if options.data is None:
        return write_volumes(folder, options.volumes, options.validation, options.shape, options.spacing), folder
    folder.mkdir()
    maker, split = ROOT / "json_splits" / "make_hippocampus.py", folder / "split.json"
    subprocess.run([sys.executable, str(maker), str(options.data), str(split)], check=True)
    return split, options.data.resolve()


def recipe_of(options: argparse.Namespace, split: Path, root: Path, seed: int) -> dict[str, Any]:
    """The recipe of both sides, but for the folders."""
    ct = options.data is None
    sizes = {"hidden_size": options.hidden, "mlp_size": 4 * options.hidden, "layers": options.layers, "heads": options.heads}
    recipe = {
        "split": str(split), "data_root": str(root), "out": "-", "crop_size": [options.crop] * 3, "pad": True,
        "spacing": [2.0] * 3 if ct else None, "foreground_above": -57 if ct else None,
        "intensity": {"name": "window", "low": -57, "high": 164} if ct else "percentile",
        "network": {"name": "vit_base", "patch_size": [options.patch] * 3, **sizes},
        "method": {"name": "recon_contrast", "temperature": 0.05, **boxes(options.crop)},
        "optimiser": "adam", "lr": 1e-4, "steps": options.steps, "batch_size": options.batch, "crops_per_case": 2,
        "crops": "anywhere",
        "validate_every": options.every, "seed": seed, "threads": options.threads, "workers": options.workers,
        "device": options.device,
    }  # fmt: skip
    return json.loads(Pretrain.model_validate(recipe).model_dump_json())


def one_turn(recipe: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Make the crops to validate on, then run each side once; gives their figures."""
    folder.mkdir()
    given = folder / "validation.pt"
    in_a_process(prepare, recipe | {"store": str(folder / "before")}, given)
    runs = {}
    for way in WAYS:
        out, file = folder / way, folder / f"{way}.json"
        file.write_text(json.dumps(recipe | {"out": str(out), "store": str(folder / f"{way} store")}))
        loop = [str(ROOT / "benchmarks" / "tutorial_loop.py"), str(file), str(given), str(out)]
        command = loop if way == "tutorial" else [str(ROOT / "ssl_pretrain.py"), str(file)]
        runs[way] = figures([sys.executable, *command], out)
    in_a_process(refuse_other_crops, json.loads(file.read_text()), given)
    return {"runs": runs} | compared(*(runs[way]["curve"] for way in WAYS))


def prepare(recipe: dict[str, Any], given: Path) -> None:
    """Keep what both sides are to have in common: our first weights, by the names of MONAI, and validation batches."""
    settings = Pretrain.model_validate(recipe)
    compute = choose(settings)
    split, method, _, store = prepared(settings, Gathering())
    weights = {monai_name(name): value for name, value in method.state_dict().items()}
    made = on_device(fixed_crops(settings, compute, split, store, method), compute)
    batches = [{name: batch[name].cpu().clone() for name in ("image", VIEWS[0])} for batch in made]
    torch.save({"weights": weights, "batches": batches}, given)


def monai_name(name: str) -> str:
    """What `ViTAutoEnc` calls a weight of our autoencoder."""
    name = name.removeprefix("autoencoder.").removeprefix("encoder.")
    return name.replace("decoder.0.", "conv3d_transpose.").replace("decoder.1.", "conv3d_transpose_1.")


def refuse_other_crops(recipe: dict[str, Any], given: Path) -> None:
    """Stop where our run did not validate on the given crops and views."""
    again = given.with_name("again.pt")
    prepare(recipe, again)  # from the run's own store
    one, other = (torch.load(path, weights_only=True)["batches"] for path in (given, again))
    if not all(torch.equal(a[name], b[name]) for a, b in zip(one, other, strict=True) for name in a):
        raise SystemExit("error: both sides did not validate on the same crops")


def figures(command: list[str], out: Path) -> dict[str, Any]:
    """Run one side; gives its curve, its seconds until it began to train, and the medians of its steps."""
    stamps, began = dict[str, float](), time.perf_counter()
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            print(line, end="", file=sys.stderr)
            stamps[line.partition(":" if line.startswith("step ") else " on ")[0]] = time.perf_counter() - began
    if process.returncode:
        raise SystemExit(f"error: {' '.join(command)}: exit code {process.returncode}")
    metrics = list(read_metrics(out / "metrics.jsonl"))
    steps = [line for line in metrics if "step_s" in line]
    return {
        "curve": [(stamps[f"step {line['step']}"], line["step"], line["val_l1"]) for line in metrics if "val_l1" in line],
        "start_s": stamps["pre-training"],
        "step_s": statistics.median(line["step_s"] + line["data_s"] for line in steps),
        "data_s": statistics.median(line["data_s"] for line in steps),
        "whole_s": time.perf_counter() - began,
    }


def compared(tutorial: Curve, medssl: Curve) -> dict[str, Any]:
    """When each side first reached the L1 that both reach, and higher levels down to it."""
    figure = max(min(l1 for _, _, l1 in curve) for curve in (tutorial, medssl))
    top = max(figure, min(curve[0][2] for curve in (tutorial, medssl)))
    levels = sorted({figure + (top - figure) * share for share in (0.75, 0.5, 0.25, 0)}, reverse=True)
    rows = [{"l1": level, "tutorial": reached(tutorial, level), "medssl": reached(medssl, level)} for level in levels]
    return {"levels": rows, "l1": figure, "faster": rows[-1]["tutorial"][0] / rows[-1]["medssl"][0]}


def reached(curve: Curve, level: float) -> tuple[float, int]:
    """The seconds and the step of the first validation at or below a level."""
    return next((seconds, step) for seconds, step, l1 in curve if l1 <= level)


def print_turn(turn: dict[str, Any], seed: int) -> None:
    """Print the tables of one turn."""
    print(f"\nseed {seed}\n\n| validation L1 | tutorial s | step | medssl s | step | faster |\n|---|---:|---:|---:|---:|---:|")
    for row in turn["levels"]:
        (theirs, late), (ours, early) = row["tutorial"], row["medssl"]
        print(f"| {row['l1']:13.4f} | {theirs:10.1f} | {late:4} | {ours:8.1f} | {early:4} | {theirs / ours:6.2f} |")
    print(f"\n| {'way':8} | s until step 1 | s a step | of it data | best L1 | s in all |\n|---|---:|---:|---:|---:|---:|")
    for way, run in turn["runs"].items():
        best = min(l1 for _, _, l1 in run["curve"])
        times = f"{run['start_s']:14.1f} | {run['step_s']:8.3f} | {run['data_s']:10.3f}"
        print(f"| {way:8} | {times} | {best:7.4f} | {run['whole_s']:8.1f} |")
    print("\n| step | tutorial s | L1 | medssl s | L1 |\n|---:|---:|---:|---:|---:|")
    for (theirs, step, one), (ours, _, other) in zip(*(turn["runs"][way]["curve"] for way in WAYS), strict=True):
        print(f"| {step:4} | {theirs:10.1f} | {one:.4f} | {ours:8.1f} | {other:.4f} |")


if __name__ == "__main__":
    main()
