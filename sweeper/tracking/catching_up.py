"""Bring MLflow up to date with the folders of studies, without training."""

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

FILE_STALL_TIMEOUT_S = 60.0  # seconds without progress before giving up on our own database file
SERVER_STALL_TIMEOUT_S = 10.0  # the same for a server


def catch_up(studies: Iterable[StudyFolder], say: Callable[[str], None], *, beside: bool = False) -> bool:
    """Send MLflow what it lacks of `studies`, report what was sent or why not, and return True if it has all then.

    Raises nothing, and gives up on a slow or dead server. A study held by a running sweep is left to that sweep.
    With `beside`, this is a side effect of another command: the note names the command that does only this, and
    running sweeps are not mentioned.
    """
    done = True
    for study in studies:
        try:
            if not _sent(study, say, f"; `sweep sync {study.name}` does the same" if beside else ""):
                return False
        except StudyHeld as held:
            done = False
            if not beside:
                say(f"{study.name} was not sent: {held.what}; run `sweep sync {study.name}` afterwards")
        except (UserError, OSError) as error:
            say(f"{study.name} was not sent to MLflow: {str(error).splitlines()[0]}")
            done = False
    return done


def _sent(study: StudyFolder, say: Callable[[str], None], hint: str) -> bool:
    """Bring one study up to date; True if MLflow has all of it then."""
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
        say(f"sent {text.counted(runs, 'run')} and {text.counted(epochs, 'epoch')} of {study.name} to MLflow{hint}")
    if not done:
        say(f"MLflow still lacks part of {study.name}; the next `sweep run` or `sweep ui` sends the rest")
    return done


def _state(one: StudyStatus) -> State:
    return "FAILED" if one.state == "COMPLETE" and one.best is None else one.state
