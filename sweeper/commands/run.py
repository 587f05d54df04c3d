"""`sweep run`: read a YAML file, check everything, run the session, and print the summary at the end."""

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from sweeper import text
from sweeper.engine import prepare as preparation
from sweeper.engine import presets
from sweeper.engine.options import PAIR, Options
from sweeper.engine.prepare import prepare
from sweeper.engine.session import Session, make_executor
from sweeper.errors import UserError
from sweeper.results import columns, importance, status, winner
from sweeper.results.importance import edges
from sweeper.results.winner import Winner
from sweeper.store import studies
from sweeper.store.importance import Importance
from sweeper.store.paths import RunFolder, StudyFolder
from sweeper.store.ranking import Ranking
from sweeper.system import devices
from sweeper.terminal import events, log, output
from sweeper.terminal.heading import Heading
from sweeper.trial import SessionEnd

if TYPE_CHECKING:
    from sweeper.winners.final import Final

TOP = 3  # trials of the leaderboard to show at the end


def session(path: Path, options: Options) -> Session:
    """Return the session that starts or resumes the study of the file at `path`, with its images decoded.

    Every problem that can be found in advance is raised here, before the first trial exists.
    """
    options.check()
    command = options.command(path)
    prepared = prepare(path, options)
    if note := prepared.other_machine(options):
        output.print_message(note)
    options = replace(options, slots=prepared.per_device)
    understood = [*preparation.understood(prepared.summary, str(path)), *preparation.executed()]
    understood += [line for line in [presets.summary_line(prepared.spec)] if line]
    for line in understood:
        output.print_message(line)
    preparation.decode(prepared.table, prepared.spec.data, prepared.space.framing)
    heading = _heading(prepared, options, path, understood)
    return Session(prepared, options, partial(make_executor, prepared, options), command, heading)


def run(session: Session) -> SessionEnd:
    """Run a session until the budget is spent or a signal arrives, then the confirmation that its file requests.

    However it ends, stderr then shows the status, the location of the files, and how to continue.
    """
    from sweeper.executors import inline

    prepared = session.prepared
    with inline.environment(prepared.slots[0] if session.options.inline else None):
        outcome = _run(session)
    if outcome.exit_code == 0 and session.searches and prepared.spec.search.confirm:
        from sweeper.winners import confirm

        confirm.as_planned(session, prepared.spec.search.confirm)
    return outcome


def _heading(prepared: preparation.PreparedStudy, options: Options, path: Path, understood: Sequence[str]) -> Heading:
    spec, data = prepared.spec, prepared.summary
    server = os.environ.get("MLFLOW_TRACKING_URI")
    browse = f"MLflow at {text.redacted(server)}" if server else f"sweep ui {prepared.folder.name}"
    homes = list(dict.fromkeys(slot.home for slot in prepared.slots))
    return Heading(
        study=spec.study,
        source=str(path),
        metric=spec.metric,
        minimize=spec.minimize,
        data=understood,
        images=data.images,
        classes={category.name: len(category.classes) for category in data.categories},
        devices=[f"Ray cluster {options.ray}"] if options.ray else homes,
        slots=options.per_device,
        trials=spec.budget.trials,
        hours=spec.budget.hours,
        folder=text.relative_path(prepared.folder.root),
        browse=browse if options.mlflow else None,
        plan=prepared.plan.line if prepared.plan and spec.by_hours else None,
        folds=spec.search.folds,
    )


def _run(session: Session) -> "SessionEnd":
    """Run the session; however it ends, report the status of the study."""
    outcome = SessionEnd(1)
    try:
        outcome = session.run()
    except UserError as error:
        outcome = SessionEnd(error.exit_code)
        raise
    finally:
        if session.started and session.searches:
            report_ending(
                session.prepared.folder,
                session.command,
                outcome,
                goes_on=session.goes_on,
                as_event=session.options.events,
            )
    return outcome


def final(prepared: preparation.PreparedStudy, options: Options) -> "Final | None":
    """Return the retrained, packed winner of a study, as from `sweep best --export submission`.

    If there was no time for a search, this is the study's first configuration. None if the study is not retrained.
    """
    from sweeper.winners import ensemble, selection
    from sweeper.winners import final as winning

    spec, folder = prepared.spec, prepared.folder
    if not options.retrains(spec):
        return None
    slots = devices.slots(options.devices)
    won = _untried(prepared) if preparation.trains_once(folder) else winner.winner(folder)
    pair = _pair(prepared, slots, options)
    if spec.by_hours and spec.rules.ensemble and pair:
        chosen = selection.pair(won)
        output.print_message(chosen.line)
        return ensemble.export(chosen, pair, mlflow=options.mlflow, events=options.events)
    return winning.export(won, slots[:1], mlflow=options.mlflow, events=options.events)


def _pair(prepared: preparation.PreparedStudy, homes: Sequence[devices.Slot], options: Options) -> list[devices.Slot]:
    """Return the slots on which two models are retrained: two if the study trains at least two trials at once, one if
    its plan has time for both one after another, else none.
    """
    plan = prepared.plan
    beside = plan.slots if plan else 1
    if homes[0].device == "cpu":
        beside = min(beside, devices.cores())  # the plan may come from another machine
    if isinstance(options.slots, int):
        beside = options.slots * len(homes)
    if beside >= PAIR:
        return devices.slots(options.devices, -(-PAIR // len(homes)))
    return [*homes[:1]] if plan and plan.models == PAIR else []


def _untried(prepared: preparation.PreparedStudy) -> Winner:
    """Return the first configuration of a study."""
    params = next(iter(prepared.first_configurations(1)))
    return winner.untried(prepared.folder, prepared.space.recipe(params), params)


def cached(path: Path, options: Options) -> int:
    """Decode the images that the study at `path` needs and return their number."""
    prepared = prepare(path, options, networks=False)
    preparation.decode(prepared.table, prepared.spec.data, prepared.space.framing)
    return len(prepared.table.rows)


def report_ending(
    folder: StudyFolder, command: str, outcome: SessionEnd, *, goes_on: bool = False, as_event: bool = False
) -> None:
    """Report the status of the study, its files and the next command on stderr and in the study's log.

    With `goes_on` the next step follows automatically once the search has ended, so no command is shown. With
    `as_event` the report is JSON on stdout, and text only in the log. Nothing is reported if the study's folder is
    gone: the error that stopped the sweep explains that.
    """
    if not folder.root.exists():
        return
    one, ended = studies.status_of(folder), outcome.exit_code == 0
    mattered = importance.importance(folder, one.results) if ended else None
    top = _top(one, mattered) if ended else None
    first = list(_first(one, outcome.reason))
    last = [*(_rest(one) if top else ()), *_last(one, command, mattered, ended=ended, goes_on=goes_on)]
    if as_event:
        _emit_ending(one, outcome)
    else:
        for line in first:
            output.print_message(line)
        if top:
            output.print_table(top.headers, top.rows, sys.stderr, more=f"sweep leaderboard {folder.name} shows all")
        for line in last:
            output.print_message(line)
    log.write(folder.log, [*first, *(output.aligned(top.headers, top.rows) if top else ()), *last])


def _emit_ending(one: studies.StudyStatus, outcome: SessionEnd) -> None:
    found = status.document(one)
    told = {name: found[name] for name in ("state", "metric", "trials", "best", "folder", "next")}
    events.emit("end", one.study.name, exit_code=outcome.exit_code, reason=outcome.reason, **told)


def _first(one: studies.StudyStatus, reason: str) -> Iterator[str]:
    """Yield why the session ended, and the best trial."""
    yield from [reason] if reason else []
    yield f"best:   {status.best(one.best) if one.best else 'no trial completed yet'}"


def _top(one: studies.StudyStatus, mattered: Importance | None) -> columns.Board | None:
    """Return the best few trials, or None if there are not two to compare."""
    if sum(result.state == "COMPLETE" for result in one.results) < 2:
        return None
    board = columns.board(Ranking.of(one.results, one.study), mattered)
    return replace(board, rows=board.rows[:TOP])


def _rest(one: studies.StudyStatus) -> Iterator[str]:
    """The command that shows the trials below the first few."""
    if (more := len(one.results) - TOP) > 0:
        yield f"{text.counted(more, 'more trial')}: sweep leaderboard {one.study.name}"


def _last(
    one: studies.StudyStatus, command: str, mattered: Importance | None, *, ended: bool, goes_on: bool
) -> Iterator[str]:
    """Yield the importance of parameters, the location of the files, and the next commands."""
    if mattered:
        yield mattered.line
    yield from map(str, edges(one.study, one.results)) if ended else ()
    yield f"files:  {text.relative_path(one.study.root)}"
    yield from _broken(one)
    if one.study.sync_state.exists():
        yield f"browse: sweep ui {one.study.name}"
    if not ended or one.state != "COMPLETE" or not one.best:
        yield f"resume: {command}"
        return
    yield f"report: sweep report {one.study.name}"
    if not goes_on:
        yield f"next:   {status.next_command(one)}"


def _broken(one: studies.StudyStatus) -> Iterator[str]:
    """Yield the error and log of the last failed trial, if no trial completed."""
    failed = [result for result in one.results if result.state == "FAILED"]
    if failed and not one.best:
        log = RunFolder(one.study.trial(failed[-1].number).root).log
        yield f"failed: {failed[-1].error}; its log is {text.relative_path(log)}"
