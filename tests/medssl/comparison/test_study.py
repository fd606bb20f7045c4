"""Studies by their study.json: arms and pairs as planned, what is missing, what is refused."""

import json
from pathlib import Path

import pytest
from fabricated_runs import finetune_run, write
from fabricated_studies import study

from medssl.comparison.compare import compare_runs
from medssl.comparison.origins import seen_patients
from medssl.comparison.significance import holm
from medssl.comparison.summary import summary_of
from medssl.comparison.words import answer, headline
from medssl.problems import InputError
from medssl.runs import Run

SCORES = {"random": {6: 0.70, 12: 0.78}, "mae": {6: 0.76, 12: 0.785}, "same": {6: 0.70}}


def plan(root: Path) -> dict[str, dict[str, object]]:
    found: dict[str, dict[str, object]] = json.loads((root / "study.json").read_text())
    return found


def test_arms_and_pairs_are_those_of_the_plan(tmp_path: Path) -> None:
    root = study(tmp_path / "study", SCORES, compare=[["mae", "random"], ["same", "random"]])
    finetune_run(root / "runs" / "stray", {"p0_1": [0.1, 0.1]})  # not of the study
    comparison = compare_runs([root])
    assert [arm.title for arm in comparison.arms] == [
        "random, 6 labels", "mae, 6 labels", "same, 6 labels", "random, 12 labels", "mae, 12 labels",
    ]  # fmt: skip
    pairs = [(one.arm, one.reference, one.labelled) for one in comparison.differences]
    assert pairs == [("mae", "random", 6), ("mae", "random", 12), ("same", "random", 6)]
    assert [one.p_holm for one in comparison.differences] == holm([one.p for one in comparison.differences])
    gain = comparison.differences[0]
    assert gain.real
    assert gain.interval[0] < 0.06 < gain.interval[1]
    assert headline(comparison).startswith("Pre-training helps in ")
    [saving, _, _] = comparison.savings
    assert (saving.arm, saving.labelled) == ("mae", 6)
    assert 8 < saving.worth < 12
    assert comparison.origins["mae, 6 labels"].method == "mae"
    assert summary_of(comparison)["costs"][0]["pretraining_samples"] == 800
    json.dumps(summary_of(comparison), allow_nan=False)


def test_another_network_that_is_better_is_no_harm_by_pretraining(tmp_path: Path) -> None:
    root = study(
        tmp_path / "study",
        {"random": {6: 0.7}, "mae": {6: 0.76}, "unet": {6: 0.8}},
        compare=[["mae", "random"], ["mae", "unet"]],
    )
    verdict, _, beside = headline(compare_runs([root])).splitlines()
    assert verdict.startswith("Pre-training helps beyond chance")
    assert "harms" not in verdict
    assert beside.startswith("mae against unet, Dice: worse with 6 labels")


def test_identical_arms_show_nothing(tmp_path: Path) -> None:
    root = tmp_path / "study"
    study(root, {"random": {6: 0.7}, "mae": {6: 0.7}})
    for seed in range(3):
        source, target = (root / "runs" / f"{arm}-6-{seed}" / "predictions.csv" for arm in ("random", "mae"))
        target.write_bytes(source.read_bytes())
    comparison = compare_runs([root])
    [one] = comparison.differences
    assert (one.difference, one.interval, one.p, one.p_holm) == (0, (0, 0), 1, 1)
    assert not one.clear
    assert headline(comparison).startswith("Pre-training is not shown to help.")


def test_other_axes_make_arms_of_their_own(tmp_path: Path) -> None:
    root = study(tmp_path / "study", {"random": {6: 0.7}, "mae few": {6: 0.72}, "mae many": {6: 0.75}})
    content = plan(root)
    for entry in content["runs"].values():
        assert isinstance(entry, dict)
        few = "few" in entry["arm"]
        if entry["arm"] != "random":
            entry["arm"] = "mae"
            entry["axes"]["unlabelled"] = 50 if few else 200
    write(root / "study.json", content | {"compare": [["mae", "random"]], "measure": None})
    comparison = compare_runs([root])
    assert [arm.name for arm in comparison.arms] == ["random", "mae, unlabelled 50", "mae, unlabelled 200"]
    assert len(comparison.differences) == 2
    [curve] = summary_of(comparison)["amounts"]
    assert (curve["cases"], curve["name"]) == ([50, 200], "mae, mae on mine, 6 labels")


def of_several(root: Path, axis: str) -> dict[str, dict[str, object]]:
    """The plan with the runs of `mae low` and `mae high` as one arm, at two values of an axis; random's are at the first."""
    content = plan(root)
    for entry in content["runs"].values():
        assert isinstance(entry, dict)
        if entry["kind"] == "finetune":
            entry["axes"][axis] = "0.1" if "high" in entry["arm"] else "0.01"
        if entry["arm"] != "random":
            entry["arm"] = "mae"
    return content | {"compare": [["mae", "random"]]}  # type: ignore[dict-item]


def test_a_missing_baseline_is_not_replaced_by_that_of_another_value(tmp_path: Path) -> None:
    root = study(tmp_path / "study", {"random": {6: 0.7}, "mae low": {6: 0.72}, "mae high": {6: 0.75}})
    content = of_several(root, "lr")
    for seed in range(3):
        axes = {"labelled": 6, "seed": seed, "lr": "0.1"}
        content["runs"][f"runs/lost-{seed}"] = {"arm": "random", "kind": "finetune", "axes": axes}
    write(root / "study.json", content)
    found = compare_runs([root])
    assert [(one.arm, one.reference) for one in found.differences] == [("mae, lr 0.01", "random, lr 0.01")]
    assert "mae, lr 0.1, 6 labels: no finished run of random to compare with" in found.warnings


def test_an_axis_whose_name_begins_as_labels_is_an_axis(tmp_path: Path) -> None:
    root = study(tmp_path / "study", {"random": {6: 0.7}, "mae low": {6: 0.72}, "mae high": {6: 0.75}})
    write(root / "study.json", of_several(root, "label_smoothing"))
    names = [arm.name for arm in compare_runs([root]).arms]
    assert names == ["random", "mae, label_smoothing 0.01", "mae, label_smoothing 0.1"]


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    root = study(tmp_path / "study", {"random": {6: 0.7}, "mae": {6: 0.75}})
    content = plan(root)
    for seed in (8, 9):
        content["runs"][f"runs/mae-6-{seed}"] = {"arm": "mae", "kind": "finetune", "axes": {"labelled": 6, "seed": seed}}
    write(root / "study.json", content)
    write(root / "runs/mae-6-1" / "summary.json", {"status": "failed"})
    comparison = compare_runs([root])
    assert comparison.skipped == [
        "mae, labelled 6 lacks seed 1: unfinished (failed)", "mae, labelled 6 lacks seed 8, 9: not begun",
    ]  # fmt: skip
    assert "3 runs are missing: see what was left out" in comparison.warnings
    assert len(comparison.differences[0].pairs) == 2
    assert any("runs without a partner" in warning for warning in comparison.warnings)


def test_where_all_baseline_runs_are_missing_the_answer_says_that(tmp_path: Path) -> None:
    root = study(tmp_path / "study", {"random": {6: 0.7}, "mae": {6: 0.75}})
    for seed in range(3):
        (root / f"runs/random-6-{seed}" / "summary.json").unlink()
    said = answer(compare_runs([root]))
    assert said.startswith(
        "No pair of the study has finished runs of equal seed and draw: nothing is compared. Dice: mae, 6 labels: 0."
    )


@pytest.mark.parametrize(
    "learned",
    [
        [{"patient": "p3", "image": "other.nii.gz"}, {"patient": "q", "image": "q.nii.gz"}],
        ["x/p3.nii.gz"],
        [{"image": ["x/p3_day2.nii.gz", None]}],  # another visit
        [{"patient": "q", "image": [None, "./y/p3.nii.gz"]}],  # the same file
    ],
)
def test_a_patient_seen_in_pretraining_is_told(tmp_path: Path, learned: list[object]) -> None:
    root = study(tmp_path / "study", {"random": {6: 0.7}, "mae": {6: 0.75}})
    write(root / "runs/pretrain-mae" / "split.json", {"pretraining": learned})
    for seed in range(3):
        write(root / f"runs/mae-6-{seed}" / "split.json", {"test": [{"image": f"y/p{k}.nii.gz"} for k in range(20)]})
    first = compare_runs([root]).warnings[0]
    assert first == "mae, 6 labels: 1 of 20 test patients were seen in pre-training (p3)"


@pytest.mark.parametrize(
    ("ours", "theirs", "same"),
    [
        ({"split": "/mr/split.json"}, {"split": "/ct/split.json"}, False),  # whose names mean nothing to each other
        ({"split": "/ct/a.json"}, {"split": "/b.json", "data_root": "/ct"}, True),
        ({"split": "/ct/a.json", "data_root": None}, {"split": "/ct/b.json"}, True),
    ],
)
def test_names_are_compared_within_one_folder_of_data(
    tmp_path: Path, ours: dict[str, object], theirs: dict[str, object], same: bool
) -> None:
    case = {"patient": "1", "image": "1.nii"}
    runs = [Run(tmp_path, config, split={part: [case]}) for config, part in ((ours, "test"), (theirs, "pretraining"))]
    assert seen_patients(*runs) == ({"1"} if same else set())


def test_what_is_refused_is_one_line_each(tmp_path: Path) -> None:
    root = study(tmp_path / "study", {"random": {6: 0.7}, "mae": {6: 0.75}})
    whole = plan(root)

    def refused(match: str) -> None:
        with pytest.raises(InputError, match=match) as raised:
            compare_runs([root])
        assert len(str(raised.value).splitlines()) == 1

    for changed, words in (
        ({"runs": {}}, "runs: found none"),
        ({"compare": [["mae", "rndom"]]}, "compare: found rndom, expected one of mae, random"),
        ({"measure": "accuracy"}, "measure: found accuracy, expected dice, for segmentation"),
        ({"runs": whole["runs"] | {"x": {"arm": "mae"}}}, r"runs\.x\.kind: found None, expected pretrain or finetune"),
    ):
        write(root / "study.json", whole | changed)
        refused(words)
    write(root / "study.json", whole)
    lines = (root / "runs/mae-6-0" / "predictions.csv").read_text()
    for seed in range(3):
        (root / f"runs/mae-6-{seed}" / "predictions.csv").write_text(lines.replace("p0", "z0"))
    refused("test patients: found 20 of mae, 6 labels, 20 of random, 6 labels, 19 in both")
    (root / "runs/mae-6-0" / "predictions.csv").write_text("case,dice\na,0.5\n")
    refused(r"predictions\.csv: scores")
    for folder in (root / "runs").glob("*-6-*"):
        (folder / "summary.json").unlink()
    refused("expected a finished fine-tuning run")
    (root / "study.json").write_text("{")
    refused(r"study\.json: content")


def test_arms_may_list_their_runs_and_share_them(tmp_path: Path) -> None:
    root = study(tmp_path / "study", {"random": {6: 0.7}, "mae": {6: 0.75}})
    content = plan(root)
    arms: dict[str, list[dict[str, object]]] = {"random": [], "also random": [], "mae": []}
    for name, entry in content["runs"].items():
        assert isinstance(entry, dict)
        arm, axes = entry.pop("arm"), entry.pop("axes")
        if entry["kind"] == "finetune":
            for one in (arm, "also random") if arm == "random" else (arm,):
                arms[one].append({"run": name, "axes": axes})
    content["runs"]["runs/lost"] = {"kind": "finetune"}
    arms["mae"].append({"run": "runs/lost", "axes": {"labelled": 6, "seed": 9}})
    write(root / "study.json", content | {"arms": arms, "compare": [["mae", "random"], ["also random", "random"]]})
    write(root / "failures.json", {"runs/lost": "out of memory"})
    comparison = compare_runs([root])
    assert {arm.name for arm in comparison.arms} == set(arms)
    assert [one.p == 1 for one in comparison.differences] == [False, True]
    assert comparison.skipped == ["mae, labelled 6 lacks seed 9: failed (out of memory)"]
    assert comparison.origins["mae, 6 labels"].method == "mae"
