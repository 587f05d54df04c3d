"""Errors for the user: one exception, with the place, the finding and the remedy."""

import re
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

FEW = 10  # differing faults of one cause that are reported one by one


@dataclass(frozen=True)
class Fault:
    """One fault: `where` is file:line (or a file), `what` was found, and `help` says what to do."""

    where: str
    what: str
    help: str = ""


def folded(found: Iterable[tuple[Hashable, Fault]]) -> Iterator[Fault]:
    """Yield faults, given with their causes, merged per cause and file if they are identical or many, and per cause
    if there are many files.
    """
    groups: dict[tuple[Hashable, str], list[Fault]] = {}
    for cause, fault in found:
        groups.setdefault((cause, re.sub(r"(:|, row )\d+$", "", fault.where)), []).append(fault)
    files = Counter(cause for cause, _ in groups)
    for cause in [cause for cause, count in files.items() if count > FEW]:
        those = [groups.pop(key) for key in list(groups) if key[0] == cause]
        first, count = those[0][0], sum(map(len, those))
        yield Fault(first.where, f"{first.what}, like {count - 1} others", first.help)
    for (_, file), faults in groups.items():
        first, alike = faults[0], len({fault.what for fault in faults}) == 1
        if len(faults) > (1 if alike else FEW):
            yield Fault(file, f"{first.what} ({len(faults)} rows, first {first.where})", first.help)
        else:
            yield from faults


class UserError(Exception):
    """A mistake that the user can fix. The command line prints it and exits with `exit_code`; no traceback."""

    exit_code = 2

    def __init__(self, what: str, *, where: str = "", help: str = "") -> None:
        super().__init__(what)
        self.what, self.where, self.help = what, where, help

    def __str__(self) -> str:
        place = f"\n  --> {self.where}" if self.where else ""
        remedy = f"\nhelp: {self.help}" if self.help else ""
        return f"{self.what}{place}{remedy}"

    def document(self) -> dict[str, Any]:
        """Return the error as plain values, for another process."""
        return {"where": self.where, "what": self.what, "help": self.help, "exit_code": self.exit_code}


class EnvironmentFault(UserError):
    """The data, the weights, a device or a server does not meet the recipe's needs: exit code 3."""

    exit_code = 3


class DataError(EnvironmentFault):
    """The data set has faults; `faults` holds all of them, found in one pass."""

    def __init__(self, faults: Sequence[Fault], *, help: str = "") -> None:
        self.faults = tuple(faults)
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        super().__init__(faults[0].what + more, where=faults[0].where, help=help or faults[0].help)


class Diverged(Exception):
    """The loss is no longer finite. This is not the user's mistake: the trial fails, and the study continues."""


class Overflowed(Diverged):
    """Training in fp16 diverged, and may succeed in full precision."""
