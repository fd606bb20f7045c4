"""SIGTERM, SIGINT, SIGUSR1 and --max-hours: at every stage of a run, once and twice, on one rank and on two."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from medssl import checkpoint, pack, signals
from medssl.config import Finetune, Pretrain
from medssl.deadline import Deadline
from medssl.finetune import finetune
from medssl.pretrain import pretrain
from medssl.step import Step
from medssl.stopping import Interrupted, Stopped
from medssl.tasks import segmentation
from networks.transfer import read_weights
from tests.medssl.started import forked, lines, rank_of, timeless, torchrun


def staying(mark: Path) -> Callable[..., Any]:
    """A function that marks that it was called and does not come back."""

    def stay(*words: Any) -> None:
        mark.touch()
        time.sleep(120)

    return stay


def slow_images(mark: Path) -> Callable[..., Iterator[Any]]:
    """The images of a validation, of which the second waits until the work is broken off."""
    true = segmentation.whole_images

    def images(*words: Any) -> Iterator[Any]:
        for image in true(*words):
            yield image
            mark.touch()
            while True:
                signals.give_way()
                time.sleep(0.005)

    return images


def slower_steps(seconds: float) -> None:
    """Make each step last so much longer."""
    true = Step.__call__

    def slow(self: Step, *words: Any) -> dict[str, Any]:
        time.sleep(seconds)
        return true(self, *words)

    setattr(Step, "__call__", slow)  # noqa: B010  mypy: a method


def step_of(folder: Path) -> int:
    """The step of the newest checkpoint."""
    step: int = checkpoint.load(folder / checkpoint.LATEST)["progress"]["step"]
    return step


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_stop_writes_a_checkpoint_of_the_step(number: int, code: int, pretraining: Callable[..., Pretrain]) -> None:
    """The workers are told too, as a terminal tells them."""
    settings = pretraining(steps=100000, checkpoint_every=100000, validate_every=100000, workers=2)
    with forked(settings) as process:
        process.until(lambda: len(lines(settings.out)) >= 2)
        process.tell_all(number)
        said = process.ended(code, 30)
        process.left_none()
    assert step_of(settings.out) == lines(settings.out)[-1]["step"]
    assert said[-1].startswith(f"stopped by {signal.Signals(number).name} after step {step_of(settings.out)}; --resume")


@pytest.mark.slow
@pytest.mark.parametrize("steps", [3, 2])
def test_a_stop_in_validation_breaks_it_off_and_the_run_goes_on_as_if_nothing_had_happened(
    steps: int, finetuning: Callable[..., Finetune], tmp_path: Path
) -> None:
    """In the last validation too. Averaged weights are in place then; when the run goes on the validation comes first."""
    broken, straight = (
        finetuning(steps=steps, validate_every=2, ema=0.9, out=tmp_path / name) for name in ("broken", "straight")
    )
    mark = tmp_path / "validating"
    with forked(broken, change=lambda: setattr(segmentation, "whole_images", slow_images(mark))) as process:
        process.until(mark.exists)
        process.tell(signal.SIGTERM)
        process.ended(143)
    assert [line["step"] for line in lines(broken.out)] == [1, 2]
    assert step_of(broken.out) == 2
    finetune(broken, resume=True)
    finetune(straight)
    assert timeless(lines(broken.out)) == timeless(lines(straight.out))
    states = [checkpoint.load(settings.out / checkpoint.LATEST) for settings in (broken, straight)]
    for part in ("model", "average"):
        assert all(torch.equal(states[0][part][name], value) for name, value in states[1][part].items())
    assert (broken.out / "report.html").exists()


@pytest.mark.parametrize(
    ("owner", "name", "trained"), [(pack, "prepare_case", False), (segmentation.Segmentation, "judge", True)]
)
def test_a_stop_where_there_is_nothing_to_save_ends_at_once(
    owner: Any, name: str, trained: bool, finetuning: Callable[..., Finetune], tmp_path: Path
) -> None:
    """While packing, in a thread, and while judging; SIGUSR1 does no harm there."""
    settings = finetuning(steps=1, store=tmp_path / "store")
    mark = tmp_path / "here"
    with forked(settings, change=lambda: setattr(owner, name, staying(mark))) as process:
        process.until(mark.exists)
        process.tell(signal.SIGUSR1)
        process.tell(signal.SIGTERM)
        said = process.ended(143, 3 * signals.GRACE)
    assert said[-1] == ("stopped by SIGTERM" if trained else "ended at once by SIGTERM")
    assert (settings.out / checkpoint.LATEST).exists() == trained


def test_a_second_stop_ends_a_process_that_hears_nothing(pretraining: Callable[..., Pretrain], tmp_path: Path) -> None:
    """The main thread is busy; what comes within a moment, as from a launcher and its terminal, is the first one again."""
    settings = pretraining(steps=100, workers=1)
    mark = tmp_path / "step"
    with forked(settings, change=lambda: setattr(Step, "__call__", staying(mark))) as process:
        process.until(mark.exists)
        process.tell(signal.SIGTERM)
        process.tell(signal.SIGTERM)
        with pytest.raises(AssertionError):
            process.ended(143, 4 * signals.SAME)
        process.tell(signal.SIGTERM)
        assert "ended at once by SIGTERM" in process.ended(143, 10)
        process.left_none()


@pytest.mark.slow
def test_a_wish_for_a_checkpoint_is_granted_and_the_run_goes_on(pretraining: Callable[..., Pretrain], tmp_path: Path) -> None:
    """Told to all processes, as a cluster does: the workers live on. The run is that of one that was not asked."""
    asked, straight = (
        pretraining(steps=12, checkpoint_every=100, validate_every=12, workers=2, out=tmp_path / name)
        for name in ("asked", "straight")
    )
    with forked(asked, change=lambda: slower_steps(0.1)) as process:
        process.until(lambda: len(lines(asked.out)) >= 2)
        process.tell_all(signal.SIGUSR1)
        process.until((asked.out / checkpoint.LATEST).exists)
        assert 2 <= step_of(asked.out) < 12
        said = process.ended(0)
    assert sum("a checkpoint, as SIGUSR1 asked for" in line for line in said) == 1
    pretrain(straight)
    assert timeless(lines(asked.out)) == timeless(lines(straight.out))
    weights = [read_weights(settings.out / "encoder.safetensors")[0] for settings in (asked, straight)]
    assert all(torch.equal(weights[0][name], value) for name, value in weights[1].items())


@pytest.mark.slow
def test_a_job_ends_before_its_limit_and_the_chain_comes_to_its_end(pretraining: Callable[..., Pretrain]) -> None:
    """Each start takes a step at least; 75 until the run is done."""
    settings = pretraining(steps=3, validate_every=2)
    for step in (1, 2):
        with forked(settings, "--resume", "--max-hours", "0.0001") as process:
            assert f"out of time after step {step}; --resume goes on from there" in process.ended(75)
    with forked(settings, "--resume", "--max-hours", "0.0001") as process:
        process.ended(0)
    assert [line["step"] for line in lines(settings.out)] == [1, 2, 2, 3, 3]


def test_the_margin_before_the_limit_has_room_for_the_longest_round() -> None:
    deadline = Deadline(1.0, time.monotonic() - 3600 + 100)
    assert not deadline.reached()
    deadline.see([{"step": 1, "step_s": 4.0}, {"step": 1, "validate_s": 60.0}, {"step": 2, "step_s": 1.0, "checkpoint_s": 2.0}])
    assert deadline.margin >= 66
    assert deadline.reached()
    assert not Deadline().reached()


def test_work_is_broken_off_only_where_it_may_be_and_what_nobody_acted_on_is_acted_on() -> None:
    def held() -> None:
        with signals.held() as told:
            os.kill(os.getpid(), signal.SIGINT)
            signals.give_way()  # in a step
            assert told.stop == signal.SIGINT
            with signals.breakable(), pytest.raises(Interrupted):
                signals.give_way()

    before = signal.getsignal(signal.SIGTERM)
    with signals.listening(), pytest.raises(Stopped, match="SIGINT"):
        held()
    assert signal.getsignal(signal.SIGTERM) == before
    with signals.held(), signals.breakable():
        signals.give_way()  # nothing is left of it


SLOW_VALIDATION = """
import os, pathlib, time
from medssl import signals
from medssl.tasks import segmentation
true = segmentation.whole_images
def images(*words):
    for image in true(*words):
        yield image
        pathlib.Path({!r}).touch()
        while os.environ["RANK"] == "0":
            signals.give_way()
            time.sleep(0.005)
segmentation.whole_images = images
"""
SLOW_STEPS = """
import time
from medssl.step import Step
true = Step.__call__
def slow(self, *words):
    time.sleep(0.1)
    return true(self, *words)
Step.__call__ = slow
"""


@pytest.mark.slow
@pytest.mark.parametrize("told", ["one rank", "all ranks, twice"])
def test_two_ranks_break_off_a_validation_together(told: str, finetuning: Callable[..., Finetune], tmp_path: Path) -> None:
    """One rank is in its validation, the other waits for its figures; what one is told ends both, at the same step."""
    settings = finetuning(steps=3, validate_every=2)
    mark = tmp_path / "validating"
    with torchrun(settings, change=SLOW_VALIDATION.format(str(mark))) as process:
        process.until(mark.exists)
        if told == "one rank":
            os.kill(rank_of(process, 0), signal.SIGTERM)
        else:
            process.tell_all(signal.SIGTERM)  # and torchrun tells its ranks again
        process.until_gone()
    said = process.said.read_text()
    assert said.count("stopped by SIGTERM after step 2") == 1
    assert "ended at once" not in said
    assert step_of(settings.out) == 2
    finetune(settings, resume=True)
    assert [line["step"] for line in lines(settings.out)] == [1, 2, 2, 3, 3]


@pytest.mark.slow
def test_one_rank_asks_for_a_checkpoint_of_all(pretraining: Callable[..., Pretrain]) -> None:
    settings = pretraining(steps=8, checkpoint_every=100, validate_every=8, workers=1)
    with torchrun(settings, change=SLOW_STEPS) as process:
        process.until(lambda: len(lines(settings.out)) >= 2)
        os.kill(rank_of(process, 1), signal.SIGUSR1)
        process.until((settings.out / checkpoint.LATEST).exists)
        said = process.ended(0)
    assert sum("a checkpoint, as SIGUSR1 asked for" in line for line in said) == 1
