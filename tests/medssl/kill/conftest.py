"""The long proof runs by `-m kill` alone (`make test-kill`) and tells what it tried."""

import pytest


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the long proof out where nobody asked for it."""
    if "kill" not in config.option.markexpr:
        left_out = [item for item in items if item.get_closest_marker("kill")]
        items[:] = [item for item in items if item not in left_out]
        config.hook.pytest_deselected(items=left_out)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show a line for each proof."""
    reports = [report for of_one_kind in terminalreporter.stats.values() for report in of_one_kind]
    proofs = {told for report in reports for told in getattr(report, "user_properties", ()) if told[0].startswith("killed: ")}
    if proofs:
        terminalreporter.section("kill -9")
    for name, told in sorted(proofs):
        terminalreporter.write_line(f"{name.removeprefix('killed: ')}: {told}")
