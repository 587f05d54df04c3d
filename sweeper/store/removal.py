"""`sweep rm`: removes a study's folder."""

import shutil

from sweeper.errors import StudyHeld, UserError
from sweeper.store import lock, paths, records, studies
from sweeper.store.paths import StudyFolder
from trainers.support.failpoints import failpoint

LEFTOVER = ".removing-"
"""Prefix of a study's folder during removal, outside `studies/`, so that half of it never counts as a study."""

KEPT = "MLflow keeps its runs: view or delete them in sweep ui"


def find(name: str) -> StudyFolder:
    """Return the study `name`. Raises StudyHeld while a sweep is running it, UserError if its folder is a link."""
    study = studies.find(name)
    if holder := lock.holder(study.lock):
        raise StudyHeld(f"{holder} is running this study", where=str(study.lock), help="wait for it, or stop it")
    if study.root.is_symlink():
        raise UserError("this is a link to a folder elsewhere", where=str(study.root), help="remove both yourself")
    return study


def question(study: StudyFolder) -> str:
    """Return a description of what is about to be removed."""
    return f"{study.name}: {len(records.runs(study))} trained models in {study.root}"


def remove(study: StudyFolder) -> list[str]:
    """Remove the folder of `study`, and leftovers of removals that were killed; return the lines to print.

    Raises StudyHeld while another removal is running, and UserError if `study` is already gone.
    """
    turn = alone()
    try:
        if not study.study_file.exists():
            raise UserError(f"{study.name} is already gone: another `sweep rm` removed it", where=str(study.root))
        shown = study.sync_state.exists()
        _discard_leftovers()
        held = lock.acquire(study.lock)
        try:
            study.root.rename(paths.home() / f"{LEFTOVER}{study.name}")
        finally:
            held.release()
        failpoint("renamed a study")
        _discard_leftovers()
    finally:
        turn.release()
    return [f"{study.name} was removed", *([KEPT] if shown else [])]


def alone() -> lock.Lock:
    """Acquire the lock that allows one removal at a time. Raises StudyHeld if another holds it."""
    path = paths.home() / ".rm.lock"
    try:
        return lock.acquire(path)
    except StudyHeld:
        help = "run this one again when it is done"
        raise StudyHeld("another `sweep rm` is running", where=str(path), help=help) from None


def _discard_leftovers() -> None:
    for path in paths.home().glob(f"{LEFTOVER}*"):
        shutil.rmtree(path)
