"""report.html of a run, or of a folder of runs: what was done, the answer, tables, pictures, settings and limits."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medssl.atomic import write_atomically
from medssl.comparison.compare import compare_runs
from medssl.problems import InputError, Problem
from medssl.reports import comparison as comparison_parts
from medssl.reports import run as run_parts
from medssl.reports.page import page
from medssl.runs import is_run, read_run


def write_report(folder: Path | str) -> Path:
    """Write report.html into a run folder, or into a folder that holds runs together with summary.json; give its path.

    InputError where there is no run, or none can be read or compared.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError([Problem(str(folder), "folder", "no such folder", "a run, or a folder of runs")])
    if is_run(folder):
        run = read_run(folder)
        title, body = run_parts.title(run), run_parts.body(run)
    else:
        comparison = compare_runs([folder])
        title, body = f"Comparison: {folder.resolve().name}", comparison_parts.body(comparison)
        write_atomically(folder / "summary.json", _json(comparison.as_dict()))
    return write_atomically(folder / "report.html", page(title, body))


def _json(values: Mapping[str, Any]) -> bytes:
    return (json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()
