"""How things stand in this folder: its studies, and the command that comes next."""

import json
import math
import shlex
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from sweeper import clock, documents, identity, lock, paths, record, shown, text
from sweeper.errors import UserError
from sweeper.paths import RunFolder, StudyFolder
from sweeper.system import gpu_processes
from sweeper.text import close, near
from sweeper.trial import OPEN, State, TrialResult
from trainers.support.files import expanded, write_text

SPACES = Path("search_spaces")


class Said(BaseModel):
    """A line of scores.jsonl: what a board said, and when that was noted."""

    model_config = ConfigDict(extra="allow")

    value: float
    note: str = ""
    time: float


@dataclass(frozen=True)
class Final:
    """A retraining for a submission, and what boards said of it."""

    folder: RunFolder
    trial: int
    done: bool
    scores: tuple[dict[str, Any], ...]


@dataclass(frozen=True)
class Standing:
    """One study as its folder tells it."""

    study: StudyFolder
    goal: str
    planned: int | None
    hours: float | None
    results: tuple[TrialResult, ...]
    best: TrialResult | None
    holder: lock.Holder | None
    finals: tuple[Final, ...]
    resume: str

    @property
    def state(self) -> State:
        """COMPLETE when the budget is used up as far as the folder tells; INTERRUPTED while something is open."""
        if self.holder:
            return "RUNNING"
        spent = self.hours is not None and clock.kept(self.study) >= self.hours * 3600 * (1 - clock.TOLERANCE)
        waits = ("RUNNING", "INTERRUPTED") if spent else OPEN  # out of hours, what is paused stays so
        ended = [result for result in self.results if result.state not in waits]
        short = self.planned is not None and self.hours is None and len(ended) < self.planned
        return "INTERRUPTED" if short or len(ended) < len(self.results) or not ended else "COMPLETE"


# ------------------------------------------------------------------------------------------ finding
def studies() -> list[StudyFolder]:
    """Every study here, the one that was last begun or taken up first."""
    found = [StudyFolder(path.parent) for path in paths.studies().glob("*/study.json")]
    return sorted(found, key=lambda study: study.spec.stat().st_mtime, reverse=True)


def find(name: str | None) -> StudyFolder:
    """The study called `name`, or the last one. Raises UserError where there is none."""
    there = studies()
    if name is None and there:
        return there[0]
    for study in there:
        if study.name == name:
            return study
    if not there:
        raise UserError("there is no study yet", where=str(paths.studies()), help="sweep run SPACE.yaml begins one")
    names = [study.name for study in there]
    raise UserError(
        f"no study {name!r}",
        where=str(paths.studies()),
        help=close(name or "", names) or f"there is {', '.join(names)}",
    )


def standing(study: StudyFolder) -> Standing:
    document = identity.read(study) or {}
    results = tuple(record.results(study))
    budget = document.get("budget", {})
    return Standing(
        study=study,
        goal=document.get("identity", {}).get("goal", "overall_accuracy"),
        planned=budget.get("trials"),
        hours=budget.get("hours"),
        results=results,
        best=shown.best(results),
        holder=lock.holder(study.lock),
        finals=tuple(finals(study)),
        resume=resume(study),
    )


def resume(study: StudyFolder) -> str:
    """The command that goes on with `study`."""
    try:
        return study.resume.read_text(errors="replace").strip()
    except FileNotFoundError:
        words = ["sweep", "run", near(study.space), "--set", f"study={study.name}"]  # the copy has another name
        return shlex.join(words)


def finals(study: StudyFolder) -> Iterator[Final]:
    """Every final, the oldest first."""
    for path in sorted(study.finals.glob("*/config.json")):
        folder = RunFolder(path.parent)
        if job := record.read_config(folder):
            yield Final(folder, job.trial, record.read_result(folder) is not None, tuple(_board(folder)))


def _board(folder: RunFolder) -> Iterator[dict[str, Any]]:
    if folder.board.exists():
        for number, line in enumerate(folder.board.read_bytes().splitlines(), 1):
            yield documents.parsed(line, Said, f"{folder.board}:{number}").model_dump(exclude_unset=True)


# ----------------------------------------------------------------------------------- a board's score
def note_score(target: str, value: float, note: str) -> Path:
    """Write down what a board said of a submission; returns the file.

    `target` is a submission.zip, a final's folder, or a study, whose newest finished final is meant.
    """
    if not math.isfinite(value):
        raise UserError(f"a board's score is a number, and not {value}", help="sweep score STUDY 0.8731")
    folder = _target(target)
    line = {"value": value, "note": note, "time": time.time()}
    before = folder.board.read_text(errors="replace") if folder.board.exists() else ""
    write_text(folder.board, before + json.dumps(line) + "\n")
    return folder.board


def _target(target: str) -> RunFolder:
    path = Path(expanded(target))
    is_study = target in [study.name for study in studies()]
    if not is_study and (path.is_file() or path.is_dir()):
        folder = RunFolder((path if path.is_dir() else path.parent).absolute())
        if folder.root.parent.name == "final" and folder.config.exists():
            return folder
        raise UserError("this is no submission of a study", where=target, help="name mlruns/studies/STUDY/final/...")
    study = find(target)
    done = [final.folder for final in finals(study) if final.done]
    if not done:
        help = f"sweep best {study.name} --export submission makes one"
        raise UserError(f"study {study.name} has no submission yet", help=help)
    return done[-1]


# ------------------------------------------------------------------------------------------ telling
def status(one: Standing) -> Iterator[str]:
    """A study in a few lines: how far it is, what is best, where it lies, what comes next."""
    count: Counter[str] = Counter(result.state for result in one.results)
    parts = [f"{count[state]} {state.lower()}" for state in shown.STATUS if count[state]]
    planned = f" of {one.planned}" if one.planned else ""
    yield f"study    {one.study.name}: {one.state.lower()}, {len(one.results)}{planned} {_trials(one)} begun"
    yield f"trials   {', '.join(parts) or 'none yet'}"
    if one.holder:
        yield f"held by  {one.holder} since {datetime.fromtimestamp(one.holder.started):%d %b %H:%M}"
    for result in one.results:
        if result.state == "RUNNING":
            yield f"running  {running(result)}"
    if one.best:
        yield f"best     {best(one.best)}"
    for final in one.finals:
        yield f"final    {near(final.folder.root)}{'' if final.done else ' (not finished)'}{_scored(final)}"
    for orphan in gpu_processes.found():
        yield f"warning  {orphan}"
    yield f"files    {near(one.study.root)}"
    yield f"next     {next_command(one)}"


def _trials(one: Standing) -> str:
    return "trial" if (one.planned or len(one.results)) == 1 else "trials"


def best(result: TrialResult) -> str:
    at = f"epoch {result.epoch}/{result.planned}"
    return f"{result.goal} {text.short(result.value)}, trial {result.number} ({result.backbone}), {at}"


def running(result: TrialResult) -> str:
    value = f", {text.short(result.value)}" if result.epochs else ""
    return f"trial {result.number} ({result.backbone}), epoch {result.epochs}/{result.planned}{value}"


def _scored(final: Final) -> str:
    said = [f"{score['value']:g}{' ' + score['note'] if score['note'] else ''}" for score in final.scores]
    return f", scored {', '.join(said)}" if said else ""


def next_command(one: Standing) -> str:
    if one.state == "RUNNING":
        return f"sweep leaderboard {one.study.name}"
    if one.state == "INTERRUPTED":
        return one.resume
    done = [final for final in one.finals if final.done]
    if one.best and (not done or len(done) < len(one.finals)):
        return f"sweep best {one.study.name} --export submission"
    return f"sweep score {one.study.name} VALUE" if one.best else one.resume


def here() -> Iterator[str]:
    """The state of this folder, and the next command."""
    there = [standing(study) for study in studies()]
    for one in there:
        planned = f"/{one.planned}" if one.planned else ""
        top = f", best {text.short(one.best.value)} (trial {one.best.number})" if one.best else ""
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
        return "write a search space (see the README), then: sweep run SPACE.yaml"
    from sweeper.space import yaml_io

    try:
        data = yaml_io.read(space).data
    except UserError:
        return f"sweep plan {shlex.quote(str(space))}"
    if data.layout == "challenge" and not Path(data.root).exists():
        return f"sweep data demo {shlex.quote(data.root)}"
    return f"sweep run {shlex.quote(str(space))}"


# ------------------------------------------------------------------------------------------ as JSON
def report(one: Standing) -> dict[str, Any]:
    """What `status` tells, as one JSON document."""
    return {"schema_version": 1, **document(one), "orphans": [asdict(orphan) for orphan in gpu_processes.found()]}


def document(one: Standing) -> dict[str, Any]:
    """A study, without what is true of the whole machine."""
    return {
        "study": one.study.name,
        "state": one.state,
        "goal": one.goal,
        "planned": one.planned,
        "trials": dict(Counter(result.state for result in one.results)),
        "best": one.best.model_dump(mode="json") if one.best else None,
        "running": [r.model_dump(mode="json") for r in one.results if r.state == "RUNNING"],
        "holder": one.holder.model_dump() if one.holder else None,
        "finals": [_final(final) for final in one.finals],
        "folder": str(one.study.root),
        "next": next_command(one),
    }


def everything() -> dict[str, Any]:
    """All studies here."""
    return {"schema_version": 1, "studies": [document(standing(study)) for study in studies()]}


def _final(final: Final) -> dict[str, Any]:
    return {"folder": str(final.folder.root), "trial": final.trial, "done": final.done, "scores": list(final.scores)}
