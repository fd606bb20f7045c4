"""A run that wants more memory than there is, in one line with the settings that need less.

What a step keeps grows with the crops that pass the network at once. So first come settings that leave the result as it is:
blocks computed again instead of kept, and the batch in at least twice as many parts; then smaller crops.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from medssl.config import Shared
from medssl.problems import RunError, wanted_memory, wants_memory
from medssl.ranks import world_size


@contextmanager
def advised(settings: Shared, work: str) -> Iterator[None]:
    """Within the block want of memory becomes a RunError that says what would fit; `work` is what wanted it."""
    try:
        yield
    except Exception as error:
        if not wants_memory(error):
            raise
        words = less(settings, work)
        raise RunError(f"out of memory in {work} ({wanted_memory(error)}); what needs less: {' '.join(words)}") from error


def less(settings: Shared, work: str) -> Sequence[str]:
    """Settings with which `work` needs less memory: "a step", "validation", or "loading or saving"."""
    if work == "loading or saving" and settings.workers:
        return [f"workers={settings.workers // 2}"]
    halved = parts(settings)
    words = ["recompute=true"] if work != "validation" and not (settings.recompute or settings.compile) else []
    words += [f"accumulate={halved}"] if halved else []
    return words or [f"crop_size={smaller(settings.crop_size, settings.unit)}".replace(" ", "")]


def parts(settings: Shared) -> int | None:
    """The smallest `accumulate` with at most half as many crops at once; None where a part has but one a rank."""
    least, ranks = 2 * settings.accumulate, world_size()
    fitting = (n for n in range(least, settings.batch_size + 1) if settings.batch_size % (n * ranks) == 0)
    return next(fitting, None)


def smaller(size: Sequence[int], unit: Sequence[int]) -> list[int]:
    """Crops about three quarters as long, in multiples of `unit`."""
    return [max(side * 3 // 4 // part, 1) * part for side, part in zip(size, unit, strict=True)]
