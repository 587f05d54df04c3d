"""The parts of a study: its definition, folder, optimizer, and knowledge of time and memory."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sweeper.search import history
from sweeper.search.optimizer import Optimizer
from sweeper.space.space import Space
from sweeper.space.spec import StudySpec
from sweeper.store import records
from sweeper.store.paths import StudyFolder
from sweeper.store.retention import Retention
from sweeper.store.trial_index import Entry
from sweeper.study import transfer
from sweeper.study.active_trial import ActiveTrial
from sweeper.study.budget import TimeBudget
from sweeper.study.gpu_memory import UNKNOWN, GpuMemoryLimits, MachineInfo
from sweeper.study.planner import HoursPlan
from sweeper.study.queue import SeenConfigurations, TrialQueue
from sweeper.study.transfer import TransferredTrial
from sweeper.trial import Job


@dataclass(frozen=True)
class Definition:
    """The definition of a study: its file, the search space in it, its folder, the fingerprint of its images, labels
    and splits, the plan for its hours, and the number of trials that share a device.
    """

    spec: StudySpec
    space: Space
    folder: StudyFolder
    fingerprint: str = ""
    plan: HoursPlan | None = None
    slots: int | str = 1


@dataclass(frozen=True)
class StudyState:
    """The state shared by a study, its recovery and its outcomes."""

    spec: StudySpec
    space: Space
    folder: StudyFolder
    ended: Mapping[int, Entry]  # trials that had finished when it was opened
    learnt: Sequence[TransferredTrial]  # from another study
    optimizer: Optimizer
    budget: TimeBudget
    queue: TrialQueue
    seen: SeenConfigurations
    gpu_memory: GpuMemoryLimits
    retention: Retention

    @classmethod
    def open(cls, definition: Definition, here: MachineInfo = UNKNOWN) -> "StudyState":
        """Build the state of a study that the caller holds."""
        spec, space, folder = definition.spec, definition.space, definition.folder
        ended, transferred = records.ended(folder), transfer.read(folder)
        learnt = transferred.trials if transferred else ()
        past = history.past_trials(folder, ended, space.suggest)
        optimizer = Optimizer(
            spec.search,
            space,
            past,
            history.transferred(learnt, space.suggest),
            minimize=spec.minimize,
            states=records.search_states(folder, len(past)) if spec.search.has_own else {},
        )
        budget = TimeBudget(folder, spec.budget.hours, ended, folds=spec.search.folds or 1)
        queue = TrialQueue(spec, space, optimizer, folder, budget)
        queue.begin([one.params for one in learnt])
        seen, retention = SeenConfigurations(), Retention(folder, spec.keep_checkpoints)
        gpu_memory = GpuMemoryLimits(folder.gpu_memory, here)
        for one in learnt:
            seen.note(one.configuration, one.seed, None)
        return cls(spec, space, folder, ended, learnt, optimizer, budget, queue, seen, gpu_memory, retention)

    def active_trial(self, job: Job) -> ActiveTrial:
        """Return a trial with the epochs recorded in its folder."""
        epochs = records.repair(self.folder.trial(job.trial))
        return ActiveTrial(job, epochs, before=len(epochs))
