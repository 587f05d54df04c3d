"""Brings MLflow to where the folders of studies are, where nothing is trained."""

from collections.abc import Callable, Iterable

from sweeper import text
from sweeper.errors import StudyHeld, UserError
from sweeper.store import lock, studies
from sweeper.store.paths import StudyFolder
from sweeper.store.ranking import tables
from sweeper.store.studies import StudyStatus
from sweeper.tracking import client
from sweeper.tracking.tracker import facts, tracker_for
from sweeper.trial import State

FILE_STALL_TIMEOUT_S = 60.0  # without progress, after which our own file is given up
SERVER_STALL_TIMEOUT_S = 10.0  # and a server


def catch_up(studies: Iterable[StudyFolder], say: Callable[[str], None], *, beside: bool = False) -> bool:
    """Send what MLflow lacks of `studies`, and say what that was, or why it was not; whether it has all then.

    Nothing is raised for it, and a server that is slow or dead is given up. A study that a sweep is at is left to it.
    `beside`: nobody asked for it, so that the command that does this alone is named, and a sweep at work is not.
    """
    done = True
    for study in studies:
        try:
            if not _sent(study, say, f"; `sweep sync {study.name}` does the same" if beside else ""):
                return False
        except StudyHeld as held:
            done = False
            if not beside:
                say(f"nothing of {study.name} is sent: {held.what}; `sweep sync {study.name}` sends it afterwards")
        except (UserError, OSError) as error:
            say(f"nothing of {study.name} is sent to MLflow: {str(error).splitlines()[0]}")
            done = False
    return done


def _sent(study: StudyFolder, say: Callable[[str], None], hint: str) -> bool:
    """Bring one study up to date; whether MLflow has all of it then."""
    standing = studies.status_of(study)
    held = lock.acquire(study.lock)
    try:
        notes: list[str] = []
        tracker = tracker_for(notes.append)
        tracker.opened(facts(standing))
        patience = SERVER_STALL_TIMEOUT_S if client.uri().startswith("http") else FILE_STALL_TIMEOUT_S
        done = tracker.caught_up(_state(standing), files=tables(study), patience=patience)
    finally:
        held.release()
    for note in notes:
        say(note.removesuffix("; training continues"))
    runs, epochs = len(tracker.sent.runs), tracker.sent.epochs
    if runs or epochs:
        say(f"sent MLflow {text.counted(runs, 'run')} and {text.counted(epochs, 'epoch')} of {study.name}{hint}")
    if not done:
        say(f"MLflow still lacks a part of {study.name}; the next `sweep run` or `sweep ui` sends the rest")
    return done


def _state(one: StudyStatus) -> State:
    return "FAILED" if one.state == "COMPLETE" and one.best is None else one.state
