"""The arms of a study searched alike: one space, as many trials each, pre-trainings once; trainings are stood in for."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from study_phantom import SPLIT, STUDY

from medssl.cli import main
from medssl.run_folder import config_of
from medssl.study.plan import plan
from medssl.study.schema import read_study
from medssl.tuning.folder import read_search

STAND_IN = f"{sys.executable} {Path(__file__).parent / 'stand_in_trial.py'}"
UNET = {"like": "random", "settings": {"network": "unet", "lr": 0.02}}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("medssl.tuning.trials.PAUSE", 0.02)
    monkeypatch.setattr("medssl.study.runner.PAUSE", 0.02)
    monkeypatch.setattr("medssl.tuning.made.write_search", lambda out: out / "report.html")
    Path("split.json").write_text(json.dumps(SPLIT))
    write()
    return tmp_path


def write(**changes: Any) -> None:
    arms = STUDY["arms"] | {"unet": UNET}
    Path("question.json").write_text(json.dumps(STUDY | {"arms": arms} | changes))


def tune(*words: str) -> int:
    return main(["tune", "question.json", "steps=60", "validate_every=10", "--out", "out", "--launcher", STAND_IN, *words])


def test_every_arm_is_searched_alike_and_the_study_takes_what_is_found(capsys: pytest.CaptureFixture[str]) -> None:
    assert tune("--trials", "3", "--at", "labelled=4") == 0
    searches = {arm: read_search(Path("out/arms") / arm) for arm in ("random", "pretrained", "unet")}
    spaces = {arm: search["space"] for arm, search in searches.items()}
    assert spaces["random"] == spaces["pretrained"] == {"encoder_lr": "0.01 to 1 (by the logarithm)"} | spaces["unet"]
    assert spaces["unet"].keys() == {"lr", "weight_decay"}  # no encoder whose rate could be turned
    assert spaces["unet"]["lr"] == "0.0014 to 0.11 (by the logarithm)"  # around the recipe's 0.008 and the U-Net's 0.02
    assert all(len(search["trials"]) == 3 for search in searches.values())
    assert all(search["settings"]["labelled"] == 4 and search["settings"]["seed"] == 0 for search in searches.values())
    calls = Path("calls.txt").read_text().splitlines()
    assert sum("ssl_pretrain.py" in call for call in calls) == 1
    assert sum("encoder=out/study/pretrain/rc" in call for call in calls) == 3
    assert all("judge=validation" in call for call in calls if "ssl_finetune" in call)

    planned = plan(*read_study("out/question.json"), Path("out/study"))  # the study, as the last line says
    for arm, search in searches.items():
        chosen = search["trials"][search["best"]]["settings"]
        for member in planned.of_arm(arm):
            settings = planned.runs[member.run].settings
            assert {name: getattr(settings, name) for name in chosen} == chosen
    said = capsys.readouterr().out
    assert "| random " in said
    assert said.splitlines()[-1] == "make it with: medssl study out/question.json --out out/study"
    assert main(["study", "out/question.json", "--out", "out/study", "--list"]) == 0  # takes the pre-training that is there
    before = len(calls)
    assert tune("--trials", "3", "--at", "labelled=4") == 0
    assert len(Path("calls.txt").read_text().splitlines()) == before


def test_the_search_goes_on_after_the_tuned_study_was_begun(capsys: pytest.CaptureFixture[str]) -> None:
    """Its runs have other settings than those of the study that is searched; the pre-training must be as it was."""
    assert tune("--trials", "2") == 0
    planned = plan(*read_study("out/question.json"), Path("out/study"))
    run = planned.runs["runs/random-labelled4-seed0"]
    tuned = Path("out/study/runs/random-labelled4-seed0/config.json")
    tuned.parent.mkdir(parents=True)
    tuned.write_text(json.dumps(config_of(run.settings.model_copy(update={"lr": 0.5}), run.kind)))
    Path("out/study/study.json").write_text("{}")
    assert tune("--trials", "3") == 0, capsys.readouterr().err
    assert len(read_search(Path("out/arms/random"))["trials"]) == 3
    assert Path("out/study/study.json").read_text() == "{}"
    pretraining = planned.runs["pretrain/rc"]
    other = config_of(pretraining.settings, pretraining.kind) | {"lr": 0.5}
    Path("out/study/pretrain/rc/config.json").write_text(json.dumps(other))
    assert tune("--trials", "4") == 2
    assert "out/study/pretrain/rc: lr: found " in capsys.readouterr().err


def test_a_dry_run_counts_every_trial_and_makes_none(capsys: pytest.CaptureFixture[str]) -> None:
    """One pre-training of 0.5 hours and 5 trials of three arms, 0.5 hours each: 8 hours; 2 GB, of two side by side 4."""
    Path("asked.py").write_text("print('run 0.5 hours\\nmemory 2 GB\\ndisk 0.25 GB')\n")
    words = ["--trials", "5", "--jobs", "2", "--at", "labelled=4", "--dry-run", "--launcher", f"{sys.executable} asked.py"]
    assert main(["tune", "question.json", "--out", "out", *words]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[-2] == "together    8.00 hours, 4.00 with 2 side by side; 4.00 GB of memory; 4.00 GB of disk"
    assert main(["tune", "demo_finetune", "split=split.json", "--out", "out", *words[:4], *words[-3:]]) == 0
    assert "together    2.50 hours, 1.25 with 2 side by side" in capsys.readouterr().out
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--at", "labeled=4"], "--at: labeled: found no axis of the study, expected 'labelled'?"),
        (["--at", "labelled=5"], "--at: labelled: found 5, expected one of 2, 4, all"),
        (["--space", "lr=1..2", "labelled=2..4"], "space: labelled: found an axis of the study, expected a setting that arms"),
        (["--space", "lr=1..2", "draw=0,1"], "space: draw: found an axis of the study"),
        (["--space", "lrr=1..2"], "space: lrr: found an unknown setting, expected 'lr'?"),
    ],
)
def test_mistakes_are_named_before_anything_runs(words: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert tune(*words) == 2
    assert line in capsys.readouterr().err
    assert not Path("out").exists()


def test_an_arm_that_finds_nothing_is_named_and_the_others_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    write(
        axes={"labelled": [2]},
        arms={"unet": UNET | {"like": "random"}, "random": STUDY["arms"]["random"]},
        pretrain={},
        compare=[],
    )
    Path("orders.json").write_text(json.dumps({"001": {"code": 1, "error": "no luck"}}))
    assert tune("--trials", "2") == 0
    Path("orders.json").write_text(json.dumps({"000": {"code": 1, "error": "no luck"}}))
    assert main(["tune", "question.json", "--out", "b", "--launcher", STAND_IN, "--trials", "1"]) == 1
    assert "2 of 2 arms have found nothing: unet: none of 1 trials was finished: no luck; random:" in capsys.readouterr().err
