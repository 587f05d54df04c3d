"""The studies on this disk: lookup by name, and the status of each."""

import filecmp
import json
import math
import shlex
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from sweeper.errors import UserError
from sweeper.store import jsonfile, lock, paths, records, study_file
from sweeper.store.paths import RunFolder, StudyFolder
from sweeper.text import relative_path
from sweeper.trial import OPEN, Ensemble, Job, State, TrialResult
from trainers.support.files import expanded, write_text
from trainers.support.text import did_you_mean


class Score(BaseModel):
    """A line of scores.jsonl: a leaderboard's score and the time when it was recorded."""

    model_config = ConfigDict(extra="allow")

    value: float
    note: str = ""
    time: float


@dataclass(frozen=True)
class FinalRun:
    """A final model: the `number`-th retraining of a study, from 1, with the leaderboard scores of its submission."""

    folder: RunFolder
    trial: int
    done: bool
    scores: tuple[dict[str, Any], ...]
    number: int
    ensemble: Ensemble | None = None  # of several trials, `trial` being the best, or of its seeds
    seed: int | None = None  # of a single model, if not the trial's own
    untried: bool = False  # a single model of a configuration that no trial has tried
    ended: float = 0.0  # Unix time, in seconds

    @property
    def members(self) -> tuple[int, ...]:
        """The trials of an ensemble, one per model; empty for a single model."""
        return tuple(one.trial for one in self.ensemble.members) if self.ensemble else ()

    @property
    def models(self) -> str:
        """The trial, such as `4` or `4 seed 1000`, or the trials of an ensemble, such as `4+0+7`."""
        if self.members:
            return "+".join(map(str, self.members))
        return str(self.trial) if self.seed is None else f"{self.trial} seed {self.seed}"

    @property
    def is_packed(self) -> bool:
        """True if it is done and no prediction of changed test images is pending."""
        return self.done and not study_file.is_pending(self.folder)

    @property
    def name(self) -> str:
        """A name such as `final 2 of clothing`, with its scores."""
        scores = ", ".join(f"{score['value']:g}" for score in self.scores)
        return f"final {self.number} of {self.folder.study.name}" + (f" (scored {scores})" if scores else "")


@dataclass(frozen=True)
class StudyStatus:
    """The status of a study, read from its folder."""

    study: StudyFolder
    metric: str
    planned: int | None
    hours: float | None
    results: tuple[TrialResult, ...]
    best: TrialResult | None
    confirmed: Mapping[int, tuple[float, ...]]  # values with new seeds, by trial
    holder: lock.Holder | None
    finals: tuple[FinalRun, ...]
    resume: str
    combines: bool = True  # its rules allow ensembles
    searched_hours: float = 0.0  # see study_file

    @property
    def winner(self) -> TrialResult | None:
        """The best trial, or the one that new seeds favour."""
        return records.winner(self.results, self.confirmed)

    @property
    def state(self) -> State:
        """RUNNING while held; COMPLETE if the folder shows the budget used up; INTERRUPTED while anything is open."""
        if self.holder:
            return "RUNNING"
        if self.planned == 0:  # the retraining is all there is
            started = any(final.ensemble and not final.done for final in self.finals)
            return "COMPLETE" if any(final.is_packed for final in self.finals) and not started else "INTERRUPTED"
        ended = [result for result in self.results if result.state not in self._open]
        short = self.planned is not None and self.hours is None and len(ended) < self.planned
        return "INTERRUPTED" if short or len(ended) < len(self.results) or not ended else "COMPLETE"

    @property
    def _open(self) -> Collection[State]:
        """The states of trials that keep the study from being complete: out of hours, what is paused stays so."""
        if self.hours is None:
            return OPEN
        if self.search_has_ended:
            return {"RUNNING"}
        spent = records.elapsed_seconds(self.study) >= self.hours * 3600 * (1 - records.BUDGET_TOLERANCE)
        return {"RUNNING", "INTERRUPTED"} if spent else OPEN

    @property
    def search_has_ended(self) -> bool:
        """True if the search has ended in its hours, the only budget, of which the rest is for the retraining."""
        return not self.planned and self.hours is not None and self.hours <= self.searched_hours


def studies() -> list[StudyFolder]:
    """Return every study here that this version can read, the one started or resumed last first."""
    current = [study for study in _folders() if study_file.is_current(study)]
    found = [(when, study) for study in current if (when := _started(study)) is not None]
    return [study for _, study in sorted(found, key=lambda one: one[0], reverse=True)]


def _started(study: StudyFolder) -> float | None:
    """Return when it was last started or resumed; None if it has just been removed."""
    try:
        return study.study_file.stat().st_mtime
    except FileNotFoundError:
        return None


def _folders() -> list[StudyFolder]:
    return [StudyFolder(path.parent) for path in paths.studies().glob("*/study.json")]


def find(name: str | None) -> StudyFolder:
    """Return the study `name`, or the most recent one for None. Raises UserError if there is none."""
    there = studies()
    for study in _folders():
        if study.name == name or not there:
            study_file.read(study)  # raises for one of another version
    if name is None and there:
        return there[0]
    for study in there:
        if study.name == name:
            return study
    if not there:
        raise UserError(
            "there is no study yet", where=str(paths.studies()), help="start one with sweep run SPACE.yaml"
        )
    names = [study.name for study in there]
    raise UserError(
        f"no study {name!r}",
        where=str(paths.studies()),
        help=did_you_mean(name or "", names) or f"available: {', '.join(names)}",
    )


def no_trial(study: StudyFolder, number: int, known: Iterable[int], which: str = "") -> UserError:
    """Return the error for a trial `number` that is not among the `known` ones, with the nearest of them; `which`
    describes the known ones.
    """
    near = sorted(sorted(known, key=lambda one: abs(one - number))[:3])
    names = f"the nearest are {', '.join(map(str, near))}" if near else "there are none yet"
    return UserError(f"no trial {number}{which} in study {study.name}", where=str(study.trials), help=names)


def status_of(study: StudyFolder) -> StudyStatus:
    document = study_file.read(study) or {}
    results = tuple(records.results(study))
    budget = document.get("budget", {})
    return StudyStatus(
        study=study,
        metric=document.get("identity", {}).get("metric", "overall_accuracy"),
        planned=budget.get("trials"),
        hours=budget.get("hours"),
        results=results,
        best=records.best(results),
        confirmed=records.confirmed(study),
        holder=lock.holder(study.lock),
        finals=tuple(finals(study)),
        resume=resume_command(study),
        combines=document.get("rules", {}).get("ensemble", True),
        searched_hours=document.get("searched_hours", 0.0),
    )


def resume_command(study: StudyFolder) -> str:
    """Return the command that resumes `study`."""
    try:
        return study.resume_command.read_text(errors="replace").strip()
    except FileNotFoundError:
        assigned = f"study={study.name}"  # the copied file has another name
        return shlex.join(["sweep", "run", relative_path(study.space), "--set", assigned])


def finals(study: StudyFolder) -> list[FinalRun]:
    """Return all final models, the oldest first."""
    found = [RunFolder(path.parent) for path in study.finals.glob("*/config.json")]
    jobs = [(folder, job) for folder in found if (job := records.read_config(folder))]
    jobs.sort(key=lambda one: _age(*one))
    return [_final(folder, job, number) for number, (folder, job) in enumerate(jobs, 1)]


def _final(folder: RunFolder, job: Job, number: int) -> FinalRun:
    result = records.read_result(folder)
    return FinalRun(
        folder,
        job.trial,
        result is not None,
        tuple(scores(folder)),
        number,
        job.ensemble,
        job.seed,
        untried=not job.ensemble and not job.metric_history,
        ended=(result and result.ended) or 0.0,
    )


def newest(found: Iterable[FinalRun]) -> FinalRun | None:
    """Return the final model that stands for its study, the one finished last; None if none is finished."""
    done = (final for final in found if final.done)
    return max(done, key=lambda final: (final.ended, final.number), default=None)


def newest_final(study: StudyFolder) -> RunFolder | None:
    """Return the folder of the final model that stands for `study`, or None."""
    final = newest(finals(study))
    return final.folder if final else None


def _age(folder: RunFolder, job: Job) -> tuple[float, str]:
    """Return a sort key for the age of a final model that survives copying its folder: the end of its first epoch, or
    the time when its ensemble was chosen.
    """
    if job.ensemble:
        return job.ensemble.started, folder.root.name
    epochs = records.history(folder)
    return (epochs[0].time if epochs else math.inf), folder.root.name


def same_submissions(folder: RunFolder) -> list[FinalRun]:
    """Return the other final models here, of any study, whose submission is byte for byte that of `folder`."""
    if not folder.submission.exists():
        return []
    others = (final for study in studies() for final in finals(study) if final.folder.root != folder.root)
    packed = [one for one in others if one.folder.submission.exists()]
    return [one for one in packed if filecmp.cmp(one.folder.submission, folder.submission, shallow=False)]


def scores(folder: RunFolder) -> Iterator[dict[str, Any]]:
    """Yield the leaderboard scores of a final model's submission, the oldest first."""
    if folder.scores.exists():
        for number, line in enumerate(folder.scores.read_bytes().splitlines(), 1):
            yield jsonfile.parsed(line, Score, f"{folder.scores}:{number}").model_dump(exclude_unset=True)


def note_score(target: str, value: float, note: str) -> RunFolder:
    """Record a leaderboard's score of a submission; return its folder.

    `target` is a submission.zip, the folder of a final model, or a study, which stands for the one finished last.
    """
    if not math.isfinite(value):
        raise UserError(f"a score must be a finite number, not {value}", help="sweep score STUDY 0.8731")
    folder = _target(target)
    line = {"value": value, "note": note, "time": time.time()}
    before = folder.scores.read_text(errors="replace") if folder.scores.exists() else ""
    write_text(folder.scores, before + json.dumps(line) + "\n")
    return folder


def _target(target: str) -> RunFolder:
    path = Path(expanded(target))
    is_study = target in [study.name for study in studies()]
    if not is_study and (path.is_file() or path.is_dir()):
        folder = RunFolder((path if path.is_dir() else path.parent).absolute())
        if folder.root.parent == folder.study.finals and folder.config.exists():
            return folder
        raise UserError(
            "this is not a submission of a study", where=target, help="give mlruns/studies/STUDY/finals/..."
        )
    study = find(target)
    if (final := newest_final(study)) is None:
        help = f"make one with sweep best {study.name} --export submission"
        raise UserError(f"study {study.name} has no submission yet", help=help)
    return final
