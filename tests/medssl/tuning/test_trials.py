"""Trials drawn, watched, ended early, failed, stopped and gone on with; the trainings are stood in for."""

import fcntl
import json
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from medssl.cli import main
from medssl.config import Finetune
from medssl.problems import InputError, RunError
from medssl.recipes import read_settings
from medssl.stopping import Stopped
from medssl.study.folder import user_of
from medssl.tuning.folder import SearchFolder, Wanted, read_search
from medssl.tuning.made import Account, make
from medssl.tuning.report import warnings, write_search
from medssl.tuning.search import FINISHED, Search
from medssl.tuning.space import read_words, space_of
from medssl.tuning.trials import Trials
from medssl.tuning.validations import Validations

STAND_IN = [sys.executable, str(Path(__file__).parent / "stand_in_trial.py")]
CASES = [{"id": f"c{i}", "image": f"{i}.nii", "label": f"l{i}.nii"} for i in range(8)]
SPLIT = {"labels": {"0": "background", "1": "organ"}, "training": CASES[:4], "validation": CASES[4:6], "test": CASES[6:]}
RECIPE = {"split": "split.json", "crop_size": [32, 32], "network": {"name": "vit_tiny", "patch_size": [8, 8]}, "batch_size": 2}
REST = {"steps": 60, "validate_every": 10, "lr": 0.02, "intensity": "percentile", "workers": 0, "out": "elsewhere"}
SPACE = ["lr=1e-4..1e-1", "weight_decay=0,0.01", "encoder_lr=0.1..1"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("medssl.tuning.trials.PAUSE", 0.02)
    monkeypatch.setattr(
        "medssl.tuning.made.write_search", lambda out: out / "report.html"
    )  # drawing takes longer than all else
    Path("split.json").write_text(json.dumps(SPLIT))
    Path("recipe.json").write_text(json.dumps(RECIPE | REST | {"follows": "somebody"}))
    return tmp_path


def search_in(out: str, *words: str, space: list[str] = SPACE) -> SearchFolder:
    """The search of the recipe in a folder."""
    settings = read_settings(Finetune, "recipe.json", [*words, f"out={out}/best"])
    axes = space_of(Finetune, "recipe.json", words, read_words(space))
    return SearchFolder(Path(out), Wanted("recipe.json", words, settings, axes))


def orders(**by_number: dict[str, Any]) -> None:
    Path("orders.json").write_text(json.dumps({name.removeprefix("t"): order for name, order in by_number.items()}))


def told(content: dict[str, Any]) -> list[dict[str, Any]]:
    """The trials without what hangs on the moment at which one was ended."""
    rows = json.loads(json.dumps(content))["trials"]
    return [{key: row[key] for key in row if key not in ("steps", "seconds")} for row in rows]


def test_a_search_finds_a_better_recipe_that_the_script_takes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("medssl.tuning.made.write_search", write_search)
    content = make(search_in("out", "labelled=3"), 14, 1, STAND_IN)
    trials = content["trials"]
    assert trials[0]["settings"] == {"lr": 0.02, "weight_decay": 0.0, "encoder_lr": 1.0}  # the recipe's own come first
    states = [trial["state"] for trial in trials]
    assert {"done", "ended early"} == set(states)
    assert states[:FINISHED] == ["done"] * FINISHED
    early = [trial for trial in trials if trial["state"] == "ended early"]
    assert all(20 <= max(map(int, trial["validations"])) < 60 for trial in early)  # none in its first third
    best = max(trials, key=lambda trial: trial["value"] if trial["state"] == "done" else 0)
    assert content["best"] == best["number"]
    assert 10**-2.8 < best["settings"]["lr"] < 10**-2.2  # the stand-in's optimum is 10 ** -2.5
    assert next(iter(content["importance"])) == "lr"
    calls = Path("calls.txt").read_text().splitlines()
    assert all("judge=validation" in call and "labelled=3" in call for call in calls)
    chosen = json.loads(Path("out/best.json").read_text())
    assert chosen["follows"] == "somebody; lr, weight_decay, encoder_lr by medssl tune on validation"
    assert chosen["expect"].startswith(f"val_dice {best['value']:.4g}, the best of 14 trials ({states.count('done')} done, ")
    settings = read_settings(Finetune, "out/best.json", [])
    assert (settings.judge, settings.labelled, settings.out) == ("test", 3, Path("out/best"))
    assert {name: getattr(settings, name) for name in best["settings"]} == best["settings"]
    said = capsys.readouterr()
    assert "lr            0.0001 to 0.1 (by the logarithm); first 0.02" in said.err
    assert said.out.splitlines()[-2:] == ["out/best.json", "out/report.html"]
    page = Path("out/report.html").read_text()
    assert f'<a href="trials/{best["number"]:03d}/report.html">' in page
    assert f'<a href="trials/{early[0]["number"]:03d}/progress.png">' in page
    assert "lr mattered most" in page
    before = Path("calls.txt").read_text()
    monkeypatch.setattr("medssl.tuning.made.write_search", lambda out: out / "report.html")
    assert told(make(search_in("out", "labelled=3"), 14, 1, STAND_IN)) == told(content)  # nothing is made again
    assert Path("calls.txt").read_text() == before
    assert main(["report", "out"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "out/report.html"


class Crash(BaseException):
    """Stands in for a kill."""


def crashing(monkeypatch: pytest.MonkeyPatch, name: str, at: int, before: bool) -> None:
    """Crash at the n-th call of a method of the search, before its work or after it; at 0: after one that gives True."""
    inner: Callable[..., Any] = getattr(Search, name)
    calls = 0

    def wrapped(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == at and before:
            raise Crash
        found = inner(*arguments)
        if calls == at or (at == 0 and found):
            raise Crash
        return found

    monkeypatch.setattr(Search, name, wrapped)


def test_killed_anywhere_it_draws_the_same_trials() -> None:
    """By kills around each change of the search's state; processes that a killed search leaves behind end by themselves."""
    straight = told(make(search_in("straight"), 9, 1, STAND_IN))
    assert {row["state"] for row in straight} == {"done", "ended early"}
    points = [("begin", 3, True), ("begin", 2, False), ("report", 5, True), ("end", 2, True), ("report", 0, False)]
    for name, at, before in points:
        with pytest.MonkeyPatch.context() as patch:
            crashing(patch, name, at, before)
            with pytest.raises(Crash):
                make(search_in("killed"), 9, 1, STAND_IN)
    done = sum(row["state"] != "not finished" for row in told(read_search(Path("killed"))))
    assert 0 < done < 9  # all kills hit
    assert told(make(search_in("killed"), 9, 1, STAND_IN)) == straight


def test_a_signal_stops_it_and_the_trial_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    straight = told(make(search_in("straight"), 4, 1, STAND_IN))
    orders(t001={"stay": 35})

    def stop() -> None:
        while not Path("out/trials/001/step").exists():
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=stop)
    thread.start()
    with pytest.raises(Stopped, match="stopped by SIGTERM after 1 of 4 trials; the same command goes on") as caught:
        make(search_in("out"), 4, 1, STAND_IN)
    thread.join()
    assert caught.value.exit_code == 143
    assert [row["state"] for row in told(read_search(Path("out")))] == ["done", "not finished"]
    assert Path("out/trials/001/step").read_text() == "30"
    orders()
    assert told(make(search_in("out"), 4, 1, STAND_IN)) == straight
    assert "1 are there" in capsys.readouterr().err
    rows = Path("out/trials/001/metrics.jsonl").read_text().splitlines()
    assert len({json.loads(row)["step"] for row in rows}) == 60
    assert len(rows) == 66


def test_a_failed_trial_counts_and_the_search_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    orders(t001={"code": 1, "error": "step 3: found loss nan, expected finite numbers"}, t002={"signal": 20})
    content = make(search_in("out"), 4, 1, STAND_IN)
    assert [trial["state"] for trial in content["trials"]] == ["done", "failed", "failed", "done"]
    assert content["trials"][1]["reason"] == "step 3: found loss nan, expected finite numbers"
    assert content["trials"][2]["reason"] == "killed by SIGKILL; memory may be short"
    assert "trial 1 failed: step 3: found loss nan" in capsys.readouterr().err
    assert "2 of 4 trials failed: step 3: found loss nan, expected finite numbers and 1 other reason." in warnings(content)
    orders(**{f"t00{k}": {"code": 1, "error": "no luck"} for k in range(3)})
    with pytest.raises(RunError, match="none of 3 trials was finished: no luck"):
        make(search_in("lost"), 3, 1, STAND_IN)
    assert not Path("lost/best.json").exists()


def test_a_refused_first_trial_stops_it_and_is_tried_again() -> None:
    orders(t000={"code": 2, "error": "a.nii: header: found nothing"})
    for _ in range(2):
        with pytest.raises(RunError, match=r"trial 0 was refused: a\.nii: header: found nothing"):
            make(search_in("out"), 2, 1, STAND_IN)
        assert [row["state"] for row in read_search(Path("out"))["trials"]] == ["not finished"]
    orders(t001={"code": 2, "error": "later ones are failures of their settings"})
    states = [row["state"] for row in make(search_in("out"), 3, 1, STAND_IN)["trials"]]
    assert states == ["done", "failed", "done"]


def test_side_by_side_and_other_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medssl.tuning.trials.cores", lambda: 9)
    content = make(search_in("out", "checkpoint=latest", space=["lr=1e-4..1e-1"]), 6, 3, STAND_IN)
    assert len(content["trials"]) == 6
    assert "not finished" not in [trial["state"] for trial in content["trials"]]
    assert all(" threads=3 " in call for call in Path("calls.txt").read_text().splitlines())
    folder, space = Path("out"), search_in("out").wanted.space
    lower = Search(folder / "b.sqlite", space, higher_is_better=False, steps=60, seed=0)
    trials = Trials(search_in("out"), lower, "val_loss", {}, 1, 1, STAND_IN, lambda *_: None)
    lines = [
        {"step": 1, "val_loss": 3.0},
        {"step": 2, "val_loss": 1.0},
        {"step": 3, "val_loss": 2.0},
        {"step": 4, "val_loss": float("nan")},
    ]
    (folder / "trials/000/metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert trials.value(0) == 1.0
    trials.folder = search_in("out", "checkpoint=latest")
    assert trials.value(0) == 2.0


def test_a_trial_that_a_killed_search_left_at_work_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, users = search_in("out"), list[str]()
    with pytest.MonkeyPatch.context() as patch:
        crashing(patch, "begin", 1, before=False)
        with pytest.raises(Crash):
            make(folder, 1, 1, STAND_IN)
    folder.trial(0).mkdir()
    lock = (folder.trial(0) / ".lock").open("a+")
    lock.write("7")
    lock.flush()
    fcntl.flock(lock, fcntl.LOCK_EX)

    def user(self: SearchFolder, number: int) -> str:
        users.append(user_of(self.trial(number)))
        if len(users) == 5:
            lock.close()  # as its process ends
        return users[-1]

    monkeypatch.setattr(SearchFolder, "user", user)
    assert make(search_in("out"), 1, 1, STAND_IN)["trials"][0]["state"] == "done"
    assert users[:5] == ["7"] * 5
    assert "trial 0 waiting: process 7 makes it" in capsys.readouterr().err


def test_a_trial_that_a_killed_search_has_just_started_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def kill(self: Account, what: str, number: int, why: str) -> None:
        raise Crash

    orders(t000={"start": 1.5})
    with monkeypatch.context() as patch:
        patch.setattr(Account, "told", kill)
        with pytest.raises(Crash):
            make(search_in("out"), 1, 1, STAND_IN)
    while not Path("calls.txt").exists():
        time.sleep(0.02)
    assert make(search_in("out"), 1, 1, STAND_IN)["trials"][0]["state"] == "done"
    assert len(Path("calls.txt").read_text().splitlines()) == 1
    assert "trial 0 waiting: process unknown makes it" in capsys.readouterr().err


def test_another_search_is_refused() -> None:
    def refused(*words: str, space: list[str] = SPACE) -> list[str]:
        with pytest.raises(InputError) as caught:
            search_in("out", *words, space=space).check()
        return [str(problem) for problem in caught.value.problems]

    folder = search_in("out")
    folder.open()
    with pytest.raises(InputError, match="out: out: found a search that another process makes"):
        search_in("out").open()
    again = "as it was started, or another --out"
    assert refused("lr=0.03") == [f"out: lr: found 0.03, expected 0.02, {again}"]
    assert refused(space=["lr=1e-4..1e-2", *SPACE[1:]]) == [
        f"out: space, lr: found 0.0001 to 0.01 (by the logarithm), expected 0.0001 to 0.1 (by the logarithm), {again}"
    ]
    assert "space, encoder_lr: found null" in refused(space=SPACE[:2])[0]
    Path("split.json").write_text(json.dumps(SPLIT | {"test": CASES[6:7]}))
    assert refused()[0].startswith("out: content of the split: found ")
    shutil.rmtree("out")
    Path("out").mkdir()
    Path("out/mine.txt").touch()
    assert refused() == ["out: out: found mine.txt and no tune.json, expected an empty folder, or this search's"]


def test_validations_are_read_once_as_they_come(tmp_path: Path) -> None:
    file, found = tmp_path / "metrics.jsonl", Validations(tmp_path / "metrics.jsonl", "val_dice")
    assert list(found.new()) == []
    file.write_text('{"step": 1, "loss": 1}\n{"step": 1, "val_dice": 0.1}\n{"step": 2, "val_di')
    assert list(found.new()) == [(1, 0.1)]
    with file.open("a") as more:
        more.write('ce": 0.2}\n')
    assert list(found.new()) == [(2, 0.2)]
    (tmp_path / "new").write_text('{"step": 1, "val_dice": 0.1}\n')  # taken up at an earlier checkpoint
    os.replace(tmp_path / "new", file)
    assert list(found.new()) == []
    with file.open("a") as more:
        more.write('{"step": 2, "val_dice": 0.2}\n{"step": 3, "val_dice": 0.3}\n')
        more.write('{"step": 4, "val_dice": NaN}\n{"step": 5, "val_dice": 0.5}\n')
    assert list(found.new()) == [(3, 0.3), (5, 0.5)]


def test_failed_trials_teach_and_equal_values_say_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    space = search_in("out", space=["lr=1e-4..1e-1"]).wanted.space

    def bad(name: str) -> int:
        """How often a search draws what fails, once it has seen that it does."""
        search = Search(tmp_path / f"{name}.sqlite", space, True, 60, 0)
        for _ in range(18):
            number = search.begin({})
            failed = search.settings(number)["lr"] > 1e-2
            search.end(number, TrialState.FAIL if failed else TrialState.COMPLETE, 0.5)
        assert search.importance() == {}
        return sum(trial.state == TrialState.FAIL for trial in search.trials[10:])

    learned = bad("learned")
    monkeypatch.setattr("medssl.tuning.search._as_learned", lambda trial: trial)
    assert learned < bad("forgetful")
