"""The trial index: what run folders say of ended trials, in one file. Derived from them, never the truth."""

import hashlib
import os
from collections.abc import Iterable

from pydantic import ConfigDict, ValidationError

from sweeper.store.paths import RunFolder, StudyFolder
from sweeper.trial import Message, TrialResult
from trainers.config import Recipe
from trainers.support import files


class Entry(Message):
    """A trial that has ended, and how its result.json looked when that was noted."""

    model_config = ConfigDict(ser_json_inf_nan="constants")

    size: int
    changed: int  # ns
    result: TrialResult
    configuration: str  # digest of the recipe without its seed
    seed: int
    image_size: str  # as people write it
    values: tuple[float, ...]  # the metric after each epoch
    spans: tuple[tuple[float, float], ...]  # Unix times between which it was in epochs

    @property
    def ended(self) -> float:
        """Unix time of the last epoch, or 0."""
        return self.spans[-1][1] if self.spans else 0.0


def stamp(folder: RunFolder) -> tuple[int, int] | None:
    """Size and time of change (ns) of a run's result.json; None where there is none."""
    try:
        found = os.stat(folder.result)  # noqa: PTH116 - asked ten thousand times
    except FileNotFoundError:
        return None
    return found.st_size, found.st_mtime_ns


def read(study: StudyFolder) -> dict[int, Entry]:
    """The entries that are still true, by trial; what is torn or stale is left out. Writes nothing."""
    try:
        lines = study.trial_index.read_bytes().splitlines()
    except FileNotFoundError:
        return {}
    found = {entry.result.number: entry for line in lines if (entry := _parse(line))}
    return {n: one for n, one in found.items() if stamp(study.trial(n)) == (one.size, one.changed)}


def _parse(line: bytes) -> Entry | None:
    try:
        return Entry.model_validate_json(line)
    except ValidationError:
        return None


def add(study: StudyFolder, entry: Entry) -> None:
    """Note one more end, unsynced: what a power cut takes is noted again by `rewrite`."""
    files.append(study.trial_index, entry.model_dump_json().encode() + b"\n", sync=False)


def rewrite(study: StudyFolder, entries: Iterable[Entry]) -> None:
    """Have the index hold these and no others."""
    files.write_text(study.trial_index, "".join(f"{entry.model_dump_json()}\n" for entry in entries))


def digest(recipe: Recipe) -> str:
    """16 hex digits over everything in a recipe but the seed, and but whether a value was written or derived."""
    text = recipe.model_dump_json(exclude={"train": {"seed"}, "derived": True})
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
