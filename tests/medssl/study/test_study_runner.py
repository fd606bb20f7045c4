"""The runs of a study made in order, side by side, past failures and signals; the trainings are stood in for."""

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, TextIO

import pytest
from study_phantom import SPLIT, changed, planned

from medssl.atomic import write_atomically
from medssl.comparison.planned import read_study
from medssl.forecast import hours
from medssl.problems import InputError
from medssl.run_folder import config_of, lock_of
from medssl.study.costs import Cost, cost_in, kinds_of
from medssl.study.folder import StudyFolder
from medssl.study.plan import Run
from medssl.study.progress import Progress
from medssl.study.runner import Runner, environment

STAND_IN = str(Path(__file__).parents[1] / "stand_in.py")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("medssl.study.runner.PAUSE", 0.01)
    Path("split.json").write_text(json.dumps(SPLIT))
    return tmp_path


def study(*words: str, **changes: Any) -> StudyFolder:
    """The folder of the study with two labels and one seed: five runs."""
    found = StudyFolder(planned(changed(**changes), "axes.labelled=[2,4]", "axes.seed, draw=[0]", *words))
    found.open(alone=True)
    return found


def made(folder: StudyFolder, jobs: int = 1, **orders: dict[str, Any]) -> tuple[Runner, list[str]]:
    """Make all runs; gives the runner, and what was called, in its order."""
    Path("stand_in.json").write_text(json.dumps({name.replace("_", "-"): order for name, order in orders.items()}))
    Path("calls.txt").unlink(missing_ok=True)
    runs = [run for stage in folder.plan.stages() for run in stage]
    runner = Runner(folder, runs, jobs, [sys.executable, STAND_IN], Progress(folder, runs, jobs).told)
    runner.run()
    called = Path("calls.txt").read_text().splitlines() if Path("calls.txt").exists() else []
    return runner, called


def names(called: list[str]) -> list[str]:
    return [line.split()[1] for line in called]


def test_runs_are_made_in_order_and_none_twice(capsys: pytest.CaptureFixture[str]) -> None:
    opened = study()
    runner, called = made(opened)
    assert not runner.failures
    assert names(called) == [
        "rc", "random-labelled2-seed0", "random-labelled4-seed0", "pretrained-labelled2-seed0", "pretrained-labelled4-seed0"
    ]  # fmt: skip
    assert "ssl_pretrain.py" in called[0]
    assert "ssl_finetune.py" in called[1]
    lines = capsys.readouterr().err.splitlines()
    assert lines[1].startswith("2 of 5  runs/random-labelled2-seed0      done: dice 0.5; 0.0")
    assert lines[1].endswith(" s left")
    assert lines[-1].split() == ["5", "of", "5", "runs/pretrained-labelled4-seed0", "done:", "dice", "0.5"]
    assert made(opened)[1] == []


def test_the_rest_is_told_by_the_pace_of_what_is_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """10 s for the first 2 steps; and one run does not end sooner for a second place beside it."""
    opened = study()
    (run,) = [run for run in opened.plan.runs.values() if run.name == "pretrain/rc"]
    progress = Progress(opened, [run], jobs=2)
    assert progress.left() == ""
    metrics = opened.path(run) / "metrics.jsonl"
    metrics.parent.mkdir(parents=True)
    monkeypatch.setattr(time, "monotonic", lambda: 50.0)
    progress.told("began", run, "")
    metrics.write_text('{"step": 1}\n{"step": 2}\n')
    monkeypatch.setattr(time, "monotonic", lambda: 60.0)
    assert progress.left() == hours((run.settings.steps - 2) * 5.0)


def test_a_failed_run_is_named_what_needs_it_is_left_out_and_the_rest_is_done(capsys: pytest.CaptureFixture[str]) -> None:
    opened = study()
    runner, called = made(opened, rc={"error": "split.json: no such disk"}, random_labelled4_seed0={"killed": True})
    assert names(called) == ["rc", "random-labelled2-seed0", "random-labelled4-seed0"]
    expected = {
        "pretrain/rc": "split.json: no such disk",
        "runs/random-labelled4-seed0": "killed by SIGKILL; memory may be short",
        **{f"runs/pretrained-labelled{n}-seed0": "left out: it needs pretrain/rc" for n in (2, 4)},
    }
    assert runner.failures == expected == json.loads(Path("out/failures.json").read_text())
    assert "pretrain/rc                      failed: split.json: no such disk" in capsys.readouterr().err
    opened.write_failures({}, ["pretrain/rc"])  # by a start of this run alone
    assert json.loads(Path("out/failures.json").read_text()).keys() == expected.keys() - {"pretrain/rc"}
    runner, called = made(opened)  # the next start tries again
    assert names(called) == ["rc", "random-labelled4-seed0", "pretrained-labelled2-seed0", "pretrained-labelled4-seed0"]
    assert not runner.failures
    assert not Path("out/failures.json").exists()


def test_failures_of_processes_that_share_a_folder_are_all_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = study()

    def slowly(path: Path, data: bytes) -> Path:
        time.sleep(0.2)
        return write_atomically(path, data)

    monkeypatch.setattr("medssl.study.folder.write_atomically", slowly)
    threads = [threading.Thread(target=opened.write_failures, args=({name: "why"}, [name])) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert json.loads(Path("out/failures.json").read_text()) == {"a": "why", "b": "why"}


@pytest.mark.parametrize("number", [errno.ENOTSUP, errno.EWOULDBLOCK])
def test_a_file_system_without_locks_is_no_folder_in_use(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = study()
    run = opened.plan.runs["pretrain/rc"]
    opened.path(run).mkdir(parents=True)
    (opened.path(run) / ".lock").write_text("7")

    def refused(lock: TextIO, how: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refused)
    if number == errno.EWOULDBLOCK:
        assert opened.user(run) == "7"
        with pytest.raises(InputError, match="a study that another process runs"):
            study()
    else:
        assert opened.user(run) == ""
        lock_of(opened.path(run)).close()
        study().write_failures({"a": "why"}, ["a"])
        assert json.loads(Path("out/failures.json").read_text()) == {"a": "why"}


def test_side_by_side_they_share_cores_and_wait_for_what_they_need(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medssl.study.runner.cores", lambda: 8)
    _, called = made(study(), 3, rc={"wait": 1.0}, random_labelled4_seed0={"wait": 1.0})
    assert set(names(called)[:3]) == {"rc", "random-labelled2-seed0", "random-labelled4-seed0"}
    assert all(line.endswith("threads=2") for line in called)


def test_a_started_run_keeps_its_threads_and_other_settings_are_refused() -> None:
    opened = study()
    run = opened.plan.runs["pretrain/rc"]
    opened.path(run).mkdir(parents=True)
    before = config_of(run.settings, run.kind)
    (opened.path(run) / "config.json").write_text(json.dumps(before | {"threads": 7}))
    assert "ssl_pretrain.py rc threads=7" in made(opened, 2)[1]
    found = refused("lr=0.5")
    assert found == ["out/pretrain/rc: lr: found 0.5, expected 0.001, as the run was started"]
    assert refused("pretrain.rc.settings.workers=4") == []
    (opened.path(run) / "config.json").write_text(json.dumps(before | {"steps": 3, "seed": 1}))
    assert [line.partition(": found")[0] for line in refused()] == ["out/pretrain/rc: seed", "out/pretrain/rc: steps"]


def test_a_run_of_a_split_that_was_changed_since_is_refused() -> None:
    opened = study()
    run = opened.plan.runs["pretrain/rc"]
    opened.path(run).mkdir(parents=True)
    (opened.path(run) / "config.json").write_text(json.dumps(config_of(run.settings, run.kind)))
    (opened.path(run) / "split.json").write_bytes(Path("split.json").read_bytes())
    assert refused() == []
    Path("split.json").write_text(json.dumps(SPLIT | {"validation": SPLIT["validation"][:1]}))
    (line,) = refused()
    assert line.startswith("out/pretrain/rc: content of the split: found ")
    Path("split.json").unlink()  # as on a machine that only lists the runs
    assert refused() == []


def refused(*words: str) -> list[str]:
    """What a study says of the folder `out`."""
    try:
        StudyFolder(planned(changed(), "axes.labelled=[2,4]", "axes.seed, draw=[0]", *words)).check()
    except InputError as error:
        return [str(problem) for problem in error.problems]
    return []


def test_folders_of_others_are_refused() -> None:
    opened = study()
    with pytest.raises(InputError, match="out: out: found a study that another process runs, expected a folder that is free"):
        study()
    for name in ("mine", "yours"):
        (opened.out / "runs" / name).mkdir(parents=True)
        (opened.out / "runs" / name / "config.json").write_text("{}")
    assert refused() == [
        "out: runs: found runs/mine and 1 more, which is not of this study, "
        "expected runs of this study alone: another folder, or remove it"
    ]
    Path("out/study.json").unlink()
    assert refused()[0].startswith("out: out: found ")


def test_a_run_that_another_process_has_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As after kill -9 of a study alone, whose processes go on."""
    monkeypatch.setattr("medssl.study.runner.ELSEWHERE", 0.1)
    opened = study()
    Path("stand_in.json").write_text(json.dumps({"rc": {"wait": 1.5}}))
    words = ["ssl_pretrain.py", "demo_pretrain", "encoder=none", "out=out/pretrain/rc"]
    with subprocess.Popen([sys.executable, STAND_IN, *words]) as orphan:
        while not opened.user(opened.plan.runs["pretrain/rc"]):
            time.sleep(0.02)
        runner, called = made(opened, rc={"error": "must not be started"})
    assert orphan.returncode == 0
    assert "rc" not in names(called)
    assert not runner.failures
    assert len(called) == 4
    assert "waiting: process" in capsys.readouterr().err


def test_a_run_that_another_process_is_starting_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As after kill -9 of a study whose first run reads its data, before it takes its folder."""
    monkeypatch.setattr("medssl.study.runner.ELSEWHERE", 0.1)
    opened = study()

    def kill(what: str, run: Run, why: str) -> None:
        raise KeyboardInterrupt

    Path("stand_in.json").write_text(json.dumps({"rc": {"start": 1.5}}))
    with pytest.raises(KeyboardInterrupt):
        Runner(opened, [opened.plan.runs["pretrain/rc"]], 1, [sys.executable, STAND_IN], kill).run()
    while not Path("calls.txt").exists():
        time.sleep(0.02)
    runner, called = made(opened, rc={"error": "must not be started"})
    assert not runner.failures
    assert "rc" not in names(called)
    assert len(called) == 4
    assert "pretrain/rc                      waiting: process unknown has it" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_present_runs_and_the_next_start_goes_on(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    opened = study()

    def stop() -> None:
        while not Path("out/runs/random-labelled2-seed0/.lock").exists():
            time.sleep(0.02)
        time.sleep(0.2)  # until the stand-in has its handler
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=stop)
    thread.start()
    runner, called = made(opened, random_labelled2_seed0={"wait": 60})
    thread.join()
    assert (runner.stopped, runner.failures) == (number, {})
    assert names(called) == ["rc", "random-labelled2-seed0"]
    assert capsys.readouterr().err.splitlines()[-1] == "1 of 5  runs/random-labelled2-seed0      stopped: at step 0 of 300"
    assert len(made(opened)[1]) == 4


def test_gpus_go_round(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    assert [environment(place, 3)["CUDA_VISIBLE_DEVICES"] for place in range(3)] == ["4", "6", "4"]
    assert environment(0, 1)["CUDA_VISIBLE_DEVICES"] == "4,6"


def test_runs_that_cost_the_same_are_measured_once() -> None:
    opened = study()
    runs = list(opened.plan.runs.values())
    assert sorted(len(kind) for kind in kinds_of(runs)) == [1, 4]
    text = (
        "run         0.20 hours for 9 steps: packing 36 s, start 8 s\nmemory      1.50 GB, with 0 workers\n"
        "disk        0.250 GB for the run folder\nstore       9 cases to pack, at most 0.03 GB in /a b"
    )
    cost = cost_in(text)
    assert cost == Cost(pytest.approx(0.19), pytest.approx(0.01), 1.5, 0.25, 0.03, "/a b")
    assert cost_in("something else") is None


def test_the_report_reads_what_the_study_writes() -> None:
    opened = study()
    read = read_study(opened.out)
    assert read.about == opened.plan.study.about
    expected = {(str(opened.path(opened.plan.runs[m.run])), m.arm, tuple(m.axes.items())) for m in opened.plan.members}
    assert {(str(run.folder), run.arm, tuple(run.axes.items())) for run in read.runs if run.kind == "finetune"} == expected
    assert [(str(run.folder), run.arm) for run in read.runs if run.kind == "pretrain"] == [("out/pretrain/rc", "rc")]
