"""The record: what the coordinator writes into run folders, and how it is read back."""

import errno
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from sweeper import lock
from sweeper.errors import EnvironmentFault
from sweeper.paths import RunFolder, StudyFolder
from sweeper.trial import Job, State, TrialResult, Trouble, Word
from trainers import files
from trainers.config import Epoch, Scores

Kept = TypeVar("Kept", bound=Word)


def append(folder: RunFolder, epoch: Epoch) -> None:
    """Add `epoch` to the history as one synced line; on a full disk the history stays as it was (OSError)."""
    handle = os.open(folder.history, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        before = os.fstat(handle).st_size
        line = epoch.model_dump_json().encode() + b"\n"
        if os.write(handle, line) < len(line):
            os.ftruncate(handle, before)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder.history))
        os.fsync(handle)
    finally:
        os.close(handle)
    if epoch.index == 0:
        files.sync_folder(folder.root)


def history(folder: RunFolder) -> list[Epoch]:
    """The epochs on record, in order from 0; a torn tail is left out. Writes nothing, so anyone may ask."""
    return _sound(folder.history)[0]


def mend(folder: RunFolder) -> list[Epoch]:
    """The same, and the torn tail is cut off the file. Only for whoever holds the study, while nobody trains here."""
    tidy(folder.root)
    epochs, length = _sound(folder.history)
    if folder.history.exists() and folder.history.stat().st_size > length:
        with folder.history.open("r+b") as file:
            file.truncate(length)
            os.fsync(file.fileno())
    return epochs


def tidy(folder: Path) -> None:
    """Remove what kills left of files that were being written, by `trainers.files`, in this very folder."""
    for rest in folder.glob(".*.tmp"):
        if not rest.name.startswith(".mlflow.json."):  # the tracker's, which may be at it now
            rest.unlink(missing_ok=True)


def _sound(path: Path) -> tuple[list[Epoch], int]:
    """The epochs of the leading lines that are whole and in order, and the bytes they take."""
    epochs: list[Epoch] = []
    length = 0
    for line in _lines(path):
        epoch = _parse(line)
        if epoch is None or epoch.index != len(epochs):
            break
        epochs.append(epoch)
        length += len(line)
    return epochs, length


def _lines(path: Path) -> list[bytes]:
    try:
        return path.read_bytes().splitlines(keepends=True)
    except FileNotFoundError:
        return []


def _parse(line: bytes) -> Epoch | None:
    if not line.endswith(b"\n"):
        return None
    try:
        return Epoch.model_validate_json(line)
    except ValidationError:
        return None


def write_config(folder: RunFolder, job: Job) -> None:
    """Put the whole job into config.json, so that nothing later depends on today's YAML or defaults."""
    files.write_text(folder.config, job.model_dump_json(indent=1) + "\n")


def read_config(folder: RunFolder) -> Job | None:
    """The job as it was started, or None when it was not written yet."""
    return _read(folder.config, Job)


def write_result(folder: RunFolder, result: TrialResult) -> None:
    files.write_text(folder.result, result.model_dump_json(indent=1) + "\n")


def read_result(folder: RunFolder) -> TrialResult | None:
    """How the run ended, or None while it has not."""
    return _read(folder.result, TrialResult)


def _read(path: Path, kind: type[Kept]) -> Kept | None:
    try:
        return kind.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise EnvironmentFault(
            f"this file is damaged, or of another version of sweep: {error.errors()[0]['msg']}",
            where=str(path),
            help="restore it from a copy, or move the folder it lies in away",
        ) from error


def standing(
    job: Job,
    epochs: Iterable[Epoch],
    state: State,
    *,
    trouble: Trouble | None = None,
    error: str | None = None,
    tta: Scores | None = None,
) -> TrialResult:
    """How `job` stands after `epochs`: its value is the goal's at the best of them, the earliest of equals.

    Which is best the recipe's selection says: the goal itself, another metric, or the loss.
    """
    done = list(epochs)
    goal = job.recipe.goal
    best = max(done, key=job.recipe.rank, default=None)
    return TrialResult(
        number=job.trial,
        state=state,
        goal=goal,
        value=best.value(goal) if best else None,
        best_epoch=best.index if best else None,
        epochs=len(done),
        planned=job.stop_after or job.recipe.train.epochs,
        backbone=job.recipe.train.backbone,
        params=job.params,
        seconds=sum(epoch.seconds for epoch in done),
        trouble=trouble,
        error=error,
        repeat_of=job.repeat_of,
        tta=tta,
    )


def folders(study: StudyFolder) -> list[tuple[int, RunFolder]]:
    """Every trial's number and folder, by number."""
    numbers = sorted(int(path.name) for path in study.trials.glob("[0-9]*") if path.name.isdigit())
    return [(number, study.trial(number)) for number in numbers]


def results(study: StudyFolder) -> list[TrialResult]:
    """Every trial that was begun, by number; one without an end is RUNNING if a sweep holds the study."""
    unfinished: State = "RUNNING" if lock.holder(study.lock) else "INTERRUPTED"
    found = (_result(folder, unfinished) for _, folder in folders(study))
    return [result for result in found if result]


def _result(folder: RunFolder, unfinished: State) -> TrialResult | None:
    if result := read_result(folder):
        return result
    job = read_config(folder)
    return standing(job, history(folder), "PAUSED" if folder.paused.exists() else unfinished) if job else None


def seconds(study: StudyFolder) -> float:
    """Wall-clock time during which at least one trial was in an epoch, over all calls."""
    epochs = (epoch for _, folder in folders(study) for epoch in history(folder))
    total, until = 0.0, float("-inf")
    for start, end in sorted((epoch.time - epoch.seconds, epoch.time) for epoch in epochs):
        total += max(0.0, end - max(start, until))
        until = max(until, end)
    return total
