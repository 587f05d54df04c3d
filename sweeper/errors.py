"""The errors that end a command: what the user can fix, and the exit code that the shell sees."""

from trainers.support.errors import DataError, EnvironmentFault, Fault, UserError

__all__ = [
    "DataError",
    "DiskFull",
    "EnvironmentFault",
    "Fault",
    "NoResult",
    "RunFailed",
    "Stopped",
    "StudyHeld",
    "UserError",
    "line",
    "message",
]


class DiskFull(EnvironmentFault):
    """The disk is full or, with `ahead`, has too little room for the `need` bytes that are about to be written.

    `why` is the symptom that was noticed.
    """

    def __init__(self, where: str, why: str, need: int = 0, *, ahead: bool = False) -> None:
        remedy = "free some space, for example with sweep clean, and run the same command again"
        super().__init__("the disk is full", where=where, help=remedy)
        self.why, self.need, self.ahead = why, need, ahead


class RunFailed(UserError):
    """A retraining failed; its log has the reason."""

    exit_code = 1


class Stopped(UserError):
    """A signal stopped the work before it was done."""

    def __init__(self, exit_code: int) -> None:
        super().__init__("stopped before it was done", help="the same command resumes it")
        self.exit_code = exit_code


class StudyHeld(UserError):
    """Another sweep holds this study."""

    exit_code = 4


class NoResult(UserError):
    """The sweep finished without a completed trial."""

    exit_code = 5


def message(error: UserError) -> str:
    """Return the text of an error: what, where and what to do; for faulty data, a line per fault."""
    if not isinstance(error, DataError) or len(error.faults) == 1:
        return f"error: {error}\n"
    each = [f"error: {len(error.faults)} faults", *(f"  --> {line(fault)}" for fault in error.faults)]
    each += [f"help: {error.help}"] if error.help != error.faults[0].help else []
    return "".join(f"{one}\n" for one in each)


def line(fault: Fault) -> str:
    """Return a fault on one line: where, what, and in brackets what to do."""
    return f"{fault.where}: {fault.what}{f' ({fault.help})' if fault.help else ''}"
