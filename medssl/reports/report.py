"""report.html of a run, or of a folder of runs: what was done, the answer, tables, pictures, settings and limits."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medssl.atomic import write_atomically
from medssl.comparison.compare import Comparison, compare_runs
from medssl.comparison.summary import summary_of
from medssl.comparison.tables import paper_table
from medssl.problems import InputError, Problem
from medssl.reports import comparison as comparison_parts
from medssl.reports import run as run_parts
from medssl.reports.page import page
from medssl.runs import is_run, read_run


def write_report(folder: Path | str) -> Path:
    """Write report.html into a run folder, or into a folder that holds runs as `write_comparison` does; give its path.

    InputError where there is no run, or none can be read or compared.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError([Problem(str(folder), "folder", "no such folder", "a run, or a folder of runs")])
    if not is_run(folder):
        return write_comparison(folder)[0]
    run = read_run(folder)
    return write_atomically(folder / "report.html", page(run_parts.title(run), run_parts.body(run)))


def write_comparison(folder: Path) -> tuple[Path, Comparison]:
    """Write report.html, summary.json and table.md of the runs in a folder; give the first one's path, and what it shows."""
    comparison = compare_runs([folder])
    what = "Study" if comparison.study else "Comparison"
    shown = page(f"{what}: {folder.resolve().name}", comparison_parts.body(comparison))
    write_atomically(folder / "summary.json", _json(summary_of(comparison)))
    write_atomically(folder / "table.md", paper_table(comparison).encode())
    return write_atomically(folder / "report.html", shown), comparison


def _json(values: Mapping[str, Any]) -> bytes:
    return (json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()
