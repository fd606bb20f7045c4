"""Bootstrap intervals against scipy and by hand, and arms compared on fabricated runs."""

from pathlib import Path

import numpy as np
import pytest
from fabricated_runs import finetune_run, pretrain_run, write
from scipy.stats import bootstrap

from medssl.comparison.compare import compare_runs
from medssl.comparison.summary import summary_of
from medssl.comparison.tables import table
from medssl.comparison.words import answer
from medssl.problems import InputError
from medssl.scores.bootstrap import bootstrap_interval, paired_bootstrap

NAN = float("nan")


def test_the_interval_is_scipys() -> None:
    values = np.random.default_rng(1).gamma(2.0, size=40)
    theirs = bootstrap((values,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(2))
    ours = bootstrap_interval(values, draws=20_000)
    np.testing.assert_allclose(ours, theirs.confidence_interval, atol=0.02 * np.ptp(ours))
    assert ours == bootstrap_interval(values, draws=20_000)
    assert ours != bootstrap_interval(values, draws=20_000, seed=1)


def test_whole_patients_are_drawn() -> None:
    # Patient a: 0. Patient b: three times 1. Draws: aa 0 (1/4), ab 3/4 (1/2), bb 1 (1/4).
    values, patients = [0.0, 1.0, 1.0, 1.0], ["a", "b", "b", "b"]
    assert bootstrap_interval(values, patients) == (0, 1)
    assert bootstrap_interval(values, patients, level=0.4) == (0.75, 0.75)
    assert bootstrap_interval([0.5], ["a"]) == (0.5, 0.5)
    for wrong, groups in (([], None), ([1.0, NAN], None), ([1.0], ["a", "b"])):
        with pytest.raises(ValueError, match="value"):
            bootstrap_interval(wrong, groups)


def test_coverage_is_near_the_level() -> None:
    random = np.random.default_rng(3)
    patients = np.repeat(np.arange(30), 2)
    hits = 0
    for _ in range(300):
        values = random.standard_normal(30)[patients] + 0.3 * random.standard_normal(60)
        low, high = bootstrap_interval(values, patients.tolist(), draws=500)
        hits += low <= 0 <= high
    assert 0.88 <= hits / 300 <= 0.98  # resampling cases instead of patients gives 0.79


def test_a_paired_difference() -> None:
    result = paired_bootstrap([0.6, 0.8], [0.5, 0.5], ["p", "q"])
    assert result.difference == pytest.approx(0.2)
    assert result.interval == pytest.approx((0.1, 0.3))
    assert result.relative == pytest.approx(0.4)
    same = paired_bootstrap([0.6, 0.8], [0.6, 0.8])
    assert (same.difference, same.interval) == (0, (0, 0))


def study(root: Path) -> None:
    """Two seeds of two arms, three cases of two patients; the pre-trained runs list their cases in another order."""
    for seed in (0, 1):
        s = 0.1 * seed
        plain = {"p_1": [0.5 + s, 0.5 + s], "p_2": [0.4 + s, NAN], "q_1": [0.6 + s, 0.6 + s]}
        better = {"q_1": [0.7 + s, 0.7 + s], "p_1": [0.8 + s, 0.6 + s], "p_2": [0.5 + s, NAN]}
        finetune_run(root / f"random{seed}", plain, seed=seed)
        finetune_run(root / "deep" / f"pre{seed}", better, seed=seed, encoder="runs/pre", hd95=1.0)


def test_arms_by_hand(tmp_path: Path) -> None:
    study(tmp_path)
    pretrain_run(tmp_path / "pretrain")
    finetune_run(tmp_path / "unfinished", {"p_1": [0.1, 0.1]}, seed=7, summary={"status": "interrupted"})
    comparison = compare_runs([tmp_path])
    random, pre = comparison.arms
    assert (random.name, pre.name) == ("vit_small, random", "vit_small, pre-trained")
    assert random.figures["dice"].by_seed == pytest.approx([0.5, 0.6])
    assert (random.mean("dice"), random.figures["dice"].sd, random.n) == (pytest.approx(0.55), pytest.approx(0.1 / 2**0.5), 3)
    assert (random.mean("hd95"), pre.mean("hd95"), random.seconds) == (2.0, 1.0, 60.0)
    posterior = pre.classes["posterior"]
    assert (posterior["dice"], posterior["sd"], posterior["n"]) == (pytest.approx(0.7), pytest.approx(0.1 / 2**0.5), 2)
    [difference] = comparison.differences
    # By case +0.2, +0.1, +0.1 in both seeds; patient p has two cases: draws give 0.15, 0.4 / 3 and 0.1.
    assert difference.difference == pytest.approx(0.4 / 3)
    # Of those 2 patients know one degree of freedom: sqrt(2) t(1) / z times as far from the mean.
    wider = 2**0.5 * 12.7062 / 1.95996
    assert difference.interval == pytest.approx((0.4 / 3 - wider / 30, 0.4 / 3 + wider / 60), abs=1e-4)
    assert difference.by_pair == pytest.approx([0.4 / 3, 0.4 / 3])
    assert difference.relative == pytest.approx(0.4 / 3 / 0.55)
    assert (difference.n, difference.patients, difference.clear) == (3, 2, False)
    assert comparison.skipped == [f"{tmp_path / 'unfinished'}: unfinished (interrupted)"]
    assert [run.name for run in comparison.pretraining] == ["pretrain"]
    assert any("2 test patients" in warning for warning in comparison.warnings)
    assert not any("differ in" in warning or "differs" in warning for warning in comparison.warnings)
    assert "raises the mean Dice of vit_small from 0.550 to 0.683, by +0.133 (+24.2% relative)" in answer(comparison)


def test_the_table(tmp_path: Path) -> None:
    study(tmp_path)
    lines = table(compare_runs([tmp_path])).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[:4]]
    assert cells[0] == [
        "arm", "labels", "seeds", "n", "Dice", "HD95 mm", "anterior", "posterior", "seconds", "against random [95%]",
    ]  # fmt: skip
    assert cells[3][:5] == ["vit_small, pre-trained", "6", "2", "3", "0.683 ± 0.071"]
    assert cells[3][5:] == ["1.00 ± 0.00", "0.717", "0.700", "60", "+0.133 [-0.172, +0.286]"]
    assert len({len(line) for line in lines[:4]}) == 1


def test_surface_dice_stands_beside_where_runs_have_it(tmp_path: Path) -> None:
    finetune_run(tmp_path / "random", {"p_1": [0.5, 0.7], "q_1": [0.6, NAN]})  # an older run
    finetune_run(tmp_path / "pre", {"p_1": [0.5, 0.7], "q_1": [0.4, NAN]}, encoder="runs/pre", surface=0.5)
    comparison = compare_runs([tmp_path])
    header, _, random, pre = ([cell.strip() for cell in line.split("|")[5:8]] for line in table(comparison).splitlines()[:4])
    assert (header, random[1], pre[1]) == (["Dice", "surface Dice", "HD95 mm"], "-", "0.250")
    assert summary_of(comparison)["arms"][1]["classes"]["anterior"]["surface_dice"] == pytest.approx(0.225)


def test_what_weakens_a_comparison_is_said(tmp_path: Path) -> None:
    cases = {f"p{k}_1": [0.5 + 0.01 * k, 0.5] for k in range(12)}
    other = {case: [value + (0.05 if k % 2 else -0.05), 0.5] for k, (case, (value, _)) in enumerate(cases.items())}
    del other["p11_1"]
    finetune_run(tmp_path / "random", cases, config={"batch_size": 4}, summary={"steps": 200, "part": "validation"})
    pre = finetune_run(tmp_path / "pre", other, encoder="runs/pre", config={"batch_size": 8}, summary={"warnings": ["<odd>"]})
    finetune_run(tmp_path / "pre1", other, encoder="runs/pre", seed=1)
    finetune_run(tmp_path / "unet", cases, network="unet", seed=2)
    write(pre / "split.json", {"training": [{"image": "b.nii.gz"}]})
    (pre / "metrics.jsonl").write_text('{"step": 80, "val_dice": 0.5}\n{"step": 100, "val_dice": 0.6}\n')
    comparison = compare_runs([tmp_path])
    said = "\n".join(comparison.warnings)
    for words in (
        "vit_small, random, 6 labels: only one seed",
        "judged on validation",
        "covers 0",
        "without a partner are not compared: seed 1 draw 1",
        "test cases differ in 1 of 1 pairs",
        "labelled cases differ within a pair",
        "steps differ: 100 against 200",
        "batch_size differs: 8 against 4",
        "rose by up to 0.100",
        "pre: <odd>",
        "against unet, random, 6 labels: no run of one has",
    ):
        assert words in said, words
    assert "no effect is shown" in answer(comparison)
    assert "one seed says nothing" in answer(comparison)


def test_runs_of_equal_seed_are_told_apart(tmp_path: Path) -> None:
    cases = {"p_1": [0.5, 0.5]}
    for name, encoder, rate in (("a", "none", 1e-3), ("b", "none", 1e-4), ("c", "runs/x", 1), ("d", "runs/y", 1)):
        finetune_run(tmp_path / name, cases, encoder=encoder, summary={"lr": rate})
    names = {arm.name for arm in compare_runs([tmp_path]).arms}
    start = "vit_small, pre-trained, from"
    assert names == {"vit_small, random, lr 0.001", "vit_small, random, lr 0.0001", f"{start} x", f"{start} y"}


def test_nothing_to_compare_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        compare_runs([tmp_path / "absent"])
    pretrain_run(tmp_path / "pretrain")
    with pytest.raises(InputError, match="expected a finished fine-tuning run"):
        compare_runs([tmp_path])
    broken = finetune_run(tmp_path / "a", {"p_1": [0.5, 0.5]})
    (broken / "summary.json").write_text("{")
    with pytest.raises(InputError, match=r"summary\.json"):
        compare_runs([tmp_path])
    write(broken / "summary.json", {"status": "finished", "kind": "finetune"})
    (broken / "predictions.csv").write_text("case,dice\na,0.5\n")
    with pytest.raises(InputError, match=r"predictions\.csv"):
        compare_runs([tmp_path])
