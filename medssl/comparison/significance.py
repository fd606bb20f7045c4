"""Tests of many paired differences: Wilcoxon's signed ranks over patients, and Holm's correction for how many there are.

Wilcoxon (1945) by scipy; Holm, "A simple sequentially rejective multiple test procedure" (1979). The test asks whether
patients agree on a sign, for the trainings at hand averaged: unlike the interval it knows nothing of other seeds.
"""

from collections.abc import Mapping, Sequence
from statistics import mean

import numpy as np

DIGITS = 12  # to which differences are equal: 0.3 - 0.2 and 0.2 - 0.1 share a rank


def signed_rank(differences: Mapping[str, float], patients: Mapping[str, str]) -> float:
    """Give the two-sided p of the patients' mean differences, those of cases being given; 1 where no patient differs.

    Patients without any difference are left out, as Wilcoxon did.
    """
    from scipy.stats import wilcoxon  # takes a second to import, and trainings import reports

    of_patient: dict[str, list[float]] = {}
    for case, difference in differences.items():
        of_patient.setdefault(patients[case], []).append(difference)
    means = np.array([mean(values) for values in of_patient.values()])
    if not means.size:
        return 1.0
    digits = DIGITS - int(np.ceil(np.log10(max(1.0, float(np.abs(means).max())))))
    rounded = np.round(means, digits)
    return float(wilcoxon(rounded).pvalue) if rounded.any() else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """Give Holm's adjusted p of each: with m tests, the k-th smallest times m - k + 1, never below the one before it."""
    adjusted = [1.0] * len(p_values)
    highest = 0.0
    for smaller, place in enumerate(sorted(range(len(p_values)), key=lambda place: p_values[place])):
        highest = max(highest, min(1.0, (len(p_values) - smaller) * p_values[place]))
        adjusted[place] = highest
    return adjusted
