"""Measure the cost of a trial besides training: ours against raw Optuna in a SQLite file, with and without MLflow.

    python benchmarks/overhead.py [--quick]

The fake trainer runs 20 epochs per trial on one slot with a warm worker. The clock runs from the finish of a round's
first trial until the last has finished and MLflow has everything. Raw Optuna is `study.optimize` with 20 reports
per trial. The gate: every lane has recorded the right number of trials, reports and MLflow points.
"""

import os
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import grown
import optuna
import rounds

from sweeper.engine import loop
from sweeper.engine.observers import Observers
from sweeper.executors.local import Local
from sweeper.space import yaml_io
from sweeper.store import paths, records
from sweeper.store.paths import StudyFolder
from sweeper.system.devices import Slot
from sweeper.system.signals import Stop
from sweeper.tracking import client as tracking_client
from sweeper.tracking import tracker as tracking
from sweeper.tracking.reconcile import StudyInfo
from sweeper.trial import Closing, Job, TrialResult
from trainers.epoch import Epoch
from trainers.support.position import Position

GOAL, FLOOR = 100.0, 167.0  # ms per trial beyond raw Optuna; the measured cost of one MLflow batch per epoch
FIGURES = 14  # per epoch
WAITING = 0.05  # share of their time that eight workers may wait
names = (f"s{number}" for number in count())


@dataclass
class Watch:
    """An observer that only records when trials finish."""

    ends: list[float] = field(default_factory=list)

    def started(self, job: Job, slot: str) -> None: ...
    def epoch(self, job: Job, epoch: Epoch, best: TrialResult | None) -> None: ...
    def moved(self, positions: Mapping[str, Position]) -> None: ...
    def closed(self, closing: Closing) -> None: ...

    def note(self, text: str) -> None:
        print(text, file=sys.stderr)

    def ended(self, _: Job, __: TrialResult) -> None:
        self.ends.append(time.perf_counter())


def ours(trials: int, *, mlflow: bool) -> float:
    """Return ms per trial of `sweep run`'s loop."""
    name, watch = next(names), Watch()
    study = grown.opened(name, trials, pruner="none")
    observers = Observers([watch, *([_tracker(watch, study.folder, trials)] if mlflow else [])], watch.note)
    loop.run(study, Local([Slot("cpu:0")]), observers, stop=Stop())
    observers.closed(Closing("COMPLETE", timeout=120.0))
    spent = time.perf_counter() - watch.ends[0]
    study.close()
    _complete(study.folder, trials)
    if mlflow:
        _expect("MLflow's points", _points(name), trials * grown.EPOCHS * FIGURES)
    return 1e3 * spent / (trials - 1)


def _tracker(watch: Watch, folder: StudyFolder, trials: int) -> tracking.MlflowTracker:
    """Return an MLflow tracker that is loaded and has created the study's run."""
    read, space = grown.question(folder.name, trials, pruner="none")
    tracker = tracking.MlflowTracker(watch.note, recipe_text=lambda job: yaml_io.recipe_yaml(job.study, job.recipe))
    tracker.opened(StudyInfo(folder, "nothing", read.metric, read.text, planned=trials, names=space.names))
    while tracking_client.link(folder, "") is None:
        time.sleep(0.02)
    return tracker


def raw(trials: int) -> float:
    """Return ms per trial of `study.optimize` with our default sampler."""
    sampler = optuna.samplers.TPESampler(seed=0, multivariate=False, constant_liar=True)
    path = paths.home() / f"{next(names)}.db"
    study = optuna.create_study(
        storage=f"sqlite:///{path}", direction="maximize", sampler=sampler, pruner=optuna.pruners.NopPruner()
    )
    ends: list[float] = []
    study.optimize(_objective, n_trials=trials, callbacks=[lambda *_: ends.append(time.perf_counter())])
    _expect("raw reports", _count(path), trials * grown.EPOCHS)
    return 1e3 * (ends[-1] - ends[0]) / (trials - 1)


def _objective(trial: optuna.Trial) -> float:
    trial.suggest_categorical("backbone", ["resnet18", "resnet50"])
    trial.suggest_float("optimizer.lr", 1e-5, 1e-1, log=True)
    value = trial.suggest_float("loss.gamma", 0, 5)
    for epoch in range(grown.EPOCHS):
        trial.report(value * epoch, step=epoch + 1)
        if trial.should_prune():
            raise optuna.TrialPruned
    return value


def floor(trials: int) -> float:
    """Return ms per trial of MLflow alone, in its usual use: a run, a batch of figures per epoch, the run's end."""
    from mlflow import MlflowClient
    from mlflow.entities import Metric

    server = tracking_client.Server(print)
    client, experiment = MlflowClient(tracking_uri=server.uri), server.experiment("floor")
    began = time.perf_counter()
    for _ in range(trials):
        run = client.create_run(experiment).info.run_id
        for epoch in range(grown.EPOCHS):
            client.log_batch(run, [Metric(f"m{k}", float(epoch), 1000 * epoch, epoch) for k in range(FIGURES)])
        client.set_terminated(run)
    return 1e3 * (time.perf_counter() - began) / trials


def waiting(seconds: float, trials: int, epochs: int) -> float:
    """Return the share of time that eight workers spend outside epochs of `seconds`, from the first to the last."""
    os.environ["SWEEP_FAKE_SECONDS"] = str(seconds)
    name, watch = next(names), Watch()
    study = grown.opened(name, trials, pruner="none", epochs=epochs)
    observers = Observers([watch, _tracker(watch, study.folder, trials)], watch.note)
    slots = [Slot(f"cpu:{number}") for number in range(8)]
    loop.run(study, Local(slots), observers, stop=Stop())
    observers.closed(Closing("COMPLETE", timeout=120.0))
    study.close()
    os.environ["SWEEP_FAKE_SECONDS"] = "0"
    found = [records.history(folder) for _, folder in records.folders(study.folder)]
    spans = [epochs[-1].time - epochs[0].time for epochs in found]
    return 1 - (epochs - 1) * seconds / statistics.mean(spans)


# -------------------------------------------------------------------------------------------- gate
def _expect(what: str, found: int, wanted: int) -> None:
    if found != wanted:
        sys.exit(f"gate: {what}: {found} instead of {wanted}")


def _complete(folder: StudyFolder, trials: int) -> None:
    results = records.results(folder)
    _expect("completed trials", sum(one.state == "COMPLETE" for one in results), trials)
    _expect("epochs on record", sum(one.epochs for one in results), trials * grown.EPOCHS)
    values = [entry.values for entry in records.ended(folder).values()]
    _expect("values in the index of trials", sum(map(len, values)), trials * grown.EPOCHS)


def _count(path: Path) -> int:
    with closing(sqlite3.connect(path)) as database:
        return int(database.execute("SELECT count(*) FROM trial_intermediate_values").fetchone()[0])


def _points(study: str) -> int:
    """Return the number of figures from the epochs of a study's trials in MLflow's database."""
    sql = (
        "SELECT count(*) FROM metrics JOIN tags AS s ON s.run_uuid = metrics.run_uuid "
        "JOIN tags AS k ON k.run_uuid = metrics.run_uuid "
        "WHERE s.key = 'sweep.study' AND s.value = ? AND k.key = 'sweep.kind' AND k.value = 'trial'"
    )
    with closing(sqlite3.connect(paths.database())) as database:
        return int(database.execute(sql, (study,)).fetchone()[0])


# ------------------------------------------------------------------------------------------- table
def rows(found: Mapping[str, list[float]], share: float) -> Iterator[list[object]]:
    kept = rounds.steady(found["raw Optuna"])
    for name, each in found.items():
        middle = statistics.median(each[k] for k in kept)
        beyond = [each[k] - found["raw Optuna"][k] for k in kept]
        metric = verdict = ""
        if name == "ours, MLflow on":
            metric, verdict = f"<= {GOAL:.0f} beyond", rounds.verdict(statistics.median(beyond), GOAL)
        yield [name, middle, min(each), 1e3 / middle, statistics.median(beyond), metric, verdict]
    yield [
        "eight workers with one-second epochs, share of time waiting",
        share,
        "",
        "",
        "",
        f"<= {WAITING:g}",
        rounds.verdict(share, WAITING),
    ]


def main() -> None:
    given = rounds.arguments(__doc__).parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    trials, many = (12, 3) if given.quick else (40, 5)
    with tempfile.TemporaryDirectory() as home:
        os.environ |= {"SWEEP_HOME": home, "SWEEP_TRAINER": "fake"}
        lanes = {
            "raw Optuna": lambda: raw(trials),
            "ours, MLflow off": lambda: ours(trials, mlflow=False),
            "ours, MLflow on": lambda: ours(trials, mlflow=True),
            "MLflow alone, one batch per epoch": lambda: floor(trials),
        }
        ours(2, mlflow=True)  # creates MLflow's database and loads MLflow
        found = rounds.interleave(lanes, many)
        share = waiting(1.0, 8, 8) if given.quick else waiting(1.0, 16, 20)
    headers = ["lane", "ms per trial", "least", "trials per second", "beyond raw Optuna, ms", "target", ""]
    print(rounds.hardware())
    print(f"{trials} trials of {grown.EPOCHS} epochs per round, {many} interleaved rounds; medians")
    print(rounds.table(headers, rows(found, share)))


if __name__ == "__main__":
    main()
