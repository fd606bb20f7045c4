"""Regression by settings alone: it learns a radius, resumes, is judged beside baselines, compared and shown."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from breaking import broken_off
from fabricated_runs import regression_run
from phantoms import make_radii

from medssl import checkpoint
from medssl.comparison.compare import compare_runs
from medssl.comparison.tables import table
from medssl.comparison.words import answer
from medssl.config import Finetune
from medssl.estimate import estimate
from medssl.finetune import finetune, labelled_split
from medssl.problems import InputError
from medssl.reports.number_pictures import residual_figure, scatter_figure, spread_sideways
from medssl.reports.report import write_report
from medssl.runs import read_run
from medssl.scores.numbers import Estimate
from medssl.tasks.regression import Regression
from networks.transfer import read_plan

RESNET = {"name": "resnet18", "width": 6, "stem_stride": 1, "stem_pool": False}
VIT = {"name": "vit_tiny", "patch_size": [8, 8], "hidden_size": 24, "mlp_size": 48, "layers": 2}


@pytest.fixture(scope="session")
def radii(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The split of 48 images of discs."""
    return make_radii(tmp_path_factory.mktemp("radii"))


@pytest.fixture
def regressing(radii: Path, tmp_path: Path) -> Callable[..., Finetune]:
    """Make settings of a small regression, with changes."""

    def make(**changes: Any) -> Finetune:
        base: dict[str, Any] = {
            "split": radii, "out": tmp_path / "run", "store": radii.parent / "store", "crop_size": [32, 32],
            "intensity": "percentile", "network": VIT, "steps": 6, "batch_size": 6, "validate_every": 3,
            "checkpoint_every": 2, "workers": 0, "lr": 3e-3, "threads": 1, "precision": "float32",
        }  # fmt: skip
        return Finetune.model_validate(base | changes)

    return make


@pytest.fixture
def no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the report, whose pictures take longer than these trainings."""
    monkeypatch.setattr("medssl.finetune.write_report", lambda folder: folder)


def learned(make: Callable[..., Finetune], split: Path, side: int, dims: int, steps: int, **more: Any) -> dict[str, Any]:
    """Train on balls and give the summary."""
    data = {"split": split, "store": split.parent / "store", "crop_size": [side] * dims}
    settings = make(**data, **more, network=RESNET, steps=steps, batch_size=12, validate_every=4, checkpoint_every=steps)
    finetune(settings)
    summary: dict[str, Any] = json.loads((settings.out / "summary.json").read_text())
    return summary


def test_a_radius_is_learned_and_judged(regressing: Callable[..., Finetune], tmp_path: Path) -> None:
    summary = learned(regressing, make_radii(tmp_path / "images", cases=80), side=32, dims=2, steps=12)
    assert summary["r2"] > 0.6
    assert summary["r2_interval"][0] < summary["r2"] < summary["r2_interval"][1]
    assert (summary["task"], summary["n"], summary["patients"]) == ("regression", 20, 10)
    mean, median, ridge = summary["baselines"]
    assert [one["name"] for one in summary["baselines"]] == [
        "the training mean",
        "the training median",
        "ridge regression on 32x32 pixels",
    ]
    assert abs(mean["r2"]) < 0.2
    assert (mean["pearson"], mean["value"]) == (None, summary["targets"]["mean"])
    assert median["mae"] > summary["mae"]
    assert ridge["r2"] > 0.6
    run = read_run(tmp_path / "run")
    validations = [line for line in run.metrics() if "val_mae" in line]
    assert min(line["val_mae"] for line in validations) == summary["val_mae"] < summary["chance"]["val_mae"]
    rows = run.estimates()
    assert np.mean([abs(row.error) for row in rows]) == pytest.approx(summary["mae"])
    assert run.encoder["method"] == {"name": "regression", "targets": summary["targets"]}
    assert read_plan(tmp_path / "run" / "encoder.safetensors") == run.encoder
    worst = np.load(tmp_path / "run" / "predictions.npz")
    assert worst["image_0"].shape == (1, 32, 32)
    assert worst["saliency_0"].shape == (32, 32)
    assert str(worst["name_0"]) == max(rows, key=lambda row: abs(row.error)).case
    page = (tmp_path / "run" / "report.html").read_text()
    for words in (f"R2 {summary['r2']:.4g}", "ridge regression on", "Residuals", "Worst cases", "Figures: R2 is against"):
        assert words in page, words


@pytest.mark.slow
@pytest.mark.usefixtures("no_report")
@pytest.mark.parametrize("shuffled", [False, True])
def test_volumes_are_learned_and_shuffled_numbers_are_not(
    shuffled: bool, regressing: Callable[..., Finetune], tmp_path: Path
) -> None:
    split = make_radii(tmp_path / "images", dims=3, cases=80, side=16, shuffled=shuffled)
    summary = learned(regressing, split, side=16, dims=3, steps=28, schedule="cosine")
    assert summary["r2"] < 0.3 if shuffled else summary["r2"] > 0.6
    assert np.load(tmp_path / "run" / "predictions.npz")["image_0"].shape == (1, 16, 16, 3)


@pytest.mark.usefixtures("no_report")
def test_a_run_that_breaks_and_resumes_equals_one_that_does_not(
    regressing: Callable[..., Finetune], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight, broken = (regressing(out=tmp_path / name, validate_every=6) for name in ("straight", "broken"))
    finetune(straight)
    with broken_off(Regression, 5, monkeypatch):
        finetune(broken)
    finetune(broken, resume=True)
    models = [checkpoint.load(run.out / "checkpoint_latest.pt")["model"] for run in (straight, broken)]
    assert all(torch.equal(models[0][name], models[1][name]) for name in models[0])
    assert len({(run.out / "predictions.csv").read_bytes() for run in (straight, broken)}) == 1


def test_losses_are_of_standardised_errors(regressing: Callable[..., Finetune]) -> None:
    """By hand, with the mean and deviation of the labelled training cases alone, and whole numbers among the others."""
    numbers = torch.tensor([3.0, 1e6 + 1, -2.5, 7], dtype=torch.float64)
    for name, formula in (
        ("l2", lambda e: e**2),
        ("l1", np.abs),
        ("huber", lambda e: np.where(np.abs(e) < 1, e**2 / 2, np.abs(e) - 0.5)),
    ):
        settings = regressing(regression_loss=name, labelled=7)
        split = labelled_split(settings)
        known = np.array([case.label for case in split.part("training")], float)
        task = Regression(settings, split)
        assert task.scale == pytest.approx((known.mean(), known.std()))
        images = torch.rand(4, 1, 32, 32)
        told = task.network(images).detach().numpy()[:, 0]
        errors = told - (numbers.numpy() - known.mean()) / known.std()
        found = task.loss({"image": images, "number": numbers})
        assert float(found["loss"].detach()) == pytest.approx(formula(errors).mean(), rel=1e-5)
        assert float(found["mae"]) == pytest.approx(np.abs(errors).mean() * known.std(), rel=1e-5)


@pytest.mark.usefixtures("no_report")
def test_another_unit_of_the_target_gives_the_same_run(
    regressing: Callable[..., Finetune], radii: Path, tmp_path: Path
) -> None:
    """As of Celsius and Fahrenheit: what is predicted in one unit is that in the other."""
    finetune(regressing(data_root=radii.parent, validate_every=6))
    content = json.loads(radii.read_text())
    for case in (case for part in ("training", "validation", "test") for case in content[part]):
        case["label"] = 1000 + 512 * case["label"]
    other = tmp_path / "other.json"
    other.write_text(json.dumps(content))
    finetune(regressing(split=other, data_root=radii.parent, out=tmp_path / "other", validate_every=6))
    ours, theirs = (read_run(tmp_path / name).estimates() for name in ("run", "other"))
    assert [row.truth for row in theirs] == [1000 + 512 * row.truth for row in ours]
    assert [row.predicted for row in theirs] == pytest.approx([1000 + 512 * row.predicted for row in ours], rel=1e-3)
    mine, its = (read_run(tmp_path / name).summary for name in ("run", "other"))
    assert "is not below" in mine["warnings"][-1]  # six steps
    assert its["targets"]["deviation"] == pytest.approx(512 * mine["targets"]["deviation"])
    for before, after in zip(mine["baselines"], its["baselines"], strict=True):
        assert (after["r2"], after["mae"]) == pytest.approx((before["r2"], 512 * before["mae"]), rel=1e-3)


def test_what_can_not_be_trained_is_said_in_a_line(regressing: Callable[..., Finetune], radii: Path, tmp_path: Path) -> None:
    def changed(number: Any, part: str = "training", every: bool = False) -> Path:
        content = json.loads(radii.read_text())
        for case in content[part] if every else content[part][2:3]:
            case["label"] = number
        path = tmp_path / "changed.json"
        path.write_text(json.dumps(content))
        return path

    for make, words in (
        (lambda: {"split": changed(0.5, every=True)}, r"training: found 24 cases, all 0\.5, expected numbers that differ"),
        (lambda: {"labelled": 1}, r"training: found 1 case, all [0-9.]+, expected numbers that differ"),
        (lambda: {"split": changed(None)}, r"training: found 1 without a label \(r002\), expected a label for every case"),
        (lambda: {"split": changed(None, "test", every=True)}, r"test: found no labels, expected a label for every case"),
        (lambda: {"split": changed(float("nan"))}, r"file: found NaN is no JSON"),
        (lambda: {"split": changed(float("inf"), "test")}, r"file: found Infinity is no JSON"),
        (lambda: {"split": changed("2")}, r'training\[2\]\.label: found "2", expected a finite number'),
        (lambda: {"network": {"name": "unet", "channels": [4, 8]}}, r"network: found unet, expected an encoder"),
        (lambda: {"class_weights": "balanced"}, r"class_weights: found balanced, expected none for the task regression"),
        (lambda: {"balance_classes": True}, r"balance_classes: found True, expected False for the task regression"),
        (lambda: {"label_smoothing": 0.1}, r"label_smoothing: found 0\.1, expected 0\.0 for the task regression"),
        (lambda: {"foreground_share": 0.9}, r"foreground_share: found 0\.9, expected 0\.5 for the task regression"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=words) as caught:
            finetune(regressing(data_root=radii.parent, **make()))  # type: ignore[no-untyped-call]
        assert len(caught.value.problems) == 1
        assert not (tmp_path / "run").exists()
    with pytest.raises(ValueError, match="regression_loss"):
        regressing(regression_loss="l3")


@pytest.mark.usefixtures("no_report")
def test_folds_and_nested_subsets_of_whole_and_broken_numbers(
    regressing: Callable[..., Finetune], radii: Path, tmp_path: Path
) -> None:
    content = json.loads(radii.read_text())
    training = [case | {"label": i if i % 2 else i + 0.5, "fold": i // 2 % 3} for i, case in enumerate(content["training"])]
    split = tmp_path / "folds.json"
    split.write_text(json.dumps({key: value for key, value in content.items() if key != "validation"} | {"training": training}))
    base = {"split": split, "data_root": radii.parent, "fold": 1, "store": tmp_path / "store", "draw": 2}
    drawn = {n: [case.id for case in labelled_split(regressing(**base, labelled=n)).part("training")] for n in (6, 12)}
    assert drawn[6] == drawn[12][:6]
    assert not set(drawn[12]) & {case["id"] for case in training if case["fold"] == 1}
    finetune(regressing(**base, labelled=12, judge="validation", batch_size=12, steps=2))
    summary = read_run(tmp_path / "run").summary
    assert (summary["n"], summary["labelled"]) == (8, 12)
    assert "step" in estimate(regressing(**base, steps=2))


def test_arms_of_regressions(tmp_path: Path) -> None:
    """Two seeds of two arms, three cases of two patients, in a unit of thousands."""
    for seed in (0, 1):
        plain = {"p_1": (1000, 1300), "p_2": (2000, 1700), "q_1": (3000, 2400)}
        better = {"q_1": (3000, 2700), "p_2": (2000, 1700), "p_1": (1000, 1300)}
        regression_run(tmp_path / f"random{seed}", plain, seed=seed)
        regression_run(tmp_path / f"pre{seed}", better, seed=seed, encoder="runs/pre")
    comparison = compare_runs([tmp_path])
    random, pre = comparison.arms
    assert (random.mean("mae"), pre.mean("mae")) == (400, 300)
    assert (random.mean("r2"), pre.mean("r2")) == pytest.approx((1 - 0.54 / 2, 1 - 0.27 / 2))
    (difference,) = comparison.differences
    # By case 0, 0, -300: patient p has two, so draws of patients give 0, -100 and -300.
    wider = 2**0.5 * 12.7062 / 1.95996  # two patients: one degree of freedom
    assert (difference.difference, difference.clear) == (-100, False)
    assert difference.interval == pytest.approx((-100 - 200 * wider, -100 + 100 * wider), rel=1e-4)
    text = answer(comparison)
    assert "pre-training lowers the mean absolute error (lower is better) of vit_small from 400 to 300, by -100 (-25.0%" in text
    header, _, first, second = table(comparison).splitlines()[:4]
    assert [cell.strip() for cell in header.split("|")[5:8]] == ["MAE", "R2", "seconds"]
    assert [cell.strip() for cell in first.split("|")[5:7]] == ["400 ± 0", "0.730 ± 0.000"]
    assert "300 ± 0" in second
    assert any("validation MAE still fell by up to 20.0% in the last 20%" in warning for warning in comparison.warnings)
    page = write_report(tmp_path).read_text()
    assert "MAE, vit_small, pre-trained against vit_small, random" in page
    assert "R2, of always saying the mean 0" in page
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert (summary["task"], summary["arms"][1]["mae"], summary["arms"][1]["mae_interval"]) == ("regression", 300, [300, 300])


def test_a_report_of_a_regression_escapes_and_leaves_out(tmp_path: Path) -> None:
    run = regression_run(tmp_path / "run", {"p_<b>$x^$": (0.5, -1.0), "q_1": (0.5, 0.25)})
    np.savez(run / "predictions.npz", image_0=np.zeros((1, 8, 9, 1)), name_0="p_<b>$x^$", truth_0=0.5, predicted_0=-1.0)
    page = write_report(run).read_text()
    assert "There is no R2, as all true numbers are equal" in page
    assert "p_&lt;b&gt;$x^$" in page
    assert "Axial slices in the radiological convention" in page
    (run / "predictions.csv").unlink()
    assert "Residuals" not in write_report(run).read_text()


def test_cases_are_said_to_be_spread_where_they_are(tmp_path: Path) -> None:
    for name, step, said in (("apart", 8, False), ("pairs", 4, False), ("steps", 2, True)):
        run = regression_run(tmp_path / name, {f"p{k}_1": (k % step, 0.5) for k in range(8)})
        assert ("Cases of one true number are spread sideways." in write_report(run).read_text()) is said


def test_pictures_of_one_case_and_of_steps() -> None:
    one = [Estimate("a", "p", 2.0, 2.0)]
    assert all(len(draw(one, dark)) > 1000 for draw in (scatter_figure, residual_figure) for dark in (False, True))
    truth = np.repeat([0, 0.5, 1, 2], 50)
    moved = spread_sideways(truth) - truth
    assert 0.14 < np.abs(moved).max() <= 0.15  # 0.3 of the smallest step
    assert len(np.unique(moved[:50].round(9))) == 50
    many = np.linspace(0, 1, 100)
    np.testing.assert_array_equal(spread_sideways(many), many)
