"""Classification: a head on any encoder; cross-entropy of softmax or sigmoids; one centre crop an image.

In training a crop lies anywhere around the foreground, or in the centre where the image just fits. For validation and
judging each image gives one prediction, of its centre crop at `crop_size`, padded where the image is smaller: with
`fit=` set to the crop size that is the whole image. Axis letters: b batch, c channel, then space.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from medssl.atomic import atomic_path, write_atomically
from medssl.config import Finetune, UNetSettings
from medssl.device import Compute
from medssl.plan import build_encoder, start_encoder
from medssl.problems import InputError, Problem
from medssl.processes import collected, dealt
from medssl.run_folder import RunFolder
from medssl.scores.calibration import summarise_calibration
from medssl.scores.classes import Judged, predictions_csv, quick_figures, summarise_classes
from medssl.splits import Case, Split
from medssl.store import Store
from medssl.tasks.centre import class_of, outputs
from medssl.tasks.mixing import mix_of
from medssl.tasks.pixels import judge_pixels
from medssl.tasks.probabilities import log_probabilities
from medssl.tasks.shown import looker, shown_cases
from medssl.training import Batch
from networks.heads import Classifier
from networks.saliency import Score, evidence, probability
from transforms.augment import augment_image


class Classification:
    """A class for every image, validated by log loss, judged by all that follows from the confusion matrix.

    Validation watches the log loss and not the accuracy: with few cases accuracy moves in jumps and is often the same
    for many checkpoints, while the log loss also tells a sure answer from a lucky one.
    """

    watched = "val_log_loss"
    higher_is_better = False

    def __init__(self, settings: Finetune, split: Split) -> None:
        self.settings, self.split = settings, split
        check_classes(settings, split)
        self.encoder = build_encoder(settings, split.channels)
        self.network = Classifier(self.encoder, len(split.labels), settings.head)
        self.loaded = start_encoder(self.encoder, settings)
        self.weights = balanced_weights(split) if settings.class_weights == "balanced" else None

    def warnings(self) -> list[str]:
        known = {case.label for case in self.split.part("training")}
        found = []
        for part in dict.fromkeys(["validation", self.settings.judge]):
            counts = Counter(case.label for case in self.split.part(part))
            for k, name in self.split.labels.items():
                if k not in known and counts[k]:
                    found.append(f"warning: class {name} has no training case but {counts[k]} in {part}: it can't be learned")
                if not counts[k] and part == self.settings.judge:
                    found.append(f"warning: class {name} has no case in {part}: the means over classes leave it out")
        return found

    def augment(self) -> Callable[[Batch], Batch]:
        return augment_image(spatial_dims=self.settings.spatial_dims, **self.settings.augment.model_dump())

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy and the batch's accuracy, of mixed images in their shares.

        The mean is over cases and not over their weights, so that a batch of one class alone is weighted too.
        """
        mix = mix_of(self.settings.mixup, len(batch["image"]))
        logs = log_probabilities(self.network(mix(batch["image"])), self.settings.loss)
        weights = None if self.weights is None else self.weights.to(logs)
        smoothing = self.settings.label_smoothing

        def losses(classes: Tensor) -> Tensor:
            # which takes the softmax of log-probabilities, and that leaves them as they are
            return functional.cross_entropy(logs, classes, weights, reduction="none", label_smoothing=smoothing)

        def hits(classes: Tensor) -> Tensor:
            return (logs.argmax(1) == classes).float()

        return {name: mix.loss(of, batch["class"]).mean() for name, of in (("loss", losses), ("accuracy", hits))}

    def validate(self, store: Store, compute: Compute) -> dict[str, float]:
        rows = collected(list(self.predict(store, dealt(self.split.part("validation")), compute)))
        return {f"val_{name}": value for name, value in quick_figures(rows).items()}

    def judge(self, run: RunFolder, store: Store, compute: Compute) -> dict[str, Any]:
        cases, labels = self.split.part(self.settings.judge), self.split.labels
        with tqdm(total=len(cases), desc=f"judging {self.settings.judge}", unit="case", disable=None) as bar:
            rows = [row for row in self.predict(store, cases, compute, 1) if bar.update() or True]
        write_atomically(run.path("predictions.csv"), predictions_csv(rows, labels))
        with atomic_path(run.path("predictions.npz")) as temporary:
            np.savez_compressed(temporary, **self.shown(store, cases, rows))
        held = () if self.settings.judge == "validation" else self.split.part("validation")
        known = list(self.predict(store, held, compute, 1))
        scores = summarise_classes(rows, labels) | {"calibration": summarise_calibration(rows, known)}
        pixels = judge_pixels(self.settings, self.split, store)
        ours, theirs = scores["balanced_accuracy"], pixels["balanced_accuracy"]
        found = f"the network's balanced accuracy {ours:.3f} is not above the {theirs:.3f} of {pixels['name']}"
        return scores | {"pixels": pixels, "warnings": [] if ours > theirs else [f"warning: {found}"]}

    def shown(self, store: Store, cases: Sequence[Case], rows: Sequence[Judged]) -> dict[str, Any]:
        """Keep the cases of highest, middle and lowest log loss with what made the network say so."""
        told = [{"truth": r.truth, "predicted": r.predicted, "probabilities": r.probabilities} for r in rows]
        look = looker(self.network, self.encoder, self.settings, self.explained)
        return shown_cases(store, cases, [row.log_loss for row in rows], told, look, self.settings)

    def explained(self, k: int) -> Score:
        """The class whose saliency is shown: its evidence for Grad-CAM, whose gradient a probability near 1 lacks."""
        of = evidence(k) if self.settings.saliency == "grad_cam" else probability(k)
        return lambda outputs: of(log_probabilities(outputs, self.settings.loss))

    def headline(self, scores: dict[str, Any]) -> str:
        return f"balanced accuracy {scores['balanced_accuracy']:.4f}, accuracy {scores['accuracy']:.4f}"

    def predict(self, store: Store, cases: Sequence[Case], compute: Compute, batch_size: int | None = None) -> Iterator[Judged]:
        """Give each case's probabilities in order; RunError where the network's output is not finite."""
        for case, logits in outputs(self.network, store, cases, self.settings, compute, batch_size):
            probabilities = log_probabilities(logits, self.settings.loss).exp()
            yield Judged(case.id, case.patient, class_of(case), tuple(probabilities.tolist()))


def check_classes(settings: Finetune, split: Split) -> None:
    """Raise InputError for a network without an encoder, for training cases of fewer than two classes, and where all
    training cases together have none of a class that is judged."""
    problems = []
    if isinstance(settings.network, UNetSettings):
        problems.append(Problem("settings", "network", settings.network.name, "an encoder, vit_... or resnet..., for classes"))
    cases = split.part("training")
    present = {class_of(case) for case in cases if case.label is not None}
    if len(present) == 1:
        names = f"{len(cases)} cases, all {split.labels[present.pop()]}"
        problems.append(Problem(str(split.file), "training", names, "cases of at least two classes"))
    elif settings.labelled is None:  # few labels may lack a class, which is warned of
        for part in dict.fromkeys(["validation", settings.judge]):
            counts = Counter(class_of(case) for case in split.part(part) if case.label is not None)
            problems += [
                Problem(str(split.file), "training", f"no case of {split.labels[k]}", f"one, as {part} has {counts[k]}")
                for k in sorted(counts.keys() - present)
            ]
    if problems:
        raise InputError(list({problem.found: problem for problem in reversed(problems)}.values()))  # a class is told once


def balanced_weights(split: Split) -> Tensor:
    """Weigh each class by one over its share of the training cases, 1 on the average of cases; 1 for one without cases."""
    counts = Counter(class_of(case) for case in split.part("training") if case.label is not None)
    mean = counts.total() / len(counts)
    return torch.tensor([mean / counts[k] if counts[k] else 1.0 for k in sorted(split.labels)])
