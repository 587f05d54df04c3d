"""Assembles a sweep: from a YAML file, through every check, to the loop and the words at its end."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from sweeper.commands import ending
from sweeper.engine import prepare as preparation
from sweeper.engine.options import Options
from sweeper.engine.prepare import prepare
from sweeper.engine.session import make_executor, sweep
from sweeper.results import winner
from sweeper.store.paths import StudyFolder
from sweeper.system import devices
from sweeper.terminal import output

if TYPE_CHECKING:
    from sweeper.commands.export import Final
    from sweeper.trial import Outcome


def run(path: Path, options: Options) -> "Outcome":
    """Begin the study of the file at `path`, or go on with it, until its budget is used up or a signal comes.

    Everything that can be wrong is raised before a trial exists. However it ends, stderr says how it stands, where
    the files are, and how to go on.
    """
    from sweeper.executors import inline

    options.check()
    slots = devices.slots(options.devices, options.slots)
    prepared = prepare(path, options, slots=slots)
    for line in preparation.understood(prepared.summary, str(path)):
        output.print_message(line)
    preparation.decode(prepared.table, prepared.spec.data)
    command = options.command(path)
    executor, ended = partial(make_executor, prepared, options), partial(ending.say, prepared.folder, command)
    with inline.environment(slots[0] if options.inline else None):
        return sweep(prepared, options, executor, command, ended)


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
    preparation.decode(prepared.table, prepared.spec.data)
    return len(prepared.table.rows)


# ------------------------------------------------------------------------------------------ the record
