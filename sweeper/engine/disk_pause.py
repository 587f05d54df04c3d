"""Training on a full disk: release everything, wait for free space, then resume as after a kill."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from sweeper import text
from sweeper.engine import disk_space
from sweeper.errors import DiskFull
from sweeper.store import lock, records
from sweeper.store.paths import StudyFolder
from sweeper.system import disks
from sweeper.system.signals import Stop
from sweeper.terminal.output import print_message
from trainers.support import files

DISK_POLL_INTERVAL_S = 2.0  # seconds between two checks of the disk
POLL_INTERVAL_S = 0.1  # seconds between two checks of `stop`
Made = TypeVar("Made")


def retry_when_disk_full(attempt: Callable[[], Made], folder: StudyFolder, stop: Stop) -> Made | None:
    """Return the result of `attempt`, repeating it after each full disk once there is room; None if the user stops
    the wait.

    By then `attempt` has released the study and its workers, so the next attempt resumes as after a kill, and others,
    `sweep clean` above all, may hold the study meanwhile. There is room once the unfinished runs would fit. Each
    attempt that fails without progress doubles that requirement: it was too low, or something other than space is
    missing.
    """
    known, factor = -1, 1
    while True:
        try:
            return attempt()
        except (DiskFull, OSError) as error:
            if not is_disk_full(error):
                raise
            full = _as_full(error, folder)
        known, before = _known(folder), known
        factor = 1 if full.ahead or known != before else factor * 2
        try:
            if not _room(full, folder, stop, factor):
                return None
        except KeyboardInterrupt:
            return None


def is_disk_full(error: BaseException) -> bool:
    """True if `error` is a full disk, after which another attempt follows."""
    return isinstance(error, DiskFull) or (isinstance(error, OSError) and files.full(error))


def _as_full(error: DiskFull | OSError, folder: StudyFolder) -> DiskFull:
    if isinstance(error, DiskFull):
        return error
    return DiskFull(str(error.filename or folder.root), str(error.strerror))


def _known(folder: StudyFolder) -> int:
    """Return the bytes in the records of all runs; more of them means progress."""
    runs = records.runs(folder)
    return sum(path.stat().st_size for run in runs for path in (run.history, run.result) if path.exists())


def _room(full: DiskFull, folder: StudyFolder, stop: Stop, factor: int) -> bool:
    """Wait until the disk has room and nobody holds the study; return False if the user stops the wait."""
    need, piece = factor * max(full.need, disk_space.SPARE), factor * max(disk_space.PIECE, _largest(folder))
    _report(full, folder, need)
    following, told = time.monotonic() + DISK_POLL_INTERVAL_S, False
    while not stop.requested:
        time.sleep(POLL_INTERVAL_S)
        if time.monotonic() < following:
            continue
        following = time.monotonic() + DISK_POLL_INTERVAL_S
        if not disks.takes(folder.root, need, piece):
            continue
        holder = lock.holder(folder.lock)
        if holder is None:
            print_message(f"{text.format_bytes(disks.free(folder.root))} are free again; continuing")
            return True
        if not told:
            print_message(f"there is free space again; waiting for {holder}, which holds the study now")
        told = True
    return False


def _largest(folder: StudyFolder) -> int:
    """Return the size of the largest checkpoint in bytes."""
    trainings = (one for run in records.runs(folder) for one in (run, *run.folds))
    found = (path for one in trainings for path in (one.model, one.checkpoint))
    return max((path.stat().st_size for path in found if path.exists()), default=0)


def _report(full: DiskFull, folder: StudyFolder, need: int) -> None:
    there, where = disks.free(folder.root), text.relative_path(Path(full.where))
    less = f"{text.format_bytes(there)} are free" if there < need else "a quota or a limit leaves less"
    print_message(
        f"disk full: {full.why} ({where}); {text.format_bytes(need)} are needed, {less}: free some space, for "
        "example with sweep clean, and training continues; press Ctrl-C to stop, and the same command resumes later"
    )
