"""The findings of a section: promises that hold or do not, and figures, each a line of JSON in a file."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

Verdict = Literal["ok", "FAIL", "info", "skipped"]


@dataclass(frozen=True)
class Finding:
    """One line of the table. FAIL means that a promise of the project does not hold here."""

    what: str
    verdict: Verdict
    figures: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.verdict:7} {self.what:58} {json.dumps(self.figures, default=str)[:400]}"


class Notes:
    """The findings of one section, written at once, so that a crash loses none of the earlier ones."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def promise(self, what: str, holds: bool, **figures: Any) -> None:
        """Record a promise that must hold."""
        self._add(Finding(what, "ok" if holds else "FAIL", figures))

    def figure(self, what: str, **figures: Any) -> None:
        """Record a measurement."""
        self._add(Finding(what, "info", figures))

    def skip(self, what: str, why: str) -> None:
        """Record a check that is impossible here."""
        self._add(Finding(what, "skipped", {"why": why}))

    def _add(self, finding: Finding) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(finding), default=str) + "\n")

    def read(self) -> Iterator[Finding]:
        """Yield the findings so far."""
        if self.path.exists():
            for line in self.path.read_text(encoding="utf-8").splitlines():
                yield Finding(**json.loads(line))
