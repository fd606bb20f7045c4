"""Figures of a classification by hand, against scikit-learn, and their bootstrap against a slow loop."""

import math
from pathlib import Path

import numpy as np
import pytest
from sklearn import metrics

from medssl.scores.bootstrap import case_weights
from medssl.scores.classes import (
    OF_CLASS,
    Judged,
    auc,
    confusion,
    figures,
    predictions_csv,
    quick_figures,
    read_predictions,
    summarise_classes,
)

NAMES = {0: "none", 1: "glioma, 2", 2: "p_other"}
BY_HAND = [
    Judged("a", "p", 0, (0.7, 0.2, 0.1)),
    Judged("b", "p", 0, (0.3, 0.6, 0.1)),
    Judged("c", "q", 1, (0.1, 0.8, 0.1)),
    Judged("d", "q", 1, (0.2, 0.5, 0.3)),
]


def guesses(n: int = 60, classes: int = 4, seed: int = 0) -> list[Judged]:
    """Unbalanced cases of n / 3 patients with rounded probabilities, so that there are ties."""
    random = np.random.default_rng(seed)
    truth = random.choice(classes, n, p=np.arange(1, classes + 1) / np.arange(1, classes + 1).sum())
    logits = random.normal(0, 1.5, (n, classes))
    logits[np.arange(n), truth] += 1.0
    p = np.round(np.exp(logits) / np.exp(logits).sum(1, keepdims=True), 1) + 0.01 * np.arange(classes)
    p /= p.sum(1, keepdims=True)
    return [Judged(f"c{i}", f"p{i // 3}", int(truth[i]), tuple(p[i])) for i in range(n)]


def test_figures_by_hand() -> None:
    assert confusion(BY_HAND, 3).tolist() == [[1, 1, 0], [0, 2, 0], [0, 0, 0]]
    summary = summarise_classes(BY_HAND, NAMES)
    expected = {
        "none": {"n": 2, "predicted": 1, "sensitivity": 0.5, "specificity": 1, "precision": 1, "f1": 2 / 3, "auc": 1},
        "glioma, 2": {"n": 2, "predicted": 3, "sensitivity": 1, "specificity": 0.5, "precision": 2 / 3, "f1": 0.8, "auc": 0.75},
    }
    for name, values in expected.items():
        assert {key: summary["classes"][name][key] for key in values} == pytest.approx(values)
    nothing = summary["classes"]["p_other"]
    assert (nothing["n"], nothing["predicted"], nothing["specificity"]) == (0, 0, 1)
    assert {nothing[key] for key in ("sensitivity", "precision", "f1", "auc")} == {None}
    assert summary["classes"]["p_other"]["sensitivity_interval"] is None
    told = {key: summary[key] for key in ("n", "patients", "accuracy", "balanced_accuracy", "specificity", "f1", "auc")}
    assert told == pytest.approx(
        {"n": 4, "patients": 2, "accuracy": 0.75, "balanced_accuracy": 0.75, "specificity": 0.75, "f1": 11 / 15, "auc": 0.875}
    )
    assert summary["log_loss"] == pytest.approx(-sum(map(math.log, (0.7, 0.3, 0.8, 0.5))) / 4)
    # Draws of patients: pp 1/2, pq 3/4, qq 1; in pp and qq one class is left, whose sensitivity is the mean.
    assert summary["accuracy_interval"] == summary["balanced_accuracy_interval"] == [0.5, 1.0]
    assert summary["confusion"]["rates"] == [[0.5, 0.5, 0.0], [0.0, 1.0, 0.0], [None, None, None]]
    assert Judged("e", "r", 2, (0.5, 0.5, 0.0)).predicted == 0
    assert Judged("e", "r", 2, (0.5, 0.5, 0.0)).log_loss == pytest.approx(15 * math.log(10))
    with pytest.raises(ValueError, match="rows: found none"):
        summarise_classes([], NAMES)


def test_figures_are_scikit_learns() -> None:
    rows = guesses()
    truth, p = np.array([row.truth for row in rows]), np.array([row.probabilities for row in rows])
    weights = np.random.default_rng(1).integers(0, 4, (3, len(rows))).astype(float)
    found = figures(truth, p, weights)
    for w, *values in zip(weights, *(found[f"class_{name}"] for name in OF_CLASS), strict=True):
        of_class = dict(zip(OF_CLASS, values, strict=True))
        said = p.argmax(1)
        precision, recall, f1, _ = metrics.precision_recall_fscore_support(truth, said, sample_weight=w, zero_division=0)
        np.testing.assert_allclose(of_class["sensitivity"], recall)
        np.testing.assert_allclose(of_class["precision"], precision)
        np.testing.assert_allclose(of_class["f1"], f1)
        for k in range(4):
            theirs = metrics.roc_auc_score(truth == k, p[:, k], sample_weight=w)
            np.testing.assert_allclose(of_class["auc"][k], theirs)
            negative = metrics.recall_score(truth != k, said != k, sample_weight=w)
            np.testing.assert_allclose(of_class["specificity"][k], negative)
    by_draw = zip(weights, *(found[name] for name in ("accuracy", "balanced_accuracy", "mcc", "log_loss")), strict=True)
    for w, accuracy, balanced, mcc, loss in by_draw:
        assert mcc == pytest.approx(metrics.matthews_corrcoef(truth, p.argmax(1), sample_weight=w))
        assert accuracy == pytest.approx(metrics.accuracy_score(truth, p.argmax(1), sample_weight=w))
        assert balanced == pytest.approx(metrics.balanced_accuracy_score(truth, p.argmax(1), sample_weight=w))
        assert loss == pytest.approx(metrics.log_loss(truth, p, sample_weight=w))


@pytest.mark.filterwarnings("ignore:y_pred contains classes")
def test_figures_leave_out_a_class_without_cases() -> None:
    """Class 2 of 5 has no case but is predicted; class 4 has cases but is never predicted."""
    rows = [row for row in guesses(120, 5, seed=3) if row.truth != 2]
    truth, p = np.array([row.truth for row in rows]), np.array([row.probabilities for row in rows])
    p = np.maximum(p, 0.002) * [1, 1, 1, 1, 0.1]
    p /= p.sum(1, keepdims=True)
    said, some = p.argmax(1), [0, 1, 3, 4]
    assert ((said == 2).any(), (said == 4).any()) == (True, False)
    found = {name: values[0] for name, values in figures(truth, p, np.ones((1, len(rows)))).items()}
    known = {"labels": some, "zero_division": np.nan}
    precision, recall, f1, _ = metrics.precision_recall_fscore_support(truth, said, **known)
    expected = {"sensitivity": recall, "precision": precision, "f1": f1}
    expected["specificity"] = [metrics.recall_score(truth != k, said != k) for k in some]
    expected["auc"] = [metrics.roc_auc_score(truth == k, p[:, k]) for k in some]
    for name, values in expected.items():
        np.testing.assert_allclose(found[f"class_{name}"][some], values)
        if name != "sensitivity":
            assert found[name] == pytest.approx(np.nanmean(values))
    assert math.isnan(found["class_precision"][4])
    assert [math.isnan(found[f"class_{name}"][2]) for name in OF_CLASS] == [True, False, True, True, True]
    assert found["class_specificity"][2] == pytest.approx(np.mean(said != 2))
    assert found["accuracy"] == pytest.approx(metrics.accuracy_score(truth, said))
    assert found["balanced_accuracy"] == pytest.approx(metrics.balanced_accuracy_score(truth, said))
    assert found["mcc"] == pytest.approx(metrics.matthews_corrcoef(truth, said))
    assert found["log_loss"] == pytest.approx(metrics.log_loss(truth, p, labels=range(5)))
    np.testing.assert_array_equal(confusion([Judged("", "", k, tuple(q)) for k, q in zip(truth, p, strict=True)], 5),
                                  metrics.confusion_matrix(truth, said, labels=range(5)))  # fmt: skip
    alone = figures(np.zeros(3, int), p[:3], np.ones((1, 3)))
    assert math.isnan(alone["mcc"][0])


def test_auc_counts_pairs() -> None:
    rows = guesses(25, 3)
    truth, p = np.array([row.truth for row in rows]), np.array([row.probabilities for row in rows])
    for k, area in enumerate(auc(truth, p, np.ones((1, 25)))[0]):
        pairs = [(a > b) + (a == b) / 2 for a in p[truth == k, k] for b in p[truth != k, k]]
        assert area == pytest.approx(np.mean(pairs))


def test_the_bootstrap_is_that_of_resampled_cases() -> None:
    """Each draw repeats whole patients, and the figures are those of the repeated cases."""
    rows, names = guesses(30, 3, seed=4), dict(enumerate("xyz"))
    [weights] = list(case_weights([row.patient for row in rows], 200, seed=5))
    assert all(len(set(draw[3 * k : 3 * k + 3])) == 1 for draw in weights for k in range(10))
    assert set(weights.sum(1)) == {30}
    drawn: dict[str, list[float]] = {"balanced_accuracy": [], "log_loss": [], "accuracy": []}
    for draw in weights:
        again = [row for row, times in zip(rows, draw, strict=True) for _ in range(int(times))]
        for name, value in quick_figures(again).items():
            drawn[name].append(value)
        truth, said = [row.truth for row in again], [row.predicted for row in again]
        with np.testing.suppress_warnings() as quiet:
            quiet.filter(UserWarning)
            assert drawn["balanced_accuracy"][-1] == pytest.approx(metrics.balanced_accuracy_score(truth, said))
    summary = summarise_classes(rows, names, draws=200, seed=5)
    for name, values in drawn.items():
        assert summary[f"{name}_interval"] == pytest.approx(list(np.quantile(values, [0.025, 0.975])))
    assert summary["balanced_accuracy_interval"] != summary["accuracy_interval"]


def test_predictions_are_read_back(tmp_path: Path) -> None:
    path = tmp_path / "predictions.csv"
    path.write_bytes(predictions_csv(BY_HAND, NAMES))
    assert path.read_text().splitlines()[1] == "a,p,none,none,0.7,0.2,0.1"
    assert read_predictions(path) == (NAMES, BY_HAND)
    for wrong in ("case,dice\na,0.5\n", "case,patient,truth,predicted,p_a\nx,y,b,a,1\n", ""):
        path.write_text(wrong)
        with pytest.raises(ValueError, match=r"columns|list"):
            read_predictions(path)
