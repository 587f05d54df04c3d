"""A sweep of another process, shown from its files."""

import io
import json
import os
import re
from pathlib import Path

import pytest

from sweeper.results.status import Watched
from sweeper.store import lock, records
from sweeper.store.paths import RunFolder, StudyFolder
from sweeper.terminal import follow, log, views
from sweeper.terminal.log import Published
from sweeper.terminal.summary import Known
from sweeper.trial import Closing, Job, Observer, TrialResult
from tests.support.records import begin, curve, end, epoch, job
from trainers.epoch import Epoch
from trainers.support.position import Position


class Told(Observer):
    """A view that writes down what it is told, and does the next step of a sweep each time it is asked to redraw."""

    def __init__(self, steps) -> None:
        self.words, self.steps, self.gone = [], iter(steps), False

    def plan(self, total: int | None, results) -> None:
        self.words.append(f"plan {total}, {len(results)} before")

    def started(self, job: Job, slot: str) -> None:
        self.words.append(f"start {job.trial} on {slot or 'nobody knows'}")

    def epoch(self, job: Job, epoch: Epoch, best: TrialResult | None) -> None:
        self.words.append(f"epoch {job.trial} {epoch.number}, best {best.number if best else None}")

    def moved(self, positions) -> None:
        self.words += [f"{trial} at {at.split} {at.done}" for trial, at in positions.items()]
        next(self.steps, lambda: None)()

    def ended(self, job: Job, result: TrialResult) -> None:
        self.words.append(f"end {job.trial} {result.state}")

    def closed(self, _closing: Closing) -> None:
        self.words.append("closed")


@pytest.fixture
def study(monkeypatch) -> StudyFolder:
    monkeypatch.setattr(follow, "INTERVAL_S", 0.0)
    monkeypatch.setattr(follow, "SHARE", 1e6)
    made = StudyFolder.named("question")
    made.root.mkdir(parents=True)
    identity = {"data": {}, "metric": "overall_accuracy", "train": {}}
    record = {"schema_version": 2, "study": "question", "identity": identity, "budget": {"trials": 9}}
    made.study_file.write_text(json.dumps(record))
    return made


@pytest.fixture
def watched(study) -> Watched:
    return Watched(study)


def add(of: Job, number: int) -> None:
    records.append(RunFolder(of.folder), epoch(number - 1, 0.5))


def test_a_view_is_told_what_the_files_say_until_nobody_sweeps(study, watched, monkeypatch):
    old, first, second = (begin(job(study, number)) for number in range(3))
    end(old, curve(old), "COMPLETE")
    add(first, 1)
    held, published = lock.acquire(study.lock), Published(study.running)
    monkeypatch.setattr(log, "PUBLISHED_EVERY_S", 0.0)
    published.started(first, "cuda:0")
    published.moved({first.key: Position("train", 3, 9)})
    steps = [
        lambda: add(first, 2),
        lambda: (add(first, 3), end(first, records.history(RunFolder(first.folder)), "COMPLETE")),
        lambda: (published.closed(Closing("COMPLETE")), held.release()),
    ]
    told = Told(steps)
    follow.follow(watched, told)
    assert told.words == [
        "plan 9, 1 before",
        "start 1 on cuda:0",
        "start 2 on nobody knows",
        "trials/0001 at train 3",
        "epoch 1 2, best 0",
        "trials/0001 at train 3",
        "epoch 1 3, best 0",
        "end 1 COMPLETE",
        "trials/0001 at train 3",
        "end 2 INTERRUPTED",
        "closed",
    ]
    assert not second.resumed


def test_a_trial_that_ended_between_two_looks_is_told(study, watched):
    held = lock.acquire(study.lock)

    def whole() -> None:
        quick = begin(job(study, 0))
        end(quick, curve(quick), "PRUNED")

    told = Told([whole, held.release])
    follow.follow(watched, told)
    assert told.words == ["plan 9, 0 before", "end 0 PRUNED", "closed"]


@pytest.mark.parametrize("kind", ["final", "confirm"])
def test_runs_that_no_search_decides_on_are_told_with_those_of_before_left_out(study, watched, monkeypatch, kind):
    monkeypatch.setattr(log, "PUBLISHED_EVERY_S", 0.0)
    trial = begin(job(study, 3))
    end(trial, curve(trial), "COMPLETE")
    folders = [study.final(name) if kind == "final" else study.confirm(3, int(name)) for name in "123"]
    old, now, waiting = (begin(job(study, 3, kind=kind, folder=one.root)) for one in folders)
    end(old, curve(old), "COMPLETE")
    add(waiting, 1)  # interrupted earlier: nobody trains it now
    elsewhere = now.model_copy(update={"folder": Path("/before") / now.folder.relative_to(study.root.parent)})
    records.write_config(RunFolder(now.folder), elsewhere)  # the project was moved since
    held, published = lock.acquire(study.lock), Published(study.running)
    published.started(now, "cpu")
    published.moved({now.key: Position("train", 3, 9)})
    steps = [
        lambda: add(now, 1),
        lambda: (add(now, 2), end(now, records.history(RunFolder(now.folder)), "COMPLETE")),
        lambda: (published.closed(Closing("COMPLETE")), held.release()),
    ]
    told = Told(steps)
    follow.follow(watched, told)
    assert told.words == [
        "plan 9, 1 before",
        "start 3 on cpu",
        f"{now.key} at train 3",
        "epoch 3 1, best None",
        f"{now.key} at train 3",
        "epoch 3 2, best None",
        "end 3 COMPLETE",
        f"{now.key} at train 3",
        "closed",
    ]


def test_a_final_is_none_of_the_planned_trials(study):
    stream, trial, final = io.StringIO(), job(study, 0), job(study, 0, kind="final")
    view = views.Plain(stream)
    for one in (trial, final):
        begin(one)
    results = [end(one, curve(one), "COMPLETE") for one in (trial, final)]
    view.plan(2, results[:1])
    view.started(final, "cpu")
    view.ended(final, results[1])
    view.closed(Closing("COMPLETE"))
    assert stream.getvalue().splitlines()[-1].partition("; ")[0].endswith("1 done, 0 pruned, 0 failed, 1 to go")


def test_a_view_whose_pipe_nobody_reads_any_more_ends_the_watching(study, watched):
    trial = begin(job(study, 0))
    add(trial, 1)
    held = lock.acquire(study.lock)
    reader, writer = os.pipe()
    with os.fdopen(writer, "w") as stream:
        view = views.Plain(stream)
        assert not view.gone
        os.close(reader)
        follow.follow(watched, view)  # though the study is held all the time
        assert view.gone
    held.release()


def test_what_is_followed_off_a_terminal_reads_like_the_sweep(study, watched):
    running = begin(job(study, 0, params={"loss.gamma": 2.0}))
    add(running, 1)
    held, stream = lock.acquire(study.lock), io.StringIO()

    class Following(views.Plain):
        def moved(self, positions) -> None:  # noqa: ARG002
            add(running, 2)
            held.release()

    follow.follow(watched, Following(stream, Known({"loss.gamma": "gamma"}, watched.epochs)))
    lines = [re.sub(r"^[-\d]+ [:\d]+ ", "", line) for line in stream.getvalue().splitlines()]
    assert lines == [
        "trial 0 resumes after epoch 1/3: gamma 2",
        "trial 0 epoch 2/3 val overall_accuracy 0.5000 eta 4m",
        "trial 0 interrupted after 2/3 epochs, val overall_accuracy 0.5000",
        "0 done, 0 pruned, 0 failed, 9 to go",
    ]


def test_where_trials_are_is_written_at_intervals_and_goes_with_the_sweep(study, watched, monkeypatch):
    monkeypatch.setattr(log, "PUBLISHED_EVERY_S", 0.0)
    published = Published(study.running)
    published.started(job(study, 4), "cpu")
    assert watched.positions() == {"trials/0004": ("cpu", None)}
    monkeypatch.setattr(log, "PUBLISHED_EVERY_S", 60.0)
    for done in (1, 2, 3):
        published.moved({"trials/0004": Position("train", done, 9)})
    assert watched.positions() == {"trials/0004": ("cpu", Position("train", 1, 9))}
    published.started(job(study, 5), "cuda:0")
    last = Position("train", 3, 9)
    assert watched.positions() == {"trials/0004": ("cpu", last), "trials/0005": ("cuda:0", None)}
    study.running.write_text("{half")
    assert watched.positions() == {}
    published.closed(Closing("COMPLETE"))
    assert not study.running.exists()
    assert watched.positions() == {}
