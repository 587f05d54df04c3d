"""The Python API: studies as tables, and trained models. Importing it loads nothing else."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

    from sweeper.store.paths import StudyFolder
    from sweeper.trial import TrialResult
    from trainers.evaluation.predictor import Predictor


class OpenedStudy:
    """A study on disk, for reading; every call reads its current state."""

    def __init__(self, folder: "StudyFolder") -> None:
        self.folder = folder

    @property
    def name(self) -> str:
        """The name of the study."""
        return self.folder.name

    def trials(self) -> "pd.DataFrame":
        """Return every trial that has started, best first: rank, value, epochs, and a column per open parameter."""
        from sweeper.results import leaderboard
        from sweeper.store import records

        return leaderboard.frame(records.results(self.folder), self.folder)

    @property
    def best(self) -> "TrialResult":
        """The winner, as in `sweep best`: number, value, params. Raises NoResult if no trial is complete."""
        from sweeper.results import winner

        return winner.winner(self.folder).result


def _refuse_other_trainers() -> None:
    """Raise ImportError if another `trainers` shadows ours, often a folder beside a notebook."""
    import importlib.util
    from pathlib import Path

    spec = importlib.util.find_spec("trainers")
    places = list(spec.submodule_search_locations or ()) if spec else []
    own = Path(__file__).resolve().parents[1] / "trainers"
    if [Path(place).resolve() for place in places] != [own]:
        found = ", ".join(places) or (spec and spec.origin) or "nothing"
        raise ImportError(f"`import trainers` finds {found}, but sweep needs {own}: rename that folder or file")


def open_study(name: str | None = None) -> OpenedStudy:
    """Open the study of that name in $SWEEP_HOME, or in mlruns in the current folder; the last one by default.

    Raises UserError if there is none.
    """
    _refuse_other_trainers()
    from sweeper.store import studies

    return OpenedStudy(studies.find(name))


def load_model(name: "str | Path", *, device: str = "cpu") -> "Predictor":
    """Load a trained model. `name` is a study, "STUDY/TRIAL", the folder of a run, or a model file.

    A study stands for its final model, or else for its best trial. `device` is torch's name of a device, such as
    cuda. Raises UserError if there is no such model.
    """
    _refuse_other_trainers()
    from sweeper.model import load

    return load.load(name, device)
