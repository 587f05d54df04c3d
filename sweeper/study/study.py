"""The study: what the loop asks it and tells it. Optuna decides, the folder remembers.

With `outcomes` and `recovery` it is the only writer of the records.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sweeper.errors import NoResult, UserError
from sweeper.space.compare import difference
from sweeper.space.spec import Confirm
from sweeper.store import extension_files, lock, records, study_file
from sweeper.store.paths import RunFolder
from sweeper.study import recovery, weights
from sweeper.study.active_trial import ActiveTrial
from sweeper.study.gpu_memory import UNKNOWN, MachineInfo
from sweeper.study.outcomes import Outcomes
from sweeper.study.queue import Next
from sweeper.study.state import Definition, StudyState
from sweeper.trial import FIRST, OPEN, Done, Failed, Job, SessionEnd, TrialResult
from trainers.epoch import Epoch
from trainers.support import files


def write_or_compare(study: Definition) -> None:
    """Write down what the study asks, or compare it with what it asked before.

    Budget, sampler, pruner and how much is kept may change, and the place of local weights. Raises UserError with one
    line a difference in anything else, and where the data's fingerprint is another than it was.
    """
    spec, space, folder, fingerprint = study.spec, study.space, study.folder, study.fingerprint
    asked: dict[str, Any] = json.loads(json.dumps(space.identity()))
    before = study_file.read(folder)
    if before and weights.have_moved(before, asked, space):
        before = before | {"identity": weights.moved(folder, before["identity"], asked["train"]["weights"])}
    if before and (lines := difference(_shortened(before["identity"]), _shortened(asked))):
        copies = f", and the Python files from {folder.extensions}" if "extensions" in asked else ""
        raise UserError(
            "\n  ".join([f"{spec.source.name} no longer asks what study '{folder.name}' asked:", *lines]),
            where=str(spec.source),
            help="begin another study, which learns from the trials that still fit, with --new-study NAME; "
            f"or restore the file from {folder.space}{copies}",
        )
    study_file.same_data(folder, fingerprint, spec.data.root)
    document = {
        "schema_version": study_file.SCHEMA_VERSION,
        "study": spec.study,
        "identity": asked,
        "fingerprint": fingerprint,
        "weights": (before or {}).get("weights") or weights.checksums(space),
        "budget": spec.budget.model_dump(mode="json"),
        "search": spec.search.model_dump(mode="json"),
        "keep_checkpoints": spec.keep_checkpoints,
        "rules": spec.rules.model_dump(),
        "slots": study.slots,
        **({"plan": study.plan.document()} if study.plan else {}),
    }
    extension_files.keep(spec.extensions, folder.extensions)
    files.write_text(folder.space, spec.text)
    files.write_text(folder.study_file, json.dumps(document, indent=1) + "\n")


def _shortened(identity: dict[str, Any]) -> dict[str, Any]:
    """The same with the first digits of the checksums of extension files."""
    files = {name: f"sha256 {checksum[:12]}" for name, checksum in identity.get("extensions", {}).items()}
    return identity | ({"extensions": files} if files else {})


HOPELESS = 5  # trials that fail alike, none ever having completed, end a sweep
REFUSED = 20  # trials in a row that are refused, with nothing else to do, end a sweep


class Study:
    """Makes the jobs of a search space and keeps what became of them. One process at a time holds a study.

    Every write is made so that a kill between any two of them is mended by the next `open`: no trial number is
    used twice, no finished trial is lost, and a trial that was running is handed out again by `next_job`.
    """

    def __init__(self, state: StudyState, cache: Path, held: lock.Lock) -> None:
        self.spec, self.folder = state.spec, state.folder
        self._state, self._cache, self._lock = state, cache, held
        self._space, self._optimizer = state.space, state.optimizer
        self._budget, self._queue = state.budget, state.queue
        self._seen, self._gpu_memory = state.seen, state.gpu_memory
        self._running: dict[int, ActiveTrial] = {}
        self._refused = 0  # trials in a row, known to have no memory
        self._failures: list[TrialResult] = []  # in a row, all alike
        self._outcomes = Outcomes(state)
        recovery.recover(state, self._outcomes)

    @classmethod
    def open(
        cls,
        definition: Definition,
        cache: Path,
        *,
        teach: Callable[[], None] | None = None,
        here: MachineInfo = UNKNOWN,
    ) -> "Study":
        """Begin the study in its folder, or take it up again.

        Raises StudyHeld while another process has it, and UserError, which prints the difference, when the study
        there asks another question, or of data with another fingerprint. A new study is told first, by `teach`,
        what it can learn from an earlier one. `here` is what this call trains on.
        """
        folder = definition.folder
        held = lock.acquire(folder.lock)
        try:
            records.remove_leftovers(folder.root)
            if teach and study_file.read(folder) is None:
                teach()
            write_or_compare(definition)
            return cls(StudyState.open(definition, here), cache, held)
        except BaseException:
            held.release()
            raise

    def close(self) -> None:
        """Let go of the study; a full disk costs the time since it was last kept, a second."""
        try:
            if self._lock.there:
                self._state.retention.commit_best()
                self._budget.save(now=True)
        except OSError as error:
            if not files.full(error):
                raise
        finally:
            self._lock.release()

    # ---------------------------------------------------------------------------------- asking
    def next_job(self) -> Job | None:
        """What to train next: first trials that were running when a sweep or a worker died, then paused ones that
        may go on, then new ones.

        None when the budget is used up, or a grid has no configuration left, and no paused trial may go on. None,
        too, after REFUSED refused trials in a row, until another trial ends.
        """
        if self._refused >= REFUSED:
            return None
        found = self._queue.next()
        return self._begin(found) if found else None

    def expect_final(self, growth: float, seconds: float = 0.0) -> None:
        """Keep time for retraining the winner on `growth` times as many images, and `seconds` beside that."""
        self._budget.expect_final(growth, seconds)
        self._outcomes.update_budget_leader()

    def expect_confirmation(self, confirm: Confirm, slots: int) -> None:
        """Keep time for training the best again, so many side by side."""
        self._budget.expect_confirmation(confirm.trainings(slots), confirm.share)
        self._outcomes.update_budget_leader()

    def _begin(self, found: Next) -> Job:
        folder = self.folder.trial(found.number)
        job = self._resumed(folder) if found.params is None else self._born(found.number, found.params)
        folder.paused.unlink(missing_ok=True)
        self._outcomes.left.discard(job.trial)
        active = self._running[job.trial] = self._state.active_trial(job)
        return job.model_copy(update={"recorded": tuple(active.epochs)})

    def _resumed(self, folder: RunFolder) -> Job:
        job = records.started_job(folder)
        return job.model_copy(update={"folder": folder.root, "cache": self._cache, "resumed": True})

    def refuse(self, job: Job) -> TrialResult | None:
        """End a new trial whose configuration another had no memory for: that is FAILED, too. None for any other."""
        other = self._seen.known_oom(job.recipe)
        if other is None or self.epochs(job.trial):
            return None
        self._refused += 1
        said = f"the same configuration ran out of memory in trial {other.number}"
        message = Failed(trial=job.trial, failure="oom", text=said, gpu_memory_gib=other.gpu_memory_gib)
        return self._outcomes.record(self._running.pop(job.trial), "FAILED", message)

    def starting(self, _job: Job) -> None:
        """A trial has its config.json from its birth on."""

    def _born(self, number: int, params: dict[str, Any]) -> Job:
        """The job of a new trial, which exists once its config.json is written."""
        recipe, repeat_of = self._seen.with_fresh_seed(self._space.recipe(params))
        folder = self.folder.trial(number)
        job = Job(
            study=self.spec.study,
            trial=number,
            recipe=recipe,
            params=params,
            folder=folder.root,
            cache=self._cache,
            repeat_of=repeat_of,
        )
        job = self._gpu_memory.begin(job)
        records.write_search(folder, self._optimizer.state(number))
        records.write_config(folder, job)
        self._seen.add(job)
        return job

    # --------------------------------------------------------------------------------- telling
    def report(self, trial: int, epoch: Epoch) -> bool:
        """Record `epoch` of a running trial; False when the trial is to be pruned, or paused, or has no time left.

        An epoch on record is not recorded again. The last one on record is judged once more by the pruner, since a
        kill may have lost its verdict, but not by pausing rungs: those were asked when the trial was handed out.
        """
        running = self._running[trial]
        if epoch.number < len(running.epochs):
            return True
        new = epoch.number == len(running.epochs) + 1
        if new:
            folder = self.folder.trial(trial)
            records.write_search(folder, self._optimizer.state(trial))  # of epochs before, whose verdicts were heard
            records.append(folder, epoch)
            running.epochs.append(epoch)
            self._budget.epoch(running.train, epoch)
        goes_on = self._judge(running, running.epochs[-1]) and not (new and self._pauses(running))
        return goes_on and not (running.left and self._budget.overruns(running.train, len(running.epochs)))

    def _judge(self, running: ActiveTrial, epoch: Epoch) -> bool:
        number = running.job.trial
        self._optimizer.report(number, epoch.number, epoch.value(running.job.recipe.metric))
        if epoch.number < running.job.planned:
            stops = self._queue.asha.stops(running)  # which the rungs learn from, the first trial's too
            running.pruned = number != FIRST and (stops or self._optimizer.should_prune(number, running.train))
        return not running.pruned

    def _pauses(self, running: ActiveTrial) -> bool:
        running.pausing = self._queue.asha.pauses(running, last=self._queue.is_draining)
        return running.pausing

    def tick(self) -> None:
        """Keep the time of sweeping through a kill, and see to it that the study is still there; to be called while
        trials run.

        Raises EnvironmentFault when its folder, or that of a running trial, was taken away.
        """
        records.refuse_gone(one.job.folder for one in self._running.values())
        if not self._lock.there:
            raise records.gone(self.folder.root)
        self._budget.save()

    def epochs(self, trial: int) -> Sequence[Epoch]:
        """The epochs on record of a running trial."""
        return self._running[trial].epochs

    def finish(self, message: Done | Failed) -> TrialResult:
        """Record how the run of a trial ended.

        COMPLETE; PRUNED or PAUSED where `report` said so; INTERRUPTED where it was stopped otherwise, or the disk is
        full: it stays open. FAILED otherwise, but INTERRUPTED and handed out again at once (1) when its worker died
        or hung, or ran out of memory beside other trials on its device: once for each epoch reached; (2) when it ran
        out of memory: first without the images on the GPU, then once with half the micro-batch; (3) when it diverged
        in fp16: in 32 bits.
        """
        result = self._outcomes.finish(self._running.pop(message.trial), message)
        self._refused = 0
        self._count_alike(result)
        return result

    def _count_alike(self, result: TrialResult) -> None:
        """Remember the failures in a row that are alike."""
        if result.state in OPEN:
            return
        same = result.state == "FAILED" and all(_alike(result, other) for other in self._failures)
        self._failures = [*self._failures, result] if same else [result] * (result.state == "FAILED")

    @property
    def over(self) -> SessionEnd | None:
        """Why nothing more may run, where to go on would only burn the budget."""
        if self._refused >= REFUSED and not self._running:
            return self.outcome
        if len(self._failures) < HOPELESS or self.best is not None:
            return None
        reason = f"{HOPELESS} trials in a row failed alike: {self._failures[-1].error}"
        return SessionEnd(NoResult.exit_code, reason)

    @property
    def outcome(self) -> SessionEnd:
        """How a sweep ended that nothing stopped."""
        refused = f"the last {REFUSED} configurations are known to run out of GPU memory; try a smaller image_size"
        reason = refused if self._refused >= REFUSED else self._queue.reason
        if self.best or self.spec.budget.trials == 0:  # the retraining is all there is
            return SessionEnd(reason=reason)
        return SessionEnd(NoResult.exit_code, "; ".join(filter(None, ["no trial completed", reason])))

    def settle(self) -> list[tuple[Job, TrialResult]]:
        """End as PRUNED what is paused, when nothing runs any more and none may go on; returns what ended.

        Where one only lacks the time to, or a trial was left open, all stay so: more hours go on with them.
        """
        stuck = [] if self._queue.resumable or self._outcomes.left else self._queue.asha.stuck()
        return [(one.job, self._outcomes.record(one, "PRUNED")) for one in stuck]

    @property
    def best(self) -> TrialResult | None:
        """The leader among the completed trials."""
        return self._outcomes.best

    def results(self) -> list[TrialResult]:
        """Every trial that was begun, by number, the running ones as they stand."""
        return records.results(self.folder)


def _alike(one: TrialResult, other: TrialResult) -> bool:
    """Whether both failed for the same reason; of memory torch never says the same twice."""
    return one.error == other.error or one.failure == other.failure == "oom"
