"""The report of a study: its answer first, all its parts, the same numbers in summary.json and table.md."""

import json
from pathlib import Path

import pytest
from fabricated_studies import study
from test_report import outline

from medssl.problems import InputError
from medssl.reports.report import write_report
from medssl.reports.study_charts import Series, bands, heat_map


def test_the_report_of_a_study(tmp_path: Path) -> None:
    scores = {"random": {6: 0.70, 12: 0.78}, "mae": {6: 0.76, 12: 0.785}}
    root = study(tmp_path / "study", scores)
    found, page = outline(root)
    names = [name for level, name in found.headings if level == "h2"]
    assert names == [
        "The answer", "What was done", "Table", "Labels saved", "Cost and gain", "Curves", "Views", "Settings", "Environment",
        "Limits",
    ]  # fmt: skip
    assert page.index("Pre-training helps in 1 of 2 comparisons") < page.index("covers 0") < page.index("What was done")
    summary = json.loads((root / "summary.json").read_text())
    assert (summary["kind"], summary["measure"], summary["about"]) == ("study", "dice", "a made-up study")
    gain = summary["differences"][0]
    assert gain["real"]
    told = f"{gain['difference']:+.3f} [{gain['interval'][0]:+.3f}, {gain['interval'][1]:+.3f}]"
    table = (root / "table.md").read_text()
    assert told in page
    assert told in table
    assert summary["labels_saved"][0]["text"] in page
    assert len([line for line in table.splitlines() if line.startswith("|")]) == 6
    assert summary["headline"].splitlines()[0] in page
    (root / "runs" / "mae-6-0" / "summary.json").write_text("{")
    before = (root / "report.html").read_bytes()
    with pytest.raises(InputError, match=r"summary\.json"):
        write_report(root)
    assert (root / "report.html").read_bytes() == before


def test_charts_are_drawn_of_whatever_there_is() -> None:
    series = {"$a^$": Series([6, 12, 24], [0.5, 0.6, 0.7], [0.01, None, 0.02]), "_b": Series([6], [0.4], [None])}
    for dark in (False, True):
        assert bands(series, "labels", "Dice", dark).startswith(b"\x89PNG")
        cells = [[0.1, None], [-0.2, 0.0]]
        words = [["+0.1", ""], ["-0.2", "0"]]
        for centred in (False, True):
            drawn = heat_map(["mae", "$x"], ["a", "a, then b"], cells, words, "Dice", centred, dark=dark)
            assert drawn.startswith(b"\x89PNG")
    assert bands(series, "labels", "Dice", True) != bands(series, "labels", "Dice", False)
