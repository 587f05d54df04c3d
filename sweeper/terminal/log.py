"""The logs of a study and of its runs: what plain lines say, kept in files."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from sweeper.terminal import summary
from sweeper.terminal.heading import Heading
from sweeper.terminal.summary import Known
from sweeper.terminal.views import Lines
from sweeper.trial import Job, TrialResult
from trainers.support import files
from trainers.support.text import visible


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


def write(path: Path, lines: Iterable[str]) -> None:
    """Add dated lines to a log. On a full disk they are lost, and where its folder was taken away."""
    with suppress(FileNotFoundError):
        try:
            with path.open("a", encoding="utf-8") as log:
                log.writelines(f"{visible(summary.stamped(line))}\n" for line in lines)
        except OSError as error:
            if not files.full(error):
                raise
