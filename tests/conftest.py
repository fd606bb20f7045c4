"""The long proofs run where they are asked for by name alone: `-m kill` (`make test-kill`), `-m long` (`make test-long`)."""

import pytest

ASKED_FOR = ("kill", "long")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the long proofs out where nobody asked for them."""
    left_out = [
        item
        for item in items
        if any(item.get_closest_marker(name) and name not in config.option.markexpr for name in ASKED_FOR)
    ]
    items[:] = [item for item in items if item not in left_out]
    config.hook.pytest_deselected(items=left_out)
