"""The long proof tells what it tried."""

import pytest


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show a line for each proof."""
    reports = [report for of_one_kind in terminalreporter.stats.values() for report in of_one_kind]
    proofs = {told for report in reports for told in getattr(report, "user_properties", ()) if told[0].startswith("killed: ")}
    if proofs:
        terminalreporter.section("kill -9")
    for name, told in sorted(proofs):
        terminalreporter.write_line(f"{name.removeprefix('killed: ')}: {told}")
