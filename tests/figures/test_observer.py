"""The process that draws and the observer that asks it: when, who is told, and what MLflow is sent."""

import itertools
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from sweeper.engine import session
from sweeper.engine.observers import Observers
from sweeper.figures.observer import Figures
from sweeper.figures.process import FigureClient, FigureRequest
from sweeper.store import paths, records
from sweeper.store.paths import RunFolder, StudyFolder
from sweeper.terminal.views import Plain
from sweeper.tracking.reconcile import CLOSE, FILES, STUDY, Reconciler, StudyInfo
from sweeper.trial import Closing
from tests.figures.test_figures import finished
from tests.support.records import begin, curve, end, job
from tests.support.studies import Seen

pytestmark = pytest.mark.process  # which draws

OF_A_TRIAL = {"curves.svg", "categories.svg", "confusion.png", "labels.svg", "mistakes.png"}
OF_A_STUDY = {"history.svg", "slices.svg", "labels.svg", "report.html"}
DONE = Closing("COMPLETE", timeout=60.0)


@pytest.fixture
def study() -> StudyFolder:
    folder = StudyFolder.named("question")
    folder.root.mkdir(parents=True)
    return folder


class Shown(dict):
    """What an observer's `shown` was told: names of files, by run."""

    def __call__(self, job, files) -> None:
        self.setdefault(job and job.trial, set()).update(path.name for path in files)


def ended(figures, folder: RunFolder) -> None:
    """Tell an observer that the run in `folder` has ended."""
    figures.ended(records.read_config(folder), records.read_result(folder))


def until(true) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def drawing() -> list[int]:
    """The processes below this one that draw."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            words, parent = (place / "cmdline").read_bytes(), (place / "stat").read_text().rsplit(")")[1].split()[1]
        except OSError:
            continue
        if b"sweeper.results.draw_process" in words and int(parent) == os.getpid():
            found.append(int(place.name))
    return found


# ------------------------------------------------------------------------------------- the process
def test_an_artist_draws_in_a_process_of_its_own_and_ends_it(study, photos):
    folder, artist = finished(study, 0, photos), FigureClient()
    artist.ask(FigureRequest(key="trials/0000", folder=folder.root))
    artist.ask(FigureRequest(key="trials/0000", folder=folder.root))
    assert artist.wait(60.0)
    ((order, made),) = artist.finished()
    assert (order.key, {path.name for path in made.files}) == ("trials/0000", OF_A_TRIAL)
    assert (artist.left, len(drawing())) == (0, 1)
    artist.close()
    assert drawing() == []


def test_the_process_ends_with_whoever_started_it():
    command = [sys.executable, "-m", "sweeper.results.draw_process"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    process.communicate(timeout=60)
    assert process.returncode == 0


# ------------------------------------------------------------------------------------ the observer
def test_a_trial_is_drawn_when_it_ends_and_the_study_when_the_session_does(study, photos):
    notes, shown = [], Shown()
    figures = Figures(study, notes.append, shown)
    figures.opened()
    ended(figures, finished(study, 0, photos))
    figures.closed(DONE)
    assert (notes, drawing()) == ([], [])
    assert shown == {0: OF_A_TRIAL, None: OF_A_STUDY}
    assert study.report.exists()


def test_what_an_earlier_session_left_undrawn_is_drawn(study, photos):
    folders = [finished(study, number, photos) for number in range(2)]
    first, second = Shown(), Shown()
    for shown in (first, second):
        figures = Figures(study, print, shown)
        figures.opened()
        until(lambda: all(folder.drawn.exists() for folder in folders))
        figures.closed(DONE)
    assert set(first) == {0, 1, None}
    assert set(second) == {None}


def test_without_predictions_no_process_starts(study, photos):
    notes, shown = [], Shown()
    folder = finished(study, 0, photos)
    folder.val_logits.unlink()
    figures = Figures(study, notes.append, shown)
    figures.opened()
    ended(figures, folder)
    figures.closed(DONE)
    assert (notes, shown, paths.fonts().exists()) == ([], {}, False)


def test_who_is_in_a_hurry_waits_for_no_figure(study, photos):
    notes, shown = [], Shown()
    figures = Figures(study, notes.append, shown)
    ended(figures, finished(study, 0, photos))
    figures.closed(Closing("INTERRUPTED", timeout=1.0))
    assert (notes, None in shown, drawing()) == ([], False, [])


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
def test_a_drawing_process_that_dies_costs_a_notice_and_no_trial(study, photos, number):
    notes, seen = [], Seen()
    folders = [finished(study, trial, photos) for trial in range(3)]
    observers = Observers([Figures(study, notes.append), seen], notes.append)
    ended(observers, folders[0])
    until(drawing)
    os.kill(drawing()[0], number)
    for folder in folders[1:]:
        ended(observers, folder)
    observers.closed(DONE)
    (note,) = notes
    assert f"the drawing process exited with code -{number.value}" in note
    assert seen.words == ["end 0 COMPLETE", "end 1 COMPLETE", "end 2 COMPLETE", "closed COMPLETE"]


def test_a_process_that_does_not_answer_is_waited_for_no_longer_than_it_takes(study, photos, monkeypatch):
    monkeypatch.setattr("sweeper.figures.observer.DRAWING_TIMEOUT_S", 0.1)
    notes = []
    figures = Figures(study, notes.append)
    ended(figures, finished(study, 0, photos))
    until(drawing)
    os.kill(drawing()[0], signal.SIGSTOP)
    figures.closed(DONE)
    assert notes == ["figures are missing: 2 folders were not drawn in time; `sweep report` tries again"]
    assert drawing() == []


def test_a_session_ends_in_time_however_many_runs_are_undrawn(study, photos, monkeypatch):
    clock = itertools.count(step=40.0)  # seconds that pass between two looks
    monkeypatch.setattr("sweeper.figures.observer.time", SimpleNamespace(monotonic=lambda: next(clock)))
    notes, shown = [], Shown()
    figures = Figures(study, notes.append, shown)
    for number in range(6):
        ended(figures, finished(study, number, photos))
    figures.closed(DONE)
    (note,) = notes
    assert re.search("[3-6] folders were not drawn in time; `sweep report` tries again$", note)
    assert drawing() == []


def test_what_cannot_be_drawn_is_told_once_of_each_reason(study, photos):
    notes = []
    figures = Figures(study, notes.append)
    folder = finished(study, 0, photos)
    np.save(folder.val_logits, np.zeros((3, 5), dtype=np.float32))
    ended(figures, folder)
    figures.closed(DONE)  # which draws the winner for the report, in vain once more
    (note,) = notes
    assert note.startswith("figures are missing: ")
    assert "confusion.png, mistakes.png: predictions have shape (3, 5), but the data set needs (24, 5)" in note


def test_a_damaged_folder_is_a_notice(study, photos):
    notes = []
    folder = study.final("one")
    folder.root.mkdir(parents=True)
    folder.config.write_text("{")
    figures = Figures(study, notes.append)
    figures.closed(DONE)
    assert ["this file is damaged" in note for note in notes] == [True]


# --------------------------------------------------------------------------------------- in MLflow
class Shelf:
    """A server that keeps the names of the files it is given, by run."""

    uri = "memory"

    def __init__(self) -> None:
        self.files: dict[str, list[str]] = {}

    def experiment(self, *_) -> str:
        return "1"

    def home(self, _) -> str:
        return "1"

    def view(self, *_) -> None: ...

    def run(self, _, name, *__) -> str:
        return name

    def log(self, *_) -> None: ...
    def tag(self, *_) -> None: ...
    def status(self, *_) -> None: ...
    def start(self, _) -> int:
        return 0

    def text(self, run, name, _) -> None:
        self.files.setdefault(run, []).append(name)

    def file(self, run, path) -> None:
        self.files.setdefault(run, []).append(path.name)


def facts(study: StudyFolder) -> StudyInfo:
    return StudyInfo(study, "data/clothes", "overall_accuracy", "# why?\nstudy: x\n")


def shelved(study: StudyFolder, *told) -> dict[str, list[str]]:
    """The files that a server gets while a study is opened, `told` is heard, and it is closed."""
    shelf = Shelf()
    reconciler = Reconciler(facts(study), lambda: shelf, lambda _: "")
    reconciler.handle(STUDY)
    for made, event in told:
        reconciler.receive(made, event)
        reconciler.handle(FILES if made is None else "trials/0000")
    reconciler.receive(None, DONE)
    reconciler.handle(CLOSE)
    shelf.files.get("question", []).remove("space.yaml")
    return {run: names for run, names in shelf.files.items() if names}


def test_figures_that_are_there_are_sent_once_and_by_no_copy_of_the_folder(study, photos):
    folder = finished(study, 0, photos)
    made = Figures(study, print)
    ended(made, folder)
    made.closed(DONE)
    files = tuple(sorted(study.figures.glob("[!.]*")))
    first = shelved(study, (None, files))
    assert {*first["t0000 resnet18"]} >= OF_A_TRIAL
    assert {*first["question"]} == OF_A_STUDY - {"report.html"}
    assert shelved(study, (None, files)) == {}
    copy = StudyFolder(study.root.parent / "copy" / "question")
    shutil.copytree(study.root, copy.root, copy_function=shutil.copyfile)
    assert shelved(copy, (None, tuple(copy.figures.glob("[!.]*")))) == {}


def test_a_file_of_the_study_is_sent_again_when_it_has_changed(study):
    study.table.write_text("trial,value\n")
    assert shelved(study, (None, (study.table,))) == {"question": ["trials.csv"]}
    assert shelved(study, (None, (study.table,))) == {}
    study.table.write_text("trial,value\n0,0.5\n")
    assert shelved(study, (None, (study.table,))) == {"question": ["trials.csv"]}


def test_a_figure_that_is_drawn_later_is_sent_then(study):
    started = begin(job(study, 0))
    end(started, curve(started), "COMPLETE")
    shelved(study)
    picture = study.trial(0).figures / "confusion.png"
    picture.parent.mkdir()
    picture.write_bytes(b"png")
    assert shelved(study, (started, (picture,))) == {"t0000 resnet18": ["confusion.png"]}
    assert shelved(study, (started, (picture,))) == {}


@pytest.mark.filterwarnings("ignore:.*noload.*", "ignore::DeprecationWarning:(mlflow|google|starlette|alembic).*")
def test_what_is_drawn_in_a_session_is_in_mlflow_when_it_has_closed(study, photos, database, capsys):
    shutil.copy(database, paths.database())
    observers = session.observers_for(Plain(sys.stderr), facts(study), mlflow=True)
    folder = finished(study, 0, photos)
    observers.started(records.read_config(folder), "cpu")
    ended(observers, folder)
    observers.closed(DONE)
    names = {path.name for path in paths.artifacts().rglob("*") if path.is_file()}
    assert names >= OF_A_TRIAL | OF_A_STUDY
    assert "missing" not in capsys.readouterr().err
