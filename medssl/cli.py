"""The commands: `medssl ...` and what both scripts share. Nothing heavy is imported before it is needed.

Exit codes: 0 done, 1 failed while running, 2 wrong usage, settings or data, 75 out of time by --max-hours, 130 Ctrl-C,
143 SIGTERM.
"""

import argparse
import atexit
import gc
import json
import sys
import textwrap
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from medssl import __version__, launch
from medssl.arguments import (
    check_arguments,
    hours,
    pack_arguments,
    probe_arguments,
    rates_arguments,
    report_arguments,
    study_arguments,
    synth_arguments,
    tune_arguments,
)
from medssl.deadline import Deadline
from medssl.problems import InputError, Problem, RunError, failure, is_rank_gone
from medssl.signals import listening
from medssl.stopping import Elsewhere, Finished, OutOfTime, Stopped

WAIT = 4.0  # seconds that a rank stays which ends because another one does: a launcher then kills those that still speak
USES = {  # of networks, by how their names begin
    "vit": "pre-training, classification, segmentation by a UNETR decoder, or one without the image: network.decoder=tokens",
    "resnet": "pre-training, classification, segmentation by a U-Net decoder or network.decoder=fcn",
    "swin": "pre-training, classification, segmentation by Swin UNETR's decoder",
    "unet": "segmentation, from scratch: the baseline",
}


def script(kind: str, arguments: Sequence[str] | None = None) -> int:
    """Run ssl_pretrain.py or ssl_finetune.py; gives the exit code."""
    parser = argparse.ArgumentParser(
        prog=f"ssl_{kind}.py",
        usage=f"python ssl_{kind}.py RECIPE [key=value ...] [--resume] [--dry-run] [--profile] [--max-hours H]",
        description=f"{'Pre-train an encoder' if kind == 'pretrain' else 'Fine-tune on labelled cases'} by a recipe.",
        epilog=None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("recipe", help="a path, or a name under recipes/")
    parser.add_argument("settings", nargs="*", metavar="key=value", help="a setting that replaces the recipe's")
    parser.add_argument("--resume", action="store_true", help="go on with the run in out=, or start it")
    parser.add_argument(
        "--resume-loose",
        action="store_true",
        help="the same with other settings, data, versions, threads or device too, as the log and the report will say",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="measure a few steps and estimate time and memory; writes no run"
    )
    parser.add_argument(
        "--profile",
        action="store_true",
        help="trace steps 3 to 5 of this start into trace.json.gz of the run, and list what costs most",
    )
    parser.add_argument(
        "--max-hours",
        type=hours,
        metavar="H",
        help="end within H hours of the start, after a whole step, and exit with 75: not done yet, --resume goes on",
    )
    parser.add_argument("--version", action="version", version=f"medssl {__version__}")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    wanted = sys.argv[1:] if arguments is None else arguments
    if {"-h", "--help"} & set(wanted):
        parser.epilog = settings_help(kind)
    options = parser.parse_intermixed_args(wanted)
    return guarded(lambda: run_script(kind, options), options.debug)


def run_script(kind: str, options: argparse.Namespace) -> None:
    """Read the settings, then do the work."""
    began = time.monotonic()

    from medssl.config import Finetune, Pretrain
    from medssl.recipes import read_settings

    if options.dry_run and launch.rank() > 0:  # which is about one process
        return
    try:
        settings = read_settings(Pretrain if kind == "pretrain" else Finetune, options.recipe, options.settings)
    except InputError as error:
        raise error if launch.rank() == 0 else Elsewhere(2) from None
    if options.dry_run:
        from medssl.estimate import estimate

        print(estimate(settings, began))
        return
    from medssl.processes import started

    resume, deadline = options.resume or options.resume_loose, Deadline(options.max_hours, began)
    with started(settings.device):
        if isinstance(settings, Pretrain):
            from medssl.pretrain import pretrain

            pretrain(settings, resume, options.profile, options.resume_loose, deadline)
        elif isinstance(settings, Finetune):
            from medssl.finetune import finetune

            finetune(settings, resume, options.profile, options.resume_loose, deadline)


class Command(NamedTuple):
    """A word behind `medssl`, what it is for, its arguments, and what does it."""

    name: str
    help: str
    arguments: Callable[[argparse.ArgumentParser], object]
    run: Callable[[argparse.Namespace], None]


def commands() -> list[Command]:
    """All commands, in the order in which a user meets them."""
    from medssl import slice_command, split_command
    from medssl.exports import command as export
    from medssl.prediction import command as predict
    from medssl.web import command as serve

    return [
        Command("check", "report every problem of a split in one pass", check_arguments, run_check),
        Command(
            "split", "make a split from a folder or a table, by whole patients", split_command.add_arguments, split_command.run
        ),
        Command(
            "slices",
            "cut a split's volumes into 2D slices with their own split",
            slice_command.add_arguments,
            slice_command.run,
        ),
        Command("pack", "build the store by hand; the scripts do it on first use", pack_arguments, run_pack),
        Command("synth", "write a synthetic data set and its split", synth_arguments, run_synth),
        Command(
            "report", "write report.html of a run, or of a folder of runs with their comparison", report_arguments, run_report
        ),
        Command("probe", "judge a frozen encoder's features on a classification split", probe_arguments, run_probe),
        Command("rates", "try learning rates on a recipe's data; writes rates.png and rates.json", rates_arguments, run_rates),
        Command(
            "tune", "search a recipe's settings on validation, and write the recipe that is best", tune_arguments, run_tune
        ),
        Command("study", "make all runs that answer a question, and their comparison", study_arguments, run_study),
        Command("predict", "label maps, classes or numbers of images by trained runs", predict.add_arguments, predict.run),
        Command("serve", "trained runs on a web page and behind a JSON API, on this machine", serve.add_arguments, serve.run),
        Command("export", "write a run's network in a format that other programs read", export.add_arguments, export.run),
        Command("list", "methods, networks, recipes and studies", lambda parser: None, run_list),
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `medssl ...`; gives the exit code."""
    if launch.ranks() > 1:
        found = f"{launch.ranks()} processes started for it"
        return guarded(lambda: refuse(Problem("medssl", "command", found, "one; many train by the two scripts")))
    about = "Self-supervised pre-training and few-label fine-tuning for medical images. Research use only."
    parser = argparse.ArgumentParser(prog="medssl", description=about)
    parser.add_argument("--version", action="version", version=f"medssl {__version__}")
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--debug", action="store_true", help="show tracebacks")
    places = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in commands():
        place = places.add_parser(command.name, parents=[shared], help=command.help)
        command.arguments(place)
        place.set_defaults(run=command.run)
    options = parser.parse_args(arguments)
    return guarded(lambda: options.run(options), options.debug)


def guarded(work: Callable[[], object], debug: bool = False) -> int:
    """Do the work; put errors into one line each on stderr and give the exit code."""
    atexit.register(gc.freeze)  # or Python looks through all objects of torch and MONAI as it ends, for more than a second
    try:
        with listening():
            work()
    except Elsewhere as other:
        time.sleep(WAIT)
        return other.exit_code
    except InputError as error:
        if debug:
            raise
        for problem in error.problems:
            print(f"error: {problem}", file=sys.stderr)
        return 2
    except Finished as done:
        print(done, file=sys.stderr)
    except (Stopped, OutOfTime) as end:
        if launch.rank() == 0:
            print(end, file=sys.stderr)
        return end.exit_code
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    except (RunError, OSError, EOFError, MemoryError, RuntimeError) as error:
        if debug:
            raise
        if is_rank_gone(error):
            time.sleep(2 * WAIT)  # the rank itself has said why, and the launcher ends this one in the meantime
        print(f"error: {failure(error)}", file=sys.stderr)
        return 1
    return 0


def refuse(problem: Problem) -> None:
    """Raise InputError; one of several processes says it."""
    raise InputError([problem]) if launch.rank() == 0 else Elsewhere(2)


def run_check(options: argparse.Namespace) -> None:
    """`medssl check`."""
    from medssl.check import check_split
    from medssl.splits import read_split

    counts: dict[str, int] = {}
    problems: list[Problem] = []
    try:
        split = read_split(options.split, options.data_root)
        counts = {part: len(cases) for part, cases in split.parts.items()}
        problems = check_split(split, deep=options.deep)
    except InputError as error:
        problems = error.problems
    if options.json:
        print(json.dumps({"split": str(options.split), "cases": counts, "problems": [p._asdict() for p in problems]}, indent=1))
    if problems:
        raise InputError(problems if not options.json else [])
    if not options.json:
        told = ", ".join(f"{count} {part}" for part, count in counts.items())
        print(f"{options.split}: {told}; no problem found{'' if options.deep else ' in the headers'}")


def run_pack(options: argparse.Namespace) -> None:
    """`medssl pack`."""
    from medssl.data import pack_split
    from medssl.splits import read_split

    if options.store.suffix != ".h5":
        raise InputError([Problem(str(options.store), "store", options.store.suffix or "no suffix", "a name ending in .h5")])
    if options.spacing and len(options.spacing) != options.dims:
        raise InputError([Problem("--spacing", "numbers", str(len(options.spacing)), f"{options.dims}, one an axis")])
    split = read_split(options.split, options.data_root)
    spacing = tuple(options.spacing) if options.spacing else None
    store = pack_split(split, options.store, options.dims, spacing, options.foreground_above, options.labels, options.workers)
    above = "null" if options.foreground_above is None else options.foreground_above
    listed = json.dumps(options.spacing or None, separators=(",", ":"))  # without blanks, as a shell takes it
    print(f"{store}\nuse it with store={options.store} spacing={listed} foreground_above={above}")


def run_synth(options: argparse.Namespace) -> None:
    """`medssl synth`."""
    from medssl.synth import make_dataset

    print(make_dataset(options.folder, options.cases, options.dims, options.seed, options.task))


def run_report(options: argparse.Namespace) -> None:
    """`medssl report`."""
    from medssl.comparison.tables import table
    from medssl.comparison.words import answer, headline
    from medssl.reports.report import write_comparison, write_report
    from medssl.runs import is_run
    from medssl.tuning.folder import read_search

    if read_search(options.folder):
        from medssl.tuning.report import write_search

        print(write_search(options.folder))
        return
    if not options.folder.is_dir() or is_run(options.folder):
        print(write_report(options.folder))
        return
    path, comparison = write_comparison(options.folder)
    said = headline(comparison) if comparison.study else ""
    print(f"{table(comparison)}\n\n{said or answer(comparison)}\n\n{path}")


def run_probe(options: argparse.Namespace) -> None:
    """`medssl probe`."""
    from medssl.probes.command import run

    run(options)


def run_rates(options: argparse.Namespace) -> None:
    """`medssl rates`."""
    from medssl.recipes import read_either

    if not 0 < options.low < options.high <= 1e6:
        raise InputError([Problem("--from, --to", "rates", f"{options.low:g}, {options.high:g}", "0 < from < to <= 1e6")])
    if options.count < 10:
        raise InputError([Problem("--count", "rates", str(options.count), "at least 10")])
    settings = read_either(options.recipe, options.settings)

    from medssl.rate_finder import find_rates

    search, files = find_rates(settings, options.low, options.high, options.count)
    for name, rate in search.suggestions.items():
        print(f"{name:<14}lr={rate:.2g}")
    print("\n".join(map(str, files)))


def run_study(options: argparse.Namespace) -> None:
    """`medssl study`."""
    from medssl.study.command import run

    run(options)


def run_tune(options: argparse.Namespace) -> None:
    """`medssl tune`."""
    from medssl.tuning.command import run

    run(options)


def run_list(options: argparse.Namespace) -> None:
    """`medssl list`."""
    from medssl.methods import METHODS
    from medssl.recipes import RECIPES, read_recipe, recipe_names
    from medssl.study.schema import STUDIES, study_names
    from networks import NETWORKS

    print("methods:", ", ".join(METHODS))
    print("networks:")
    for start, uses in USES.items():
        print(f"  {', '.join(name for name in NETWORKS if name.startswith(start))}: {uses}")
    print("recipes:")
    for name in recipe_names():
        recipe = read_recipe(RECIPES / f"{name}.json")
        print(f"  {name}: {textwrap.shorten(str(recipe.get('follows', '')), 100, placeholder=' ...')}")
    print("studies:")
    for name in study_names():
        about = read_recipe(STUDIES / f"{name}.json").get("about", "")
        print(f"  {name}: {textwrap.shorten(str(about), 100, placeholder=' ...')}")


def settings_help(kind: str) -> str:
    """List the settings of a script with their defaults and descriptions."""
    from medssl.config import Finetune, Pretrain
    from medssl.config.listing import listed

    return "\n".join(["settings:", *listed(Pretrain if kind == "pretrain" else Finetune)])


if __name__ == "__main__":
    sys.exit(main())
