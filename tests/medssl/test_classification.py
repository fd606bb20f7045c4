"""Classification by settings alone: it learns, freezes, resumes, is judged and compared."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from breaking import broken_off
from fabricated_runs import classification_run, finetune_run
from phantoms import CLASSES, make_classes

from medssl import checkpoint
from medssl.comparison.compare import compare_runs
from medssl.comparison.tables import table
from medssl.comparison.words import answer
from medssl.config import Finetune
from medssl.data import load_data
from medssl.device import choose
from medssl.finetune import finetune, labelled_split
from medssl.plan import build_encoder
from medssl.problems import InputError
from medssl.reports.report import write_report
from medssl.scores.classes import read_predictions
from medssl.tasks.centre import centre_crop
from medssl.tasks.classification import Classification
from medssl.tasks.probabilities import log_probabilities

RESNET = {"name": "resnet18", "width": 8, "stem_stride": 1, "stem_pool": False}
VIT = {"name": "vit_tiny", "patch_size": [8, 8], "hidden_size": 24, "mlp_size": 48, "layers": 2}


@pytest.fixture(scope="session")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The split of 48 images of three classes."""
    return make_classes(tmp_path_factory.mktemp("classes"), cases=48)


@pytest.fixture
def classifying(classes: Path, tmp_path: Path) -> Callable[..., Finetune]:
    """Make settings of a small classification, with changes."""

    def make(**changes: Any) -> Finetune:
        base: dict[str, Any] = {
            "split": classes, "out": tmp_path / "run", "store": classes.parent / "store", "crop_size": [32, 32],
            "intensity": "percentile", "network": VIT, "steps": 6, "batch_size": 6, "validate_every": 3,
            "checkpoint_every": 2, "workers": 0, "lr": 3e-3, "threads": 1,
        }  # fmt: skip
        return Finetune.model_validate(base | changes)

    return make


@pytest.fixture
def no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the report, whose pictures take longer than these trainings."""
    monkeypatch.setattr("medssl.finetune.write_report", lambda folder: folder)


@pytest.mark.slow
@pytest.mark.parametrize("dims", [2, 3])
def test_three_classes_are_learned_and_judged(dims: int, classifying: Callable[..., Finetune], tmp_path: Path) -> None:
    side = {2: 32, 3: 16}[dims]
    split = make_classes(tmp_path / "images", dims, side=side)
    data = {"split": split, "store": tmp_path / "store", "crop_size": [side] * dims, "fit": [side] * dims}
    loss = {"class_weights": "balanced", "label_smoothing": 0.05, "precision": "float32"}
    network = RESNET | {"width": 12 - 2 * dims}
    finetune(classifying(**data, **loss, network=network, steps=32, batch_size=12, validate_every=16))
    run = tmp_path / "run"
    summary = json.loads((run / "summary.json").read_text())
    assert summary["accuracy"] > 0.6  # chance is 1/3: that many of 12 come by chance once in 50 times
    assert (summary["task"], summary["n"], list(summary["classes"])) == ("classification", 12, list(CLASSES))
    assert summary["patients"] == 6
    assert {"accuracy", "balanced_accuracy", "log_loss", "name", "C"} == set(summary["pixels"])
    assert np.sum(summary["confusion"]["counts"]) == 12
    calibration = summary["calibration"]
    assert calibration["log_loss"] == pytest.approx(summary["log_loss"])
    assert (calibration["temperature"] is None) == (calibration["reason"] is not None)
    assert calibration["temperature_cases"] == len(json.loads(split.read_text())["validation"])
    assert summary["balanced_accuracy_interval"][0] <= summary["balanced_accuracy"] <= summary["balanced_accuracy_interval"][1]
    labels, rows = read_predictions(run / "predictions.csv")
    assert labels == dict(enumerate(CLASSES))
    assert np.mean([row.correct for row in rows]) == pytest.approx(summary["accuracy"])
    assert all(sum(row.probabilities) == pytest.approx(1) for row in rows)
    validations = [line for line in map(json.loads, (run / "metrics.jsonl").read_text().splitlines()) if "val_log_loss" in line]
    assert min(line["val_log_loss"] for line in validations) == summary["val_log_loss"]
    assert {"val_accuracy", "val_balanced_accuracy"} < set(validations[0])
    page = (run / "report.html").read_text()
    for words in (
        "Confusion matrix",
        f"Balanced accuracy {summary['balanced_accuracy']:.3f}",
        "logistic regression on",
        "Worst cases",
        "Figures: The class",
    ):
        assert words in page, words
    worst = np.load(run / "predictions.npz")
    assert worst["image_0"].shape == (1, *[side] * (dims - 1), 3 if dims == 3 else side)
    assert str(worst["name_0"]) == max(rows, key=lambda row: row.log_loss).case


def changed_by(settings: Finetune) -> set[str]:
    """Train and name what is no longer as it was in the encoder."""
    finetune(settings)
    model = checkpoint.load(settings.out / "checkpoint_latest.pt")["model"]
    before = build_encoder(settings, 1).state_dict()
    return {name for name, value in before.items() if not torch.equal(model[f"encoder.{name}"], value)}


@pytest.mark.usefixtures("no_report")
def test_a_frozen_encoder_stays_as_it_is(classifying: Callable[..., Finetune]) -> None:
    """Linear probing leaves weights and the statistics of batch norm untouched, unless the settings let these go on."""
    base = {"network": RESNET, "steps": 4, "validate_every": 4, "weight_decay": 0.1, "overwrite": True}
    assert changed_by(classifying(**base, encoder_lr=0.0)) == set()
    assert changed_by(classifying(**base, freeze_steps=4)) == set()
    statistics = changed_by(classifying(**base, encoder_lr=0.0, frozen_norm="train"))
    assert {name.rsplit(".", 1)[1] for name in statistics} == {"running_mean", "running_var", "num_batches_tracked"}
    moved = changed_by(classifying(**base | {"steps": 5}, freeze_steps=4))
    assert {name.rsplit(".", 1)[1] for name in moved} >= {"weight", "bias", "running_var"}


@pytest.mark.slow
@pytest.mark.usefixtures("no_report")
def test_a_run_that_breaks_and_resumes_equals_one_that_does_not(
    classifying: Callable[..., Finetune], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight, broken = (classifying(network=RESNET, freeze_steps=3, out=tmp_path / name) for name in ("straight", "broken"))
    finetune(straight)
    with broken_off(Classification, 5, monkeypatch):
        finetune(broken)
    finetune(broken, resume=True)
    models = [checkpoint.load(run.out / "checkpoint_latest.pt")["model"] for run in (straight, broken)]
    assert all(torch.equal(models[0][name], models[1][name]) for name in models[0])
    assert len({(run.out / "predictions.csv").read_bytes() for run in (straight, broken)}) == 1
    assert "going on after step 4" in (broken.out / "log.txt").read_text()


def test_the_loss_weighs_classes_by_their_share_of_training(classifying: Callable[..., Finetune]) -> None:
    settings = classifying(class_weights="balanced", labelled=5)
    split = labelled_split(settings)
    assert [case.label for case in split.part("training")] == [0, 1, 2, 0, 1]
    task = Classification(settings, split)
    batch = {"image": torch.rand(4, 1, 32, 32), "class": torch.tensor([2, 0, 2, 1])}
    p = task.network(batch["image"]).softmax(1).detach()
    weight = {0: 5 / 6, 1: 5 / 6, 2: 5 / 3}  # 1 on the average of the five cases
    expected = sum(-weight[k] * float(p[i, k].log()) for i, k in enumerate(batch["class"].tolist())) / 4
    assert float(task.loss(batch)["loss"].detach()) == pytest.approx(expected, rel=1e-5)


def changed_split(source: Path, target: Path, **changes: Any) -> Path:
    """A copy of a split with some keys replaced; its images stay where they are."""
    target.write_text(json.dumps(json.loads(source.read_text()) | changes))
    return target


def test_what_can_not_be_trained_is_said_in_a_line(classifying: Callable[..., Finetune], classes: Path, tmp_path: Path) -> None:
    content = json.loads(classes.read_text())
    discs = [case for case in content["training"] if case["label"] == 0]
    one = changed_split(classes, tmp_path / "one.json", training=discs)
    never = [case for case in content["training"] if case["label"] != 1]
    lacking = changed_split(classes, tmp_path / "lacking.json", training=never)
    files = changed_split(classes, tmp_path / "files.json", task="segmentation")
    unet = {"name": "unet", "channels": [4, 8]}
    for changes, words in (
        ({"split": one}, r"training: found 8 cases, all disc, expected cases of at least two classes"),
        ({"split": lacking}, r"^\S*lacking.json: training: found no case of ring, expected one, as validation has 4$"),
        ({"labelled": 1}, r"training: found 1 cases, all disc"),
        ({"regression_loss": "l1"}, r"regression_loss: found l1, expected l2 for the task classification"),
        ({"overlap": 0.5}, r"overlap: found 0\.5, expected 0\.25 for the task classification"),
        ({"split": files}, r"label: found 0, expected a path"),
        ({"network": unet}, r"network: found unet, expected an encoder"),
    ):
        with pytest.raises(InputError, match=words):
            finetune(classifying(data_root=classes.parent, **changes))
        assert not (tmp_path / "run").exists()
    with pytest.raises(ValueError, match="class_weights: found balanced"):
        classifying(class_weights="balanced", balance_classes=True)


@pytest.mark.usefixtures("no_report")
def test_classes_without_cases_are_said(classifying: Callable[..., Finetune], classes: Path, tmp_path: Path) -> None:
    content = json.loads(classes.read_text())
    test = [case for case in content["test"] if case["label"] != 2]
    split = changed_split(classes, tmp_path / "few.json", test=test, grouped_by="image")
    finetune(classifying(split=split, data_root=classes.parent, labelled=2))
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    said = "\n".join(summary["warnings"])
    assert "class pair has no training case but 4 in validation" in said
    assert "class pair has no case in test" in said
    assert "the split divides images, not patients" in said
    assert (summary["classes"]["pair"]["sensitivity"], summary["classes"]["pair"]["n"]) == (None, 0)


def test_arms_of_classifications(tmp_path: Path) -> None:
    """Two seeds of two arms, three cases of two patients."""
    for seed in (0, 1):
        plain = {"p_1": (0, [0.5, 0.3, 0.2]), "p_2": (1, [0.5, 0.25, 0.25]), "q_1": (2, [0.6, 0.2, 0.2])}
        better = {"q_1": (2, [0.3, 0.3, 0.4]), "p_2": (1, [0.5, 0.25, 0.25]), "p_1": (0, [0.8, 0.1, 0.1])}
        classification_run(tmp_path / f"random{seed}", plain, seed=seed)
        classification_run(tmp_path / f"pre{seed}", better, seed=seed, encoder="runs/pre")
    comparison = compare_runs([tmp_path])
    random, pre = comparison.arms
    assert (random.mean("accuracy"), pre.mean("accuracy")) == pytest.approx((1 / 3, 2 / 3))
    assert (random.mean("balanced_accuracy"), pre.mean("balanced_accuracy")) == pytest.approx((1 / 3, 2 / 3))
    assert pre.mean("log_loss") == pytest.approx(-np.log([0.8, 0.25, 0.4]).mean())
    accuracy, loss = comparison.differences
    # By case 0, 0, 1: patient p has two, so draws of patients give 0, 1/3 and 1.
    wider = 2**0.5 * 12.7062 / 1.95996  # two patients: one degree of freedom
    assert accuracy.difference == pytest.approx(1 / 3)
    assert accuracy.interval == pytest.approx((1 / 3 - wider / 3, 1 / 3 + wider * 2 / 3), rel=1e-4)
    assert (accuracy.clear, loss.clear) == (False, False)
    assert loss.difference == pytest.approx(-(np.log(0.8 / 0.5) + np.log(0.4 / 0.2)) / 3)
    ends = np.array([-np.log(2), -np.log(1.6) / 2])
    assert loss.interval == pytest.approx(loss.difference + wider * (ends - loss.difference), rel=1e-4)
    text = answer(comparison)
    assert "no effect is shown: pre-training raises the accuracy of vit_small from 0.333 to 0.667, by +0.333" in text
    assert "pre-training lowers the log loss (lower is better) of vit_small from 1.230 to 0.842" in text
    header, _, first, second = table(comparison).splitlines()[:4]
    assert [cell.strip() for cell in header.split("|")[5:8]] == ["accuracy", "balanced accuracy", "log loss"]
    assert "0.667 ± 0.000" in second
    assert [cell.strip() for cell in first.split("|")[-3:-1]] == ["-", "-"]
    assert any("in accuracy covers 0" in warning for warning in comparison.warnings)
    assert any("validation log loss still fell by up to 0.200" in warning for warning in comparison.warnings)
    page = write_report(tmp_path).read_text()
    assert "Sensitivity by class" in page
    assert "Accuracy, vit_small, pre-trained against vit_small, random" in page
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert (summary["task"], summary["differences"][1]["reference_log_loss"]) == (
        "classification",
        pytest.approx(-np.log([0.5, 0.25, 0.2]).mean()),
    )
    assert summary["arms"][1]["accuracy_interval"] == pytest.approx([2 / 3 - wider / 6, 2 / 3 + wider / 3], rel=1e-4)
    finetune_run(tmp_path / "other", {"p_1": [0.5, 0.5]})
    with pytest.raises(InputError, match="found 4 of classification and 1 of segmentation, expected runs of one task"):
        compare_runs([tmp_path])


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("loss", ["cross_entropy", "log_sigmoid"])
def test_the_loss_and_the_probabilities_are_of_one_making(
    smoothing: float, loss: str, classifying: Callable[..., Finetune]
) -> None:
    """Slowly, of a network's outputs: p_k = s(z_k) / sum_j s(z_j), s the logistic function, or the exponential one."""
    weighted: dict[str, Any] = {"class_weights": "balanced", "labelled": 5, "precision": "float32"}
    settings = classifying(loss=loss, label_smoothing=smoothing, **weighted)
    split = labelled_split(settings)
    task, store = Classification(settings, split), load_data(settings, ["training", "test"], labels=True)[1]
    task.network.eval()
    x, truths = torch.rand(4, 1, 32, 32), [2, 0, 2, 1]
    rows = task.network(x).detach().tolist()
    s = {"cross_entropy": math.exp, "log_sigmoid": lambda z: 1 / (1 + math.exp(-z))}[loss]
    shares = [[s(z) / sum(map(s, row)) for z in row] for row in rows]
    weight = [5 / 6, 5 / 6, 5 / 3]
    terms = [[-weight[k] * math.log(p) for k, p in enumerate(row)] for row in shares]
    expected = [(1 - smoothing) * row[k] + smoothing / 3 * sum(row) for row, k in zip(terms, truths, strict=True)]
    found = task.loss({"image": x, "class": torch.tensor(truths)})["loss"]
    assert float(found.detach()) == pytest.approx(sum(expected) / 4, rel=1e-5)

    cases = split.part("test")[:4]
    judged = list(task.predict(store, cases, choose(settings)))
    crops = torch.stack([centre_crop(store, case, settings) for case in cases])
    for one, row in zip(judged, task.network(crops).detach().tolist(), strict=True):
        assert one.probabilities == pytest.approx([s(z) / sum(map(s, row)) for z in row], rel=1e-4)
        assert sum(one.probabilities) == pytest.approx(1, abs=1e-9)


def test_log_sigmoid_is_finite_for_any_output() -> None:
    outputs = torch.tensor([[200.0, -200.0, 0.0], [-300.0, -200.0, -200.0], [50.0, 60.0, 70.0]], requires_grad=True)
    logs = log_probabilities(outputs, "log_sigmoid")
    torch.testing.assert_close(logs.exp(), torch.tensor([[2 / 3, 0, 1 / 3], [0, 0.5, 0.5], [1 / 3, 1 / 3, 1 / 3]]))
    logs.sum().backward()
    assert outputs.grad is not None
    assert logs.isfinite().all()
    assert outputs.grad.isfinite().all()


@pytest.mark.usefixtures("no_report")
def test_an_mlp_head_is_trained_and_refuses_a_batch_of_one(classifying: Callable[..., Finetune]) -> None:
    finetune(classifying(network=RESNET, head="mlp", loss="log_sigmoid", batch_size=2, steps=2, validate_every=2))
    with pytest.raises(ValueError, match="batch_size: found 1, expected at least 2 for the batch norms of head=mlp"):
        classifying(head="mlp", batch_size=1)
