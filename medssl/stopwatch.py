"""Where the time of a step goes: seconds between marks, on a CPU by its clock, on a GPU by events on its stream.

A GPU works behind the program's back: the clock of the program would charge all that to whatever waits for it first.
"""

import time
from typing import Any

import torch


class Stopwatch:
    """Runs from its making; each lap adds the time since the one before to a name."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.began = time.perf_counter()
        self.marks: list[tuple[str, Any]] = [("", self.mark())]

    def mark(self) -> Any:
        """The time now: a number, or an event that the GPU will meet."""
        if self.device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def lap(self, name: str) -> None:
        """Count the time since the last lap to `name`."""
        self.marks.append((name, self.mark()))

    def laps(self) -> dict[str, float]:
        """Seconds by name; waits for the GPU."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        found: dict[str, float] = {}
        for (_, before), (name, after) in zip(self.marks, self.marks[1:], strict=False):
            passed = after - before if isinstance(after, float) else before.elapsed_time(after) / 1e3
            found[name] = found.get(name, 0.0) + passed
        return {name: round(s, 5) for name, s in found.items()}

    def seconds(self) -> dict[str, float]:
        """Seconds by name, and `step_s` in all; waits for the GPU."""
        return self.laps() | {"step_s": round(time.perf_counter() - self.began, 5)}
