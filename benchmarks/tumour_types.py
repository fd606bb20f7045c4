"""System D in small: brain tumour types from slices, with and without the region of the tumour's mask.

    python benchmarks/tumour_types.py DATA [--out runs/tumour_types] [--jobs 1]

DATA holds the .mat files of figshare 1512427. A ResNet-50 of half the width at 64 x 64 is pre-trained by SimCLR on whole
slices; then it, and random weights, are fine-tuned with all labels on whole slices and on regions cut around the masks,
two seeds each. Random weights get a schedule of their own: the one that frees a pre-trained encoder would hardly train
them. Stop it at any time; started again it goes on.
"""

import argparse
from pathlib import Path

from runs import Wanted, make_all, medssl, summary

SMALL = ("fit=[64,64]", "crop_size=[64,64]", "network.width=32", "network.stem_pool=false")
SIMCLR = ("network.name=resnet50", "region=[64,64]", "steps=500", "validate_every=100", "checkpoint_every=50", "seed=1")
SHORTER = ("steps=340", "validate_every=34", "checkpoint_every=34")
OWN = {"random": ("freeze_steps=0", "schedule=one_cycle"), "simclr": ("freeze_steps=34",)}
INPUTS = {"whole": (), "roi": ("roi=0.2",)}
SEEDS = (1, 2)
TOLD = ("accuracy", "balanced_accuracy", "auc", "log_loss", "f1", "specificity", "precision")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/tumour_types"))
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side, each with one thread")
    options = parser.parse_args()
    out, data = options.out.resolve(), options.data.resolve()
    out.mkdir(parents=True, exist_ok=True)
    split = out / "split.json"
    if not split.exists():
        medssl("split", str(data), str(split), "--task", "classification", "--test", "490", "--validation", "200")
    shared = [f"split={split}", f"data_root={data}", f"store={out / 'store'}", *SMALL]
    pretrained = out / "ssl"
    make_all([Wanted("pretrain", "brain_mri", pretrained, [*shared, *SIMCLR])], options.jobs)
    starts = {"random": "none", "simclr": str(pretrained)}
    arms = {(seen, start, seed): out / seen / f"{start}_seed{seed}" for seed in SEEDS for seen in INPUTS for start in starts}
    make_all(
        [
            Wanted(
                "finetune",
                "tumour_types",
                folder,
                [*shared, *SHORTER, *OWN[start], *INPUTS[seen], f"encoder={starts[start]}", f"seed={seed}"],
            )
            for (seen, start, seed), folder in arms.items()
        ],
        options.jobs,
    )
    for seen in INPUTS:
        medssl("report", str(out / seen))
    print("| input, start, seed |", " | ".join(TOLD), "|")
    print("|---|" + "---:|" * len(TOLD))
    for (seen, start, seed), folder in arms.items():
        found = summary(folder)
        print(f"| {seen}, {start}, {seed} |", " | ".join(f"{found[name]:.3f}" for name in TOLD), "|")


if __name__ == "__main__":
    main()
