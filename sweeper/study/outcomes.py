"""The ways in which a trial stops running: it finishes, pauses at a rung, or stays open to be resumed."""

from sweeper.store import records
from sweeper.store.trial_index import digest
from sweeper.study.active_trial import ActiveTrial
from sweeper.study.state import StudyState
from sweeper.trial import Done, Failed, Failure, Job, State, TrialResult
from trainers.support.failpoints import failpoint

RETRIED: tuple[Failure, ...] = ("died", "hung")
IN_FULL = "continues in full precision"


class Outcomes:
    """Decides the outcome of a trial that has stopped running, records it, and updates every part of the study.

    The result is written to the run's folder before anything is removed; recovery relies on that.
    """

    def __init__(self, state: StudyState) -> None:
        self.best: TrialResult | None = None
        self.left: set[int] = set()  # trials that ran in this session and were left open
        self._deaths: dict[int, int] = {}  # epochs that a trial had when its worker died
        self._folder, self._optimizer = state.folder, state.optimizer
        self._budget, self._queue = state.budget, state.queue
        self._seen, self._gpu_memory, self._retention = state.seen, state.gpu_memory, state.retention

    # ------------------------------------------------------------------------------- deciding
    def finish(self, one: ActiveTrial, message: Done | Failed) -> TrialResult:
        """Record how the run of a trial ended, by its worker's last message."""
        return self._fail(one, message) if isinstance(message, Failed) else self._finish(one, message)

    def _finish(self, one: ActiveTrial, message: Done) -> TrialResult:
        """Record a trial whose worker is done: PRUNED or PAUSED by the verdict on its last epoch, INTERRUPTED if
        stopped, FAILED without an epoch, else COMPLETE.
        """
        if one.pruned:
            return self.record(one, "PRUNED")
        if one.pausing:
            return self.pause(self._release(one))
        if message.stopped and one.left > 0:
            return self._interrupt(one)
        if not one.epochs:
            text = "the worker finished without an epoch"
            return self.record(one, "FAILED", Failed(key=one.job.key, failure="error", text=text))
        return self.record(one, "COMPLETE", message)

    def _fail(self, one: ActiveTrial, message: Failed) -> TrialResult:
        """Record a trial whose worker is lost: FAILED, or one of the retries described in `Study.finish`."""
        trial, epochs = one.job.trial, len(one.epochs)
        chance = message.failure in RETRIED or (message.failure == "oom" and message.shared_device)
        if message.failure == "disk":
            return self._interrupt(one, message)
        if chance and one.pausing:
            return self.pause(self._release(one))
        if chance and self._deaths.get(trial) != epochs:
            self._deaths[trial] = epochs
            return self._retry(one, message, f"{message.text}; retrying")
        if remedy := self._remedy(one.job, message):
            job, text = remedy
            records.write_config(self._folder.trial(trial), job)
            return self._retry(one, message, text)
        return self.record(one, "FAILED", message)

    def _remedy(self, job: Job, message: Failed) -> tuple[Job, str] | None:
        """Return the job changed to avoid the same failure, and a message on how it continues; else None."""
        if message.failure == "oom":
            lighten = self._gpu_memory.unload if message.resident else self._gpu_memory.halve_micro_batch
            smaller = lighten(job, message.gpu_memory_gib)
            return (smaller, self._gpu_memory.explanation(smaller, message.text)) if smaller else None
        if message.failure == "overflow" and not job.full_precision:
            return job.model_copy(update={"full_precision": True}), f"{message.text}; {IN_FULL}"
        return None

    # -------------------------------------------------------------------------------- outcomes
    def pause(self, one: ActiveTrial) -> TrialResult:
        """Pause a trial at its rung."""
        one.pausing, one.before = False, len(one.epochs)
        self._queue.asha.add(one)
        self._optimizer.pause(one.job.trial)
        self._folder.trial(one.job.trial).paused.touch()
        failpoint("paused")
        return records.result_of(one.job, one.epochs, "PAUSED")

    def _retry(self, one: ActiveTrial, message: Failed, text: str) -> TrialResult:
        """Leave a trial open and queue it to run again."""
        self._queue.resumable.append(one.job.trial)
        return self._interrupt(one, message.model_copy(update={"text": text}))

    def _interrupt(self, one: ActiveTrial, message: Failed | None = None) -> TrialResult:
        self._release(one)
        self.left.add(one.job.trial)
        return records.result_of(one.job, one.epochs, "INTERRUPTED", message)

    def record(self, one: ActiveTrial, state: State, message: Done | Failed | None = None) -> TrialResult:
        """Record the final outcome of a trial."""
        folder = self._folder.trial(one.job.trial)
        self._release(one)
        result = records.result_of(one.job, one.epochs, state, message)
        if result.failure == "oom":
            self._seen.mark_oom(digest(one.job.recipe), result)
        records.remove_leftovers(one.job.folder, ended=True)
        records.write_result(folder, result)
        folder.paused.unlink(missing_ok=True)
        self._optimizer.tell(result)
        records.write_search(folder, self._optimizer.state(result.number))
        self.update_best(result)
        self._retention.ended(result)
        self._queue.asha.ended(result.number, result.state, result.epochs)
        return result

    def _release(self, one: ActiveTrial) -> ActiveTrial:
        """Update the clock with the overhead of a trial that has stopped running; return the trial."""
        if (rest := one.rest) is not None:
            self._budget.learn_overhead(rest)
        return one

    # ------------------------------------------------------------------------------- updating
    def update_best(self, result: TrialResult) -> None:
        """Update the best trial with a recorded result."""
        if result.state == "COMPLETE" and (self.best is None or result.oriented > self.best.oriented):
            self.best = result
            self.update_budget_leader()

    def update_budget_leader(self) -> None:
        """Update the clock with the best trial if anything is to be trained again after the search."""
        if self._budget.wants_leader and self.best:
            job = records.read_config(self._folder.trial(self.best.number))
            if job:
                self._budget.leads(job.recipe.train, min(self.best.epoch or 0, job.recipe.train.epochs))
