"""The ends of a run that are no failures."""

import signal


class Finished(Exception):
    """The run is there and complete: there is nothing to resume."""


class Elsewhere(Exception):
    """Another rank has ended the run, and says why."""

    def __init__(self, exit_code: int) -> None:
        super().__init__("another rank ended the run")
        self.exit_code = exit_code


class Stopped(Exception):
    """A signal asked the run to stop; its checkpoint is written."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signal_number).name}; --resume goes on from the last checkpoint")
        self.exit_code = 128 + signal_number
