"""Brings MLflow to where the folders of studies are; nothing is trained."""

from collections.abc import Iterator, Mapping
from typing import Any

from sweeper import board, identity, lock, overview, paths, store, tracking
from sweeper.defaults import opened
from sweeper.errands import Facts
from sweeper.errors import EnvironmentFault, StudyHeld
from sweeper.launch import tables, tracker_for
from sweeper.overview import Standing
from sweeper.paths import StudyFolder
from sweeper.progress import talk
from sweeper.redact import redacted
from sweeper.trial import State

STILL = 60.0  # seconds in which nothing arrives, after which MLflow is taken for dead


def run(name: str | None) -> Iterator[str]:
    """Send what MLflow lacks of the study called `name`, or of all here; yields a line a study.

    All, because what is missing is often the database, which they share. Raises StudyHeld while a sweep holds the
    one that is named, and EnvironmentFault when MLflow does not answer.
    """
    _refuse_unusable()
    there = [overview.find(name)] if name or not overview.studies() else overview.studies()
    for study in there:
        try:
            yield f"{study.name}: {_sent(study)}"
        except StudyHeld:
            if name:
                raise
            yield f"{study.name}: a sweep is at it, and sends its news itself"


def _refuse_unusable() -> None:
    database = paths.database()
    if tracking.uri() == store.address(database) and (trouble := store.trouble(database)):
        raise EnvironmentFault(trouble[0], where=str(database), help=trouble[1])


def _sent(study: StudyFolder) -> str:
    """Bring one study up to date; returns what was sent."""
    standing = overview.standing(study)
    held = _held(study)
    try:
        notes: list[str] = []
        tracker = tracker_for(notes.append)
        tracker.opened(facts(standing))
        done = tracker.caught_up(_state(standing), files=tables(study), patience=STILL)
    finally:
        held.release()
    runs, epochs = len(tracker.sent.runs), tracker.sent.epochs
    words = f"{board.counted(runs, 'run')} and {board.counted(epochs, 'epoch')}"
    why = [note.removesuffix("; training goes on") for note in notes]
    if not done:
        raise EnvironmentFault(
            (why or ["MLflow does not answer"])[-1],
            where=redacted(tracking.uri()),
            help=f"{words} were sent; `sweep sync {study.name}` sends the rest when MLflow answers again",
        )
    for note in why:
        talk(note)
    return f"sent {words}" if runs or epochs else "MLflow has everything"


def _held(study: StudyFolder) -> lock.Lock:
    try:
        return lock.acquire(study.lock)
    except StudyHeld as held:
        raise StudyHeld(held.what, where=held.where, help="that sweep sends what MLflow lacks by itself") from None


def _state(one: Standing) -> State:
    return "FAILED" if one.state == "COMPLETE" and one.best is None else one.state


def facts(one: Standing) -> Facts:
    """What the record is told of a study that is not searched: as its folder has it, without a look at its data."""
    document: Mapping[str, Any] = identity.read(one.study) or {}
    asked = document["identity"]
    fingerprint = document.get("fingerprint")
    return Facts(
        study=one.study,
        data_name=asked["data"]["root"],
        goal=asked["goal"],
        spec_text=one.study.space.read_text(encoding="utf-8"),
        planned=one.planned,
        names=opened(asked["train"]),
        tags={"sweep.data": fingerprint} if fingerprint else {},
        resume=one.resume,
    )
