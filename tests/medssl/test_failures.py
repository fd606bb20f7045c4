"""What goes wrong in the middle of a training ends it in one line within seconds, with nothing broken saved and nobody left."""

import os
import resource
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from medssl import checkpoint, loaders
from medssl.average import Average
from medssl.cli import guarded
from medssl.config import Finetune, Pretrain
from medssl.data import load_data
from medssl.finetune import finetune
from medssl.finite import non_finite
from medssl.lines import Lines
from medssl.out_of_memory import advised, less
from medssl.pretrain import pretrain
from medssl.problems import NotFiniteError, RunError, failure
from medssl.run_folder import RunFolder
from medssl.step import Step
from medssl.store import Shard, Store
from tests.medssl.started import Started, forked, lines, rank_of, torchrun

SOON = 10.0  # seconds


def one_line(process: Started, seconds: float = SOON) -> str:
    """The one error of a process that fails, soon, and leaves nobody behind."""
    (said,) = [line for line in process.ended(1, seconds) if line.startswith("error: ")]
    process.left_none()
    return said


def long(settings: Callable[..., Any], **changes: Any) -> Any:
    """Settings of a training that does not end by itself."""
    return settings(**{"steps": 100000, "validate_every": 100000, "checkpoint_every": 100000, "workers": 2} | changes)


# ---- weights and statistics that are not finite


def spoil(where: str) -> Callable[..., dict[str, Any]]:
    """A step whose loss is finite and after which something that a checkpoint keeps is not."""
    true = Step.__call__

    def step(self: Step, number: int, batch: Any) -> dict[str, Any]:
        told = true(self, number, batch)
        if number == 3:
            with torch.no_grad():
                model = self.training.model
                states = [state["exp_avg_sq"] for state in self.optimiser.state.values()]
                spoilt = {"weights": list(model.parameters()), "statistics": list(model.buffers()), "optimiser": states}
                next(x for x in spoilt[where] if x.is_floating_point()).view(-1)[-1] = np.inf
        return told

    return step


@pytest.mark.parametrize(
    ("where", "name"),
    [
        pytest.param("weights", "model.", marks=pytest.mark.slow),
        pytest.param("optimiser", "optimiser.state", marks=pytest.mark.slow),
        ("statistics", "model."),
    ],
)
def test_nothing_that_is_not_finite_is_ever_saved(
    where: str, name: str, finetuning: Callable[..., Finetune], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither as the newest checkpoint nor as the best; what was written before stays, and the line names the cases."""
    monkeypatch.setattr(Step, "__call__", spoil(where))
    settings = finetuning(checkpoint_every=1, validate_every=100, network={"name": "resnet18", "width": 4})
    with pytest.raises(NotFiniteError, match=rf"step 3: found {name}\S* not finite, .*; cases of the batch: case_\d+, case"):
        finetune(settings)
    state = checkpoint.load(settings.out / checkpoint.LATEST)
    assert state["progress"]["step"] == 2
    assert list(non_finite(state)) == []
    assert not (settings.out / "encoder.safetensors").exists()


def test_what_is_not_finite_is_found_wherever_it_lies() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    average = Average(model, 0.9)
    average.update()
    state = {"model": model.state_dict(), "progress": {"best": np.inf}, "big": torch.full((9,), 3e38)} | average.state()
    assert list(non_finite(state)) == []
    state["average"]["module.1.running_var"][0] = np.nan
    state["optimiser"] = {"state": {4: {"exp_avg": torch.tensor([1.0, -np.inf])}}}
    assert list(non_finite(state)) == ["average.module.1.running_var", "optimiser.state.4.exp_avg"]


# ---- workers and ranks that are gone


def test_a_worker_killed_from_outside_ends_the_run(pretraining: Callable[..., Pretrain]) -> None:
    """As the system kills one that takes too much memory."""
    settings = long(pretraining)
    with forked(settings) as process:
        process.until(lambda: len(lines(settings.out)) >= 2)
        os.kill(process.children()[0], signal.SIGKILL)
        said = one_line(process)
    assert said.startswith(("error: found DataLoader worker (pid", "error: found DataLoader worker gone in the middle"))
    assert said.endswith(", expected it to live; memory may be short: fewer workers= need less")


def test_the_folder_is_free_when_its_owner_is_killed_though_a_worker_lives_on(pretraining: Callable[..., Pretrain]) -> None:
    """A fork inherits the lock: here one that does not notice that its parent is gone."""
    settings = long(pretraining)
    with forked(settings) as process:
        process.until(lambda: len(lines(settings.out)) >= 2)
        workers = process.children()
        for worker in workers:
            os.kill(worker, signal.SIGSTOP)
        process.tell(signal.SIGKILL)
        process.ended(-signal.SIGKILL)
        assert set(workers) <= set(process.children())
        RunFolder.open(settings, "pretrain", resume=True).close()


# ---- a store that is damaged or gone while it is read


def break_store(settings: Pretrain, how: Callable[[Path], object]) -> Callable[[], None]:
    """Break the store's file, once the run has opened it, when a worker reads its third crop."""
    true, count = loaders.load, iter(range(1, 10**9))

    def load(store: Store, *words: Any) -> Tensor:
        if next(count) == 3:
            how(store.shards[0].path)
        return true(store, *words)

    return lambda: setattr(loaders, "load", load)


def unseen(path: Path) -> None:
    """Cut the file where its size does not tell: as a disk that is gone, or one that can't read."""
    setattr(Shard, "state_now", lambda shard: shard.state)  # noqa: B010  mypy: a method
    os.truncate(path, 4096)


BREAKS: dict[str, tuple[Callable[[Path], object], str]] = {
    "cut": (lambda path: os.truncate(path, 4096), "found the store changed while in use"),
    "cut unseen": (unseen, "found bytes that can't be read, expected the store's disk to be there"),
}


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("name", BREAKS)
def test_a_store_that_breaks_names_the_case_and_the_file(
    name: str, workers: int, pretraining: Callable[..., Pretrain], tmp_path: Path
) -> None:
    """To read mapped bytes that are no more would end the process by a bus error, without a word."""
    how, words = BREAKS[name]
    mark = tmp_path / "broken"
    settings = long(pretraining, workers=workers, store=tmp_path / "store")
    with forked(settings, change=break_store(settings, lambda path: (how(path), mark.touch()))) as process:
        process.until(mark.exists)
        said = one_line(process)
    assert said.startswith("error: case case_")
    assert words in said


@pytest.mark.slow
def test_a_store_that_is_removed_serves_those_who_have_it_open(pretraining: Callable[..., Pretrain], tmp_path: Path) -> None:
    settings = pretraining(store=tmp_path / "store", workers=1)
    with forked(settings, change=break_store(settings, lambda path: path.unlink(missing_ok=True))) as process:
        process.ended(0)
    assert not list((tmp_path / "store").glob("*.h5"))


def test_words_for_a_worker_that_a_bus_error_killed() -> None:
    words = "DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that dataloader's workers are out of"
    assert failure(RuntimeError(words)) == (
        "found a worker killed by a bus error, expected to read the store (is its disk gone?) and room in /dev/shm"
    )


# ---- memory


def test_what_would_fit_is_named(pretraining: Callable[..., Pretrain]) -> None:
    def advice(work: str = "a step", **changes: Any) -> list[str]:
        return list(less(pretraining(**changes), work))

    assert advice(batch_size=12) == ["recompute=true", "accumulate=2"]
    assert advice(batch_size=9) == ["recompute=true", "accumulate=3"]
    assert advice(batch_size=12, accumulate=2, recompute=True) == ["accumulate=4"]
    assert advice(batch_size=4, accumulate=4, recompute=True, method="masked") == ["crop_size=[24,24,24]"]
    assert advice("validation", batch_size=4) == ["accumulate=2"]
    assert advice("loading or saving", workers=8) == ["workers=4"]


def gigabytes(device: str) -> Exception:
    """What torch raises for more than there is; of a GPU its own kind."""
    if device == "cuda":
        return torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 8.00 GiB")
    try:
        torch.empty(2**60, dtype=torch.uint8)
    except RuntimeError as error:
        return error
    raise AssertionError("so much memory there is")


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_want_of_memory_in_a_step(
    device: str, pretraining: Callable[..., Pretrain], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def step(*words: Any) -> Any:
        raise gigabytes(device)

    monkeypatch.setattr(Step, "__call__", step)
    assert guarded(lambda: pretrain(pretraining())) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert line.startswith("error: out of memory in a step (")
    assert " wanted at once); " in line
    assert line.endswith("; what needs less: recompute=true accumulate=2")


@pytest.mark.parametrize("workers", [0, 1])
def test_want_of_memory_while_loading_blames_no_case(
    workers: int, pretraining: Callable[..., Pretrain], monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*words: Any) -> Any:
        return np.empty(2**55)

    load_data(pretraining(), ["pretraining", "validation"], labels=False)
    monkeypatch.setattr(loaders, "load", load)
    with pytest.raises(
        RunError, match=r"^out of memory in loading or saving \(256. PiB wanted at once\); what needs less: "
    ) as raised:
        pretrain(pretraining(workers=workers))
    assert ("workers=0" in str(raised.value)) == bool(workers)


def test_an_error_that_is_none_of_memory_stays_what_it_is(pretraining: Callable[..., Pretrain]) -> None:
    with pytest.raises(ZeroDivisionError), advised(pretraining(), "a step"):
        raise ZeroDivisionError


# ---- disks that take no more


@pytest.fixture
def small_files() -> Iterator[Callable[[int], None]]:
    """Let no file of this process grow beyond so many bytes, for the system a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    yield lambda most: resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


def test_lines_that_find_no_room_name_their_file(tmp_path: Path, small_files: Callable[[int], None]) -> None:
    small_files(1000)
    with Lines(tmp_path / "metrics.jsonl") as metrics, pytest.raises(OSError, match="too large") as raised:
        metrics.write("x" * 1500)
    assert failure(raised.value) == f"{tmp_path / 'metrics.jsonl'}: found File too large, expected to read or write it"
    assert (tmp_path / "metrics.jsonl").stat().st_size == 1000


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("name", ["metrics.jsonl", "log.txt"])
def test_a_full_disk_is_named_with_the_file(name: str, pretraining: Callable[..., Pretrain]) -> None:
    settings = pretraining()
    settings.out.mkdir()
    (settings.out / name).symlink_to("/dev/full")
    with forked(settings, change=lambda: setattr(RunFolder, "keep_metrics_until", lambda run, step: None)) as process:
        said = one_line(process, 60)
    assert said == f"error: {settings.out / name}: found No space left on device, expected to read or write it"


# ---- several ranks

FAIL = """
import os, torch
from medssl.step import Step
true = Step.__call__
def step(self, number, batch):
    if number == 3 and os.environ["RANK"] == "1":
        raise {}
    return true(self, number, batch)
Step.__call__ = step
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "error", ["torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 2 GiB')", "RuntimeError('why')"]
)
def test_of_two_ranks_the_one_that_fails_says_why_and_the_job_ends(
    error: str, pretraining: Callable[..., Pretrain], tmp_path: Path
) -> None:
    settings = long(pretraining, workers=1)
    with torchrun(settings, change=FAIL.format(error)) as process:
        process.until(lambda: len(lines(settings.out)) >= 2)
        began = time.monotonic()
        process.until_gone()
        assert time.monotonic() - began < 4 * SOON
        process.left_none()
    said = [line for line in process.said.read_text().splitlines() if line.startswith("error: ")]
    assert ("accumulate=2" if "Memory" in error else "why") in said[0]
    assert all("found another rank gone" in line for line in said[1:]), said  # where it saw that before it was ended
    assert len(said) <= 2


@pytest.mark.slow
def test_a_killed_rank_ends_the_job(pretraining: Callable[..., Pretrain]) -> None:
    settings = long(pretraining, workers=1)
    with torchrun(settings) as process:
        process.until(lambda: len(lines(settings.out)) >= 2)
        os.kill(rank_of(process, 1), signal.SIGKILL)
        process.until_gone()
        process.left_none()
    assert process.code == 1
