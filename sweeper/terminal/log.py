"""Files about a running study: its log, the logs of its runs, and the positions of running trials."""

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

PUBLISHED_EVERY_S = 1.0  # seconds between two writes, at least


class Log(Lines):
    """Append every line to the study's log, and lines about a run to the run's log as well."""

    def __init__(self, path: Path, of_run: Callable[[Job], Path], known: Known | None = None) -> None:
        super().__init__(known)
        self._path, self._of_run = path, of_run

    def begin(self, heading: Heading, results: Sequence[TrialResult]) -> None:
        """Write the heading, preceded by the data summary that the terminal has already shown."""
        write(self._path, heading.data)
        super().begin(heading, results)

    def line(self, text: str, job: Job | None = None) -> None:
        for path in (self._path, *([self._of_run(job)] if job else [])):
            write(path, [text])


class Published(Observer):
    """Publish the positions of running trials in a file, for other processes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._running: dict[str, RunningTrial] = {}
        self._positions: Mapping[str, Position] = {}
        self._written: tuple[RunningTrial, ...] = ()
        self._due = 0.0  # the earliest time of the next write

    def moved(self, positions: Mapping[str, Position]) -> None:
        self._positions = positions
        if time.monotonic() >= self._due:
            self._publish()

    def started(self, job: Job, slot: str) -> None:
        self._running[job.key] = RunningTrial(key=job.key, slot=slot)
        self._publish()

    def _publish(self) -> None:
        at = self._positions.get
        found = tuple(one.model_copy(update={"at": at(key)}) for key, one in self._running.items())
        if found != self._written:
            _put(self._path, f"{RunningTrials(trials=found).model_dump_json()}\n", "w")
            self._written, self._due = found, time.monotonic() + PUBLISHED_EVERY_S

    def epoch(self, _job: Job, _epoch: Epoch, _best: TrialResult | None) -> None:
        """Not published: the record has it."""

    def ended(self, job: Job, _result: TrialResult) -> None:
        self._running.pop(job.key, None)

    def note(self, text: str) -> None:
        """Not published: the log has it."""

    def closed(self, _closing: Closing) -> None:
        self._path.unlink(missing_ok=True)


def write(path: Path, lines: Iterable[str]) -> None:
    """Append dated lines to a log. They are lost if the disk is full or the log's folder is gone."""
    _put(path, "".join(f"{visible(summary.stamped(line))}\n" for line in lines), "a")


def _put(path: Path, text: str, mode: str) -> None:
    with suppress(FileNotFoundError):
        try:
            with path.open(mode, encoding="utf-8") as file:
                file.write(text)
        except OSError as error:
            if not files.full(error):
                raise
