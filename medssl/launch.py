"""What torchrun or SLURM says of the processes that it started for one run, read from their environment. Knows no torch.

torchrun sets RANK, WORLD_SIZE and their kin. `srun` sets the variables of its step; those of the job alone would count
tasks that a batch script has not started. Without either a process is the only one.
"""

import os
import re

SLURM = {
    "RANK": "SLURM_PROCID",
    "WORLD_SIZE": "SLURM_STEP_NUM_TASKS",
    "LOCAL_RANK": "SLURM_LOCALID",
    "LOCAL_WORLD_SIZE": "SLURM_STEP_TASKS_PER_NODE",  # as in 8(x4)
}


def by_torchrun() -> bool:
    """Whether the variables are torchrun's, or of whatever else speaks its language."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def number(name: str, otherwise: int) -> int:
    """One of torchrun's variables, or SLURM's that means the same."""
    text = os.environ.get(name if by_torchrun() else SLURM[name], "")
    digits = re.match(r"\d+", text)
    return int(digits[0]) if digits else otherwise


def ranks() -> int:
    """How many processes were started for this run, on all machines together."""
    return number("WORLD_SIZE", 1)


def rank() -> int:
    """The number of this process among them, from 0."""
    return number("RANK", 0) if ranks() > 1 else 0


def local_rank() -> int:
    """Its number among those of this machine."""
    return number("LOCAL_RANK", 0) if ranks() > 1 else 0


def cores() -> int:
    """The CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads(cores: int) -> int:
    """How many of a machine's `cores` are this process's share."""
    own = os.environ.get("SLURM_CPUS_PER_TASK")  # which SLURM binds a task to
    if own and not by_torchrun():
        return int(own)
    return max(cores // (number("LOCAL_WORLD_SIZE", 1) if ranks() > 1 else 1), 1)
