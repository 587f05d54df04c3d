"""Retention: keeps the checkpoints of a study's best trials, as many as its file requests."""

from bisect import insort
from pathlib import Path

from sweeper.store import records
from sweeper.store.paths import RunFolder, StudyFolder
from sweeper.trial import TrialResult
from trainers.support.failpoints import failpoint

Rank = tuple[bool, float, int]
MAX_PREDICTIONS = 20 * 2**20  # bytes of predictions that every completed trial keeps
QUEUE = 50  # trials whose large predictions may wait for figures


class Retention:
    """The finished trials whose checkpoints are kept, at most `limit` of them; None keeps all.

    Open and paused trials are never touched. Predictions of completed trials stay; those larger than MAX_PREDICTIONS
    only until their figures exist. Removals that a kill interrupts are completed when the study is resumed.
    """

    def __init__(self, folder: StudyFolder, limit: int | None) -> None:
        self._folder, self._limit = folder, limit
        self._ranks: list[Rank] = []  # the worst first
        self._undrawn: list[RunFolder] = []  # the oldest first

    def ended(self, result: TrialResult) -> None:
        """Add a finished trial whose result is on record, and delete the checkpoints of the one over the limit."""
        if self._limit is None:
            return
        insort(self._ranks, rank(result))
        while len(self._ranks) > self._limit:
            completed, _, number = self._ranks.pop(0)
            self._drop(self._folder.trial(-number), completed=completed)
        self.commit_best()

    def _drop(self, folder: RunFolder, *, completed: bool) -> None:
        if not completed or not folder.val_logits.exists():
            delete_checkpoints(folder)
            return
        delete_checkpoints(folder, but=folder.val_logits)
        if folder.val_logits.stat().st_size > MAX_PREDICTIONS:
            self._undrawn.append(folder)

    def commit_best(self) -> None:
        """Delete large predictions drawn by now, and the oldest if too many wait for figures. Does not block."""
        late = self._undrawn[:-QUEUE]
        done = [folder for folder in self._undrawn if folder in late or records.predictions_drawn(folder)]
        self._undrawn = [folder for folder in self._undrawn if folder not in done]
        for folder in done:
            delete_checkpoints(folder)


def removable(folder: RunFolder, *, completed: bool) -> list[Path]:
    """Return the files that a trial outside the best can do without: not its predictions on val if it completed,
    unless they are large.
    """
    try:
        keeps = completed and folder.val_logits.stat().st_size <= MAX_PREDICTIONS
    except FileNotFoundError:
        keeps = False
    return [path for path in folder.checkpoints if not (keeps and path == folder.val_logits)]


def rank(result: TrialResult) -> Rank:
    """Return a sort key, larger for better trials: the earlier of equal values is better, and trials that did not
    complete come last.
    """
    return result.state == "COMPLETE", result.oriented, -result.number


def outside_best(results: list[TrialResult], limit: int) -> list[TrialResult]:
    """Return the finished trials that are not among the best `limit`, by number."""
    worse = sorted(results, key=rank, reverse=True)[limit:]
    return sorted(worse, key=lambda result: result.number)


def delete_checkpoints(folder: RunFolder, *, but: Path | None = None) -> None:
    """Delete a run's weights, training state and predictions, except `but`; its record, log and figures stay."""
    records.remove_leftovers(folder.root, ended=True)
    for path in folder.checkpoints:
        if path != but:
            path.unlink(missing_ok=True)
            failpoint(f"dropped {path.name}")
