"""`medssl export RUN --to FORMAT`: read the run, write the format into a new folder, say how it is used."""

import argparse
from pathlib import Path

from medssl.exports import FORMATS
from medssl.problems import InputError, Problem


def add_arguments(export: argparse.ArgumentParser) -> None:
    """The arguments of `medssl export`."""
    export.add_argument("run_folder", type=Path, metavar="RUN", help="a finished run, of pre-training or fine-tuning")
    export.add_argument("--to", required=True, choices=list(FORMATS), help="the format")
    export.add_argument("-o", "--out", type=Path, metavar="OUT", help="a new folder; default: export-FORMAT in the run")
    export.add_argument("--overwrite", action="store_true", help="replace an earlier export in OUT")
    export.add_argument(
        "--license", dest="licence", default="unknown", help="what the weights may be used for, as Hugging Face names it"
    )


def run(options: argparse.Namespace) -> None:
    """Write the export and print its folder and how to load it; raises InputError before anything is written."""
    out = options.out or options.run_folder / f"export-{options.to}"
    if (out.exists() or out.is_symlink()) and not options.overwrite:
        raise InputError([Problem(str(out), "-o", "a folder that exists", "a new one, or --overwrite")])
    if not out.parent.is_dir():
        raise InputError([Problem(str(out), "-o", "no folder to put it in", "a folder that exists")])

    from medssl.atomic import atomic_folder
    from medssl.exports import writer
    from medssl.exports.source import read_source

    source = read_source(options.run_folder, options.licence)
    with atomic_folder(out) as folder:
        lines = writer(options.to)(source, folder)
        refuse_strangers(out, folder)
    print("\n".join([str(out), "", *lines]))


def refuse_strangers(out: Path, folder: Path) -> None:
    """Raise InputError for an existing folder that holds more than an earlier export: it would be lost."""
    if not out.exists():
        return
    if not out.is_dir() or out.is_symlink():
        raise InputError([Problem(str(out), "-o", "no folder", "a folder")])
    strange = sorted({path.name for path in out.iterdir()} - {path.name for path in folder.iterdir()})
    if strange:
        raise InputError(
            [Problem(str(out), "-o", f"{strange[0]}, which is not of an export", "an earlier export, or a new folder")]
        )
