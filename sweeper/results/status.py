"""How things stand in this folder: its studies, and the command that comes next."""

import shlex
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from sweeper import text, trial
from sweeper.errors import UserError
from sweeper.space.compare import opened
from sweeper.store import records, study_file
from sweeper.store.paths import RunFolder, StudyFolder
from sweeper.store.ranking import parameter_names
from sweeper.store.studies import FinalRun, StudyStatus, status_of, studies
from sweeper.system import gpu_processes
from sweeper.text import relative_path
from sweeper.trial import Job, RunningTrial, RunningTrials, State, TrialResult
from trainers.epoch import Epoch
from trainers.support.position import Position

SPACES = Path("search_spaces")


# ------------------------------------------------------------------------------------------ telling
def status(one: StudyStatus) -> Iterator[str]:
    """A study in a few lines: how far it is, what is best, where it lies, what comes next."""
    count: Counter[str] = Counter(result.state for result in one.results)
    parts = [f"{count[state]} {state.lower()}" for state in trial.STATUS if count[state]]
    planned = f" of {one.planned}" if one.planned else ""
    yield f"study    {one.study.name}: {one.state.lower()}, {len(one.results)}{planned} {_trials(one)} started"
    yield f"trials   {', '.join(parts) or 'none yet'}"
    if one.holder:
        yield f"held by  {one.holder} since {datetime.fromtimestamp(one.holder.started):%d %b %H:%M}"
    for result in one.results:
        if result.state == "RUNNING":
            yield f"running  {running(result)}"
    if one.best:
        yield f"best     {best(one.best)}"
    for final in one.finals:
        unfinished = "" if final.is_packed else " (not finished)"
        of = f" of trials {final.models}" if final.members else ""
        yield f"final {final.number}  {relative_path(final.folder.root)}{of}{unfinished}{_scored(final)}"
    if used := spent(one):
        yield f"hours    {one.hours:g} h: {used.words}"
    for orphan in gpu_processes.found():
        yield f"warning  {orphan}"
    yield f"files    {relative_path(one.study.root)}"
    yield f"next     {next_command(one)}"


def _trials(one: StudyStatus) -> str:
    return "trial" if (one.planned or len(one.results)) == 1 else "trials"


def best(result: TrialResult) -> str:
    at = f"epoch {result.epoch}/{result.planned}"
    value = text.format_value(result.value, result.standard_error)
    return f"{result.metric} {value}, trial {result.number} ({result.backbone}), {at}"


def running(result: TrialResult) -> str:
    value = f", {text.format_value(result.value)}" if result.epochs else ""
    return f"trial {result.number} ({result.backbone}), epoch {result.epochs}/{result.planned}{value}"


def _scored(final: FinalRun) -> str:
    said = [f"{score['value']:g}{' ' + score['note'] if score['note'] else ''}" for score in final.scores]
    return f", scored {', '.join(said)}" if said else ""


def next_command(one: StudyStatus) -> str:
    if one.state == "RUNNING":
        return f"sweep leaderboard {one.study.name}"
    if one.state == "INTERRUPTED":
        return one.resume
    done = [final for final in one.finals if final.is_packed]
    if together := [final.ensemble for final in one.finals if final.ensemble and not final.done]:
        return f"sweep best {one.study.name} --ensemble {together[-1].most} --export submission"
    if one.best and (not done or len(done) < len(one.finals)):
        return f"sweep best {one.study.name} --export submission"
    if any(final.scores for final in done):
        return f"sweep report {one.study.name}"
    if not one.best and not done:
        return one.resume
    if any(final.folder.submission.exists() or final.folder.predictions.exists() for final in done):
        return f"sweep score {one.study.name} VALUE"
    return f"sweep predict {one.study.name} IMAGES"


def here() -> Iterator[str]:
    """The state of this folder, and the next command."""
    there = [status_of(study) for study in studies()]
    for one in there:
        planned = f"/{one.planned}" if one.planned else ""
        top = f", best {text.format_value(one.best.value)} (trial {one.best.number})" if one.best else ""
        scored = "".join(_scored(final) for final in one.finals)
        yield f"{one.study.name}: {one.state.lower()}, {len(one.results)}{planned} {_trials(one)}{top}{scored}"
    if there:
        yield f"next: {next_command(there[0])}"
        return
    spaces = sorted(SPACES.glob("*.yaml"))
    yield f"no study yet; {len(spaces)} search spaces in {SPACES}" if spaces else "no study yet"
    first = next((path for path in spaces if path.stem == "quickstart"), spaces[0] if spaces else None)
    yield f"next: {_first_command(first)}"


def _first_command(space: Path | None) -> str:
    """Draw the data that the space asks for, if nothing is there, or run it."""
    if space is None:
        return "sweep run PHOTOS --hours 1, with a folder of class folders or a table; or sweep run SPACE.yaml"
    from sweeper.space import yaml_io

    try:
        data = yaml_io.data(space)
    except UserError:
        return f"sweep plan {shlex.quote(str(space))}"
    if data.layout == "challenge" and not Path(data.root).exists():
        return f"sweep data demo {shlex.quote(data.root)}"
    return f"sweep run {shlex.quote(str(space))}"


# ------------------------------------------------------------------------------------- the hours
class Spent(NamedTuple):
    """Seconds: while a trial was in an epoch, of all retrainings, between trials, and of the budget that are left."""

    trials: float
    retraining: float
    between_trials: float
    unused: float  # less than none where it ended late

    @property
    def words(self) -> str:
        rest = text.format_duration(abs(self.unused))
        end = f"unused {rest}" if self.unused >= 0 else f"{rest} late"
        parts = {"trials": self.trials, "retraining": self.retraining, "between trials": self.between_trials}
        return ", ".join([*(f"{name} {text.format_duration(seconds)}" for name, seconds in parts.items()), end])


def spent(one: StudyStatus) -> Spent | None:
    """How a study used its budget of hours; None where it has none, or still runs."""
    if one.hours is None or one.holder:
        return None
    swept, trials = records.elapsed_seconds(one.study), records.seconds(one.study)
    retraining = sum(records.final_seconds(final.folder) for final in one.finals)
    return Spent(trials, retraining, max(0.0, swept - trials), one.hours * 3600 - swept - retraining)


# ---------------------------------------------------------------------------------------- watching
@dataclass(frozen=True)
class Watched:
    """A study that another process sweeps, as its files say it."""

    study: StudyFolder

    @property
    def names(self) -> dict[str, str]:
        """The short names of its open values."""
        return parameter_names(opened(study_file.identity(self.study).get("train")))

    def look(self) -> StudyStatus:
        return status_of(self.study)

    def job(self, trial: int) -> Job | None:
        return _here(self.study.trial(trial))

    def epochs(self, job: Job) -> list[Epoch]:
        return records.history(RunFolder(job.folder))

    def retrained(self) -> Iterator[tuple[Job, TrialResult]]:
        """The final models and confirmations, each with how it stands."""
        running = {Path(one.folder).parts[-2:] for one in self._running()}
        for folder in records.retrainings(self.study):
            if job := _here(folder):
                state: State = "RUNNING" if folder.root.parts[-2:] in running else "INTERRUPTED"
                ended = records.read_result(folder)
                yield job, ended or records.result_of(job, records.history(folder), state)

    def positions(self) -> dict[int, tuple[str, Position | None]]:
        """The slot of each running trial, and how far its epoch is."""
        return {one.trial: (one.slot, one.at) for one in self._running()}

    def _running(self) -> tuple[RunningTrial, ...]:
        """What running.json says; nothing while that is being written."""
        try:
            return RunningTrials.model_validate_json(self.study.running.read_bytes()).trials
        except (FileNotFoundError, ValidationError):
            return ()


def _here(folder: RunFolder) -> Job | None:
    """The job of a run whose folder may have been moved since."""
    job = records.read_config(folder)
    return job and job.model_copy(update={"folder": folder.root})


# ------------------------------------------------------------------------------------------ as JSON
def report(one: StudyStatus) -> dict[str, Any]:
    """What `status` tells, as one JSON document."""
    return {"schema_version": 1, **document(one), "orphans": [asdict(orphan) for orphan in gpu_processes.found()]}


def document(one: StudyStatus) -> dict[str, Any]:
    """A study, without what is true of the whole machine."""
    used = spent(one)
    return {
        "study": one.study.name,
        "state": one.state,
        "metric": one.metric,
        "planned": one.planned,
        "trials": dict(Counter(result.state for result in one.results)),
        "best": one.best.model_dump(mode="json") if one.best else None,
        "running": [r.model_dump(mode="json") for r in one.results if r.state == "RUNNING"],
        "holder": one.holder.model_dump() if one.holder else None,
        "finals": [_final(final) for final in one.finals],
        "spent_seconds": used._asdict() if used else None,
        "folder": str(one.study.root),
        "next": next_command(one),
    }


def everything() -> dict[str, Any]:
    """All studies here."""
    return {"schema_version": 1, "studies": [document(status_of(study)) for study in studies()]}


def _final(final: FinalRun) -> dict[str, Any]:
    return {
        "number": final.number,
        "folder": str(final.folder.root),
        "trial": final.trial,
        "members": list(final.members),
        "done": final.done,
        "scores": list(final.scores),
    }
