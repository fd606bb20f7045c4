"""What each command of `medssl` takes, where its own room does not say it; imports nothing heavy, as `--help` reads all."""

import argparse
from pathlib import Path

TUNE = """\
Search settings on validation; the test part is not read. Every trial is a run of the ordinary script; one that is worse than
the median of the finished ones is ended early. Stopped at any moment, the same command goes on.

A space is key=from..to (by the logarithm where one end is ten times the other or more), key=a,b,c, or a JSON file of these.
Where nothing is said: lr a decade and a half around the recipe's; weight_decay 0, 0.01, 0.05 and the recipe's; in a
fine-tuning also encoder_lr 0.01..1, not for unet and a frozen encoder. The first trial has the recipe's own settings."""


def check_arguments(check: argparse.ArgumentParser) -> None:
    """The arguments of `medssl check`."""
    check.add_argument("split", type=Path, help="the split, a JSON file")
    check.add_argument("--data-root", type=Path, help="folder that the split's paths start from")
    check.add_argument("--deep", action="store_true", help="read every voxel as well")
    check.add_argument("--json", action="store_true", help="write counts and problems to stdout as JSON")


def pack_arguments(pack: argparse.ArgumentParser) -> None:
    """The arguments of `medssl pack`."""
    pack.add_argument("split", type=Path, help="the split, a JSON file")
    pack.add_argument("store", type=Path, metavar="OUT.h5", help="give it to the scripts as store=OUT.h5")
    pack.add_argument("--data-root", type=Path, help="folder that the split's paths start from")
    pack.add_argument("--labels", action="store_true", help="pack labels too, for fine-tuning; default: for pre-training")
    pack.add_argument("--dims", type=int, choices=(2, 3), default=3)
    pack.add_argument(
        "--spacing", type=millimetres, nargs="+", metavar="MM", help="one number an axis; default: the images' own"
    )
    pack.add_argument("--foreground-above", type=float, metavar="VALUE", help="crop away the border at or below this intensity")
    pack.add_argument("--workers", type=int, default=2, help="threads")


def rates_arguments(rates: argparse.ArgumentParser) -> None:
    """The arguments of `medssl rates`."""
    rates.add_argument("recipe", help="of pre-training or fine-tuning: a path, or a name under recipes/")
    rates.add_argument("settings", nargs="*", metavar="key=value", help="a setting that replaces the recipe's")
    rates.add_argument("--from", dest="low", type=float, default=1e-7, metavar="RATE", help="the first rate")
    rates.add_argument("--to", dest="high", type=float, default=10.0, metavar="RATE", help="the last rate")
    rates.add_argument("--count", type=int, default=100, help="rates, a training step each")


def synth_arguments(synth: argparse.ArgumentParser) -> None:
    """The arguments of `medssl synth`."""
    synth.add_argument("folder", type=Path)
    synth.add_argument("--cases", type=int, default=40)
    synth.add_argument("--dims", type=int, choices=(2, 3), default=3)
    synth.add_argument("--seed", type=int, default=0)
    tasks = ("segmentation", "regression")
    synth.add_argument("--task", choices=tasks, default=tasks[0], help="regression: of the liver's share of the image")


def probe_arguments(probe: argparse.ArgumentParser) -> None:
    """The arguments of `medssl probe`."""
    probe.add_argument("encoder", type=Path, metavar="RUN", help="a pre-training run, or its encoder.safetensors")
    probe.add_argument("--split", type=Path, required=True, help="a split with classes: training, validation and test")
    probe.add_argument("--data-root", type=Path, help="folder that the split's paths start from")
    probe.add_argument("--out", type=Path, metavar="DIR", help="default: probe-SPLIT in the run")
    probe.add_argument("--labelled", type=int, metavar="N", help="train on N labelled cases, a nested subset")
    probe.add_argument("--draw", type=int, default=0, metavar="K", help="which nested subset")
    probe.add_argument("--seed", type=int, default=0, help="of the untrained encoder and the linear probe")
    probe.add_argument("--device", default="auto", help="auto, cpu or cuda")
    probe.add_argument("--allow-seen", action="store_true", help="judge images of pre-training too, and say so")
    probe.add_argument("--json", action="store_true", help="write everything to stdout as JSON")
    probe.add_argument(
        "--set", dest="words", nargs="+", default=[], metavar="key=value", help="prepare otherwise than the encoder's plan says"
    )


def study_arguments(study: argparse.ArgumentParser) -> None:
    """The arguments of `medssl study`."""
    study.add_argument("study", help="a path, or a name under studies/")
    study.add_argument("--out", type=Path, metavar="DIR", help="folder of all runs; default: runs/STUDY")
    study.add_argument(
        "--set",
        dest="words",
        nargs="+",
        default=[],
        metavar="key=value",
        help="a shared setting, or a place in the study, as in data_root=/data axes.seed=[0,1]",
    )
    study.add_argument("--jobs", type=int, default=1, metavar="N", help="runs side by side, which share cores and GPUs")
    study.add_argument("--dry-run", action="store_true", help="list the runs with hours, memory and disk; makes none")
    study.add_argument("--list", action="store_true", help="print the commands of the runs, by stages; makes none")
    study.add_argument("--stage", type=int, metavar="K", help="only the runs of a stage, which need those of earlier ones")
    study.add_argument("--task", type=int, metavar="K", help="only run K of --list, as an array job counts them")
    study.add_argument("--only", metavar="NAME", help="only this run, or the runs of this arm or pre-training")
    study.add_argument(
        "--launcher", metavar="COMMAND", help="what starts a script, as in 'torchrun --nproc_per_node=2'; default: this python"
    )


def hours(text: str) -> float:
    """A time that a job can last."""
    if not 0 < float(text) <= 24 * 366:
        raise ValueError(text)
    return float(text)


def report_arguments(report: argparse.ArgumentParser) -> None:
    """The arguments of `medssl report`."""
    report.add_argument("folder", type=Path)


def tune_arguments(tune: argparse.ArgumentParser) -> None:
    """The arguments of `medssl tune`."""
    tune.usage = "medssl tune RECIPE [key=value ...] --out DIR [--trials N] [--space key=values ...] [--jobs K]"
    tune.description, tune.formatter_class = TUNE, argparse.RawDescriptionHelpFormatter
    tune.add_argument("recipe", help="of fine-tuning or pre-training, or a study, whose arms are searched alike")
    tune.add_argument("settings", nargs="*", metavar="key=value", help="a setting that replaces the recipe's, or the study's")
    tune.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the search")
    tune.add_argument("--trials", type=int, default=20, metavar="N", help="trainings altogether, those there included [20]")
    tune.add_argument("--space", nargs="+", default=[], metavar="key=values", help="what is searched, or a JSON file of it")
    tune.add_argument("--jobs", type=int, default=1, metavar="K", help="trials side by side, which share cores and GPUs")
    tune.add_argument("--dry-run", action="store_true", help="tell hours, memory and disk of all trials; makes none")
    tune.add_argument(
        "--at", nargs="+", default=[], metavar="axis=value", help="of a study: where on its axes; default: their first values"
    )
    tune.add_argument(
        "--launcher", metavar="COMMAND", help="what starts a script, as in 'torchrun --nproc_per_node=2'; default: this python"
    )


def millimetres(text: str) -> float:
    """A length that a voxel can have."""
    if not 1e-3 <= float(text) <= 1e3:
        raise ValueError(text)
    return float(text)
