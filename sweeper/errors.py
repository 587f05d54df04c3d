"""The exits of the command line: what a user can mend, and the code the shell sees."""

from trainers.errors import DataError, EnvironmentFault, Fault, UserError

__all__ = ["DataError", "EnvironmentFault", "Fault", "NoResult", "RunFailed", "Stopped", "StudyHeld", "UserError"]


class RunFailed(UserError):
    """A retraining failed, for a reason that is in its log."""

    exit_code = 1


class Stopped(UserError):
    """A signal ended the work before it was done."""

    def __init__(self, exit_code: int) -> None:
        super().__init__("stopped before it was done", help="the same command goes on with it")
        self.exit_code = exit_code


class StudyHeld(UserError):
    """Another sweep holds this study."""

    exit_code = 4


class NoResult(UserError):
    """The sweep ended, and no trial completed."""

    exit_code = 5
