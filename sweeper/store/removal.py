"""`sweep rm`: removes the folder of a study."""

import shutil

from sweeper.errors import StudyHeld, UserError
from sweeper.store import lock, paths, records, studies
from sweeper.store.paths import StudyFolder
from trainers.support.failpoints import failpoint

LEFTOVER = ".removing-"
"""How the folder of a study is called while it goes, beside `studies/`: half of it is never taken for a study."""

KEPT = "MLflow keeps its runs: sweep ui shows them, and deletes them if you ask it there"


def find(name: str) -> StudyFolder:
    """The study called `name`. Raises StudyHeld while a sweep is at it, and UserError where its folder is a link."""
    study = studies.find(name)
    if holder := lock.holder(study.lock):
        raise StudyHeld(f"{holder} is running this study", where=str(study.lock), help="wait for it, or stop it")
    if study.root.is_symlink():
        raise UserError("this is a link to a folder elsewhere", where=str(study.root), help="remove both yourself")
    return study


def question(study: StudyFolder) -> str:
    """What is about to go."""
    return f"{study.name}: {len(records.runs(study))} trained models in {study.root}"


def remove(study: StudyFolder) -> list[str]:
    """Remove the folder of `study`, and what a kill has left of others; returns what is to be said.

    Raises StudyHeld while another removal is at work, and UserError where that one was of this study.
    """
    turn = alone()
    try:
        if not study.study_file.exists():
            raise UserError(f"{study.name} is gone already: another `sweep rm` removed it", where=str(study.root))
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
    return [f"{study.name} is removed", *([KEPT] if shown else [])]


def alone() -> lock.Lock:
    """Of two removals at once the first goes on."""
    path = paths.home() / ".rm.lock"
    try:
        return lock.acquire(path)
    except StudyHeld:
        help = "run this one again when it is done"
        raise StudyHeld("another `sweep rm` is at work", where=str(path), help=help) from None


def _discard_leftovers() -> None:
    for path in paths.home().glob(f"{LEFTOVER}*"):
        shutil.rmtree(path)
