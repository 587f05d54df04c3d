"""One session of a sweep: lock, study, observers, executor, and the loop."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

from sweeper import text
from sweeper.engine import disk_pause, loop, prepare
from sweeper.engine.observers import Observers
from sweeper.engine.options import Options
from sweeper.engine.prepare import PreparedStudy
from sweeper.errors import DiskFull, UserError
from sweeper.executors.local import Local
from sweeper.figures.observer import Figures
from sweeper.search.export import OptunaExport
from sweeper.store import paths, records, studies, study_file, trial_index
from sweeper.store.paths import RunFolder, StudyFolder
from sweeper.store.ranking import parameter_names, tables
from sweeper.study import transfer
from sweeper.study.budget import TimeBudget
from sweeper.study.gpu_memory import MachineInfo
from sweeper.study.state import Definition
from sweeper.study.study import Study
from sweeper.system import devices, disks
from sweeper.system.signals import Stop, listening
from sweeper.terminal import output, views
from sweeper.terminal.events import Events
from sweeper.terminal.heading import Heading
from sweeper.terminal.log import Log, Published
from sweeper.terminal.summary import Known
from sweeper.tracking.reconcile import StudyInfo
from sweeper.tracking.tracker import tracker_for
from sweeper.trial import Closing, Observer, SessionEnd, State
from trainers.support import files

if TYPE_CHECKING:
    from sweeper.executors import Executor
    from trainers.config import TrainConfig


MakeExecutor = Callable[[Observers], "Executor"]
"""Makes the executor once its observers exist."""
NOTHING_LEFT = "nothing was left to do: give --trials N or --hours H for more"
NO_TRIAL_LEFT = "no trial was left to run: give --trials N or --hours H for more"
STATES: dict[int, State] = {0: "COMPLETE", 5: "FAILED"}
"""The state of a study's run in MLflow by exit code; any other code means INTERRUPTED."""


class FinalCost(NamedTuple):
    """The cost of retraining: its images as a multiple of a trial's, its seconds outside epochs, and the models that
    are retrained one after another.
    """

    growth: float
    seconds: float
    models: int


@dataclass
class Session:
    """A sweep of a prepared study: opens and holds the study, then runs the loop; repeats both after a full disk."""

    prepared: PreparedStudy
    options: Options
    make_executor: MakeExecutor
    command: str  # the one that resumes it
    heading: Heading
    stop: Stop = field(default_factory=Stop)
    started: bool = False  # the study was opened, so there is something to report at the end
    announced: bool = False  # the heading was printed
    final: FinalCost | None = None  # of the retraining that follows, if any

    @property
    def searches(self) -> bool:
        """True if there are trials, and not only one training on train and val."""
        return self.prepared.spec.budget.trials != 0

    @property
    def retrains(self) -> bool:
        """True if a retraining follows within the hours."""
        return self.options.retrains(self.prepared.spec)

    @property
    def goes_on(self) -> bool:
        """True if more follows automatically: new seeds for the best trials, or the winner's retraining."""
        return self.retrains or (self.searches and self.prepared.spec.search.confirm is not None)

    @property
    def _hours_alone(self) -> float:
        """The hours if they are the only budget of a search and its winner's retraining, else 0."""
        hours = self.prepared.spec.budget.hours if self.prepared.spec.by_hours and self.final else None
        return hours or 0.0

    def run(self) -> SessionEnd:
        """Train until the budget is used up or a signal arrives."""
        self.final = self._estimate_final() if self.retrains else None
        with listening(self.stop), self.stop.explained():
            ended = disk_pause.retry_when_disk_full(self._run_once, self.prepared.folder, self.stop)
            return ended or self._given_up()

    def _given_up(self) -> SessionEnd:
        """Return how the session ended if the user stopped the wait for disk space."""
        return SessionEnd(
            self.stop.exit_code, "stopped at once" if self.stop.again else "stopped while the disk was full"
        )

    def _run_once(self) -> SessionEnd:
        """Open the study, train, and close it."""
        folder, study = self.prepared.folder, self._open()
        self.started = True
        try:
            files.write_text(folder.resume_command, self.command + "\n")
            files.write_text(folder.data, self.prepared.summary.model_dump_json(indent=1) + "\n")
            self._expect(study)
            before = study.results()
            outcome = self._train(study)
            if self._hours_alone and outcome.exit_code == 0:
                study_file.end_search(folder, self._hours_alone)
        finally:
            study.close()
        idle = self.searches and outcome.exit_code == 0 and records.results(folder) == before
        return replace(outcome, reason=NO_TRIAL_LEFT if self.goes_on else NOTHING_LEFT) if idle else outcome

    def _expect(self, study: Study) -> None:
        """Reserve time in the study for what follows the search, unless it has ended in these hours before."""
        if self.final:
            study.expect_final(*self.final)
        if 0 < self._hours_alone <= study_file.searched_hours(study.folder):
            study.end_search()
        if confirm := self.prepared.spec.search.confirm:
            study.expect_confirmation(confirm, len(self.prepared.slots))

    def clock(self, leader: "TrainConfig", epochs: int) -> TimeBudget:
        """Return the study's clock between two sessions, with time for retraining `leader` if that follows."""
        folder = self.prepared.folder
        spec = self.prepared.spec
        made = TimeBudget(folder, spec.budget.hours, trial_index.read(folder), folds=spec.search.folds or 1)
        if self.final:
            made.expect_final(*self.final)
        made.leads(leader, min(epochs, leader.epochs))
        return made

    def _open(self) -> Study:
        prepared = self.prepared
        return Study.open(
            Definition(
                prepared.spec,
                prepared.space,
                prepared.folder,
                prepared.fingerprint,
                prepared.plan,
                prepared.per_device,
            ),
            paths.cache(),
            teach=self._warm_start,
            here=MachineInfo(prepared.training_sizes[0], lambda: devices.smallest(prepared.slots)),
        )

    def _warm_start(self) -> None:
        """Transfer an earlier study's trials to a new one, and print which."""
        prepared = self.prepared
        source = self.options.teacher(prepared.spec.source)
        if source:
            lines = transfer.warm_start(prepared.spec, prepared.space, prepared.folder, source, prepared.fingerprint)
            for line in lines:
                output.print_message(line)

    def _estimate_final(self) -> FinalCost:
        """Estimate the cost of a retraining; the data it needs is read now, before the hours start to count."""
        started = time.monotonic()
        table = prepare.checked(self.prepared.spec.data).table
        prepare.decode(table, self.prepared.spec.data, self.prepared.space.framing)
        train, val = prepare.training_sizes(table, self.prepared.spec)
        plan, growth, took = self.prepared.plan, (train + val) / max(train, 1), time.monotonic() - started
        return FinalCost(growth, took + plan.combining, plan.models) if plan else FinalCost(growth, took, 1)

    def _train(self, study: Study) -> SessionEnd:
        """Run the loop with all observers."""
        told = self._views(study)
        observers = self._observers(told)
        state: State = "INTERRUPTED"
        hurry = False
        try:
            if line := self.prepared.room.outlook(self.prepared.spec, self.prepared.space.recipes()):
                told.note(line)
            executor = self.make_executor(observers)
            outcome = loop.run(study, executor, observers, stop=self.stop, room=self.prepared.room)
            state = STATES.get(outcome.exit_code, "INTERRUPTED")
        except DiskFull:
            hurry = True
            raise
        finally:
            observers.closed(self._closing(state, hurry=hurry))
        return outcome

    def _views(self, study: Study) -> Observers:
        """Return the view and the log as observers, with heading and plan shown."""
        folder, budget = self.prepared.folder, self.prepared.spec.budget
        left = budget.hours and max(0.0, budget.hours * 3600 - records.elapsed_seconds(folder))
        browse = [f"browse: sweep ui {folder.name}"] if self.options.mlflow else []
        where = [f"files: {text.relative_path(folder.root)}", *browse]
        found = speakers(folder, self.prepared.space.names, where, events=self.options.events)
        for one in found:
            if not self.announced:
                one.begin(self.heading, study.results())
            one.plan(budget.trials, study.results(), left)
        self.announced = True
        told = Observers(found, output.print_message)
        if kind := disks.network(folder.root):
            told.note(disks.words(paths.home(), kind))
        return told

    def _observers(self, told: Observers) -> Observers:
        """Return all observers; without a search, `told` alone, as the retraining has its own."""
        if not self.searches:
            return told
        prepared = self.prepared
        export = OptunaExport(prepared.folder, prepared.space.suggest, told.note, minimize=prepared.spec.minimize)
        observers = observers_for(told, facts(prepared), export, mlflow=self.options.mlflow)
        export.opened()
        return observers

    def _closing(self, state: State, *, hurry: bool) -> Closing:
        if self.stop.again:  # the next `sweep run` or `sweep ui` shows the rest
            return Closing(state, timeout=0.0)
        timeout = 1.0 if self.stop.requested or hurry or self.goes_on else 10.0  # the next step shows the rest, too
        followed = self.goes_on and not self.stop.requested
        return Closing(state, tuple(tables(self.prepared.folder)), timeout, followed=followed)


def make_executor(prepared: PreparedStudy, options: Options, observers: Observers) -> "Executor":
    from sweeper.executors.inline import Inline

    if options.inline:
        return Inline(prepared.slots[0].device, observers.moved)
    if options.ray:
        return _cluster(options.ray, prepared, options, observers.note)
    return Local.on(prepared.slots, options.per_device)


def _cluster(address: str, prepared: PreparedStudy, options: Options, note: Callable[[str], None]) -> "Executor":
    try:
        from sweeper.executors.ray import Ray
    except ModuleNotFoundError as error:
        if error.name != "ray":
            raise
        raise UserError("Ray is not installed", where="--ray", help="pip install 'ray>=2.50'") from None
    image = prepared.table.root / prepared.table.rows[0].path
    return Ray(address, prepared.folder.lock, image, note, slots=options.per_device, cpu=options.devices == "cpu")


def speakers(
    study: StudyFolder, names: Iterable[str], where: Sequence[str], *, events: bool
) -> tuple[views.View, views.View]:
    """Return the view, or JSON lines with `events`, and the log; `names` are the parameters of the runs they show."""
    known = Known(parameter_names(names), lambda job: records.history(RunFolder(job.folder)))
    view = Events(known) if events else views.choose(where=where, known=known)
    return view, Log(study.log, lambda job: RunFolder(job.folder).log, known)


def observers_for(told: Observers, facts: StudyInfo, *others: Observer, mlflow: bool) -> Observers:
    """Return `told`, the figures, `others` and, with `mlflow`, the tracker, which also uploads the figures."""
    tracker = [tracker_for(told.note)] if mlflow else []
    figures = Figures(facts.study, told.note, *(one.attached for one in tracker))
    for one in tracker:
        one.opened(facts)
    figures.opened()
    return Observers([told, Published(facts.study.running), figures, *others, *tracker], output.print_message)


def facts(prepared: PreparedStudy) -> StudyInfo:
    """Return what MLflow shows about a study."""
    spec = prepared.spec
    return StudyInfo(
        study=prepared.folder,
        data_name=spec.data.root,
        metric=spec.metric,
        minimize=spec.minimize,
        spec_text=spec.text,
        planned=spec.budget.trials,
        names=prepared.space.names,
        tags={"sweep.data": prepared.fingerprint},
        resume=studies.resume_command(prepared.folder),
    )
