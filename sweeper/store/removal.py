"""`sweep rm`: removes the folder of a study."""

import shutil

from sweeper.errors import UserError
from sweeper.store import lock, paths, records, studies
from sweeper.store.paths import StudyFolder
from trainers.support.failpoints import failpoint

LEFTOVER = ".removing-"
"""How the folder of a study is called while it goes, beside `studies/`: half of it is never taken for a study."""

KEPT = "MLflow keeps its runs: sweep ui shows them, and deletes them if you ask it there"


def find(name: str) -> StudyFolder:
    """The study called `name`. Raises StudyHeld while a sweep is at it, and UserError where its folder is a link."""
    study = studies.find(name)
    lock.acquire(study.lock).release()
    if study.root.is_symlink():
        raise UserError("this is a link to a folder elsewhere", where=str(study.root), help="remove both yourself")
    return study


def question(study: StudyFolder) -> str:
    """What is about to go."""
    return f"{study.name}: {len(records.runs(study))} trained models in {study.root}"


def remove(study: StudyFolder) -> list[str]:
    """Remove the folder of `study`, and what a kill has left of others; returns what is to be said."""
    shown = study.sync_state.exists()
    held = lock.acquire(study.lock)
    try:
        going = paths.home() / f"{LEFTOVER}{study.name}"
        _discard_leftovers()
        study.root.rename(going)
    finally:
        held.release()
    failpoint("renamed a study")
    _discard_leftovers()
    return [f"{study.name} is removed", *([KEPT] if shown else [])]


def _discard_leftovers() -> None:
    for path in paths.home().glob(f"{LEFTOVER}*"):
        shutil.rmtree(path)
