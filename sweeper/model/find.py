"""Find the model file that a word names: a study, a trial, the folder of a run, or the file itself."""

import re
from dataclasses import dataclass
from pathlib import Path

from sweeper.errors import EnvironmentFault, UserError
from sweeper.model.image_files import path_of
from sweeper.results import winner
from sweeper.store import records, studies
from sweeper.store.paths import RunFolder, StudyFolder
from sweeper.text import relative_path
from sweeper.trial import OPEN
from trainers.data.images import EXTENSIONS
from trainers.support.text import did_you_mean

SUFFIX = ".safetensors"


@dataclass(frozen=True)
class FoundModel:
    """A model file, and its origin."""

    path: Path
    words: str
    study: str | None = None
    trial: int | None = None
    kind: str | None = None

    @property
    def name(self) -> str:
        """A short name for exported files: the study's, with the trial's number, or the model file's."""
        if self.study is None:
            return self.path.stem
        return self.study if self.kind == "final" else f"{self.study}-{self.trial}"

    @property
    def remake(self) -> str:
        """The command that makes the model again."""
        return f"sweep best {self.study or 'STUDY'} --export submission --again trains a new one"

    @property
    def extensions(self) -> Path:
        """The folder with copies of its extension files, if it needs any."""
        return RunFolder(self.path.parent).extensions


def find(word: str) -> FoundModel:
    """Return the model that `word` names; for a study, its latest final model, else its best trial.

    Raises UserError, with the nearest names, if there is none, and EnvironmentFault if it was removed.
    """
    there = {study.name: study for study in studies.studies()}
    if word in there:
        return _of_study(there[word])
    name, _, number = word.rpartition("/")
    if name in there and number.isdecimal():
        return _of_trial(there[name], int(number))
    path = path_of(word).absolute()
    if path.is_file():
        if path.suffix.lower() in EXTENSIONS:
            help = "the model comes before the images: sweep predict MODEL IMAGES"
            raise UserError("an image, not a model", where=word, help=help)
        return _of_file(path)
    if path.is_dir():
        return _of_folder(path, word)
    if word.endswith(SUFFIX):
        raise UserError("there is no such model file", where=word, help="check the path, or name a study")
    return _of_study(_unknown(word, list(there)))


def _unknown(word: str, names: list[str]) -> StudyFolder:
    """Raise UserError for a word that is no study, trial or path; a study of another version gets its own error."""
    match = re.fullmatch(r"(.+)/(\d+)", word)
    near = did_you_mean(match[1], names) if match else ""
    if match and near:
        raise UserError(f"no study {match[1]!r}", where=word, help=near)
    return studies.find(match[1] if match else word)


def _of_study(study: StudyFolder) -> FoundModel:
    if newest := studies.newest_final(study):
        return _of_run(newest)
    return _of_trial(study, winner.winner(study).result.number)


def _of_trial(study: StudyFolder, number: int) -> FoundModel:
    results = {result.number: result for result in records.results(study)}
    if number not in results:
        raise studies.no_trial(study, number, list(results))
    folder = study.trial(number)
    if folder.model.exists():
        return _of_run(folder)
    state, name = results[number].state, f"trial {number} of {study.name}"
    if state in OPEN:
        help = f"resume it with {studies.resume_command(study)}"
        raise EnvironmentFault(f"{name} has no model yet", where=str(folder.root), help=help)
    if results[number].value is None:
        raise EnvironmentFault(f"{name} failed and left no model", where=str(folder.log), help="choose another trial")
    if folder.folds and results[number].state == "COMPLETE":
        what = f"{name} is a cross-validation: it has a model per fold, but none trained on all images"
        help = f"sweep best {study.name} --trial {number} --export submission trains one"
        raise EnvironmentFault(what, where=str(folder.root), help=help)
    again = f"sweep best {study.name} --trial {number} > again.yaml && sweep run again.yaml trains it again"
    raise EnvironmentFault(f"the model of {name} was removed ({state})", where=str(folder.root), help=again)


def _of_folder(path: Path, word: str) -> FoundModel:
    folder, study = RunFolder(path), StudyFolder(path)
    if folder.model.exists():
        return _of_run(folder)
    if study.study_file.exists():
        return _of_study(study)
    raise UserError(
        f"there is no {folder.model.name} in this folder",
        where=word,
        help="give a study, STUDY/TRIAL, the folder of a run, or a model file",
    )


def _of_file(path: Path) -> FoundModel:
    folder = RunFolder(path.parent)
    return _of_run(folder) if path == folder.model else FoundModel(path, relative_path(path))


def _of_run(folder: RunFolder) -> FoundModel:
    """Return the model in a run's folder, which may be a copy without its record."""
    job = records.read_config(folder)
    if job is None:
        return FoundModel(folder.model, relative_path(folder.model))
    kinds = {"trial": f"trial {job.trial}", "confirm": f"a confirmation of trial {job.trial}"}
    if job.ensemble:
        kinds["final"] = f"the {job.title} models ({folder.root.name})"
    what = kinds.get(job.kind, f"the final model of trial {job.trial} ({folder.root.name})")
    return FoundModel(folder.model, f"{what} of study {job.study}", job.study, job.trial, job.kind)
