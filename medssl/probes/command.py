"""`medssl probe RUN --split S`: the features of a frozen encoder judged on a classification split.

A linear probe and nearest neighbours on the encoder, the same on an encoder of that architecture that was never
trained, and a logistic regression on small pixels: an encoder that is not above both has learned nothing for this
task. Settings are chosen on validation, and test is judged once.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from medssl.config import Finetune
from medssl.data import data_warnings, load_data, split_of
from medssl.device import choose
from medssl.embeddings import collapse_warning, effective_rank, feature_spread
from medssl.pixels import standardise_pixels
from medssl.plan import ENCODER, adapted_channels, build_encoder, differences, seen_before, start_encoder
from medssl.probes.classifiers import (
    Labelled,
    Probe,
    class_shares,
    linear_probe,
    logistic_regression,
    nearest_neighbours,
    standardise,
)
from medssl.probes.frozen import PIXELS, Embedded, embed, share_seen
from medssl.probes.report import Judgement, Result, told, write
from medssl.problems import Gathering, InputError, Problem
from medssl.recipes import explain, parse, put
from medssl.scores.classes import Judged
from medssl.splits import Split
from medssl.store import Store
from medssl.subsets import take_labelled
from networks.transfer import TransferError, read_plan

PARTS = ("training", "validation", "test")
PREPARATION = ("spacing", "intensity", "foreground_above", "fit", "roi")  # what a plan says and --set may change
SETTABLE = (*PREPARATION, "mask", "fold", "store", "workers", "threads", "precision")
VOXELS = 2**21  # of one channel, in a batch
TRAINED, RANDOM = "encoder", "random"


@dataclass(frozen=True)
class Asked:
    """What the user wants to know; `words` are key=value, over what the plan says."""

    encoder: Path
    split: Path
    data_root: Path | None = None
    out: Path | None = None
    labelled: int | None = None
    draw: int = 0
    seed: int = 0
    device: str = "auto"
    allow_seen: bool = False
    words: Sequence[str] = ()


def run(options: argparse.Namespace) -> None:
    """Probe as the command line says, write the files and print the table, or the JSON."""
    asked = Asked(**{name: getattr(options, name) for name in Asked.__dataclass_fields__})
    result = probe(asked)
    folder = asked.out or folder_of(asked, result)
    print(told(result, as_json=options.json))
    write(folder, result)
    if not options.json:
        print(folder / "probe.json")


def folder_of(asked: Asked, result: Result) -> Path:
    """Where the files go: beside the encoder, a folder of its own for every split and every subset of labels."""
    beside = asked.encoder if asked.encoder.is_dir() else asked.encoder.parent
    subset = "" if asked.labelled is None else f"-{asked.labelled}-draw{asked.draw}"
    return beside / f"probe-{result.facts['data']}{subset}"


def probe(asked: Asked) -> Result:
    """Do all of it but the writing; raises InputError with every problem before an image is embedded."""
    settings = settings_of(asked)
    compute, problems = choose(settings), Gathering()
    split = labelled_split(settings)
    encoder, untrained = (build_encoder(settings, split.channels) for _ in range(2))
    with problems:
        loaded = start_encoder(encoder, settings)
    with problems:
        _, store = load_data(settings, PARTS, labels=True)
    problems.raise_any()
    warnings = [*data_warnings(settings, split, store), *differences(settings), *adapted_channels(settings, split, loaded)]
    warnings += seen_warnings(settings, split, store)
    warnings += centre_warnings(settings, split, store)
    encoders = {TRAINED: encoder, RANDOM: untrained}
    parts = {part: embed(encoders, store, split.part(part), settings, compute, part) for part in PARTS}
    judgements = judge(parts, split, asked.seed)
    facts = facts_of(settings, split, parts) | {"loaded": str(loaded), "device": str(compute)}
    measured = {name: measures(parts, name) for name in encoders}
    collapsed = collapse_warning(**measured[TRAINED])
    return Result(facts, judgements, parts["test"], measured, split.labels, warnings + ([collapsed] if collapsed else []))


def settings_of(asked: Asked) -> Finetune:
    """Make settings of the encoder's plan: network, image size, preparation; raises InputError."""
    file = asked.encoder / ENCODER if asked.encoder.is_dir() else asked.encoder
    plan = plan_in(file)
    size = plan["image_size"]
    values: dict[str, Any] = {name: plan[name] for name in PREPARATION if name in plan}
    values["spacing"] = (values.get("spacing") or [])[: len(size)] or None  # of an encoder of slices that of their plane
    values |= {"split": asked.split, "data_root": asked.data_root, "out": asked.out or file.parent, "seed": asked.seed}
    values |= {"network": plan["network"], "crop_size": size, "encoder": str(file), "pad": True}
    values |= {"labelled": asked.labelled, "draw": asked.draw, "allow_seen": asked.allow_seen, "device": asked.device}
    values |= {"steps": 1, "validate_every": 1, "lr": 1.0, "batch_size": batch_of(size)}
    # bfloat16 changed the standardised features of an untrained ResNet-50 by 12%, and they are what is to be beaten
    values["precision"] = "float32"
    for word in asked.words:
        key, _, text = word.partition("=")
        if key.split(".")[0] not in SETTABLE:
            raise InputError([Problem("--set", key, "no setting of a probe", f"key=value with one of {', '.join(SETTABLE)}")])
        put(values, key.split("."), parse(text))
    try:
        return Finetune.model_validate(values)
    except ValidationError as error:
        problems = [explain(Finetune, "probe", item) for item in error.errors(include_url=False)]
        raise InputError(problems) from None


def plan_in(file: Path) -> dict[str, Any]:
    """Read the plan of an encoder's file; raises InputError where there is none."""
    expected = f"a pre-training run, or its {ENCODER}"
    if not file.is_file():
        raise InputError([Problem(str(file), "encoder", "no such file", expected)])
    try:
        plan = read_plan(file) or {}
    except TransferError as error:
        raise InputError([Problem(str(file), "encoder", str(error).removeprefix("found ").split(",")[0], expected)]) from None
    missing = [name for name in ("network", "image_size", "intensity") if name not in plan]
    if missing:
        raise InputError([Problem(str(file), "plan", f"none, or one without {missing[0]}", expected)])
    return plan


def batch_of(size: Sequence[int]) -> int:
    """How many images are embedded at once."""
    return max(1, min(64, VOXELS // prod(size)))


def labelled_split(settings: Finetune) -> Split:
    """Read the split with its labelled subset; raises InputError when its classes can't be probed."""
    split = split_of(settings)
    if split.task != "classification":
        raise InputError([Problem(str(split.file), "task", split.task, "classification: a probe needs a class for each image")])
    split = take_labelled(split, settings.labelled, settings.draw)
    classes = {part: classes_of(split, part) for part in PARTS}
    problems = [
        Problem(str(split.file), "training", f"no case of {split.labels[label]}", f"one, as {part} has the class")
        for part in PARTS[1:]
        for label in sorted(classes[part] - classes["training"])
    ]
    if not problems and len(classes["training"]) == 1:
        problems = [Problem(str(split.file), "training", "cases of one class", "two classes or more")]
    if problems:
        raise InputError(list({problem.found: problem for problem in reversed(problems)}.values()))  # a class is told once
    return split


def classes_of(split: Split, part: str) -> set[int]:
    """The classes that a part has; cases without one are found when their files are checked."""
    labels = [case.label for case in split.part(part)]
    return {int(label) for label in labels if isinstance(label, int | float)}


def seen_warnings(settings: Finetune, split: Split, store: Store) -> list[str]:
    """Refuse test images that the encoder was pre-trained on, or, where that is allowed, say so."""
    seen = seen_before(settings, [store.entries[case.id] for case in split.part("test")])
    if seen and not settings.allow_seen:
        raise InputError([problem._replace(expected="one it never saw, or --allow-seen") for problem in seen])
    return [f"warning: the encoder was pre-trained on {len(seen)} of the cases that are judged"] if seen else []


def centre_warnings(settings: Finetune, split: Split, store: Store) -> list[str]:
    """Say when most of an image lies outside of what the encoder is shown."""
    share = share_seen(store, split.part("test"), settings)
    size = "x".join(map(str, settings.crop_size))
    whole = f"--set fit=[{','.join(map(str, settings.crop_size))}] shows it whole"
    return [f"warning: the centre of {size} voxels holds {share:.0%} of an image; {whole}"] if share < 0.5 else []


def judge(parts: dict[str, Embedded], split: Split, seed: int) -> list[Judgement]:
    """Fit every classifier on training, choose its setting on validation and judge it on test."""
    k = len(split.labels)
    judgements = []
    for name in (TRAINED, RANDOM, PIXELS):
        rows = (standardise_pixels if name == PIXELS else standardise)(*(parts[part].features[name] for part in PARTS))
        training, validation = (Labelled(rows[i], parts[part].classes) for i, part in enumerate(PARTS[:2]))
        if name == PIXELS:
            found = logistic_regression(training, validation, rows[2], k)
            judgements.append(judgement(parts["test"], name, "logistic regression", "C", found))
        else:
            linear = linear_probe(training, validation, rows[2], k, seed)
            nearest = nearest_neighbours(training, validation, rows[2], k)
            judgements.append(judgement(parts["test"], name, "linear", "rate", linear))
            judgements.append(judgement(parts["test"], name, "kNN", "k", nearest))
    shares = class_shares(training, len(rows[2]), k)
    return [*judgements, judgement(parts["test"], "nothing", "class shares", "", Probe(shares, float("nan"), {}))]


def judgement(test: Embedded, features: str, classifier: str, setting: str, found: Probe) -> Judgement:
    """The test cases with their probabilities."""
    told = zip(test.cases, test.patients, test.classes.tolist(), found.probabilities.tolist(), strict=True)
    rows = [Judged(case, patient, truth, tuple(probabilities)) for case, patient, truth, probabilities in told]
    return Judgement(features, classifier, setting, found.chosen, found.tried, rows)


def stacked(parts: dict[str, Embedded], name: str) -> NDArray[np.float64]:
    """The features (n, e) of all parts."""
    return np.concatenate([parts[part].features[name] for part in PARTS])


def measures(parts: dict[str, Embedded], name: str) -> dict[str, Any]:
    """How far the embeddings of all images spread and how many directions they fill."""
    rows = stacked(parts, name)
    return {"spread": feature_spread(rows), "rank": effective_rank(rows), "n": rows.shape[0], "e": rows.shape[1]}


def facts_of(settings: Finetune, split: Split, parts: dict[str, Embedded]) -> dict[str, Any]:
    """What was probed, on what."""
    plan = plan_in(Path(settings.encoder))
    return {
        "kind": "probe",
        "encoder": settings.encoder,
        "network": settings.network.name,
        "method": (plan.get("method") or {}).get("name"),
        "step": plan.get("step"),
        "channels": {"encoder": plan.get("channels"), "data": split.channels},
        "split": str(split.file),
        "data": split.name,
        "labels": list(split.labels.values()),
        "labelled": len(split.part("training")),
        "draw": settings.draw,
        "seed": settings.seed,
        "image_size": settings.crop_size,
        "preparation": {name: value for name, value in settings.model_dump(mode="json").items() if name in PREPARATION},
        "cases": {part: len(found.cases) for part, found in parts.items()},
        "patients": {part: len(set(found.patients)) for part, found in parts.items()},
    }
