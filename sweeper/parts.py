"""What a study is made of: its question, its folder, Optuna's side of it, and what is known of time and memory."""

from dataclasses import dataclass

import optuna
from optuna.trial import Trial

from sweeper import record, samplers
from sweeper.asking import Asking
from sweeper.clock import Clock
from sweeper.keeping import Kept
from sweeper.memory import UNKNOWN, Here, Memory
from sweeper.paths import StudyFolder
from sweeper.patient import Patience
from sweeper.repeats import Repeats
from sweeper.running import Running
from sweeper.search import StudySpec
from sweeper.space import Space
from sweeper.storage import Mirrored
from sweeper.trial import Job


@dataclass(frozen=True)
class Parts:
    """The parts that a study, its recovery and the ends of its trials share."""

    spec: StudySpec
    space: Space
    folder: StudyFolder
    storage: Mirrored
    study: optuna.Study
    clock: Clock
    asking: Asking
    repeats: Repeats
    memory: Memory
    kept: Kept

    @classmethod
    def open(
        cls, spec: StudySpec, space: Space, folder: StudyFolder, patience: Patience, here: Here = UNKNOWN
    ) -> "Parts":
        """Those of the study in `folder`, which the caller holds; `patience` waits while its database is locked."""
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        storage = Mirrored(folder.database, spec.study, patience)
        study = optuna.load_study(
            storage=storage,
            study_name=spec.study,
            sampler=samplers.sampler(spec.search),
            pruner=samplers.pruner(spec.search, next(space.recipes()).train),
        )
        clock = Clock(folder, spec.budget.hours)
        asking = Asking(spec, space, study, folder, clock, storage.paused)
        repeats, memory, kept = Repeats(), Memory(folder.memory, here), Kept(folder, spec.keep)
        return cls(spec, space, folder, storage, study, clock, asking, repeats, memory, kept)

    def stand(self, trial: Trial, job: Job) -> Running:
        """A begun trial as its folder and Optuna know it."""
        epochs = record.mend(self.folder.trial(trial.number))
        reported = set(self.storage.get_trial(trial._trial_id).intermediate_values)
        pruner = samplers.pruner(self.spec.search, job.recipe.train)
        return Running(job, trial, epochs, reported, pruner, before=len(epochs))
