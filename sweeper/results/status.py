"""The status of the studies in this folder, and the next command."""

import os
import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

from pydantic import ValidationError

from sweeper import text, trial
from sweeper.errors import UserError
from sweeper.space import starter
from sweeper.space.compare import opened
from sweeper.store import records, study_file
from sweeper.store.paths import RunFolder, StudyFolder
from sweeper.store.ranking import parameter_names
from sweeper.store.studies import FinalRun, StudyStatus, newest, status_of, studies
from sweeper.system import gpu_processes
from sweeper.text import relative_path
from sweeper.trial import Job, RunningTrial, RunningTrials, State, TrialResult
from trainers.epoch import Epoch
from trainers.support.position import Position

SPACES = Path("search_spaces")


# ------------------------------------------------------------------------------------------ text
def status(one: StudyStatus) -> Iterator[str]:
    """Yield the status of a study in a few lines: progress, best trial, location, next command."""
    count: Counter[str] = Counter(result.state for result in one.results)
    parts = [f"{count[state]} {state.lower()}" for state in trial.STATUS if count[state]]
    yield f"study    {one.study.name}: {one.state.lower()}, {_trials(one, ' of ')} started"
    none = "none: there was no time for a search" if one.state == "COMPLETE" else "none yet"
    yield f"trials   {', '.join(parts) or none}"
    if one.holder:
        yield f"held by  {one.holder} since {datetime.fromtimestamp(one.holder.started):%d %b %H:%M}"
    for result in one.results:
        if result.state == "RUNNING":
            yield f"running  {running(result)}"
    if one.best:
        yield f"best     {best(one.best)}"
    if said := confirmation(one):
        yield f"winner   {said}"
    latest = newest(one.finals) if len(one.finals) > 1 else None
    for final in one.finals:
        unfinished = "" if final.is_packed else " (not finished)"
        unfinished += " (used by sweep predict)" if final is latest else ""
        of = f" of {final.ensemble.name}" if final.ensemble else ""
        yield f"final {final.number}  {relative_path(final.folder.root)}{of}{unfinished}{_scored(final)}"
    if used := spent(one):
        yield f"hours    {one.hours:g} h: {used.words}"
    for orphan in gpu_processes.found():
        yield f"warning  {orphan}"
    yield f"files    {relative_path(one.study.root)}"
    yield f"next     {next_command(one)}"


def _trials(one: StudyStatus, of: str) -> str:
    """Return the number of trials, of those planned; these are never fewer, though the budget may have shrunk."""
    started = len(one.results)
    most = max(one.planned or 0, started)
    counted = f"{started}{of}{most}" if one.planned else f"{started}"
    return f"{counted} {'trial' if most == 1 else 'trials'}"


def best(result: TrialResult) -> str:
    at = f"epoch {result.epoch}/{result.planned}"
    value = text.format_value(result.value, result.standard_error)
    return f"{result.metric} {value}, trial {result.number} ({result.backbone}), {at}"


def confirmation(one: StudyStatus) -> str | None:
    """Return the winner by new seeds, such as `trial 3 (resnet18): mean macro_f1 0.71 over 3 new seeds`, or None."""
    won = one.winner
    if won is None or not (values := one.confirmed.get(won.number)):
        return None
    seeds = text.counted(len(values), "new seed")
    return f"trial {won.number} ({won.backbone}): mean {won.metric} {text.format_value(mean(values))} over {seeds}"


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
    finals = [final for final in one.finals if one.combines or (not final.ensemble and final.seed is None)]
    done = [final for final in finals if final.is_packed]
    if one.search_has_ended and not done:
        return one.resume  # it knows what was retrained in these hours
    if waiting := _unfinished(finals):
        return f"sweep best {one.study.name} {_options(one, waiting)}--export submission"
    if one.best and not done:
        return f"sweep best {one.study.name} --export submission"
    if any(final.scores for final in done):
        return f"sweep report {one.study.name}"
    if not one.best and not done:
        return one.resume
    if any(final.folder.submission.exists() or final.folder.predictions.exists() for final in done):
        return f"sweep score {one.study.name} VALUE"
    return f"sweep predict {one.study.name} IMAGES"


def _unfinished(finals: Sequence[FinalRun]) -> FinalRun | None:
    """Return the last final model that can be finished, an ensemble before its members; None if there is none."""
    waiting = [final for final in finals if not final.is_packed and (final.ensemble or final.seed is None)]
    return max(waiting, key=lambda final: (final.ensemble is not None, final.number), default=None)


def _options(one: StudyStatus, final: FinalRun) -> str:
    """Return the options of `sweep best` that finish a final model, with a space after them."""
    if final.ensemble is None:
        is_winner = one.winner is not None and one.winner.number == final.trial
        return "" if final.untried or is_winner else f"--trial {final.trial} "
    if final.ensemble.repeats:
        return f"--trial {final.trial} --seeds {len(final.members)} "
    return f"--ensemble {final.ensemble.most} "


def here() -> Iterator[str]:
    """Yield the state of each study in this folder, and the next command."""
    there = [status_of(study) for study in studies()]
    for one in there:
        top = f", best {text.format_value(one.best.value)} (trial {one.best.number})" if one.best else ""
        if one.winner and one.winner is not one.best:
            top += f", winner with new seeds trial {one.winner.number}"
        scored = "".join(_scored(final) for final in one.finals)
        yield f"{one.study.name}: {one.state.lower()}, {_trials(one, '/')}{top}{scored}"
    if there:
        yield f"next: {next_command(there[0])}"
        return
    spaces = sorted(SPACES.glob("*.yaml"))
    yield f"no study yet; {text.counted(len(spaces), 'search space')} in {SPACES}" if spaces else "no study yet"
    first = next((path for path in spaces if path.stem == "quickstart"), spaces[0] if spaces else None)
    yield f"next: {_first_command(_newest_starter() or first)}"


def _newest_starter() -> Path | None:
    """Return the search space in this folder that `sweep init` wrote last, or None."""
    there = (path for path in Path().glob("*.yaml") if path.is_file() and os.access(path, os.R_OK))
    found = (path for path in there if starter.is_starter(path.read_text(errors="replace")))
    return max(found, key=lambda path: path.stat().st_mtime, default=None)


def _first_command(space: Path | None) -> str:
    """Return the command that runs the space, or that creates its demo data if there is none."""
    if space is None:
        return "sweep run PHOTOS --hours 1 (PHOTOS: a folder of class folders, or a table), or sweep run SPACE.yaml"
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
    """Seconds spent in epochs of trials, in new seeds, in retrainings and between trials, and seconds left of the
    budget.
    """

    trials: float
    new_seeds: float
    retraining: float
    between_trials: float
    unused: float  # negative if the study ended late

    @property
    def words(self) -> str:
        rest = text.format_duration(abs(self.unused))
        end = f"unused {rest}" if self.unused >= 0 else f"{rest} late"
        parts = {"trials": self.trials, **({"new seeds": self.new_seeds} if self.new_seeds else {})}
        parts |= {"retraining": self.retraining, "between trials": self.between_trials}
        return ", ".join([*(f"{name} {text.format_duration(seconds)}" for name, seconds in parts.items()), end])


def spent(one: StudyStatus) -> Spent | None:
    """Return how a study used its budget of hours; None if it has none or still runs."""
    if one.hours is None or one.holder:
        return None
    swept, trials = records.elapsed_seconds(one.study), records.seconds(one.study)
    seeds, retraining = map(records.retraining_seconds, (one.study.confirmations, one.study.finals))
    rest = one.hours * 3600 - swept - seeds - retraining
    return Spent(trials, seeds, retraining, max(0.0, swept - trials), rest)


# ---------------------------------------------------------------------------------------- watching
@dataclass(frozen=True)
class Watched:
    """A study that another process is running, read from its files."""

    study: StudyFolder

    @property
    def names(self) -> dict[str, str]:
        """The short names of its parameters."""
        return parameter_names(opened(study_file.identity(self.study).get("train")))

    def look(self) -> StudyStatus:
        return status_of(self.study)

    def job(self, trial: int) -> Job | None:
        return _here(self.study.trial(trial))

    def epochs(self, job: Job) -> list[Epoch]:
        return records.history(RunFolder(job.folder))

    def retrained(self) -> Iterator[tuple[Job, TrialResult]]:
        """Yield the jobs of final models and confirmations, each with its status so far."""
        running = {one.key for one in self._running()}
        for folder in records.retrainings(self.study):
            if job := _here(folder):
                state: State = "RUNNING" if job.key in running else "INTERRUPTED"
                ended = records.read_result(folder)
                yield job, ended or records.result_of(job, records.history(folder), state)

    def positions(self) -> dict[str, tuple[str, Position | None]]:
        """Return the slot of each run by key, and its position in the current epoch."""
        return {one.key: (one.slot, one.at) for one in self._running()}

    def _running(self) -> tuple[RunningTrial, ...]:
        """Return the trials in running.json; none while it is being written."""
        try:
            return RunningTrials.model_validate_json(self.study.running.read_bytes()).trials
        except (FileNotFoundError, ValidationError):
            return ()


def _here(folder: RunFolder) -> Job | None:
    """Return the job of a run, with its current folder, as that may have moved."""
    job = records.read_config(folder)
    return job and job.model_copy(update={"folder": folder.root})


# ------------------------------------------------------------------------------------------ as JSON
def report(one: StudyStatus) -> dict[str, Any]:
    """Return the status as one JSON document."""
    return {"schema_version": 1, **document(one), "orphans": [asdict(orphan) for orphan in gpu_processes.found()]}


def document(one: StudyStatus) -> dict[str, Any]:
    """Return the status of a study alone, without facts about the machine."""
    used = spent(one)
    return {
        "study": one.study.name,
        "state": one.state,
        "metric": one.metric,
        "planned": one.planned,
        "trials": dict(Counter(result.state for result in one.results)),
        "best": one.best.model_dump(mode="json") if one.best else None,
        "winner": one.winner.number if one.winner else None,
        "confirmed": one.confirmed,
        "running": [r.model_dump(mode="json") for r in one.results if r.state == "RUNNING"],
        "holder": one.holder.model_dump() if one.holder else None,
        "finals": [_final(final) for final in one.finals],
        "spent_seconds": used._asdict() if used else None,
        "folder": str(one.study.root),
        "next": next_command(one),
    }


def everything() -> dict[str, Any]:
    """Return the status of all studies in this folder."""
    return {"schema_version": 1, "studies": [document(status_of(study)) for study in studies()]}


def _final(final: FinalRun) -> dict[str, Any]:
    return {
        "number": final.number,
        "folder": str(final.folder.root),
        "trial": final.trial,
        "members": list(final.members),
        "seed": final.seed,
        "done": final.done,
        "scores": list(final.scores),
    }
