"""A training that breaks off in the middle, for the tests that it goes on as if nothing had happened."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from torch import Tensor

from medssl.problems import RunError


@contextmanager
def broken_off(task: type, step: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Within the block the training of a task must break off in a step, counted from 1."""
    steps, loss = iter(range(1, 100)), task.loss  # type: ignore[attr-defined]

    def failing(self: Any, batch: dict[str, Any]) -> dict[str, Tensor]:
        if next(steps) == step:
            raise RunError("broken off")
        losses: dict[str, Tensor] = loss(self, batch)
        return losses

    with monkeypatch.context() as patch:
        patch.setattr(task, "loss", failing)
        with pytest.raises(RunError, match="broken off"):
            yield
