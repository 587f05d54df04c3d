"""The tracker: shows the content of the run folders in MLflow, and reads nothing back."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from queue import SimpleQueue
from threading import Lock
from typing import Any

from sweeper.space.compare import opened
from sweeper.store import study_file
from sweeper.store.paths import RunFolder
from sweeper.store.studies import StudyStatus
from sweeper.text import redacted
from sweeper.tracking import content, sync_state
from sweeper.tracking.background import RETRY_INTERVAL_S, BackgroundQueue
from sweeper.tracking.client import Server, _line, uri
from sweeper.tracking.reconcile import CLOSE, FILES, STANDING, STUDY, Reconciler, Refused, Sent, StudyInfo
from sweeper.tracking.sync_state import Event
from sweeper.trial import Closing, Job, Observer, State, TrialResult
from trainers.epoch import Epoch
from trainers.support.text import brief

LOAD_TIMEOUT_S = 60.0  # seconds to load the library on a busy machine
SLOW_CALL_S = 5.0  # seconds after which an unanswered call is reported
STUDY_UPDATE_DELAY_S = 1.0  # seconds to wait for more trials to finish before the study's own metrics are sent


_locks: defaultdict[tuple[str, Path], Lock] = defaultdict(Lock)
"""By server and study: an abandoned tracker finishes its current task before its successor in this process sends."""


class MlflowTracker(Observer):
    """An observer that sends to MLflow from its own thread: a dead or silent server costs telemetry, not training.

    `note` is called, in the caller's thread, when MLflow stops answering and when it answers again; `recipe_text`
    renders a job's recipe for config.yaml (default: JSON).
    """

    def __init__(
        self,
        note: Callable[[str], None],
        *,
        recipe_text: Callable[[Job], str] | None = None,
        pause: float = RETRY_INTERVAL_S,
    ) -> None:
        self._note, self._recipe_text = note, recipe_text or _json
        self._reconciler: Reconciler | None = None
        self.sender = BackgroundQueue(self._do, self._failed, pause=pause)
        self._news: SimpleQueue[str] = SimpleQueue()
        self._reasons: set[str] = set()
        self.down = self._slow = self._named = False

    def opened(self, facts: StudyInfo) -> None:
        """Start or resume the study's run, with everything in its folders."""
        self._reconciler = Reconciler(facts, lambda: Server(self._news.put), self._recipe_text)
        self.sender.submit(STUDY)

    def started(self, job: Job, _slot: str) -> None:
        self._receive(job, "started")

    def epoch(self, job: Job, epoch: Epoch, _best: TrialResult | None) -> None:
        self._report_names(epoch)
        self._receive(job, epoch)

    def ended(self, job: Job, result: TrialResult) -> None:
        self._receive(job, result)
        self.sender.submit(STANDING, STUDY_UPDATE_DELAY_S)

    def attached(self, job: Job | None, files: Sequence[Path]) -> None:
        """Attach `files` to a run, or to the study; the files of a final model are found in its folder anyway."""
        if job is None:
            self.reconciler.receive(None, tuple(files))
            self._ask(FILES)
        else:
            self._receive(job, tuple(files))

    def note(self, text: str) -> None:
        """Not shown in MLflow."""

    def closed(self, closing: Closing) -> None:
        """End the study's run, and every unfinished run as INTERRUPTED; waits as long as data is being sent."""
        begins = not (closing.hurried or self.reconciler.connected or self.down)
        timeout = LOAD_TIMEOUT_S if begins else closing.timeout
        left = self._finish(closing, timeout, lambda: None if closing.hurried else self.reconciler.moved)
        if left and not closing.followed:
            self._note("MLflow still lacks part of this study; the next `sweep run` or `sweep ui` sends the rest")

    def caught_up(self, state: State, *, files: Sequence[Path], patience: float) -> bool:
        """Do the same, as long as something arrives every `patience` seconds; True if MLflow has all then."""
        return not self._finish(Closing(state, tuple(files)), patience, lambda: self.reconciler.moved)

    @property
    def sent(self) -> Sent:
        """The data sent since the study was opened."""
        return self.reconciler.sent

    def _finish(self, closing: Closing, timeout: float, moved: Callable[[], object]) -> int:
        """Return the number of tasks not done after `timeout` seconds in which nothing has `moved`."""
        self.reconciler.receive(None, closing)
        self.sender.submit(CLOSE)
        left = self.sender.drain(timeout, moved)
        self._report()
        return left

    @property
    def reconciler(self) -> Reconciler:
        """The reconciler of the open study."""
        if self._reconciler is None:
            raise RuntimeError("the study was not opened")
        return self._reconciler

    def _receive(self, job: Job, event: Event) -> None:
        self.reconciler.receive(job, event)
        self._ask(sync_state.key(RunFolder(job.folder)))

    def _ask(self, key: str) -> None:
        self.sender.submit(key)
        self._report()

    def _report(self) -> None:
        while not self._news.empty():
            self._note(self._news.get())
        if self.reconciler.connected and self.sender.busy > SLOW_CALL_S and not self._slow:
            self._slow = True
            self._note(f"MLflow at {redacted(uri())} is slow to answer, or locked; training continues")

    def _report_names(self, epoch: Epoch) -> None:
        """Report, once, the categories that have other names in MLflow."""
        if epoch.val and not self._named:
            self._named = True
            others = [one for one in content.keys(epoch.val.category_accuracy).items() if one[0] != one[1]]
            if others:
                named = ", ".join(f"{brief(name)!r} is {brief(key)!r}" for name, key in others)
                self._note(f"MLflow does not allow some category names: {named} there")

    def _do(self, task: str) -> None:
        try:
            with _locks[uri(), self.reconciler.facts.study.root]:
                self.reconciler.handle(task)
        except Refused as error:
            self._refused(_line(error))
        if self.down:
            self.down = False
            self._news.put("MLflow answers again; what it missed has been sent")

    def _refused(self, why: str) -> None:
        if why not in self._reasons:
            self._reasons.add(why)
            self._news.put(f"MLflow refuses part of the data: {why}; training continues")

    def _failed(self, error: Exception) -> None:
        if not self.down:
            self.down = True
            self._news.put(f"MLflow at {redacted(uri())} does not answer ({_line(error)}); training continues")


def _json(job: Job) -> str:
    return job.recipe.model_dump_json(indent=2) + "\n"


# ------------------------------------------------------------------------------------- the library


def facts(one: StudyStatus) -> StudyInfo:
    """Return the facts of a study that is not running, from its folder, without reading its data set."""
    document: Mapping[str, Any] = study_file.read(one.study) or {}
    asked = document["identity"]
    fingerprint = document.get("fingerprint")
    return StudyInfo(
        study=one.study,
        data_name=asked["data"]["root"],
        metric=asked["metric"],
        minimize=asked.get("minimize", False),
        spec_text=one.study.space.read_text(encoding="utf-8"),
        planned=one.planned,
        names=list(opened(asked["train"])),
        tags={"sweep.data": fingerprint} if fingerprint else {},
        resume=one.resume,
    )


def tracker_for(note: Callable[[str], None]) -> MlflowTracker:
    from sweeper.space import yaml_io

    return MlflowTracker(note, recipe_text=lambda job: yaml_io.recipe_yaml(job.study, job.recipe, comment=job.title))
