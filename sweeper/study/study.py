"""The study: hands jobs to the loop and records its reports. Optuna decides; the state is in the folder.

Together with `outcomes` and `recovery` it is the only writer of the records.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sweeper.errors import NoResult, UserError
from sweeper.space.compare import identity_difference
from sweeper.space.spec import Confirm
from sweeper.store import extension_files, lock, records, study_file
from sweeper.store.paths import RunFolder
from sweeper.study import moved_paths, recovery
from sweeper.study.active_trial import ActiveTrial
from sweeper.study.gpu_memory import UNKNOWN, MachineInfo
from sweeper.study.outcomes import Outcomes
from sweeper.study.queue import Next
from sweeper.study.state import Definition, StudyState
from sweeper.trial import FIRST, OPEN, Done, Failed, Job, SessionEnd, TrialResult
from trainers.epoch import Epoch
from trainers.support import files


def write_or_compare(study: Definition) -> None:
    """Write the definition of a new study, or compare it with the one on record.

    Budget, sampler, pruner, retention and the paths of images and local weights may change. Raises UserError with one
    line per difference in anything else, and if the fingerprint of the data has changed.
    """
    spec, space, folder, fingerprint = study.spec, study.space, study.folder, study.fingerprint
    asked: dict[str, Any] = json.loads(json.dumps(space.identity()))
    before = study_file.read(folder)
    moves = moved_paths.moves(before, asked, space, fingerprint) if before else {}
    known = moved_paths.renamed(before["identity"], moves) if before else asked
    if lines := identity_difference(_shortened(known), _shortened(asked)):
        copies = f", and the Python files from {folder.extensions}" if "extensions" in asked else ""
        raise UserError(
            "\n  ".join([f"{spec.source.name} no longer matches study '{folder.name}':", *lines]),
            where=str(spec.source),
            help="start another study, which learns from the trials that still fit, with --new-study NAME (a name not"
            f" in use); or restore the file from {folder.space}{copies}",
        )
    study_file.same_data(folder, fingerprint, spec.data.root)
    if moves:
        moved_paths.follow(folder, moves)
    document = {
        "schema_version": study_file.SCHEMA_VERSION,
        "study": spec.study,
        "identity": asked,
        "fingerprint": fingerprint,
        "weights": (before or {}).get("weights") or moved_paths.checksums(space),
        "budget": spec.budget.model_dump(mode="json"),
        "search": spec.search.model_dump(mode="json"),
        "keep_checkpoints": spec.keep_checkpoints,
        "rules": spec.rules.model_dump(),
        "slots": study.slots,
        **({"plan": study.plan.document()} if study.plan else {}),
        **{key: value for key, value in (before or {}).items() if key == "searched_hours"},
    }
    extension_files.keep(spec.extensions, folder.extensions)
    files.write_text(folder.space, spec.text)
    files.write_text(folder.study_file, json.dumps(document, indent=1) + "\n")


def _shortened(identity: dict[str, Any]) -> dict[str, Any]:
    """Return the identity with the checksums of extension files shortened to their first digits."""
    files = {name: f"sha256 {checksum[:12]}" for name, checksum in identity.get("extensions", {}).items()}
    return identity | ({"extensions": files} if files else {})


HOPELESS = 5  # consecutive trials that fail alike before any has completed end a sweep
REFUSED = 20  # consecutive refused trials, with nothing else to do, end a sweep


class Study:
    """Makes jobs from a search space and records their outcomes. One process at a time holds a study.

    Writes are ordered so that the next `open` recovers from a kill between any two of them: no trial number is used
    twice, no finished trial is lost, and a trial that was running is handed out again by `next_job`.
    """

    def __init__(self, state: StudyState, cache: Path, held: lock.Lock) -> None:
        self.spec, self.folder = state.spec, state.folder
        self._state, self._cache, self._lock = state, cache, held
        self._space, self._optimizer = state.space, state.optimizer
        self._budget, self._queue = state.budget, state.queue
        self._seen, self._gpu_memory = state.seen, state.gpu_memory
        self._running: dict[str, ActiveTrial] = {}
        self._refused = 0  # consecutive trials known to run out of memory
        self._failures: list[TrialResult] = []  # consecutive, all alike
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
        """Start the study in its folder, or resume it.

        Raises StudyHeld while another process holds it, and UserError with the differences if the definition or the
        fingerprint of the data has changed. For a new study, `teach` is called first to transfer trials of an earlier
        one. `here` describes the machine and data of this session.
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
        """Release the study. On a full disk only the time since the last save is lost, about a second."""
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
        """Return the next job: first trials that were running when a sweep or a worker died, then promotable paused
        ones, then new ones.

        None if the budget is used up, or a grid has no configuration left, and no paused trial may continue. Also
        None after REFUSED refused trials in a row, until another trial finishes.
        """
        if self._refused >= REFUSED:
            return None
        found = self._queue.next()
        return self._begin(found) if found else None

    def expect_final(self, growth: float, seconds: float = 0.0, models: int = 1) -> None:
        """Reserve time for retraining the winner on `growth` times as many images, as several `models` one after
        another, plus `seconds` of overhead.
        """
        self._budget.expect_final(growth, seconds, models)
        self._outcomes.update_budget_leader()

    def expect_confirmation(self, confirm: Confirm, slots: int) -> None:
        """Reserve time for the confirmation of the best trials, with `slots` trainings side by side."""
        self._budget.expect_confirmation(confirm.trainings(slots), confirm.share)
        self._outcomes.update_budget_leader()

    def end_search(self) -> None:
        """Hand out no more jobs, as the search has ended in these hours before."""
        self._queue.ended = True

    def _begin(self, found: Next) -> Job:
        folder = self.folder.trial(found.number)
        job = self._resumed(folder) if found.params is None else self._born(found.number, found.params)
        folder.paused.unlink(missing_ok=True)
        self._outcomes.left.discard(job.trial)
        active = self._running[job.key] = self._state.active_trial(job)
        return job.model_copy(update={"recorded": tuple(active.epochs)})

    def _resumed(self, folder: RunFolder) -> Job:
        job = records.started_job(folder)
        return job.model_copy(update={"folder": folder.root, "cache": self._cache, "resumed": True})

    def refuse(self, job: Job) -> TrialResult | None:
        """Fail a new trial if the same configuration already ran out of memory in another; otherwise return None."""
        other = self._seen.known_oom(job.recipe)
        if other is None or self.epochs(job.key):
            return None
        self._refused += 1
        said = f"the same configuration ran out of memory in trial {other.number}"
        message = Failed(key=job.key, failure="oom", text=said, gpu_memory_gib=other.gpu_memory_gib)
        return self._outcomes.record(self._running.pop(job.key), "FAILED", message)

    def starting(self, _job: Job) -> None:
        """Do nothing: a trial has its config.json from its creation on."""

    def _born(self, number: int, params: dict[str, Any]) -> Job:
        """Create the job of a new trial, which exists once its config.json is written."""
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

    # ------------------------------------------------------------------------------- reporting
    def report(self, key: str, epoch: Epoch) -> bool:
        """Record `epoch` of a running trial; return False if the trial must stop: pruned, paused or out of time.

        An epoch on record is not recorded again. The last one on record is judged by the pruner again, since a kill
        may have lost the verdict, but not by pausing rungs, which were consulted when the trial was handed out.
        """
        running = self._running[key]
        if epoch.number < len(running.epochs):
            return True
        new = epoch.number == len(running.epochs) + 1
        if new:
            folder, number = RunFolder(running.job.folder), running.job.trial
            records.write_search(folder, self._optimizer.state(number))  # up to the epochs whose verdicts are known
            records.append(folder, epoch)
            running.epochs.append(epoch)
            self._budget.epoch(running.train, epoch)
        goes_on = self._judge(running, running.epochs[-1]) and not (new and self._pauses(running))
        return goes_on and not (running.left and self._budget.overruns(running.train, len(running.epochs)))

    def _judge(self, running: ActiveTrial, epoch: Epoch) -> bool:
        number = running.job.trial
        self._optimizer.report(number, epoch.number, epoch.value(running.job.recipe.metric))
        if epoch.number < running.job.planned:
            stops = self._queue.asha.stops(running)  # the rungs learn from this, even for the first trial
            running.pruned = number != FIRST and (stops or self._optimizer.should_prune(number, running.train))
        return not running.pruned

    def _pauses(self, running: ActiveTrial) -> bool:
        running.pausing = self._queue.asha.pauses(running, last=self._queue.is_draining)
        return running.pausing

    def tick(self) -> None:
        """Save the time of sweeping, so that a kill does not lose it, and check that the study still exists; called
        while trials run.

        Raises EnvironmentFault if its folder, or that of a running trial, is gone.
        """
        records.refuse_gone(one.job.folder for one in self._running.values())
        if not self._lock.there:
            raise records.gone(self.folder.root)
        self._budget.save()

    def epochs(self, key: str) -> Sequence[Epoch]:
        """Return the recorded epochs of a running trial."""
        return self._running[key].epochs

    def finish(self, message: Done | Failed) -> TrialResult:
        """Record how the run of a trial ended.

        COMPLETE; PRUNED or PAUSED by the verdict in `report`; INTERRUPTED, and still open, if it was stopped
        otherwise or the disk is full. Any other failure is FAILED, except for these, which are INTERRUPTED and
        retried next: (1) a worker that died or hung, or ran out of memory beside other trials on its device: once per
        epoch reached; (2) out of memory: first without the images on the GPU, then once with half the micro-batch;
        (3) divergence in fp16: in 32 bits.
        """
        result = self._outcomes.finish(self._running.pop(message.key), message)
        self._refused = 0
        self._count_alike(result)
        return result

    def _count_alike(self, result: TrialResult) -> None:
        """Keep count of consecutive failures that are alike."""
        if result.state in OPEN:
            return
        same = result.state == "FAILED" and all(_alike(result, other) for other in self._failures)
        self._failures = [*self._failures, result] if same else [result] * (result.state == "FAILED")

    @property
    def over(self) -> SessionEnd | None:
        """The reason to stop early, if going on would only waste the budget; otherwise None."""
        if self._refused >= REFUSED and not self._running:
            return self.outcome
        if len(self._failures) < HOPELESS or self.best is not None:
            return None
        reason = f"{HOPELESS} trials in a row failed the same way: {self._failures[-1].error}"
        return SessionEnd(NoResult.exit_code, reason)

    @property
    def outcome(self) -> SessionEnd:
        """The outcome of a sweep that ran to its end."""
        refused = f"the last {REFUSED} configurations are known to run out of GPU memory; try a smaller image_size"
        reason = refused if self._refused >= REFUSED else self._queue.reason
        if self.best or self.spec.budget.trials == 0:  # the retraining is all there is
            return SessionEnd(reason=reason)
        return SessionEnd(NoResult.exit_code, "; ".join(filter(None, ["no trial completed", reason])))

    def settle(self) -> list[tuple[Job, TrialResult]]:
        """Prune the paused trials if none may continue, once nothing is running; return them with their results.

        If a trial is only out of time, or one was left open, all stay paused, so that more hours can resume them.
        """
        waits = self._queue.ended or self._queue.resumable or self._outcomes.left
        stuck = [] if waits else self._queue.asha.stuck()
        return [(one.job, self._outcomes.record(one, "PRUNED")) for one in stuck]

    @property
    def best(self) -> TrialResult | None:
        """The leader among the completed trials."""
        return self._outcomes.best

    def results(self) -> list[TrialResult]:
        """Return the results of all started trials by number, the running ones as they stand."""
        return records.results(self.folder)


def _alike(one: TrialResult, other: TrialResult) -> bool:
    """True if both failed for the same reason; out-of-memory errors are alike, as torch's messages always differ."""
    return one.error == other.error or one.failure == other.failure == "oom"
