"""Where the time went, and what a run will take: arithmetic on made-up seconds."""

import re

import pytest

from medssl.forecast import Pieces, Plan, seconds_of
from medssl.time_spent import Machine, bound_by, time_spent

STEP = {"transfer_s": 0.1, "forward_s": 0.2, "backward_s": 0.3, "optimiser_s": 0.1, "step_s": 0.75}


def test_the_parts_add_up_to_the_wall_time() -> None:
    step = STEP | {"data_s": 0.25, "read_s": 1.0, "views_s": 2.0}
    validation = {"step": 2, "val_l1": 0.1, "validate_s": 0.5, "checkpoint_s": 0.25}
    lines = [{"step": 1} | step, {"step": 2} | step | {"checkpoint_s": 0.75}, validation]
    spent = time_spent(lines, wall=5.0)
    assert spent is not None
    expected = [0.5, 0.2, 0, 0.4, 0.6, 0, 0.2, 0.5, 1.0, 5.0 - 3.4]  # in the order of PARTS, and the rest
    assert list(spent.parts.values()) == pytest.approx(expected)
    assert sum(spent.shares.values()) == pytest.approx(1)
    assert spent.shares["checkpoints"] == pytest.approx(0.2)
    assert dict(spent.loading) == pytest.approx({"reading": 2.0, "views": 4.0})
    assert spent.a_step == pytest.approx(0.7)
    unknown = time_spent(lines)
    assert unknown is not None
    assert unknown.parts["other"] == pytest.approx(0.1)  # what the steps themselves don't explain
    assert time_spent([{"step": 1, "loss": 0.1, "data_s": 0.1}], wall=5.0) is None


@pytest.mark.parametrize(
    ("times", "machine", "expected"),
    [
        ({"data_s": 1.4, "read_s": 0.1, "views_s": 1.3}, Machine(0, 8, 4), "Bound by data: .* workers=3 would keep up"),
        ({"data_s": 1.4, "read_s": 0.1, "views_s": 4.1}, Machine(2, 4, 2, True, True), "workers=4 helps; 8 would keep up"),
        ({"data_s": 1.4, "read_s": 0.1, "views_s": 4.1}, Machine(4, 4, 2, True, True), "all 4 cores: views_on=device"),
        ({"data_s": 1.4, "read_s": 9.0, "views_s": 4.1}, Machine(4, 4, 2, True, True), "reading costs 9 s .* faster disk"),
        ({"data_s": 0.2, "read_s": 0.1, "views_s": 0.1}, Machine(0, 1, 1), "Bound by data: .* one core: cheaper views help"),
        ({"data_s": 0.01, "read_s": 0.1, "views_s": 0.6}, Machine(8, 8, 4), "Bound by compute: .* 1%.* workers=2 would do and"),
        ({"data_s": 0.0, "read_s": 0.1, "views_s": 0.6}, Machine(2, 8, 4), "Bound by compute: .* more workers would not help"),
        ({"data_s": 0.0, "validate_s": 1.0}, Machine(1, 8, 4), "Validation took 57%: a higher validate_every"),
    ],
)
def test_one_line_says_what_a_run_is_bound_by(times: dict[str, float], machine: Machine, expected: str) -> None:
    spent = time_spent([STEP | times])
    assert spent is not None
    line = bound_by(spent, machine)
    assert re.search(expected, line), line


def test_a_run_is_the_sum_of_its_pieces() -> None:
    pieces = Pieces(start=5, pace=1.5, validation=10, checkpoint=2, best=1, finish=20, pack=3)
    parts = seconds_of(pieces, Plan(steps=100, validate_every=40, checkpoint_every=50))
    assert parts == {"packing": 3, "start": 5, "steps": 150.0, "validation": 3 * 11, "checkpoints": 2 * 2, "end": 20}
    by_minutes = Plan(steps=100, validate_every=40, checkpoint_every=50, checkpoint_minutes=0.15)
    assert seconds_of(pieces, by_minutes)["checkpoints"] == 17 * 2  # every 9 s, which is every 6 steps
