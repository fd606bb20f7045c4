"""Checkpoints: every damage is found, the newest whole one is used, and a run goes on as it was made or not at all."""

import errno
import json
import os
import random
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from medssl import checkpoint
from medssl.cli import script
from medssl.config import Pretrain
from medssl.methods.method import Method
from medssl.pretrain import pretrain
from medssl.problems import InputError, RunError
from medssl.saving import Saving
from medssl.synth import make_dataset
from networks.weight_files import read_weights

VIT = {"name": "vit_tiny", "patch_size": [8, 8], "hidden_size": 24, "mlp_size": 48, "layers": 2}
MAE = {"name": "mae", "decoder_width": 24, "decoder_layers": 1, "decoder_heads": 4}
SMALL: dict[str, Any] = {
    "crop_size": [32, 32], "network": VIT, "method": MAE, "intensity": "percentile", "pad": True, "steps": 8, "batch_size": 4,
    "validate_every": 3, "checkpoint_every": 2, "workers": 0, "lr": 1e-3, "threads": 1, "precision": "float32",
}  # fmt: skip


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The split of 12 synthetic images."""
    return make_dataset(tmp_path_factory.mktemp("images"), cases=12, dims=2)


@pytest.fixture
def settings(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Pretrain]:
    """Make settings of a small pre-training on images, without pictures; a checkpoint every 2 steps, validation every 3."""
    monkeypatch.setattr("medssl.pretrain.write_report", lambda folder: folder)
    monkeypatch.setattr("medssl.validation.curves", lambda metrics: b"")
    small = SMALL | {"split": images, "store": images.parent / "store", "out": tmp_path / "run"}
    return lambda **changes: Pretrain.model_validate(small | changes)


@contextmanager
def breaking_off(step: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Within the block the training must break off in a step, counted from 1."""

    def failing(self: Method, number: int) -> None:
        if number == step:
            raise RunError("broken off")

    with monkeypatch.context() as patch:
        patch.setattr(Method, "before_step", failing)
        with pytest.raises(RunError, match="broken off"):
            yield


def remembered(run: Pretrain) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """All that must be the same for two runs: metrics without times, and the state of the last step."""
    lines = map(json.loads, (run.out / "metrics.jsonl").open())
    state = checkpoint.load(run.out / checkpoint.LATEST)
    del state["progress"]["seconds"]
    return [{k: v for k, v in line.items() if not k.endswith("_s")} for line in lines], state


def assert_same(run: Pretrain, other: Pretrain) -> None:
    """Hold two runs against each other, bit for bit."""
    (lines, state), (other_lines, other_state) = remembered(run), remembered(other)
    assert lines == other_lines
    assert state["progress"] == other_state["progress"]
    torch.testing.assert_close(state["model"], other_state["model"], rtol=0, atol=0)
    torch.testing.assert_close(state["optimiser"]["state"], other_state["optimiser"]["state"], rtol=0, atol=0)


def flip(path: Path, place: int, bit: int = 0) -> None:
    """Turn one bit of a file."""
    content = bytearray(path.read_bytes())
    content[place] ^= 1 << bit
    path.write_bytes(content)


def said(run: Pretrain) -> list[str]:
    """What a run said to its log, without the times."""
    return [line[20:] for line in (run.out / "log.txt").read_text().splitlines()]


# --- the files


def test_each_of_200_damages_is_found_and_the_one_before_used(tmp_path: Path) -> None:
    """100 files cut short and 100 with one bit turned, of which torch alone would have read most as if they were whole."""
    torch.manual_seed(0)
    for step in (1, 2):
        state = {"model": {"weight": torch.randn(40, 30), "queue": torch.randn(50)}, "progress": {"step": step, "best": 0.5}}
        checkpoint.save_latest(tmp_path, state)
    latest, unnoticed, draw = tmp_path / checkpoint.LATEST, 0, random.Random(7)
    whole = latest.read_bytes()
    for number in range(200):
        place = draw.randrange(len(whole))
        latest.write_bytes(whole[:place] if number < 100 else whole)
        if number >= 100:
            flip(latest, place, draw.randrange(8))
            try:
                torch.load(latest, weights_only=True)
                unnoticed += 1
            except Exception:  # whatever torch says of it
                pass
        found, warnings = checkpoint.load_newest(tmp_path)
        assert found is not None
        assert found["progress"]["step"] == 1, number
        assert [warning.startswith(f"warning: {latest} is damaged (") for warning in warnings] == [True]
    assert unnoticed > 50
    latest.write_bytes(whole)
    newest, warnings = checkpoint.load_newest(tmp_path)
    assert (newest is not None and newest["progress"]["step"], warnings) == (2, [])
    torch.testing.assert_close(torch.load(latest, weights_only=True)["model"], state["model"], rtol=0, atol=0)  # torch reads it


def test_without_a_whole_one_it_is_an_error_and_an_older_form_is_named(tmp_path: Path) -> None:
    assert checkpoint.load_newest(tmp_path) == (None, [])
    torch.save({"progress": {"step": 1}}, tmp_path / checkpoint.LATEST)
    (tmp_path / checkpoint.PREVIOUS).write_bytes(b"")
    with pytest.raises(
        RunError, match=r"no whole checkpoint.*latest.pt is damaged \(no seal: cut short, or of an older"
    ) as told:
        checkpoint.load_newest(tmp_path)
    assert "checkpoint_previous.pt is damaged" in str(told.value)
    assert "overwrite=true starts the run again" in str(told.value)


def test_the_newest_is_never_without_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a kill leaves between two renames, also both names of one file, the next save puts right."""
    steps = []

    def save(step: int) -> None:
        checkpoint.save_latest(tmp_path, {"progress": {"step": step}})
        names = (checkpoint.LATEST, checkpoint.PREVIOUS)
        steps.append([checkpoint.load(tmp_path / n)["progress"]["step"] for n in names if (tmp_path / n).exists()])

    save(1)
    save(2)
    os.remove(tmp_path / checkpoint.PREVIOUS)
    os.link(tmp_path / checkpoint.LATEST, tmp_path / checkpoint.PREVIOUS)  # killed before the last rename
    save(3)
    os.replace(tmp_path / checkpoint.LATEST, tmp_path / checkpoint.PREVIOUS)  # killed so on a system without links
    assert checkpoint.load_newest(tmp_path)[1] == []
    save(4)

    def refused(*names: Any) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refused)
    save(5)
    assert steps == [[1], [2, 1], [3, 2], [4, 3], [5, 4]]
    assert sorted(os.listdir(tmp_path)) == [checkpoint.LATEST, checkpoint.PREVIOUS]


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Within the block this process can't write a file beyond a size, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("room", [0, 1000, 40_000])
def test_a_disk_that_is_full_leaves_all_as_it_was(room: int, tmp_path: Path) -> None:
    for step in (1, 2):
        checkpoint.save_latest(tmp_path, {"weight": torch.zeros(20_000), "step": step})
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with files_of_at_most(room), pytest.raises(RunError) as told:
        checkpoint.save_latest(tmp_path, {"weight": torch.ones(20_000), "step": 3})
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert str(told.value) == f"{tmp_path / checkpoint.LATEST}: found File too large, expected to write a checkpoint there"


# --- runs


def test_a_run_whose_newest_is_damaged_goes_on_from_the_one_before(
    settings: Callable[..., Pretrain], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped in step 7 with checkpoints of 6 and 4; the best so far is of step 6, which is done and found again."""
    straight, broken = (settings(out=tmp_path / name) for name in ("straight", "broken"))
    pretrain(straight)
    with breaking_off(7, monkeypatch):
        pretrain(broken)
    latest = broken.out / checkpoint.LATEST
    assert checkpoint.load(broken.out / checkpoint.BEST)["step"] == checkpoint.load(latest)["progress"]["step"] == 6
    flip(latest, latest.stat().st_size // 2)
    for name in ("checkpoint_latest.pt", "metrics.jsonl"):
        (broken.out / f".partial-0a1b2c3d-{name}").write_bytes(b"left by a kill")
    with breaking_off(5, monkeypatch):  # before there is a newer one: the whole one has taken the damaged one's place
        pretrain(broken, resume=True)
    assert not list(broken.out.glob(".partial*"))
    pretrain(broken, resume=True)
    assert_same(broken, straight)
    assert [text for text in said(broken) if "damaged" in text] == [
        f"warning: {latest} is damaged (other bytes than were written); using the one before"
    ]
    assert said(broken).count("going on after step 4") == 2
    assert all(checkpoint.load(broken.out / name) for name in (checkpoint.LATEST, checkpoint.PREVIOUS, checkpoint.BEST))


def test_a_run_killed_before_its_first_checkpoint_starts_again(
    settings: Callable[..., Pretrain], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight, broken = (settings(out=tmp_path / name, checkpoint_every=100) for name in ("straight", "broken"))
    pretrain(straight, resume=True)
    with breaking_off(4, monkeypatch):
        pretrain(broken)
    pretrain(broken, resume=True)
    assert_same(broken, straight)
    assert "no checkpoint was written yet: starting at step 0 again" in said(broken)
    assert not any("again" in text for text in said(straight))


@pytest.fixture
def broken(settings: Callable[..., Pretrain], monkeypatch: pytest.MonkeyPatch) -> Pretrain:
    """A run that was stopped in step 5, with a checkpoint of step 4 and the best of step 3."""
    run = settings()
    with breaking_off(5, monkeypatch):
        pretrain(run)
    return run


def refusal(run: Pretrain) -> list[str]:
    """Why a run is not resumed, in lines; it must stay as it is but for its log."""
    before = {path.name: path.read_bytes() for path in run.out.iterdir() if path.name != "log.txt"}
    with pytest.raises(InputError) as told:
        pretrain(run, resume=True)
    assert {path.name: path.read_bytes() for path in run.out.iterdir() if path.name != "log.txt"} == before
    return [str(problem).removeprefix(f"{run.out}: ") for problem in told.value.problems]


def test_other_conditions_are_refused_in_a_line_each(broken: Pretrain, monkeypatch: pytest.MonkeyPatch) -> None:
    made, rest = checkpoint.load(broken.out / checkpoint.LATEST)["conditions"], "as its checkpoint was made, or --resume-loose"
    more = broken.model_copy(update={"threads": 2})
    assert refusal(more) == [f"threads: found 2, expected 1, {rest}"]
    with monkeypatch.context() as patch:
        patch.setattr("medssl.conditions.version", lambda package: "0.1")
        patch.setattr("medssl.conditions.torch.__version__", "3.0")
        patch.setattr("medssl.conditions.torch.backends.cpu.get_cpu_capability", lambda: "ABACUS")
        assert refusal(broken) == [
            f"device: found cpu with ABACUS, expected {made['device']}, {rest}",
            f"torch: found 3.0, expected {made['torch']}, {rest}",
            f"monai: found 0.1, expected {made['monai']}, {rest}",
            f"numpy: found 0.1, expected {made['numpy']}, {rest}",
        ]
    halved = broken.model_copy(update={"precision": "bfloat16"})
    assert refusal(halved) == [f"precision: found bfloat16, expected float32, {rest}"]
    other = broken.model_copy(update={"lr": 2e-3, "network": broken.network.model_copy(update={"layers": 3})})
    assert refusal(other) == [
        "lr: found 0.002, expected 0.001, as the run was started, or --resume-loose",
        "network.layers: found 3, expected 2, as the run was started, or --resume-loose",
    ]
    config = json.loads((broken.out / "config.json").read_text())
    (broken.out / "config.json").write_text(json.dumps(config | {"lr": 2e-3}))  # a file that somebody has edited
    assert refusal(broken.model_copy(update={"lr": 2e-3})) == [f"lr: found 0.002, expected 0.001, {rest}"]


def test_other_data_is_refused_wherever_it_lies(broken: Pretrain, images: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(images.parent, tmp_path / "moved", ignore=shutil.ignore_patterns("store"))
    there = broken.model_copy(update={"split": moved / images.name, "store": tmp_path / "store"})
    split = json.loads(images.read_text())
    turned = split | {"pretraining": split["pretraining"][::-1]}
    there.split.write_text(json.dumps(turned))  # other cases would be drawn
    (line,) = refusal(there)
    assert line.startswith("data, pretraining: found ")
    there.split.write_text(json.dumps(split))
    seen = moved / split["validation"][0]["image"]
    content = seen.read_bytes()
    shutil.copyfile(moved / split["test"][0]["image"], seen)
    (line,) = refusal(there)
    assert line.startswith("data, validation: found ")
    assert line.endswith("as its checkpoint was made, or --resume-loose")
    seen.write_bytes(content)
    pretrain(there, resume=True)
    assert "going on after step 4" in said(broken)


def test_what_is_let_through_is_said_in_the_log_and_the_summary(broken: Pretrain, capsys: pytest.CaptureFixture[str]) -> None:
    other = broken.model_copy(update={"threads": 2, "lr": 2e-3})
    recipe = broken.out.with_suffix(".json")
    recipe.write_text(other.model_dump_json())
    assert script("pretrain", [str(recipe), "--resume"]) == 2
    assert "error: " in capsys.readouterr().err
    assert script("pretrain", [str(recipe), "--resume-loose"]) == 0
    summary = json.loads((broken.out / "summary.json").read_text())
    told = [
        "warning: threads was 1 until step 4 and is 2 from there on",
        "warning: lr was 0.001 until step 4 and is 0.002 from there on",
    ]
    assert summary["warnings"][-2:] == told
    assert all(line in said(broken) for line in told)
    lines = [line for line in map(json.loads, (broken.out / "metrics.jsonl").open()) if "lr" in line]
    assert [line["lr"] for line in lines] == [1e-3] * 4 + [2e-3] * 4
    assert json.loads((broken.out / "config.json").read_text())["lr"] == 2e-3


def test_all_of_another_optimisers_settings_are_taken_up(broken: Pretrain) -> None:
    """Torch's own way of loading gives all groups the decay, betas and scales of the checkpoint back."""
    pretrain(broken.model_copy(update={"weight_decay": 0.5, "beta2": 0.9, "optimiser": "adam"}), resume=True, loose=True)
    groups = checkpoint.load(broken.out / checkpoint.LATEST)["optimiser"]["param_groups"]
    assert [group["weight_decay"] for group in groups] == [0.5, 0.0]
    assert {(*group["betas"], group["decoupled_weight_decay"]) for group in groups} == {(0.9, 0.9, False)}


@pytest.mark.parametrize("changes", [{"ema": 0.5}, {"optimiser": "sgd"}, {"optimiser": "lars"}])
def test_what_a_checkpoint_lacks_begins_where_it_is(broken: Pretrain, changes: dict[str, Any]) -> None:
    pretrain(broken.model_copy(update=changes), resume=True, loose=True)
    assert ("average" in checkpoint.load(broken.out / checkpoint.LATEST)) == ("ema" in changes)
    begins_anew = "warning: the optimiser begins anew after step 4, without what it remembered"
    assert (begins_anew in json.loads((broken.out / "summary.json").read_text())["warnings"]) == ("optimiser" in changes)


def test_an_average_of_no_further_step_is_the_weights_as_they_are(broken: Pretrain) -> None:
    state = checkpoint.load(broken.out / checkpoint.LATEST)
    changes = {"ema": 0.5, "steps": 4, "checkpoint": "latest"}
    pretrain(broken.model_copy(update=changes), resume=True, loose=True)
    kept, _ = read_weights(broken.out / "encoder.safetensors")
    assert all(torch.equal(value, state["model"][f"autoencoder.encoder.{name}"]) for name, value in kept.items())


def test_another_network_is_refused_and_the_run_stays_as_it_is(
    broken: Pretrain, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe, before = tmp_path / "recipe.json", {path.name: path.read_bytes() for path in broken.out.iterdir()}
    other = broken.model_copy(update={"network": broken.network.model_copy(update={"layers": 3})})
    recipe.write_text(other.model_dump_json())
    assert script("pretrain", [str(recipe), "--resume-loose"]) == 1
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert errors[0].startswith(f"error: {broken.out}: found a checkpoint of other weights (")
    after = {path.name: path.read_bytes() for path in broken.out.iterdir()}
    assert [name for name in after if after[name] != before.get(name)] == ["log.txt"]
    pretrain(broken, resume=True)


def test_best_weights_that_are_lost_are_missed_before_training(broken: Pretrain, monkeypatch: pytest.MonkeyPatch) -> None:
    best = broken.out / checkpoint.BEST
    flip(best, 1000)
    with pytest.raises(RunError, match=r"checkpoint_best.pt is damaged .*; --resume-loose goes on with the best of the valid"):
        pretrain(broken, resume=True)
    pretrain(broken, resume=True, loose=True)
    summary = json.loads((broken.out / "summary.json").read_text())
    assert summary["best_step"] == checkpoint.load(best)["step"] >= 6
    assert summary["warnings"][-1].endswith("so the best weights are of validations after step 4 alone")
    (broken.out / "summary.json").unlink()
    best.unlink()
    with pytest.raises(RunError, match=r"checkpoint_best.pt is not there; --resume-loose checkpoint=latest takes the last"):
        pretrain(broken, resume=True)
    pretrain(broken.model_copy(update={"checkpoint": "latest"}), resume=True, loose=True)
    assert json.loads((broken.out / "summary.json").read_text())["checkpoint"] == "latest"


def test_best_weights_of_steps_that_went_otherwise_are_forgotten(
    settings: Callable[..., Pretrain], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The best is of step 6; the run goes on after step 4 at another rate, and step 6 is another one then."""
    run = settings(checkpoint_every=4)
    with breaking_off(7, monkeypatch):
        pretrain(run)
    best = run.out / checkpoint.BEST
    assert checkpoint.load(best)["step"] == 6
    pretrain(run.model_copy(update={"lr": 0.3}), resume=True, loose=True)
    summary = json.loads((run.out / "summary.json").read_text())
    assert "checkpoint_best.pt is of step 6" in summary["warnings"][-1]
    assert checkpoint.load(best)["step"] == summary["best_step"]
    worth = {
        line["step"]: line["val_loss"] for line in map(json.loads, (run.out / "metrics.jsonl").open()) if "val_loss" in line
    }
    assert summary["val_loss"] == worth[summary["best_step"]] == min(worth[6], worth[8])
    assert worth[3] < summary["val_loss"]  # whose weights are no longer there


def test_a_checkpoint_is_due_by_steps_or_minutes_and_costs_are_told_once(
    settings: Callable[..., Pretrain], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = settings(checkpoint_every=100, checkpoint_minutes=1e-9)
    pretrain(run)
    steps = [line for line in map(json.loads, (run.out / "metrics.jsonl").open()) if "loss" in line]
    assert ["checkpoint_s" in line for line in steps] == [False, *[True] * 7]
    now = [0.0]
    monkeypatch.setattr("medssl.saving.time.monotonic", lambda: now[0])
    saving, told = Saving(settings(checkpoint_minutes=2)), []
    for now[0] in (30.0, 119.0, 120.0):
        told.append((saving.overdue(), saving.done(2.0) if now[0] < 60 else None))
    assert told == [(False, None), (False, None), (False, None)]
    now[0] = 150.0
    assert saving.overdue()
    warning = saving.done(10.0)
    assert warning is not None
    assert warning.startswith("checkpoints took 8% of the time so far, 6 s each: one every 120 s would keep to 5%")
    assert not saving.overdue()
    assert saving.done(10.0) is None


def mounted(folder: Path) -> bool:
    """Put a small disk of its own on a folder, where this process may."""
    folder.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    return shutil.which("mount") is not None and subprocess.run(words, capture_output=True, check=False).returncode == 0


def test_a_run_on_a_full_disk_ends_in_a_line_and_goes_on_when_there_is_room(
    settings: Callable[..., Pretrain], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    disk = tmp_path / "disk"
    if not mounted(disk):
        pytest.skip("this process may not mount a small disk")
    try:
        straight, full = (settings(out=out, validate_every=8) for out in (tmp_path / "straight", disk / "run"))
        pretrain(straight)
        with breaking_off(5, monkeypatch):
            pretrain(full)
        names = sorted(os.listdir(full.out))
        (disk / "filler").write_bytes(b"x" * (shutil.disk_usage(disk).free - 20_000))
        recipe = tmp_path / "recipe.json"
        recipe.write_text(full.model_dump_json())
        assert script("pretrain", [str(recipe), "--resume"]) == 1
        errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
        expected = f"error: {full.out / checkpoint.LATEST}: found No space left on device, expected to write a checkpoint there"
        assert errors == [expected]
        assert sorted(os.listdir(full.out)) == names
        assert checkpoint.load(full.out / checkpoint.LATEST)["progress"]["step"] == 4
        (disk / "filler").unlink()
        pretrain(full, resume=True)
        assert_same(full, straight)
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_settings_without_effect_may_change(broken: Pretrain) -> None:
    changed = {"workers": 1, "checkpoint_every": 3, "checkpoint_minutes": 1.0, "recompute": True, "takes": "longer"}
    pretrain(broken.model_copy(update=changed), resume=True)
    assert not any("until step" in text for text in said(broken))
