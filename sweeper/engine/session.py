"""One session of a sweep: lock, study, observers, executor, and the loop."""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from sweeper import text
from sweeper.engine import disk_pause, loop, prepare
from sweeper.engine.observers import Observers
from sweeper.engine.options import Options
from sweeper.engine.prepare import PreparedStudy
from sweeper.errors import DiskFull, UserError
from sweeper.executors.local import Local
from sweeper.figures.observer import Figures
from sweeper.store import paths, records, studies
from sweeper.store.paths import StudyFolder
from sweeper.store.ranking import tables
from sweeper.study import transfer
from sweeper.study.gpu_memory import MachineInfo
from sweeper.system import devices, disks
from sweeper.system.signals import Stop, listening
from sweeper.terminal import output, views
from sweeper.tracking.reconcile import StudyInfo
from sweeper.tracking.tracker import tracker_for
from sweeper.trial import Closing, Observer, Outcome, State
from trainers.support import files

if TYPE_CHECKING:
    from sweeper.executors import Executor
    from sweeper.study.study import Study


Executors = Callable[[Callable[[str], None]], "Executor"]  # made where there is somebody to talk to


FinalCost = tuple[float, float] | None  # of a final over a trial, see `_estimate_final`


NOTHING_LEFT = "nothing was left to do: --trials N or --hours H asks for more"


def sweep(
    prepared: PreparedStudy, options: Options, executor: "Executors", command: str, ended: Callable[[str], None]
) -> Outcome:
    """Hold the study and run the loop, with another executor after each pause.

    `ended` is called with the reason, empty where an error is one, however a study that was opened ends.
    """
    stop, final = Stop(), _estimate_final(prepared) if options.then_best else None

    def once() -> Outcome:
        return _run_once(prepared, options, executor, stop, command, final, ended)

    with listening(stop), stop.told():
        outcome = disk_pause.retry_when_disk_full(once, prepared.folder, stop) or _given_up(stop)
    ended(outcome.reason)
    return outcome


def _given_up(stop: Stop) -> Outcome:
    """Where a person ends the waiting for room."""
    return Outcome(stop.exit_code, "stopped at once" if stop.again else "stopped while the disk was full")


def _run_once(
    prepared: PreparedStudy,
    options: Options,
    executor: "Executors",
    stop: Stop,
    command: str,
    final: FinalCost,
    ended: Callable[[str], None],
) -> Outcome:
    """From opening the study to closing it."""
    from sweeper.study.state import Definition
    from sweeper.study.study import Study

    study = Study.open(
        Definition(prepared.spec, prepared.space, prepared.folder, prepared.fingerprint),
        paths.cache(),
        teach=lambda: _warm_start(prepared, options.teacher(prepared.spec.source)),
        here=MachineInfo(len(prepared.table.split("train")), lambda: devices.smallest(prepared.slots)),
    )
    try:
        files.write_text(prepared.folder.resume_command, command + "\n")
        files.write_text(prepared.folder.data, prepared.summary.model_dump_json(indent=1) + "\n")
        if final:
            study.expect_final(*final)
        before = study.results()
        outcome = _loop(study, prepared, executor, stop, mlflow=options.mlflow)
    except BaseException as error:
        study.close()
        if not disk_pause.is_disk_full(error):
            ended("")
        raise
    study.close()
    idle = outcome.exit_code == 0 and records.results(prepared.folder) == before
    return replace(outcome, reason=NOTHING_LEFT) if idle else outcome


def _warm_start(prepared: PreparedStudy, source: StudyFolder | None) -> None:
    """Have a new study learn from an earlier one, and say what."""
    if source:
        for line in transfer.warm_start(prepared.spec, prepared.space, prepared.folder, source, prepared.fingerprint):
            output.print_message(line)


def _estimate_final(prepared: PreparedStudy) -> tuple[float, float]:
    """On how many times as many images as a trial a final trains, and how long it looks at the data before that.

    What it needs is loaded here, before the hours begin to count.
    """
    started = time.monotonic()
    table = prepare.checked(prepared.spec.data).table
    prepare.decode(table, prepared.spec.data)
    train = len(table.split("train"))
    return (train + len(table.split("val"))) / max(train, 1), time.monotonic() - started


def _loop(study: "Study", prepared: PreparedStudy, executor: "Executors", stop: Stop, *, mlflow: bool) -> Outcome:
    from sweeper.search.export import OptunaExport

    view = views.choose(where=[f"files: {text.relative_path(prepared.folder.root)}", *["browse: sweep ui"] * mlflow])
    view.plan(prepared.spec.budget.trials, study.results())
    if kind := disks.network(prepared.folder.root):
        view.note(disks.words(paths.home(), kind))
    export = OptunaExport(prepared.folder, prepared.space.suggest, view.note)
    observers = observers_for(view, facts(prepared), export, mlflow=mlflow)
    export.opened()
    state: State = "INTERRUPTED"
    hurry = False
    try:
        if line := prepared.room.outlook(prepared.spec, prepared.space.recipes()):
            view.note(line)
        outcome = loop.run(study, executor(view.note), observers, stop=stop, room=prepared.room)
        state = _STATES.get(outcome.exit_code, "INTERRUPTED")
    except DiskFull:
        hurry = True
        raise
    finally:
        if stop.again:  # the next `sweep run` or `sweep ui` shows the rest
            observers.closed(Closing(state, timeout=0.0))
        else:
            timeout = 1.0 if stop.requested or hurry else 10.0
            observers.closed(Closing(state, tuple(tables(prepared.folder)), timeout))
    return outcome


_STATES: dict[int, State] = {0: "COMPLETE", 5: "FAILED"}


def make_executor(prepared: PreparedStudy, options: Options, note: Callable[[str], None]) -> "Executor":
    from sweeper.executors.inline import Inline

    if options.inline:
        return Inline(prepared.slots[0].device)
    if options.ray:
        return _cluster(options.ray, prepared, options, note)
    return Local.on(prepared.slots, options.slots)


def _cluster(address: str, prepared: PreparedStudy, options: Options, note: Callable[[str], None]) -> "Executor":
    try:
        from sweeper.executors.ray import Ray
    except ModuleNotFoundError as error:
        if error.name != "ray":
            raise
        raise UserError("Ray is not installed", where="--ray", help="pip install 'sweep[ray]'") from None
    image = prepared.table.root / prepared.table.rows[0].path
    return Ray(address, prepared.folder.lock, image, note, slots=options.slots, cpu=options.devices == "cpu")


def observers_for(view: views.View, facts: StudyInfo, *others: Observer, mlflow: bool) -> Observers:
    """The view, the figures, `others` and, where it is wanted, MLflow, which is sent what was drawn."""
    tracker = [tracker_for(view.note)] if mlflow else []
    figures = Figures(facts.study, view.note, *(one.attached for one in tracker))
    for one in tracker:
        one.opened(facts)
    figures.opened()
    return Observers([view, figures, *others, *tracker], output.print_message)


def facts(prepared: PreparedStudy) -> StudyInfo:
    """What the record is told of a study."""
    spec = prepared.spec
    return StudyInfo(
        study=prepared.folder,
        data_name=spec.data.root,
        metric=spec.metric,
        spec_text=spec.text,
        planned=spec.budget.trials,
        names=prepared.space.names,
        tags={"sweep.data": prepared.fingerprint},
        resume=studies.resume_command(prepared.folder),
    )
