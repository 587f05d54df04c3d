"""What of an ended run has arrived in MLflow, its figures too, as far as its folder tells."""

from sweeper import mirror
from sweeper.mirror import RunTwin, StudyTwin
from sweeper.paths import RunFolder
from sweeper.trial import Kind, TrialResult


def all_sent(folder: RunFolder, result: TrialResult, twin: StudyTwin) -> bool:
    """Whether MLflow has all of an ended trial, its figures too."""
    known = mirror.read(folder.mirror, RunTwin)
    there = known is not None and known.parent == twin.run and known.sent == result.state
    return there and not awaits_figures(folder, result, "trial")


def awaits_figures(folder: RunFolder, result: TrialResult, kind: Kind) -> bool:
    return drawable(folder, result, kind) and _undrawn(folder)


def drawable(folder: RunFolder, result: TrialResult, kind: Kind) -> bool:
    """Whether a run has ended well and left predictions that can be compared with labels, or figures of them."""
    if result.state != "COMPLETE" or kind == "confirm":
        return False
    return (folder.test_scores if kind == "final" else folder.val_logits).exists() or drawn(folder)


def drawn(folder: RunFolder) -> bool:
    """Whether all figures of a run are there: its predictions are needed no more."""
    return folder.last_figure.exists()


def _undrawn(folder: RunFolder) -> bool:
    """Whether figures are missing, older than the run's end, or younger than what MLflow has."""
    made = [path.stat().st_mtime_ns for path in folder.figures.glob("[!.]*")]
    if not made or not folder.mirror.exists() or not folder.result.exists():
        return True
    return min(made) < folder.result.stat().st_mtime_ns or max(made) > folder.mirror.stat().st_mtime_ns
