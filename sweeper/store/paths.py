"""Every path under mlruns/. No other module joins folder names."""

import os
from dataclasses import dataclass
from pathlib import Path

from sweeper.errors import EnvironmentFault
from trainers.support import files


def home() -> Path:
    """Return the absolute path of the folder for all output: $SWEEP_HOME, or mlruns in the current folder."""
    given = os.environ.get("SWEEP_HOME") or "mlruns"
    try:
        return files.recordable(Path(files.expanded(given)).absolute())
    except ValueError as error:
        raise EnvironmentFault(str(error), where="SWEEP_HOME") from None


def studies() -> Path:
    return home() / "studies"


def cache() -> Path:
    return home() / "cache"


def database() -> Path:
    """Return the path of MLflow's SQLite file."""
    return home() / "mlflow.db"


def artifacts() -> Path:
    return home() / "artifacts"


def comparison() -> Path:
    """Return the path of the page that compares studies."""
    return home() / "comparison.html"


def fonts() -> Path:
    """Return the path of the plotting library's cache of this machine's fonts."""
    return cache() / "fonts"


@dataclass(frozen=True)
class StudyFolder:
    """mlruns/studies/<study>."""

    root: Path

    @classmethod
    def named(cls, study: str) -> "StudyFolder":
        return cls(studies() / study)

    @property
    def name(self) -> str:
        return self.root.name

    @property
    def space(self) -> Path:
        return self.root / "space.yaml"

    @property
    def study_file(self) -> Path:
        """The study as resolved when it started: the identity that a resume is compared with."""
        return self.root / "study.json"

    @property
    def database(self) -> Path:
        return self.root / "study.db"

    @property
    def extensions(self) -> Path:
        """Copies of the extension files as they were when the study started."""
        return self.root / "extensions"

    @property
    def lock(self) -> Path:
        return self.root / "lock"

    @property
    def trial_index(self) -> Path:
        """All finished trials in one file, for fast reading; rebuilt if missing."""
        return self.root / "trial_index.jsonl"

    @property
    def sync_state(self) -> Path:
        """The place of this study in MLflow: experiment, parent run and address."""
        return self.root / "mlflow.json"

    @property
    def log(self) -> Path:
        """The log of all sweeps, line by line."""
        return self.root / "log.txt"

    @property
    def running(self) -> Path:
        """The positions of running trials within their epochs, for other processes; exists while a sweep runs."""
        return self.root / "running.json"

    @property
    def elapsed(self) -> Path:
        """The seconds of sweeping so far, then those that its latest trials took besides their epochs."""
        return self.root / "elapsed_seconds"

    @property
    def gpu_memory(self) -> Path:
        """The images per pass that fitted on a GPU, by backbone and image size, where a whole batch did not."""
        return self.root / "gpu_memory.json"

    @property
    def resume_command(self) -> Path:
        """The command that resumes this study, quoted for a shell."""
        return self.root / "resume_command"

    @property
    def data(self) -> Path:
        """The data set as it was read: splits, categories, counts, notes."""
        return self.root / "data.json"

    @property
    def table(self) -> Path:
        return self.root / "trials.csv"

    @property
    def importance(self) -> Path:
        """The importance of each parameter; recomputed when the record has changed."""
        return self.root / "importance.json"

    @property
    def transfer(self) -> Path:
        """The trials transferred from an earlier study before the first trial."""
        return self.root / "transfer.json"

    @property
    def report(self) -> Path:
        return self.root / "report.html"

    @property
    def drawn(self) -> Path:
        """The list of figures and the record that they show; a hidden file among them, so that it moves along."""
        return self.figures / ".drawn.json"

    @property
    def figures(self) -> Path:
        """The figures of the whole study."""
        return self.root / "figures"

    @property
    def trials(self) -> Path:
        return self.root / "trials"

    @property
    def confirmations(self) -> Path:
        return self.root / "confirmations"

    @property
    def finals(self) -> Path:
        return self.root / "finals"

    def trial(self, number: int) -> "RunFolder":
        return RunFolder(self.trials / f"{number:04d}")

    def confirm(self, number: int, repeat: int) -> "RunFolder":
        """Return the folder of the `repeat`-th retraining of trial `number` with a new seed."""
        return RunFolder(self.confirmations / f"{number:04d}-{repeat}")

    def final(self, name: str) -> "RunFolder":
        return RunFolder(self.finals / name)


@dataclass(frozen=True)
class RunFolder:
    """The folder of one training run. The worker writes checkpoints and predictions, the coordinator the rest."""

    root: Path

    @property
    def config(self) -> Path:
        return self.root / "config.json"

    @property
    def search(self) -> Path:
        """The state that a sampler or pruner of an extension file keeps with this trial."""
        return self.root / "search.json"

    @property
    def history(self) -> Path:
        return self.root / "history.jsonl"

    @property
    def result(self) -> Path:
        return self.root / "result.json"

    @property
    def sync_state(self) -> Path:
        return self.root / "mlflow.json"

    @property
    def paused(self) -> Path:
        """A marker that exists while the trial is paused at a rung; only for readers, as the study uses the
        histories.
        """
        return self.root / "paused"

    @property
    def log(self) -> Path:
        return self.root / "log.txt"

    @property
    def checkpoint(self) -> Path:
        return self.root / "last.ckpt"

    @property
    def model(self) -> Path:
        """The weights of the epoch that counts."""
        return self.root / "model.safetensors"

    @property
    def val_logits(self) -> Path:
        return self.root / "val_logits.npy"

    @property
    def val_bootstrap(self) -> Path:
        """Every counted metric of these predictions in resamples of val; stays when checkpoints are deleted."""
        return self.root / "val_bootstrap.npy"

    @property
    def checkpoints(self) -> tuple[Path, ...]:
        """The files that a finished run can do without, as its record does not need them."""
        mine = self.val_logits, self.checkpoint, self.model
        return *mine, *(path for fold in self.folds for path in fold.checkpoints)

    @property
    def folds(self) -> "list[RunFolder]":
        """The started trainings of a cross-validation by number, each with its own checkpoints and predictions."""
        found = (path for path in self.root.glob("fold_*") if _is_fold(path))
        return [RunFolder(path) for path in sorted(found, key=lambda path: (len(path.name), path.name))]

    @property
    def test_logits(self) -> Path:
        return self.root / "test_logits.npy"

    def test_logits_of_fold(self, number: int) -> Path:
        """Final model only: test logits by the model of one fold of its trial, from one view, uncorrected."""
        return self.root / f"test_logits_fold_{number}.npy"

    def test_of_fold(self, number: int) -> Path:
        """The same as probabilities by class name."""
        return self.root / f"test_fold_{number}.csv"

    @property
    def of_folds(self) -> list[Path]:
        """Final model only: all existing files of both kinds."""
        return sorted([*self.root.glob("test_logits_fold_*.npy"), *self.root.glob("test_fold_*.csv")])

    @property
    def out_of_fold(self) -> Path:
        """Final model only: probabilities for train and val by those models of its trial that did not see them."""
        return self.root / "oof.csv"

    @property
    def test_scores(self) -> Path:
        """Final model only, if test has labels: its scores on test."""
        return self.root / "test_scores.json"

    @property
    def test_images(self) -> Path:
        """Final model only: the fingerprint of the test images of its predictions."""
        return self.root / "test_images"

    @property
    def scores(self) -> Path:
        """The leaderboard scores of a submission, one per line."""
        return self.root / "scores.jsonl"

    @property
    def elapsed(self) -> Path:
        """Final model only: the seconds it took so far, from the check of the data to its submission."""
        return self.root / "elapsed_seconds"

    @property
    def prediction(self) -> Path:
        return self.root / "prediction.txt"

    @property
    def predictions(self) -> Path:
        return self.root / "predictions.csv"

    @property
    def submission(self) -> Path:
        return self.root / "submission.zip"

    @property
    def card(self) -> Path:
        return self.root / "card.md"

    @property
    def drawn(self) -> Path:
        """The list of figures and the record that they show; a hidden file among them, so that it moves along."""
        return self.figures / ".drawn.json"

    @property
    def figures(self) -> Path:
        """The figures of this run, drawn once it has finished."""
        return self.root / "figures"

    @property
    def last_figure(self) -> Path:
        """The figure that is drawn last."""
        return self.figures / "mistakes.png"

    @property
    def extensions(self) -> Path:
        """Copies of the extension files; a final model has its own, so that its folder suffices to use the model."""
        own = self.root / "extensions"
        return own if own.is_dir() else self.study.extensions

    @property
    def study(self) -> StudyFolder:
        run = self.root.parent if _is_fold(self.root) else self.root
        return StudyFolder(run.parent.parent)


def _is_fold(path: Path) -> bool:
    """True for the folder of one training of a cross-validation, inside the folder of its run."""
    return path.name.startswith("fold_") and path.name.removeprefix("fold_").isdecimal()
