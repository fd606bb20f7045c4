"""The model card: what the network learned from, how, how good it is with intervals and n, and what it is not for.

Sections after Mitchell et al., "Model Cards for Model Reporting", 2019 (https://arxiv.org/abs/1810.03993); the front matter
as the Hugging Face hub reads it (https://huggingface.co/docs/hub/model-cards).
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medssl.config import Pretrain
from medssl.exports.source import ENCODER_TASK, Source
from medssl.markdown import markdown_table

PAPERS = {
    "recon_contrast": "MONAI's self-supervised tutorial: restoration and contrast",
    "masked": "Pathak et al., 2016, https://arxiv.org/abs/1604.07379",
    "mae": "He et al., 2021, https://arxiv.org/abs/2111.06377",
    "simclr": "Chen et al., 2020, https://arxiv.org/abs/2002.05709",
    "barlow": "Zbontar et al., 2021, https://arxiv.org/abs/2103.03230",
    "vicreg": "Bardes et al., 2022, https://arxiv.org/abs/2105.04906",
    "swav": "Caron et al., 2020, https://arxiv.org/abs/2006.09882",
    "pairs": "Koch et al., 2015, siamese networks",
}
PIPELINES = {
    "segmentation": "image-segmentation",
    "classification": "image-classification",
    ENCODER_TASK: "image-feature-extraction",
}
FIGURES = {  # of summary.json, with their names
    "segmentation": {"dice": "Dice", "surface_dice": "surface Dice", "hd95": "HD95, mm"},
    "classification": {"accuracy": "accuracy", "balanced_accuracy": "balanced accuracy", "auc": "AUC", "log_loss": "log loss"},
    "regression": {"mae": "mean absolute error", "rmse": "root mean squared error", "r2": "R2"},
}
OF_CLASS = {"segmentation": "dice", "classification": "sensitivity"}
LIMITS = [
    "Research use only. Not a medical device: not for diagnosis, treatment or triage.",
    "Learned from one data set: other scanners, protocols and patients can give other results than those above.",
    "Images have to be prepared as above. Other spacing, orientation or intensities give wrong answers without a warning.",
]


def front_matter(source: Source) -> str:
    """The YAML block that the hub reads; JSON strings are YAML strings."""
    tags = ["medical", "medssl", source.task, source.settings.network.name, f"{source.settings.spatial_dims}d"]
    tags += [name.lower() for name in source.split.modality.values()]
    lines = [f"license: {json.dumps(source.licence)}", "library_name: monai"]
    if source.task in PIPELINES:
        lines.append(f"pipeline_tag: {PIPELINES[source.task]}")
    return "\n".join(["---", *lines, "tags:", *(f"- {json.dumps(tag)}" for tag in dict.fromkeys(tags)), "---", "", ""])


def model_card(source: Source, loading: Sequence[str]) -> str:
    """The card in Markdown; `loading` are the lines that say how the network is used."""
    what = "an encoder, pre-trained without labels" if source.task == ENCODER_TASK else f"{source.task}, fine-tuned"
    first = f"{what[0].upper()}{what[1:]} by medssl. Research use only. Not a medical device."
    parts = [
        [f"# {source.split.name}: {source.run.network}", "", first],
        ["## Use", "", *loading],
        ["## Input and output", "", *interface(source)],
        ["## Data", "", *data(source)],
        ["## Method", "", *method(source)],
        ["## Results", "", *results(source)],
        ["## Limits", "", *(f"- {line}" for line in limits(source))],
    ]
    return "\n\n".join("\n".join(lines) for lines in parts) + "\n"


def interface(source: Source) -> list[str]:
    """What goes in, in the order of its preparation, and what comes out."""
    size = " x ".join(map(str, source.size))
    channels = ", ".join(source.split.modality.values())
    prepared = [f"- {name}: `{json.dumps(value)}`" for name, value in source.preparation.items() if value not in (None, "none")]
    output = [f"- {name}: `{json.dumps(value)}`" for name, value in source.output.items() if name != "name"]
    image = f"float32 images of 0..1, {counted(source.split.channels, 'channel')} ({channels}), {size} voxels"
    return [
        f"In: {image}. Prepared by, in this order:",
        "",
        *prepared,
        "",
        f"Out: {source.output['name']}.",
        *(["", *output] if output else []),
    ]


def data(source: Source) -> list[str]:
    """The data set, how many cases of how many patients, and their images."""
    counts = []
    for part, cases in source.split.parts.items():
        if cases:
            units = (
                "" if source.split.grouped_by == "image" else f" of {counted(len({case.patient for case in cases}), 'patient')}"
            )
            counts.append(f"- {part}: {counted(len(cases), 'case')}{units}")
    spacing = source.settings.spacing or source.run.summary.get("spacing")
    spaced = f", {' x '.join(f'{mm:g}' for mm in spacing)} mm" if spacing else ""
    labelled = (
        [] if source.run.labelled is None else [f"- of training, labels of {counted(source.run.labelled, 'case')} were used"]
    )
    name = f"`{source.split.name}`: {', '.join(source.split.modality.values())}{spaced}."
    return [name, "", *counts, *labelled]


def method(source: Source) -> list[str]:
    """How the weights were learned, with the paper, and what they were before."""
    settings, plan = source.settings, source.run.encoder
    told = []
    if isinstance(settings, Pretrain):
        told.append(f"- pre-trained by `{settings.method.name}` ({PAPERS.get(settings.method.name, 'see medssl')})")
    for before in plan.get("ancestry", []):
        name = (before.get("method") or {}).get("name")
        how = f"`{name}` ({PAPERS[name]}) on `{before.get('data')}`" if name in PAPERS else "a file of weights"
        told.append(f"- started from {how}")
    if not isinstance(settings, Pretrain) and not plan.get("ancestry"):
        told.append("- from random weights: no pre-training")
    steps = source.run.summary.get("steps", settings.steps)
    told.append(
        f"- {steps} steps of {settings.batch_size} crops, {settings.optimiser}, rate {settings.lr:g}, seed {settings.seed}"
    )
    follows = [f"- follows {settings.follows}"] if settings.follows else []
    versions = source.run.environment.get("packages", {})
    made = ", ".join(f"{name} {versions[name]}" for name in ("medssl", "torch", "monai") if versions.get(name))
    return [*told, *follows, *([f"- made with {made}"] if made else [])]


def results(source: Source) -> list[str]:
    """Every figure with its 95% interval and n, the classes, and the comparison that the run is part of."""
    summary = source.run.summary
    if source.task == ENCODER_TASK:
        return [
            "An encoder has no figure of its own: whether it helps a task, a probe or a comparison of fine-tuned runs says."
        ]
    n, patients = summary.get("n"), summary.get("patients")
    rows = [[name, number(summary[key]), interval(summary.get(f"{key}_interval"))]
            for key, name in FIGURES[source.task].items() if key in summary]  # fmt: skip
    lines = [
        f"On the {summary.get('part')} part, {n} cases of {patients} {source.run.units}, read once;"
        " 95% bootstrap intervals over patients.",
        "",
        markdown_table(["figure", "value", "95% interval"], rows),
    ]
    figure = OF_CLASS.get(source.task)
    classes = [[name, str(of["n"]), number(of.get(figure)), interval(of.get(f"{figure}_interval"))]
               for name, of in summary.get("classes", {}).items()]  # fmt: skip
    if classes:
        lines += ["", markdown_table(["class", "n", f"{figure}", "95% interval"], classes)]
    compared = comparison(source.run.folder)
    return [*lines, *(["", compared] if compared else [])]


def limits(source: Source) -> list[str]:
    """What the network is not for, and what the run warned of, without the folders of this machine."""
    warnings = [re.sub(r"(?<!\S)/\S*/", "", text.removeprefix("warning: ")) for text in source.run.summary.get("warnings", [])]
    return [*LIMITS, *warnings]


def comparison(folder: Path) -> str | None:
    """The answer of the comparison that `medssl report` wrote beside the run, where the run is part of it."""
    try:
        found: dict[str, Any] = json.loads((folder.resolve().parent / "summary.json").read_text(encoding="utf-8"))
        names = {Path(run).name for arm in found["arms"] for run in arm["folders"]}
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return f"Beside other runs: {found.get('answer')}" if folder.resolve().name in names else None


def counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def number(value: float | None) -> str:
    return "none" if value is None else f"{value:.4g}"


def interval(ends: Sequence[float] | None) -> str:
    return "none" if ends is None else f"{ends[0]:.4g} to {ends[1]:.4g}"
