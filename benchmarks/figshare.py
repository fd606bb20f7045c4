"""System B in small: does pre-training on brain tumour slices help with 12 labels? The figshare table of docs/results.md.

    python benchmarks/figshare.py DATA [--out runs/figshare] [--jobs 1]

DATA holds the .mat files of figshare 1512427. Pre-trainings by masked reconstruction and by pairs, by class as
published and by views; then each start, and random weights, is fine-tuned on three draws of 12 slices with three seeds,
and probed as it is, with the same 12 and with all labels.
Images are 64 x 64 and the encoder a ResNet-18 of half the width, so that two cores do it in about an hour. Stop it at
any time; started again it goes on.
"""

import argparse
from pathlib import Path

from runs import Wanted, make_all, medssl

SMALL = ("fit=[64,64]", "crop_size=[64,64]", "network.width=32")
PRETRAIN = {
    "masked": ("figshare_masked", "method.min_size=4", "method.max_size=24"),
    "pairs_by_class": ("figshare_pairs",),
    "pairs_by_views": ("figshare_pairs", "method.by=views"),
}
SEEDS = (1, 2, 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/figshare"))
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side, each with one thread")
    options = parser.parse_args()
    out, data = options.out.resolve(), options.data.resolve()
    out.mkdir(parents=True, exist_ok=True)
    split = out / "split.json"
    if not split.exists():
        medssl("split", str(data), str(split), "--task", "classification", "--test", "490", "--validation", "111")
    shared = [f"split={split}", f"data_root={data}", f"store={out / 'store'}", *SMALL]
    pretrained = {name: out / "pretrain" / name for name in PRETRAIN}
    make_all(
        [Wanted("pretrain", recipe[0], pretrained[name], [*shared, *recipe[1:]]) for name, recipe in PRETRAIN.items()],
        options.jobs,
    )
    starts = {name: str(folder) for name, folder in pretrained.items()} | {"random": "none"}
    make_all(
        [
            Wanted(
                "finetune",
                "figshare_finetune",
                out / "finetune" / f"{name}_seed{seed}",
                [*shared, f"encoder={encoder}", f"seed={seed}", f"draw={seed}"],
            )
            for seed in SEEDS
            for name, encoder in starts.items()
        ],
        options.jobs,
    )
    medssl("report", str(out / "finetune"))
    probe = ["--split", str(split), "--data-root", str(data), "--set", f"store={out / 'store'}"]
    for folder in pretrained.values():
        medssl("probe", str(folder), *probe)  # with all labels
        for seed in SEEDS:
            medssl("probe", str(folder), *probe, "--labelled", "12", "--draw", str(seed))


if __name__ == "__main__":
    main()
