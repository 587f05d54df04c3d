"""Confirmation: leaders that one validation set cannot distinguish are trained again with new seeds."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any

from sweeper import text
from sweeper.engine import retraining
from sweeper.results.winner import leaders
from sweeper.space.spec import Confirm
from sweeper.store import paths, records
from sweeper.store.paths import RunFolder, StudyFolder
from sweeper.terminal import events, output
from sweeper.terminal.output import print_message
from sweeper.trial import Done, Job, TrialResult
from trainers.epoch import Epoch
from trainers.metrics.definitions import oriented

if TYPE_CHECKING:
    from sweeper.engine.session import Session
    from sweeper.system.devices import Slot

STRIDE = 1000  # between two new seeds of a trial, apart from the search's own repeats


@dataclass(frozen=True)
class Row:
    """A leader: its value in the search, and its values with new seeds."""

    trial: int
    backbone: str
    value: float
    again: tuple[float, ...]

    @property
    def mean(self) -> float:
        return mean(self.again)


def run(
    study: StudyFolder,
    repeats: int,
    slots: "Sequence[Slot]",
    *,
    front: Sequence[TrialResult] = (),
    mlflow: bool = True,
    events: bool = False,
) -> list[Row]:
    """Train every leader `repeats` times with new seeds, except those on record; return rows, best mean first.

    The leaders are the tied trials, unless `front` names others. On a full disk, this waits for space and then
    continues.
    """
    front = front or leaders(study)

    def left() -> list[Job]:
        return [job for repeat in range(1, repeats + 1) for one in front if (job := _job(study, one, repeat))]

    if jobs := left():
        recipe = jobs[0].recipe
        retraining.session(
            study,
            recipe,
            slots,
            lambda held: held.train(left(), _make_result),
            spent_on=[RunFolder(job.folder) for job in jobs],
            mlflow=mlflow,
            events=events,
        )
    values = records.confirmed(study)
    rows = [Row(one.number, one.backbone, one.value or 0.0, values[one.number]) for one in front]
    return sorted(rows, key=lambda row: (-oriented(row.mean, minimize=front[0].minimize), row.trial))


def as_planned(session: "Session", asked: Confirm) -> None:
    """Confirm leaders after a search as `search.confirm` requests, if the hours allow it.

    Reports the outcome and the next command.
    """
    folder, slots, options = session.prepared.folder, session.prepared.slots, session.options
    front = leaders(folder, asked.top)
    top, seeds = _fitting(session, front, asked) if len(front) > 1 else (0, 0)
    if len(front) > 1 and (top, seeds) != (len(front), asked.seeds):
        room = f"{text.counted(seeds, 'new seed')} for each of the best {top}" if seeds else "no new seeds"
        print_message(f"the hours allow {room}; increase --hours for all")
    if seeds:
        rows = run(folder, seeds, slots, front=front[:top], mlflow=options.mlflow, events=options.events)
        _report(folder, rows, minimize=front[0].minimize, as_event=options.events)
    if not (options.events or session.retrains):
        print_message(f"next:   sweep best {folder.name} --export submission")


def _report(folder: StudyFolder, rows: Sequence[Row], *, minimize: bool, as_event: bool) -> None:
    if as_event:
        events.emit("confirmed", **document(folder, rows))
        return
    output.print_table(HEADERS, cells(rows), sys.stderr)
    print_message(luck(rows, minimize=minimize))


def _fitting(session: "Session", front: Sequence[TrialResult], asked: Confirm) -> tuple[int, int]:
    """Return how many leaders (at least two) and seeds fit the hours, counting those on record; else (0, 0)."""
    study = session.prepared.folder
    trains = [job.recipe.train for one in front if (job := records.read_config(study.trial(one.number)))]
    clock = session.clock(trains[0], front[0].epoch or 0)
    known = records.confirmed(study)
    for top in range(len(trains), 1, -1):
        done = max(len(known.get(one.number, ())) for one in front[:top])
        rounds = clock.repeats(trains[:top], len(session.prepared.slots), asked.share)
        if (fitting := max(done, int(min(asked.seeds, rounds)))) > 0:
            return top, fitting
    return 0, 0


def luck(rows: Sequence[Row], *, minimize: bool) -> str:
    """Compare the search's best value with its mean over new seeds: the best of noisy values is partly luck."""
    found = max(rows, key=lambda row: oriented(row.value, minimize=minimize))
    won = "it has the best mean" if found is rows[0] else f"trial {rows[0].trial} has the best mean"
    return f"trial {found.trial} had {found.value:.4f} in the search and has {found.mean:.4f} with new seeds; {won}"


def _job(study: StudyFolder, result: TrialResult, repeat: int) -> Job | None:
    """Return the `repeat`-th confirmation of a trial, or None if it is on record."""
    folder = study.confirm(result.number, repeat)
    original = records.read_config(study.trial(result.number))
    if original is None or records.read_result(folder):
        return None
    if started := records.read_config(folder):  # a remedy may have changed it
        return started.model_copy(update={"folder": folder.root, "cache": paths.cache()})
    changes = {
        "kind": "confirm",
        "recipe": original.recipe.with_seed(original.recipe.train.seed + STRIDE * repeat),
        "folder": folder.root,
        "cache": paths.cache(),
        "resumed": False,
        "repeat_of": result.number,
    }
    return original.model_copy(update=changes)


def _make_result(job: Job, ended: Done, epochs: list[Epoch]) -> TrialResult:
    return records.result_of(job, epochs, "COMPLETE", ended)


# --------------------------------------------------------------------------------------- output
HEADERS = ("trial", "backbone", "in the search", "mean of new seeds", "spread", "seeds")


def cells(rows: Sequence[Row]) -> list[list[str]]:
    return [
        [
            str(row.trial),
            row.backbone,
            f"{row.value:.4f}",
            f"{row.mean:.4f}",
            f"{stdev(row.again):.4f}" if len(row.again) > 1 else "",
            str(len(row.again)),
        ]
        for row in rows
    ]


def document(study: StudyFolder, rows: Sequence[Row]) -> dict[str, Any]:
    leaders = [{"trial": row.trial, "value": row.value, "again": list(row.again), "mean": row.mean} for row in rows]
    return {"schema_version": 1, "study": study.name, "winner": rows[0].trial, "leaders": leaders}
