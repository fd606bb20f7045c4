"""The baselines of a classification and of a regression: linear models on a few pixels of the same crops.

They see the same training cases as the network, and their strength of regularisation is chosen on validation by what
the network is chosen by.
"""

from typing import Any

import numpy as np
from sklearn.linear_model import Ridge

from medssl.config import Finetune
from medssl.pixels import pixel_rows, pixels_name
from medssl.probes.classifiers import Labelled, logistic_regression
from medssl.scores.classes import Judged, quick_figures
from medssl.scores.numbers import Estimate, quick_numbers
from medssl.splits import Split
from medssl.store import Store
from medssl.tasks.centre import class_of, number_of

PENALTIES = [10.0**power for power in range(-5, 4)]  # of ridge regression, on rows of length 1


def judge_pixels(settings: Finetune, split: Split, store: Store) -> dict[str, Any]:
    """Fit logistic regression on the training cases and judge it on the reported part: name, C, and three figures."""
    rows = pixel_rows(store, split, settings)
    training, validation = (
        Labelled(rows[i], np.array([class_of(case) for case in split.part(part)]))
        for i, part in enumerate(("training", "validation"))
    )
    found = logistic_regression(training, validation, rows[2], len(split.labels), settings.class_weights == "balanced")
    cases = zip(split.part(settings.judge), found.probabilities.tolist(), strict=True)
    judged = [Judged(case.id, case.patient, class_of(case), tuple(p)) for case, p in cases]
    return {"name": f"logistic regression on {pixels_name(settings.crop_size)}", "C": found.chosen} | quick_figures(judged)


def judge_number_pixels(settings: Finetune, split: Split, store: Store) -> dict[str, Any]:
    """Fit ridge regression on the training cases and judge it on the reported part: name, alpha, and all figures."""
    training, validation, rows = pixel_rows(store, split, settings)
    truth, held = (np.array([number_of(case) for case in split.part(part)]) for part in ("training", "validation"))
    models = [Ridge(alpha * len(truth)).fit(training, truth) for alpha in PENALTIES]
    best = int(np.argmin([np.abs(model.predict(validation) - held).mean() for model in models]))
    cases = zip(split.part(settings.judge), models[best].predict(rows).tolist(), strict=True)
    judged = [Estimate(case.id, case.patient, number_of(case), value) for case, value in cases]
    return {"name": f"ridge regression on {pixels_name(settings.crop_size)}", "alpha": models[best].alpha} | quick_numbers(
        judged
    )
