"""The processes of one run on many devices: they start, tell each other what happened, and part.

They are started by torchrun, or by SLURM, whose variables ignite reads. Every rank computes the same run from the same
settings; rank 0 checks, packs, writes and speaks for all. What ranks tell each other besides tensors goes over a group of
its own, on the CPU, that is never in a hurry: rank 0 may pack a store for hours. Nobody waits for a dead rank all the
same: torchrun, and `srun --kill-on-bad-exit`, end all when one fails.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import ignite.distributed as idist
import torch
from torch import distributed

from medssl import launch, signals
from medssl.config import Shared
from medssl.problems import InputError, Problem
from medssl.ranks import rank, world_size
from medssl.stopping import Elsewhere, Finished, Interrupted

T = TypeVar("T")
TRAINING = timedelta(minutes=30)  # for a collective of a step; a rank that is stuck, not gone, is noticed after it
TALKING = timedelta(days=7)  # for what waits for rank 0


class _Talk:
    """The group by which ranks talk; None is torch's own."""

    group: distributed.ProcessGroup | None = None


@contextmanager
def started(device: str) -> Iterator[None]:
    """Within the block this process is one of the ranks that torchrun or SLURM started; alone it is just itself.

    `device` is the setting: GPUs talk by NCCL, CPUs by gloo. After an error nothing is tidied up, which would wait for
    the other ranks.
    """
    if launch.ranks() == 1:
        yield
        return
    backend = "nccl" if torch.cuda.is_available() and device != "cpu" else "gloo"
    if launch.by_torchrun():  # which ignite would compare with SLURM's variables, and refuse on several machines
        distributed.init_process_group(backend, timeout=TRAINING)
    else:
        idist.initialize(backend, timeout=TRAINING)
    _Talk.group = distributed.new_group(backend="gloo", timeout=TALKING)
    yield
    part()


def part() -> bool:
    """End the run's being one of many, on all ranks at once; true on the rank that goes on alone, which is rank 0."""
    first = rank() == 0
    if world_size() > 1:
        distributed.barrier(_Talk.group)  # a rank that left would be missed by a slower one
        _Talk.group = None
        distributed.destroy_process_group()
    return first


def refuse_uneven(settings: Shared) -> None:
    """Raise InputError where the crops of a step can't be shared equally among the ranks."""
    if settings.batch_size % (settings.accumulate * world_size()):
        parts = f"accumulate {settings.accumulate} times {world_size()} ranks"
        raise InputError([Problem("settings", "batch_size", str(settings.batch_size), f"a multiple of {parts}")])


def in_turn(work: Callable[[], T]) -> T:
    """Let rank 0 do it first, then all others; where it fails on a rank it fails on all, and one of them says why."""
    if world_size() == 1:
        return work()
    result, failure = list[T](), Exception()
    for turn in (True, False):
        code = None
        if turn == (rank() == 0):
            try:
                result.append(work())
            except Exception as error:
                failure, code = error, code_of(error)
        codes = everyones(code)
        failed = [k for k, found in enumerate(codes) if found is not None]
        if failed:
            raise failure if rank() == failed[0] else Elsewhere(codes[failed[0]] or 0)
    return result[0]


def code_of(error: Exception) -> int:
    """The exit code that an error leads to."""
    return 0 if isinstance(error, Finished) else 2 if isinstance(error, InputError) else getattr(error, "exit_code", 1)


def said_once(error: Exception) -> Exception:
    """What to raise for an error that all ranks have met: rank 0 says it, the others follow."""
    return error if rank() == 0 else Elsewhere(code_of(error))


def everyones(thing: T) -> list[T]:
    """The things of all ranks, in their order; only of Python's own types, numbers and tensors on the CPU.

    Raises Interrupted where another rank is, instead of telling its thing.
    """
    if world_size() == 1:
        return [thing]
    found: list[T] = [thing] * world_size()
    distributed.all_gather_object(found, thing, group=_Talk.group)
    if gone := [other for other in found if isinstance(other, Interrupted)]:
        raise gone[0]
    return found


@contextmanager
def breakable() -> Iterator[None]:
    """Within the block a signal may break the work off, on all ranks: at what they would tell each other next."""
    try:
        with signals.breakable():
            yield
    except Interrupted as reason:
        if not reason.told:
            everyones(Interrupted(told=True))
        raise


def dealt(things: Sequence[T]) -> list[T]:
    """This rank's share of things that are dealt out like cards."""
    return list(things[rank() :: world_size()])


def collected(own: Sequence[T]) -> list[T]:
    """What ranks made of each thing `dealt` to them, together again in the order of the things."""
    hands = everyones(list(own))
    return [hands[k % len(hands)][k // len(hands)] for k in range(sum(map(len, hands)))]
