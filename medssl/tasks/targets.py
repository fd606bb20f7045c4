"""The numbers of a regression as its network sees them: less the training cases' mean, over their deviation."""

import math
from typing import NamedTuple

from medssl.problems import InputError, Problem
from medssl.splits import Split


class Scale(NamedTuple):
    """The mean and the deviation, in the unit of the target: what an output of the network is to be read by."""

    mean: float
    deviation: float


def scale_of(split: Split) -> Scale:
    """Measure the numbers of the training cases; raises InputError where they are all equal.

    Cases without a number are left out here: the check of the split names them.
    """
    numbers = [case.label for case in split.part("training") if isinstance(case.label, float)]
    if not numbers:
        return Scale(0.0, 1.0)
    mean = math.fsum(numbers) / len(numbers)
    deviation = math.sqrt(math.fsum((number - mean) ** 2 for number in numbers) / len(numbers))
    if min(numbers) == max(numbers):
        found = f"{len(numbers)} case{'s' * (len(numbers) > 1)}, all {numbers[0]:g}"
        raise InputError([Problem(str(split.file), "training", found, "numbers that differ")])
    return Scale(mean, deviation)
