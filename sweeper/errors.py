"""The exits of the command line: what a user can mend, and the code the shell sees."""

from trainers.errors import DataError, EnvironmentFault, Fault, UserError

__all__ = ["DataError", "EnvironmentFault", "Fault", "NoResult", "StudyHeld", "UserError"]


class StudyHeld(UserError):
    """Another sweep holds this study."""

    exit_code = 4


class NoResult(UserError):
    """The sweep ended, and no trial completed."""

    exit_code = 5
