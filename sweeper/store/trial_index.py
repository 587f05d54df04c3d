"""The trial index: the results of finished trials in one file. Derived from run folders, which are authoritative."""

import hashlib
import os
from collections.abc import Iterable

from pydantic import ConfigDict, ValidationError

from sweeper.store.paths import RunFolder, StudyFolder
from sweeper.trial import Message, TrialResult
from trainers.config import Recipe
from trainers.support import files


class Entry(Message):
    """A finished trial, with the size and time of its result.json when the entry was made."""

    model_config = ConfigDict(ser_json_inf_nan="constants")

    size: int
    changed: int  # ns
    result: TrialResult
    configuration: str  # digest of the recipe without its seed
    seed: int
    image_size: str  # as written in YAML
    values: tuple[float, ...]  # the metric after each epoch
    spans: tuple[tuple[float, float], ...]  # start and end of its times in epochs, Unix time

    @property
    def ended(self) -> float:
        """The end of the last epoch in Unix time, or 0."""
        return self.spans[-1][1] if self.spans else 0.0


def stamp(folder: RunFolder) -> tuple[int, int] | None:
    """Return size and modification time (ns) of a run's result.json; None if there is none."""
    try:
        found = os.stat(folder.result)  # noqa: PTH116 - called ten thousand times
    except FileNotFoundError:
        return None
    return found.st_size, found.st_mtime_ns


def read(study: StudyFolder) -> dict[int, Entry]:
    """Return the valid entries by trial, without torn or stale ones. Writes nothing."""
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
    """Append an entry, unsynced: one lost in a power cut is added again by `rewrite`."""
    files.append(study.trial_index, entry.model_dump_json().encode() + b"\n", sync=False)


def rewrite(study: StudyFolder, entries: Iterable[Entry]) -> None:
    """Replace the index with these entries."""
    files.write_text(study.trial_index, "".join(f"{entry.model_dump_json()}\n" for entry in entries))


def digest(recipe: Recipe) -> str:
    """Return 16 hex digits over everything in a recipe except the seed and the marks of derived values."""
    text = recipe.model_dump_json(exclude={"train": {"seed"}, "derived": True})
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
