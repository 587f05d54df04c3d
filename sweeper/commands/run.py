"""`sweep run`: from a YAML file, through every check, to the session and the words at its end."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from sweeper import text
from sweeper.engine import prepare as preparation
from sweeper.engine import presets
from sweeper.engine.options import Options
from sweeper.engine.prepare import prepare
from sweeper.engine.session import Session, make_executor
from sweeper.results import importance, status, winner
from sweeper.store import records, studies
from sweeper.store.paths import RunFolder, StudyFolder
from sweeper.system import devices
from sweeper.terminal import output

if TYPE_CHECKING:
    from sweeper.commands.export import Final
    from sweeper.trial import SessionEnd


def run(path: Path, options: Options) -> "SessionEnd":
    """Begin the study of the file at `path`, or go on with it, until its budget is used up or a signal comes.

    Everything that can be wrong is raised before a trial exists. However it ends, stderr says how it stands, where
    the files are, and how to go on.
    """
    from sweeper.executors import inline

    options.check()
    slots = devices.slots(options.devices, options.slots)
    prepared = prepare(path, options, slots=slots)
    understood = preparation.understood(prepared.summary, str(path))
    for line in filter(None, (*understood, *preparation.executed(), presets.told(prepared.spec))):
        output.print_message(line)
    preparation.decode(prepared.table, prepared.spec.data, prepared.space.framing)
    session = Session(prepared, options, partial(make_executor, prepared, options), options.command(path))
    with inline.environment(slots[0] if options.inline else None):
        return _told(session)


def _told(session: Session) -> "SessionEnd":
    """Run the session; however it ends, say how the study stands."""
    reason, ended = "", False
    try:
        outcome = session.run()
        reason, ended = outcome.reason, outcome.exit_code == 0
    finally:
        if session.started:
            say_ending(session.prepared.folder, session.command, reason)
    if ended and (line := _mattered(session.prepared.folder)):
        output.print_message(line)
    return outcome


def _mattered(folder: StudyFolder) -> str:
    """What mattered, where there are trials enough to say."""
    found = importance.importance(folder, records.results(folder))
    return found.line if found and found.is_enough else ""


def final(path: Path, options: Options) -> "Final":
    """The winner of the study of the file at `path`, retrained and packed as by `sweep best --export submission`."""
    from sweeper.commands import export
    from sweeper.space import yaml_io

    folder = StudyFolder.named(yaml_io.read(path, sets=options.assignments).study)
    slots = devices.slots(options.devices)[:1]
    return export.export(winner.winner(folder), slots, mlflow=options.mlflow)


def cached(path: Path, options: Options) -> int:
    """Decode what the study of the file at `path` would; returns the number of images."""
    prepared = prepare(path, options, networks=False)
    preparation.decode(prepared.table, prepared.spec.data, prepared.space.framing)
    return len(prepared.table.rows)


def say_ending(folder: StudyFolder, command: str, reason: str = "") -> None:
    """Tell on stderr how the study stands, where its files are, and the commands that come next.

    Nothing of a study whose folder is gone: the error that ended the sweep says that.
    """
    if not folder.root.exists():
        return
    one = studies.status_of(folder)
    if reason:
        output.print_message(reason)
    output.print_message(f"best:   {status.best(one.best) if one.best else 'no trial completed yet'}")
    output.print_message(f"files:  {text.relative_path(folder.root)}")
    for line in _broken(one):
        output.print_message(line)
    output.print_message(f"resume: {command}")
    if one.best:
        output.print_message(f"submit: sweep best {folder.name} --export submission")
    if folder.sync_state.exists():
        output.print_message(f"browse: sweep ui {folder.name}")


def _broken(one: studies.StudyStatus) -> Iterator[str]:
    """Where to read why trials failed, when none did better."""
    failed = [result for result in one.results if result.state == "FAILED"]
    if failed and not one.best:
        log = RunFolder(one.study.trial(failed[-1].number).root).log
        yield f"failed: {failed[-1].error}; its log is {text.relative_path(log)}"
