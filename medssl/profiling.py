"""`--profile`: a trace of a few steps by torch's profiler, and the operations that cost most."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch.autograd.profiler_util import EventList
from torch.profiler import ProfilerActivity, profile, schedule

from medssl.atomic import atomic_path
from medssl.run_folder import RunFolder

TRACE = "trace.json.gz"  # for chrome://tracing or https://ui.perfetto.dev
SKIPPED, STEPS = 2, 3  # steps before those that are traced, and how many these are, from where a run starts or goes on
SHOWN = 8


@contextmanager
def profiled(run: RunFolder, device: torch.device, wanted: bool) -> Iterator[Callable[[], None]]:
    """Trace the third to fifth step within the block, if that is wanted; call what it gives after each step."""
    if not wanted:
        yield lambda: None
        return
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    pace = schedule(skip_first=SKIPPED - 1, wait=0, warmup=1, active=STEPS, repeat=1)
    with profile(activities=activities, schedule=pace, on_trace_ready=lambda found: write(run, found, device)) as profiler:
        yield profiler.step
    if profiler.step_num <= SKIPPED:
        run.say(f"profile: {profiler.step_num} steps were left, and it begins after {SKIPPED}: no trace")


def write(run: RunFolder, profiler: profile, device: torch.device) -> None:
    """Write the trace into the run folder, and the table into its log."""
    with atomic_path(run.path(TRACE)) as temporary:
        profiler.export_chrome_trace(str(temporary))
    for line in [f"profile: {run.path(TRACE)}, of {STEPS} steps at most", *costliest(profiler.key_averages(), device)]:
        run.say(line)


def costliest(events: EventList, device: torch.device) -> list[str]:
    """A line for each of the operations whose own time, without that of others they call, is longest."""
    name = "self_device_time_total" if device.type == "cuda" else "self_cpu_time_total"
    ordered = sorted(events, key=lambda event: -getattr(event, name))
    total = sum(getattr(event, name) for event in ordered) or 1.0
    return [
        f"  {getattr(event, name) / total:4.0%} {getattr(event, name) / 1e3:9.1f} ms {event.count:6d} calls  {event.key}"
        for event in ordered[:SHOWN]
    ]
