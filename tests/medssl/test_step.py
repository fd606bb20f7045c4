"""The training step: parts of a batch add up to the batch."""

from typing import Any

import pytest
import torch
from torch import Tensor

from medssl.config import Pretrain
from medssl.device import Compute, choose
from medssl.optimisers import optimiser_of, parameter_groups
from medssl.step import Step
from medssl.training import Batch, Training
from tests.medssl.method_phantoms import fresh, settings_for, waves

LOSSES = {"masked": 1e-5, "simclr": 1e-5}  # and how far sums in another order may lie apart, relative to the largest


def gradients(settings: Pretrain, parts: int, batch: Batch) -> tuple[dict[str, Any], list[Tensor]]:
    """The metrics and gradients of the first step, in so many parts."""
    settings = settings.model_copy(update={"accumulate": parts})
    method = fresh(settings)
    groups = parameter_groups([(method, 1.0)])
    training = Training(method, groups, method, lambda start: [], None, "val_loss", False)
    told = Step(settings, Compute(torch.device("cpu"), None), training, optimiser_of(settings, groups))(1, batch)
    return told, [p.grad for group in groups for p in group["params"]]


def batch_of(method: str, count: int) -> Batch:
    """Waves, and other waves as their views."""
    view_0, view_1, image = (waves(count, 2, seed)[0] for seed in (0, 1, 2))
    return {"image": image, "view_0": view_0, "view_1": view_1, "mask": torch.ones_like(image, dtype=torch.bool)} | {
        key: [str(k) for k in range(count)] for key in ("id", "patient", "data_hash")
    }


@pytest.mark.parametrize("method", LOSSES)
def test_the_parts_of_a_batch_add_up(method: str) -> None:
    """A mean over crops is the same in parts; a contrast is the mean of the contrasts of the parts, each on its own."""
    settings = settings_for(method, 2)
    batch = batch_of(method, 8)
    told, found = gradients(settings, 2, batch)
    halves = [gradients(settings, 1, {k: v[part] for k, v in batch.items()}) for part in (slice(4), slice(4, 8))]
    assert told["loss"] == pytest.approx(sum(half["loss"] for half, _ in halves) / 2, rel=1e-6)
    for ours, first, second in zip(found, *(grads for _, grads in halves), strict=True):
        mean = (first + second) / 2
        torch.testing.assert_close(ours, mean, rtol=0, atol=LOSSES[method] * max(float(mean.abs().max()), 1e-6))
    whole = gradients(settings, 1, batch)[0]["loss"]
    assert (told["loss"] == pytest.approx(whole, rel=1e-5)) == (method == "masked")


def test_a_step_tells_where_its_time_went() -> None:
    told, _ = gradients(settings_for("simclr", 2), 2, batch_of("simclr", 8))
    parts = told["forward_s"] + told["backward_s"] + told["optimiser_s"]
    assert 0 < parts <= told["step_s"] + 1e-4


def test_blocks_are_recomputed_where_the_settings_say_so() -> None:
    """Less is kept between forward and backward, and nothing else changes."""
    found = {}
    for recomputed in (False, True):
        settings = settings_for("mae", 2).model_copy(update={"recompute": recomputed})
        method, kept = fresh(settings), list[int]()
        choose(settings).place(method)
        with torch.autograd.graph.saved_tensors_hooks(lambda t, kept=kept: (kept.append(t.nbytes), t)[1], lambda t: t):  # type: ignore[misc]
            torch.manual_seed(0)
            loss = method(batch_of("mae", 4))["loss"]
        loss.backward()
        weights = [p.grad for p in method.parameters() if p.grad is not None]
        found[recomputed] = loss, sum(kept), weights
    assert found[True][0] == found[False][0]
    assert all(map(torch.equal, found[True][2], found[False][2]))
    assert found[True][1] < 0.5 * found[False][1]
