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
    """A signal asked the process to stop; `how` says how a run goes on."""

    def __init__(self, signal_number: int, how: str = "") -> None:
        super().__init__(f"stopped by {signal.Signals(signal_number).name}{how}")
        self.exit_code = 128 + signal_number


class OutOfTime(Exception):
    """The time that a run was given is over before its last step."""

    exit_code = 75  # EX_TEMPFAIL of BSD's sysexits.h: not done, try again

    def __init__(self, how: str) -> None:
        super().__init__(f"out of time{how}")


class Interrupted(Exception):
    """Work that can be done again is broken off, since the run is to stop; `told` whether other ranks know."""

    def __init__(self, told: bool = False) -> None:
        super().__init__("broken off")
        self.told = told
