"""What fine-tuning needs to know of a task: its network, its loss, and how it is validated and judged."""

from collections.abc import Callable
from typing import Any, Protocol

from torch import Tensor, nn

from medssl.config import Finetune
from medssl.device import Compute
from medssl.run_folder import RunFolder
from medssl.splits import Split
from medssl.store import Store
from medssl.training import Batch
from networks.features import Encoder
from networks.transfer import Report


class Task(Protocol):
    """A task, made of settings and a split whose labelled subset is taken; raises InputError when it can't be trained.

    `encoder` is the part of `network` that `encoder=`, `encoder_lr=` and `freeze_steps=` are about, None in a baseline;
    `loaded` says what of it came from a file. `watched` is the validation figure that selects the best checkpoint.
    """

    split: Split
    network: nn.Module
    encoder: Encoder | None
    loaded: Report | None
    watched: str
    higher_is_better: bool

    def __init__(self, settings: Finetune, split: Split) -> None: ...

    def warnings(self) -> list[str]:
        """What a reader of the scores should know beforehand."""
        ...

    def augment(self) -> Callable[[Batch], Batch]:
        """Make the random changes of a training crop."""
        ...

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Give the training loss of a batch as "loss", and what else is worth a curve."""
        ...

    def validate(self, store: Store, compute: Compute) -> dict[str, float]:
        """Give the figures of the validation part, whose cases the ranks share among them."""
        ...

    def judge(self, run: RunFolder, store: Store, compute: Compute) -> dict[str, Any]:
        """Judge the part that is reported, write predictions.csv and predictions.npz; gives the summary's scores.

        Its "warnings", if any, are added to those of the run.
        """
        ...

    def headline(self, scores: dict[str, Any]) -> str:
        """Say the result in a few words."""
        ...
