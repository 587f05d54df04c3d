"""What training does on a full disk: lets go of everything, waits until there is room, goes on as after a kill."""

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
from sweeper.tracking import background
from trainers.support import files

DISK_POLL_INTERVAL_S = 2.0  # seconds between two looks at the disk
POLL_INTERVAL_S = 0.1  # seconds between two looks at `stop`
Made = TypeVar("Made")


def retry_when_disk_full(attempt: Callable[[], Made], folder: StudyFolder, stop: Stop) -> Made | None:
    """What `attempt` comes to, which is made again after every full disk, as soon as there is room; None where a
    person ends the waiting.

    It has let go of the study and of its workers by then: what follows is what follows a kill, and while it waits
    others may hold the study, `sweep clean` above all. Room is what the runs under way need; each write that fails in
    an attempt that got no further doubles that: it was too little, or something else than room is lacking.
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
    """Whether `error` is one after which there is another attempt."""
    return isinstance(error, DiskFull) or (isinstance(error, OSError) and files.full(error))


def _as_full(error: DiskFull | OSError, folder: StudyFolder) -> DiskFull:
    if isinstance(error, DiskFull):
        return error
    return DiskFull(str(error.filename or folder.root), str(error.strerror))


def _known(folder: StudyFolder) -> int:
    """Bytes on record of the runs: more of them is to have got further."""
    runs = records.runs(folder)
    return sum(path.stat().st_size for run in runs for path in (run.history, run.result) if path.exists())


def _room(full: DiskFull, folder: StudyFolder, stop: Stop, factor: int) -> bool:
    """Wait until the disk has room and nobody holds the study; False when a person wants to stop."""
    need, piece = factor * max(full.need, disk_space.SPARE), factor * max(disk_space.PIECE, _largest(folder))
    _tell(full, folder, need)
    following, told = time.monotonic() + DISK_POLL_INTERVAL_S, False
    while not stop.requested:
        time.sleep(POLL_INTERVAL_S)
        if time.monotonic() < following:
            continue
        following = time.monotonic() + DISK_POLL_INTERVAL_S
        if not (disks.takes(folder.root, need, piece) and background.all_stopped()):
            continue
        holder = lock.holder(folder.lock)
        if holder is None:
            print_message(f"{text.format_bytes(disks.free(folder.root))} are free again; going on")
            return True
        if not told:
            print_message(f"there is room again; waiting for {holder}, which holds the study now")
        told = True
    return False


def _largest(folder: StudyFolder) -> int:
    """Bytes of the largest checkpoint."""
    trainings = (one for run in records.runs(folder) for one in (run, *run.folds))
    found = (path for one in trainings for path in (one.model, one.checkpoint))
    return max((path.stat().st_size for path in found if path.exists()), default=0)


def _tell(full: DiskFull, folder: StudyFolder, need: int) -> None:
    there, where = disks.free(folder.root), text.relative_path(Path(full.where))
    less = f"{text.format_bytes(there)} are free" if there < need else "a quota or a limit leaves less"
    print_message(
        f"disk full: {full.why} ({where}); {text.format_bytes(need)} are needed, {less}: free some space, for "
        "example with sweep clean, and it goes on; Ctrl-C stops, and the same command resumes later"
    )
