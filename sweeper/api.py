"""What Python may use: studies as tables, and finished models. Importing it loads nothing."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

    from sweeper.store.paths import StudyFolder
    from sweeper.trial import TrialResult
    from trainers.evaluation.predictor import Predictor


class OpenedStudy:
    """A study on this disk, to be read: what it tells is as of now."""

    def __init__(self, folder: "StudyFolder") -> None:
        self.folder = folder

    @property
    def name(self) -> str:
        """Of the study."""
        return self.folder.name

    def trials(self) -> "pd.DataFrame":
        """Every trial that has started, the best first: rank, value, epochs, and a column for each open parameter."""
        from sweeper.results import leaderboard
        from sweeper.store import records

        return leaderboard.frame(records.results(self.folder), self.folder)

    @property
    def best(self) -> "TrialResult":
        """The winner, as `sweep best` has it: number, value, params. Raises NoResult where no trial is complete."""
        from sweeper.results import winner

        return winner.winner(self.folder).result


def _refuse_other_trainers() -> None:
    """Raise ImportError where another `trainers` stands in front of ours: often a folder beside a notebook."""
    import importlib.util
    from pathlib import Path

    spec = importlib.util.find_spec("trainers")
    places = list(spec.submodule_search_locations or ()) if spec else []
    own = Path(__file__).resolve().parents[1] / "trainers"
    if [Path(place).resolve() for place in places] != [own]:
        found = ", ".join(places) or (spec and spec.origin) or "nothing"
        raise ImportError(f"`import trainers` finds {found}, and sweep needs {own}: rename that folder or file")


def open_study(name: str | None = None) -> OpenedStudy:
    """The study of that name in $SWEEP_HOME, or mlruns in the current folder; the last one if left out.

    Raises UserError where there is none.
    """
    _refuse_other_trainers()
    from sweeper.store import studies

    return OpenedStudy(studies.find(name))


def load_model(name: "str | Path", *, device: str = "cpu") -> "Predictor":
    """A trained model: a study's final or else its best trial, "STUDY/TRIAL", the folder of a run, or a model file.

    `device` is as torch names it, such as cuda. Raises UserError where there is none.
    """
    _refuse_other_trainers()
    from sweeper.model import load

    return load.load(name, device)
