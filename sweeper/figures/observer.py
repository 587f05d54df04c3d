"""The observer that requests figures: those of each finished run, and at the end those of the study."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue

from sweeper.errors import UserError
from sweeper.figures.process import FigureClient, FigureRequest, FigureResult
from sweeper.store import records, trial_index
from sweeper.store.paths import RunFolder, StudyFolder
from sweeper.trial import Closing, Job, Kind, Observer, TrialResult
from trainers.epoch import Epoch

STUDY = "study"
DRAWING_TIMEOUT_S = 60.0  # at the end of a session, the study's figures first; one run takes 2 s on an idle machine
Shown = Callable[[Job | None, Sequence[Path]], None]  # files of a run, or of the study


class Figures(Observer):
    """Requests figures from the drawing process and waits for them only at the end, never during training.

    In the caller's thread, `shown` is called with the figures drawn, and `note` once per reason why some were not.
    """

    def __init__(self, study: StudyFolder, note: Callable[[str], None], shown: Shown | None = None) -> None:
        self._study, self._note, self._shown = study, note, shown
        self._client = FigureClient()
        self._reasons: set[str] = set()
        self._troubles: SimpleQueue[str] = SimpleQueue()  # damaged folders, from any thread

    def opened(self) -> None:
        """Request missing figures of earlier sessions too, in a thread, as there may be ten thousand runs."""
        threading.Thread(target=self._catch_up, name="figures", daemon=True).start()

    def started(self, _job: Job, _slot: str) -> None:
        self._deliver()

    def epoch(self, _job: Job, _epoch: Epoch, _best: TrialResult | None) -> None:
        self._deliver()

    def ended(self, job: Job, result: TrialResult) -> None:
        folder = RunFolder(job.folder)
        if records.awaits_figures(folder, result, job.kind):
            self._client.ask(_order(folder))
        self._deliver()

    def note(self, text: str) -> None:
        """Not shown in figures."""

    def closed(self, closing: Closing) -> None:
        """Wait for the figures of the study and its runs, up to a time limit, unless the closing is hurried."""
        try:
            if not closing.hurried:
                self._finish()
        finally:
            self._client.close()
        self._deliver()

    def _finish(self) -> None:
        with self._reporting():
            if any(records.drawable(*one) for one in _ended(self._study)):
                self._client.ask(FigureRequest(key=STUDY, folder=self._study.root, study=True))
        until = time.monotonic() + DRAWING_TIMEOUT_S
        while self._client.left and self._client.wait(max(0.0, until - time.monotonic())):
            self._deliver()
        if left := self._client.left:
            self._miss(f"{left} {'folder was' if left == 1 else 'folders were'} not drawn in time", "late")

    def _catch_up(self) -> None:
        with self._reporting():
            for one in _ended(self._study):
                if records.awaits_figures(*one):
                    self._client.ask(_order(one[0]))

    @contextmanager
    def _reporting(self) -> Iterator[None]:
        """Turn an error from a damaged folder into a note."""
        try:
            yield
        except (UserError, OSError) as error:
            self._troubles.put(str(error).splitlines()[0])

    def _deliver(self) -> None:
        """Pass on the figures drawn since the last call."""
        for order, drawing in self._client.finished():
            for trouble in drawing.troubles:
                self._miss(f"{order.key}: {trouble}", trouble)
            if drawing.files and self._shown is not None:
                self._show(order, drawing, self._shown)
        while not self._troubles.empty():
            trouble = self._troubles.get()
            self._miss(trouble, trouble)

    def _show(self, order: FigureRequest, drawing: FigureResult, shown: Shown) -> None:
        if order.study:
            shown(None, drawing.files)
            return
        with self._reporting():
            if job := records.read_config(RunFolder(order.folder)):
                shown(job.model_copy(update={"folder": order.folder}), drawing.files)

    def _miss(self, text: str, reason: str) -> None:
        if reason not in self._reasons:
            self._reasons.add(reason)
            self._note(f"figures are missing: {text}; `sweep report` tries again")


def _order(folder: RunFolder) -> FigureRequest:
    return FigureRequest(key=f"{folder.root.parent.name}/{folder.root.name}", folder=folder.root)


def _ended(study: StudyFolder) -> Iterator[tuple[RunFolder, TrialResult, Kind]]:
    """Yield every finished trial, confirmation and retraining."""
    for number, entry in trial_index.read(study).items():
        yield study.trial(number), entry.result, "trial"
    for folder in records.retrainings(study):
        job, result = records.read_config(folder), records.read_result(folder)
        if job and result:
            yield folder, result, job.kind
