"""The most memory that a run needs: of the GPU where there is one, else of the process and the workers it has."""

import multiprocessing
import resource
import sys
from pathlib import Path

import torch


def peak_memory(device: torch.device) -> float:
    """Bytes on the device at most until now; on a CPU resident ones, with what each living worker has for itself."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_reserved(device))
    return main_memory() + workers_memory()


def main_memory() -> float:
    """The most bytes that this process ever had resident."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(peak if sys.platform == "darwin" else peak * 1024)


def workers_memory() -> float:
    """The bytes that the processes started by this one have now and share with none: forked ones share most with it."""
    return sum(own_memory(child.pid) for child in multiprocessing.active_children() if child.pid is not None)


def own_memory(process: int) -> float:
    """The bytes of a process that no other one has; 0 where the system does not tell, or the process is gone."""
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0.0
    return sum(float(line.split()[1]) * 1024 for line in lines if line.startswith("Private_"))
