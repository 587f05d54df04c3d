"""What is said of a study and of its runs, kept in files: the logs, and where running trials are just now."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from sweeper.terminal import summary
from sweeper.terminal.heading import Heading
from sweeper.terminal.summary import Known
from sweeper.terminal.views import Lines
from sweeper.trial import Closing, Job, Observer, RunningTrial, RunningTrials, TrialResult
from trainers.epoch import Epoch
from trainers.support import files
from trainers.support.position import Position
from trainers.support.text import visible

PUBLISHED_EVERY_S = 1.0  # seconds, at most that often


class Log(Lines):
    """Adds every line to the study's log, and what is said of a run to the run's own."""

    def __init__(self, path: Path, of_run: Callable[[Job], Path], known: Known | None = None) -> None:
        super().__init__(known)
        self._path, self._of_run = path, of_run

    def begin(self, heading: Heading, results: Sequence[TrialResult]) -> None:
        """With what was understood of the data, which a person was told before."""
        write(self._path, heading.data)
        super().begin(heading, results)

    def said(self, text: str, job: Job | None = None) -> None:
        for path in (self._path, *([self._of_run(job)] if job else [])):
            write(path, [text])


class Published(Observer):
    """Keeps in a file where running trials are, for whoever watches from another process."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._running: dict[int, RunningTrial] = {}
        self._positions: Mapping[int, Position] = {}
        self._written: tuple[RunningTrial, ...] = ()
        self._due = 0.0  # when it may be written again

    def moved(self, positions: Mapping[int, Position]) -> None:
        self._positions = positions
        if time.monotonic() >= self._due:
            self._publish()

    def started(self, job: Job, slot: str) -> None:
        self._running[job.trial] = RunningTrial(trial=job.trial, slot=slot, folder=str(job.folder))
        self._publish()

    def _publish(self) -> None:
        at = self._positions.get
        found = tuple(one.model_copy(update={"at": at(trial)}) for trial, one in self._running.items())
        if found != self._written:
            _put(self._path, f"{RunningTrials(trials=found).model_dump_json()}\n", "w")
            self._written, self._due = found, time.monotonic() + PUBLISHED_EVERY_S

    def epoch(self, _job: Job, _epoch: Epoch, _best: TrialResult | None) -> None:
        """The record has it."""

    def ended(self, job: Job, _result: TrialResult) -> None:
        self._running.pop(job.trial, None)

    def note(self, text: str) -> None:
        """The log has it."""

    def closed(self, _closing: Closing) -> None:
        self._path.unlink(missing_ok=True)


def write(path: Path, lines: Iterable[str]) -> None:
    """Add dated lines to a log. On a full disk they are lost, and where its folder was taken away."""
    _put(path, "".join(f"{visible(summary.stamped(line))}\n" for line in lines), "a")


def _put(path: Path, text: str, mode: str) -> None:
    with suppress(FileNotFoundError):
        try:
            with path.open(mode, encoding="utf-8") as file:
                file.write(text)
        except OSError as error:
            if not files.full(error):
                raise
