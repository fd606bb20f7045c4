"""The moments at which a run is killed: each wraps what the program calls there, waits for its step, and strikes.

A trap lies in the victim's process alone; the program itself knows nothing of it. Files are watched by their names at the
calls that every writer needs (`os.fsync`, `os.replace`, `os.link`), not at the functions that happen to write them.
"""

import functools
import json
import math
import os
import signal
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple


class Kill(NamedTuple):
    """One kill -9."""

    moment: str
    step: int = 0  # of the training, in which it falls; 0: whenever the moment comes
    nth: int = 1  # of the moments in that step
    rank: int = 0  # which strikes
    alone: bool = False  # the process dies alone, its workers and the other ranks are left to find out


class Now:
    """Where the training stands."""

    step = 0
    validating = False


class Trap:
    """Waits for the one moment that is meant."""

    def __init__(self, kill: Kill, stamp: Path) -> None:
        self.kill, self.left, self.stamp = kill, kill.nth, stamp

    def due(self, step: int | None = None) -> bool:
        """Whether this moment is the one."""
        if self.kill.step in (0, Now.step if step is None else step):
            self.left -= 1
            return self.left == 0
        return False

    def strike(self) -> None:
        """End the process group, or this process alone, as kill -9 does; the stamp says when and where it was."""
        self.stamp.write_text(json.dumps({"step": Now.step, "pid": os.getpid()}))
        if self.kill.alone:
            os.kill(os.getpid(), signal.SIGKILL)
        if "RANK" in os.environ:  # the launcher and each rank have groups of their own
            launcher = os.getppid()
            lists = [path.read_text().split() for path in Path(f"/proc/{launcher}/task").glob("*/children")]
            for group in [launcher, *(int(pid) for pids in lists for pid in pids if int(pid) != os.getpid())]:
                os.killpg(group, signal.SIGKILL)
        os.killpg(0, signal.SIGKILL)

    def __call__(self, *_: Any) -> None:
        """This moment has come: strike if it is the one."""
        if self.due():
            self.strike()


def set_trap(kill: Kill, stamp: Path) -> None:
    """Let this process be killed at that moment."""
    if kill.step or kill.moment.startswith("checkpoint"):
        follow()
    MOMENTS[kill.moment](Trap(kill, stamp))


Setting = Callable[[Trap], None]
Watch = Callable[..., None]


def wrap(place: str, before: Watch | None = None, after: Watch | None = None) -> None:
    """Call `before` with the arguments of the function at "module:name", and `after` with its result and these."""
    module, _, path = place.partition(":")
    *owners, name = path.split(".")
    owner = functools.reduce(getattr, owners, import_module(module))
    original = getattr(owner, name)

    @functools.wraps(original)
    def call(*args: Any, **kwargs: Any) -> Any:
        if before is not None:
            before(*args, **kwargs)
        result = original(*args, **kwargs)
        if after is not None:
            after(result, *args, **kwargs)
        return result

    setattr(owner, name, call)


def follow() -> None:
    """Keep `Now` up to date."""

    def went_on(_: Any, run: Any, step: int) -> None:
        Now.step = step

    def stepped(_: Any, number: int, batch: Any) -> None:
        Now.step = number

    def made(_: Any, training: Any, *__: Any, **___: Any) -> None:
        validate = training.validate

        def validating() -> Any:
            Now.validating = True
            figures = validate()
            Now.validating = False
            return figures

        training.validate = validating

    wrap("medssl.run_folder:RunFolder.keep_metrics_until", after=went_on)
    wrap("medssl.step:Step.__call__", before=stepped)
    wrap("medssl.training:Training.__init__", after=made)


def importing(module: str) -> Setting:
    """The program begins to import a module."""

    def lay(trap: Trap) -> None:
        sys.addaudithook(lambda event, args: trap() if event == "import" and args[0] == module else None)

    return lay


def called(place: str) -> Setting:
    """A function is called."""
    return lambda trap: wrap(place, before=lambda *args, **kwargs: trap())


def half(name: str) -> Setting:
    """A file has half of its bytes: as they are written where Python writes them, else before they are made to last."""

    def lay(trap: Trap) -> None:
        def writing(path: Path, data: bytes) -> None:
            if path.name.endswith(name) and trap.due():
                with path.open("wb") as file:
                    file.write(data[: len(data) // 2])
                trap.strike()

        def syncing(descriptor: int) -> None:
            path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
            if path.name.endswith(name) and trap.due():
                os.truncate(path, path.stat().st_size // 2)
                trap.strike()

        wrap("pathlib:Path.write_bytes", before=writing)
        wrap("os:fsync", before=syncing)

    return lay


def half_drawn(trap: Trap) -> None:
    """The curves have half of their bytes; every validation draws them here, however often."""
    import_module("medssl.validation").SHARE = math.inf  # type: ignore[attr-defined]
    half("progress.png")(trap)


def unsynced(name: str) -> Setting:
    """A file is written, but not yet made to last."""

    def lay(trap: Trap) -> None:
        wrap("os:fsync", before=lambda fd: trap() if os.readlink(f"/proc/self/fd/{fd}").endswith(name) else None)

    return lay


def unmoved(name: str) -> Setting:
    """A file is about to take its place, by a rename or a link."""

    def lay(trap: Trap) -> None:
        for place in ("os:replace", "os:link"):
            wrap(place, before=lambda _, target, **__: trap() if str(target).endswith(name) else None)

    return lay


def moved(name: str) -> Setting:
    """A file has taken its place, but its folder does not yet know for good."""

    def lay(trap: Trap) -> None:
        wrap("os:replace", after=lambda _, __, target, **___: trap() if str(target).endswith(name) else None)

    return lay


def waiting(trap: Trap) -> None:
    """The training asks for the batch of its next step."""

    def asked(_: Any) -> None:
        if not Now.validating and trap.due(Now.step + 1):
            trap.strike()

    wrap("torch.utils.data.dataloader:_BaseDataLoaderIter.__next__", before=asked)


def reading(trap: Trap) -> None:
    """A crop of the step is read, in a worker where there are any, which may be some steps ahead."""

    def numbered(crops: Any, index: int, *_: Any) -> None:
        if crops.purpose == 0 and trap.due(index // crops.settings.batch_size + 1):
            trap.strike()

    wrap("medssl.loaders:Crops.numbered", before=numbered)


def in_module(validating: bool) -> Setting:
    """A part of the network is about to compute, in training or in validation."""

    def lay(trap: Trap) -> None:
        from torch.nn.modules.module import register_module_forward_pre_hook

        register_module_forward_pre_hook(lambda *_: trap() if Now.validating == validating else None)

    return lay


def backward(trap: Trap) -> None:
    """The gradients of a step are half there: `nth` nodes below the loss."""
    nodes, trap.left = trap.left, 1

    def began(loss: Any, *_: Any, **__: Any) -> None:
        if trap.due():
            node = loss.grad_fn
            for _ in range(nodes):
                node = next((below for below, _ in node.next_functions if below is not None), node)
            node.register_prehook(lambda *_: trap.strike())

    wrap("torch:Tensor.backward", before=began)


def optimised(trap: Trap) -> None:
    """The optimiser has changed the weights, no line tells of it yet."""
    from torch.optim.optimizer import register_optimizer_step_post_hook

    register_optimizer_step_post_hook(trap)


def line(key: str) -> Setting:
    """A line of metrics.jsonl stands there by half: one that has a key which begins so."""

    def lay(trap: Trap) -> None:
        def opened(file: Any, *_: Any) -> None:
            write = file.write

            def writing(text: str) -> None:
                if any(name.startswith(key) for name in json.loads(text)) and trap.due():
                    os.write(file.fileno(), text[: len(text) // 2].encode())
                    trap.strike()
                write(text)

            file.write = writing

        wrap("medssl.run_folder:RunFolder.open_metrics", after=opened)

    return lay


LATEST, PREVIOUS, BEST = "checkpoint_latest.pt", "checkpoint_previous.pt", "checkpoint_best.pt"
MOMENTS: dict[str, Setting] = {
    "start: importing": importing("monai"),
    "start: packing": called("medssl.store:ShardWriter.add"),
    "start: config.json unmoved": unmoved("config.json"),
    "start: metrics cut": unmoved("metrics.jsonl"),
    "step: waiting for data": waiting,
    "step: reading a crop": reading,
    "step: forward": in_module(validating=False),
    "step: backward": backward,
    "step: optimiser done": optimised,
    "step: half a line": line("loss"),
    "validation: forward": in_module(validating=True),
    "validation: half a line": line("val_"),
    "validation: half of progress.png": half_drawn,
    "checkpoint: half": half(LATEST),
    "checkpoint: unsynced": unsynced(LATEST),
    "checkpoint: previous unmoved": unmoved(PREVIOUS),
    "checkpoint: between the renames": unmoved(LATEST),
    "checkpoint: moved": moved(LATEST),
    "checkpoint: half of the best": half(BEST),
    "checkpoint: best unmoved": unmoved(BEST),
    "end: encoder unsynced": unsynced("encoder.safetensors"),
    "end: summary unmoved": unmoved("summary.json"),
    "end: half of report.html": half("report.html"),
    "store: reading a case": called("medssl.pack:prepare_case"),
    "store: between two cases": called("medssl.store:ShardWriter.add"),
    "store: no index yet": called("medssl.store:ShardWriter.finish"),
    "store: half a shard": half(".h5"),
    "store: shard unsynced": unsynced(".h5"),
    "store: shard unmoved": unmoved(".h5"),
    "store: shard moved": moved(".h5"),
    "store: half of the fingerprints": half(".fingerprints.json"),
    "report: importing": importing("matplotlib"),
    "report: reading the run": called("medssl.runs:read_metrics"),
    "report: drawing": called("matplotlib.figure:Figure.savefig"),
    "report: half": half("report.html"),
    "report: unsynced": unsynced("report.html"),
    "report: unmoved": unmoved("report.html"),
    "report: moved": moved("report.html"),
    "report: summary half": half("summary.json"),
    "report: summary moved": moved("summary.json"),
}  # fmt: skip
