"""Whose checkpoints are kept: those of a study's best trials, as many as its file says."""

from bisect import insort

from sweeper import record
from sweeper.paths import RunFolder, StudyFolder
from sweeper.trial import TrialResult
from trainers.crash import point

Rank = tuple[bool, float, int]


class Kept:
    """The ended trials whose checkpoints lie there, where a study keeps `limit` of them; None keeps all.

    A trial that is open or paused has not ended, and is never touched. What a kill keeps from being removed is
    removed when the study is taken up again.
    """

    def __init__(self, folder: StudyFolder, limit: int | None) -> None:
        self._folder, self._limit = folder, limit
        self._ranks: list[Rank] = []  # the worst first

    def ended(self, result: TrialResult) -> None:
        """Note an ended trial, whose end is on record; the checkpoints of the one that is too many go."""
        if self._limit is None:
            return
        insort(self._ranks, rank(result))
        while len(self._ranks) > self._limit:
            *_, number = self._ranks.pop(0)
            drop(self._folder.trial(-number))


def rank(result: TrialResult) -> Rank:
    """The better the larger: as the leader is chosen, of equals the earlier; what did not complete comes last."""
    return result.state == "COMPLETE", result.value or 0.0, -result.number


def beyond(results: list[TrialResult], limit: int) -> list[TrialResult]:
    """Of ended trials those that are not among the best `limit`, by number."""
    worse = sorted(results, key=rank, reverse=True)[limit:]
    return sorted(worse, key=lambda result: result.number)


def drop(folder: RunFolder) -> None:
    """Remove a run's weights, training state and predictions; its record, log and figures stay."""
    record.tidy(folder.root, ended=True)
    for path in folder.checkpoints:
        path.unlink(missing_ok=True)
        point(f"dropped {path.name}")
