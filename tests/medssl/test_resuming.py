"""Nothing of a method, an optimiser, a schedule or an average goes from step to step but what a checkpoint holds."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from method_phantoms import RESNET, VIT, batch_of, fresh, settings_for

from medssl import checkpoint
from medssl.average import Average
from medssl.config import Pretrain
from medssl.device import Compute
from medssl.loop import state_of
from medssl.methods import METHODS
from medssl.optimisers import optimiser_of, parameter_groups
from medssl.parallel import load_full
from medssl.progress import Progress
from medssl.step import Step
from medssl.training import Batch, Training

BROKEN, STEPS = 3, 6
PACES: dict[str, dict[str, Any]] = {  # schedules, with the optimisers between them
    "constant": {"optimiser": "adamw", "weight_decay": 0.1, "schedule": {"name": "constant"}, "warmup": 2},
    "cosine": {"optimiser": "lars", "lr": 0.3, "schedule": {"name": "cosine"}, "warmup": 4},
    "one_cycle": {"optimiser": "sgd", "lr": 0.01, "schedule": {"name": "one_cycle"}},
}
SWAV = {"queue": 16, "queue_after": 4, "freeze_prototypes": 4}  # full after step 2, used and trained after step 4


def taken(
    settings: Pretrain, batches: Mapping[int, Batch], seed: int, state: dict[str, Any] | None, last: int
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Steps after those of a state, of a model drawn from a seed of its own; gives what they told and the state after them."""
    method = fresh(settings, seed)
    training = Training(method, parameter_groups([(method, 1.0)]), method, lambda start: [], None, "val_loss", False,
                        before_step=method.before_step)  # fmt: skip
    optimiser, average = optimiser_of(settings, training.groups), Average(method, settings.ema)
    first = 1
    if state is not None:
        load_full(method, optimiser, state)
        average.load(state)
        first = state["progress"]["step"] + 1
    step, told = Step(settings, Compute(torch.device("cpu"), None), training, optimiser), list[dict[str, Any]]()
    for number in range(first, last + 1):
        told.append({k: v for k, v in step(number, batches[number]).items() if not k.endswith("_s")})
        average.update()
    return told, state_of(training, optimiser, Progress(step=last)) | average.state()


@pytest.mark.parametrize(
    ("name", "pace"),
    [
        pytest.param(name, pace, marks=() if k % len(PACES) == m else pytest.mark.slow)
        for k, name in enumerate(METHODS)
        for m, pace in enumerate(PACES)
    ],
)
def test_what_a_checkpoint_holds_is_all_there_is(name: str, pace: str, tmp_path: Path) -> None:
    network = RESNET if "resnet" in METHODS[name][1] and pace == "cosine" else VIT
    base = settings_for(name, 2, network).model_dump()
    base["method"] |= SWAV if name == "swav" else {}
    settings = Pretrain.model_validate(base | PACES[pace] | {"steps": STEPS, "batch_size": 8, "ema": 0.5})
    batches = {
        k: batch_of(settings, fresh(settings), 8, seed=k) | {"data_hash": [f"{k}{n}" for n in range(8)]}
        for k in range(1, STEPS + 1)
    }
    told, expected = taken(settings, batches, 0, None, STEPS)
    before, state = taken(settings, batches, 0, None, BROKEN)
    checkpoint.save_latest(tmp_path, state)
    after, found = taken(settings, batches, 1, checkpoint.load(tmp_path / checkpoint.LATEST), STEPS)
    assert before + after == told
    assert found["model"].keys() == expected["model"].keys()
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
