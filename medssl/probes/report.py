"""What a probe says: a table, the differences in words, probe.json and embedding.png."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medssl.atomic import write_atomically
from medssl.embeddings import embedding_figure, pca
from medssl.markdown import markdown_table
from medssl.probes.frozen import Embedded
from medssl.problems import printable
from medssl.scores.bootstrap import PairedDifference, paired_bootstrap
from medssl.scores.classes import Judged, summarise_classes

# What is compared: the features, their classifier, and those that they have to beat.
PAIRS = (
    (("encoder", "linear"), ("random", "linear")),
    (("encoder", "kNN"), ("random", "kNN")),
    (("encoder", "linear"), ("pixels", "logistic regression")),
)


@dataclass(frozen=True)
class Judgement:
    """One classifier on one kind of features, judged on test; `setting` names what `chosen` is."""

    features: str
    classifier: str
    setting: str
    chosen: float
    tried: dict[float, float]
    rows: list[Judged]

    @property
    def name(self) -> tuple[str, str]:
        return self.features, self.classifier


@dataclass(frozen=True)
class Result:
    """Everything that is written; `measured` is spread and rank of each encoder's embeddings."""

    facts: dict[str, Any]
    judgements: list[Judgement]
    test: Embedded
    measured: dict[str, dict[str, Any]]
    labels: Mapping[int, str]
    warnings: list[str]


def write(folder: Path, result: Result) -> None:
    """Write probe.json and embedding.png, each whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    projection = pca(result.test.features["encoder"])
    picture = embedding_figure(
        projection.points, result.test.classes, list(result.labels.values()), False, projection.explained
    )
    write_atomically(folder / "embedding.png", picture)
    write_atomically(folder / "probe.json", (json.dumps(content(result), indent=1) + "\n").encode())


def content(result: Result) -> dict[str, Any]:
    """What probe.json holds."""
    return {
        **result.facts,
        "probes": [probe_content(judgement, result.labels) for judgement in result.judgements],
        "differences": [
            {"features": list(ours.name), "against": list(theirs.name), **difference._asdict()}
            for ours, theirs, difference in differences(result)
        ],
        "embedding": {
            **result.measured,
            "explained": pca(result.test.features["encoder"]).explained,
        },
        "verdict": verdict(result),
        "warnings": result.warnings,
    }


def probe_content(judgement: Judgement, labels: Mapping[int, str]) -> dict[str, Any]:
    """One classifier: what was tried and chosen on validation, and every figure of test with its interval."""
    chosen = {} if math.isnan(judgement.chosen) else {judgement.setting: judgement.chosen}
    tried = {f"{value:g}": loss for value, loss in judgement.tried.items()}
    about = {"features": judgement.features, "probe": judgement.classifier, "chosen": chosen, "validation_log_loss": tried}
    return about | summarise_classes(judgement.rows, labels)


def differences(result: Result) -> list[tuple[Judgement, Judgement, PairedDifference]]:
    """Compare accuracy over the same test cases, with a bootstrap interval over patients."""
    by_name = {judgement.name: judgement for judgement in result.judgements}
    found = []
    for ours, theirs in ((by_name[a], by_name[b]) for a, b in PAIRS):
        right, other = ([float(row.correct) for row in judgement.rows] for judgement in (ours, theirs))
        found.append((ours, theirs, paired_bootstrap(right, other, [row.patient for row in ours.rows])))
    return found


def verdict(result: Result) -> list[str]:
    """Say in words whether the encoder beats random features and pixels, a line a comparison and one on all."""
    lines, beaten = [], []
    for ours, theirs, difference in differences(result):
        low, high = difference.interval
        word = "beats" if low > 0 else "is below" if high < 0 else "is not shown to differ from"
        figures = f"accuracy {difference.difference:+.3f} [{low:+.3f}, {high:+.3f}]"
        lines.append(f"{' '.join(ours.name)} {word} {' '.join(theirs.name)}: {figures}")
        beaten.append(low > 0)
    return [*lines, conclusion(beats_random=any(beaten[:2]), beats_pixels=beaten[2])]


def conclusion(beats_random: bool, beats_pixels: bool) -> str:
    """The answer in a line."""
    if beats_random and beats_pixels:
        return "The encoder's features beat those of an untrained encoder, and pixels."
    failed = [what for what, won in (("an untrained encoder", beats_random), ("pixels", beats_pixels)) if not won]
    return f"The encoder's features are not shown to beat {' or '.join(failed)}: understand why before you report them."


def told(result: Result, as_json: bool) -> str:
    """What stdout gets: the JSON, or the table with what it is about, the verdict and the warnings."""
    if as_json:
        return json.dumps(content(result), indent=1)
    facts, test = result.facts, result.test
    trained = f"{facts['method'] or 'unknown method'}, step {facts['step']}"
    counts = ", ".join(f"{facts['cases'][part]} {part} ({facts['patients'][part]} patients)" for part in facts["cases"])
    spread = "; ".join(f"{name} {m['spread']:.3f} and {m['rank']:.1f}" for name, m in result.measured.items())
    lines = [
        f"{facts['network']}, {trained}: {facts['encoder']}",
        f"weights: {facts['loaded']}",
        f"images of {facts['data']}: {counts}",
        f"classes: {', '.join(facts['labels'])}",
        f"spread and effective rank of the embeddings: {spread}",
        "",
        table(result),
        "",
        f"judged once on {len(test.cases)} test images of {len(set(test.patients))} patients; [95% bootstrap interval "
        "over patients]; chosen by log loss on validation",
        *verdict(result),
        *result.warnings,
    ]
    return "\n".join(map(printable, "\n".join(lines).split("\n")))


def table(result: Result) -> str:
    """A row for each classifier, as Markdown whose columns line up."""
    header = ["features", "probe", "chosen", "accuracy [95%]", "balanced accuracy [95%]", "log loss [95%]"]
    rows = [table_row(judgement, result.labels) for judgement in result.judgements]
    return markdown_table(header, rows, words=3)


def table_row(judgement: Judgement, labels: Mapping[int, str]) -> list[str]:
    """The cells of one classifier."""
    figures = summarise_classes(judgement.rows, labels)
    chosen = "-" if math.isnan(judgement.chosen) else f"{judgement.setting} {judgement.chosen:.3g}"
    cells = []
    for name in ("accuracy", "balanced_accuracy", "log_loss"):
        low, high = figures[f"{name}_interval"]
        cells.append(f"{figures[name]:.3f} [{low:.3f}, {high:.3f}]")
    return [judgement.features, judgement.classifier, chosen, *cells]
