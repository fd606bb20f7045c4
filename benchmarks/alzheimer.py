"""System E in small: which pre-training helps to tell four stages of Alzheimer's? The table of docs/results.md.

    python benchmarks/alzheimer.py ALZHEIMER FIGSHARE [--out runs/alzheimer] [--jobs 1]

ALZHEIMER has the slices in train/CLASS and test/CLASS, FIGSHARE the .mat files of brain tumours. SimCLR, Barlow Twins
and SwAV with a ResNet-18 and a masked autoencoder with a ViT are pre-trained on the brain tumour slices, on the
Alzheimer training slices, and on the second from the weights of the first; Barlow Twins also on procedural textures,
in the place of natural images, and from these weights on the tumour slices. Then each start, and random weights of both
networks, is fine-tuned with three seeds on three draws of 400 labelled Alzheimer slices, the classes in turn. Images
are 64 x 64 and the networks small, so that two cores do it in about an hour. Stop it at any time; started again it
goes on.
"""

import argparse
from pathlib import Path

from runs import Wanted, make_all, medssl
from textures import make_textures

SMALL = ("fit=[64,64]", "crop_size=[64,64]")
RESNET = 'network={"name":"resnet18","width":32}'
VIT = 'network={"name":"vit_tiny","patch_size":[8,8],"layers":6}'
JOINT = '"scale":[0.3,1.0],"blur_sigma":[0.1,1.0]'
METHODS = {
    "simclr": (RESNET, f'method={{"name":"simclr",{JOINT}}}', "lr=0.1"),
    "barlow": (RESNET, f'method={{"name":"barlow","projector":[512,512],{JOINT}}}', "lr=0.005"),
    "swav": (RESNET, f'method={{"name":"swav","prototypes":64,"epsilon":0.01,{JOINT}}}', "lr=0.1"),
    "mae": (
        VIT,
        'method={"name":"mae","decoder_width":96,"decoder_layers":2,"decoder_heads":4}',
        "optimiser=adamw",
        "lr=1e-3",
        "weight_decay=0.05",
        "beta2=0.95",
    ),
}
COLOUR = ('intensity={"name":"window","low":0,"high":255}', "method.colour=true")
FINETUNE = {
    "resnet18": (RESNET, "lr=0.03"),
    "vit": (VIT, "optimiser=adamw", "lr=5e-4", "weight_decay=0.05"),
}
SEEDS = (1, 2, 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("alzheimer", type=Path)
    parser.add_argument("figshare", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/alzheimer"))
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side, each with one thread")
    parser.add_argument("--pretrain-steps", type=int, default=400)
    parser.add_argument("--finetune-steps", type=int, default=250)
    options = parser.parse_args()
    out = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    textures = out / "textures"
    folders = {"textures": textures, "tumour": options.figshare.resolve(), "alzheimer": options.alzheimer.resolve()}
    shared = {
        name: [f"split={out / name}.json", f"data_root={folder}", f"store={out / 'store'}", *SMALL]
        for name, folder in folders.items()
    }
    if not (out / "alzheimer.json").exists():
        medssl("split", str(folders["tumour"]), str(out / "tumour.json"), "--task", "classification", "--overwrite")
        medssl("split", str(folders["alzheimer"]), str(out / "alzheimer.json"), "--by-image")
    if not (out / "textures.json").exists():
        make_textures(textures, 2500)
        medssl("split", str(textures), str(out / "textures.json"), "--by-image")
    steps = options.pretrain_steps
    length = [f"steps={steps}", f"validate_every={steps // 4}", f"checkpoint_every={steps // 4}", "warmup=40"]

    def pretraining(method: str, data: str, name: str, encoder: str = "none") -> Wanted:
        colour = COLOUR if data == "textures" else ("intensity=percentile",)
        words = [*shared[data], "region=null", *length, *METHODS[method], *colour, f"encoder={encoder}"]
        return Wanted("pretrain", "brain_mri", out / "pretrain" / name, words)

    first = [pretraining(method, data, f"{method}_{data}") for method in METHODS for data in ("tumour", "alzheimer")]
    first.append(pretraining("barlow", "textures", "barlow_textures"))
    chains = [
        pretraining(method, "alzheimer", f"{method}_chain", str(out / "pretrain" / f"{method}_tumour")) for method in METHODS
    ]
    chains.append(pretraining("barlow", "tumour", "barlow_textures_chain", str(out / "pretrain" / "barlow_textures")))
    make_all(first, options.jobs)
    make_all(chains, options.jobs)
    starts = {run.out.name: (str(run.out), "vit" if run.out.name.startswith("mae") else "resnet18") for run in first + chains}
    starts |= {"random": ("none", "resnet18"), "random_vit": ("none", "vit")}
    steps = options.finetune_steps
    length = [f"steps={steps}", f"validate_every={steps // 5}", f"checkpoint_every={steps}", "batch_size=32", "labelled=400"]
    make_all(
        [
            Wanted(
                "finetune",
                "alzheimer_finetune",
                out / "finetune" / f"{name}_seed{seed}",
                [*shared["alzheimer"], *length, *FINETUNE[network], f"encoder={encoder}", f"seed={seed}", f"draw={seed}"],
            )
            for seed in SEEDS
            for name, (encoder, network) in starts.items()
        ],
        options.jobs,
    )
    medssl("report", str(out / "finetune"))
    for run in first + chains:  # with all labels
        probe = ["--data-root", str(folders["alzheimer"]), "--set", f"store={out / 'store'}"]
        medssl("probe", str(run.out), "--split", str(out / "alzheimer.json"), *probe)


if __name__ == "__main__":
    main()
