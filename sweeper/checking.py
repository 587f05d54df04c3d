"""What `sweep data check` answers: every fault of a search space's data set, and what may surprise."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sweeper import spec
from sweeper.counting import counting
from sweeper.errors import line
from trainers.data import check
from trainers.data.check import Findings


def run(space: Path, sets: Sequence[str]) -> Findings:
    """What is found in the data of the file at `space`; its images are counted as they are looked at."""
    with counting("checking images") as count:
        return check.check(spec.read(space, sets=sets).data, count)


def document(found: Findings) -> dict[str, Any]:
    """As plain values for --json."""
    lists = {"faults": [asdict(f) for f in found.faults], "notes": [asdict(f) for f in found.notes]}
    return {"schema_version": 1, "ok": not found.faults, **lists}


def lines(found: Findings) -> Iterator[str]:
    """As a person reads it."""
    yield from (f"fault  {line(fault)}" for fault in found.faults)
    yield from (f"note   {line(note)}" for note in found.notes)
    yield f"{len(found.faults)} faults, {len(found.notes)} notes"
