"""The record in MLflow, read back with MLflow's own client from a real database."""

import http.server
import math
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from sweeper.store import paths, records
from sweeper.store.paths import RunFolder, StudyFolder
from sweeper.tracking import client as tracking_client
from sweeper.tracking import content, local_store, sync_state, tracker
from sweeper.tracking.reconcile import StudyInfo
from sweeper.tracking.sync_state import StudySyncState
from sweeper.tracking.tracker import MlflowTracker
from sweeper.trial import Closing, TrialResult
from tests.support.records import START, begin, curve, end, epoch, job

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*noload.*"),  # sqlalchemy 2.1, of mlflow 3.17's own models
    pytest.mark.filterwarnings("ignore::DeprecationWarning:(mlflow|google|starlette|alembic).*"),
]


@pytest.fixture
def study(database) -> StudyFolder:
    """A study's folder beside an empty database."""
    folder = StudyFolder.named("focal_weights")
    folder.root.mkdir(parents=True)
    shutil.copy(database, paths.database())
    return folder


class Sweep:
    """What a sweep tells its tracker."""

    def __init__(self, study: StudyFolder, **facts) -> None:
        self.study, self.notes = study, []
        self.tracker = MlflowTracker(self.notes.append, pause=0.05)
        defaults = {"planned": 4, "names": ["backbone", "loss.gamma", "schedule"], "resume": "sweep run space.yaml"}
        defaults |= {"data_name": "data/clothes", "metric": "overall_accuracy", "spec_text": "study: x\n"}
        self.tracker.opened(StudyInfo(study, **(defaults | facts)))

    def start(self, number: int, **changes):
        started = begin(job(self.study, number, **changes))
        self.tracker.started(started, "cpu")
        return started

    def trial(self, number: int, top: float = 0.8, state="COMPLETE", **changes):
        started = self.start(number, **changes)
        epochs = curve(started, top)
        for each in epochs:
            self.tracker.epoch(started, each, None)
        self.tracker.ended(started, end(started, epochs, state))
        return started

    def close(self, state="COMPLETE", **closing) -> list[str]:
        self.tracker.closed(Closing(state, **closing))
        return self.notes


@pytest.fixture
def client(study):
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=tracking_client.uri())


def runs(client, *, kind: str = "trial"):
    there = [experiment.experiment_id for experiment in client.search_experiments()]
    found = client.search_runs(there, f"tags.`sweep.kind` = '{kind}'")
    return sorted(found, key=lambda run: run.info.run_name)


def history(client, run, name: str) -> list[tuple[int, float]]:
    return [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, name)]


def files(client, run) -> set[str]:
    return {item.path for item in client.list_artifacts(run.info.run_id)}


# ----------------------------------------------------------------------------------- what is shown
def test_a_study_is_a_run_and_its_trials_are_the_children(study, client):
    sweep = Sweep(study)
    sweep.trial(0)
    assert sweep.close() == []
    (parent,), (child,) = runs(client, kind="study"), runs(client)
    assert (parent.info.run_name, child.info.run_name) == ("focal_weights", "t0000 resnet18")
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id


def test_a_tracker_that_nothing_follows_says_what_is_missing(study):
    with closing(sqlite3.connect(paths.database())) as held:
        held.execute("BEGIN EXCLUSIVE")
        alone = Sweep(study)
        awaited(lambda: alone.tracker.sender.busy)
        (note,) = alone.close("INTERRUPTED", timeout=0.0)
        held.rollback()
    assert note.startswith("MLflow still lacks part of this study")
    assert Sweep(study).close(timeout=60.0) == []  # after the first has let go of the database


def awaited(is_so) -> None:
    deadline = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_answers_that_are_known_and_fitted_thresholds_are_tags_of_the_epoch_that_counts(study, client):
    sweep = Sweep(study)
    started = sweep.start(0)
    epochs = curve(started)
    val = epochs[-1].val.model_copy(update={"category_answers": {"tags": 31, "kind/s": 7}})
    epochs[-1] = epochs[-1].model_copy(update={"val": val, "thresholds": {"tags": (0.25, 0.5, 1 / 3)}})
    lines = "".join(f"{one.model_dump_json()}\n" for one in epochs)
    RunFolder(started.folder).history.write_text(lines)
    sweep.tracker.ended(started, end(started, epochs, "COMPLETE"))
    sweep.close()
    tags = runs(client)[0].data.tags
    found = {name: text for name, text in tags.items() if name.startswith(("sweep.answers", "sweep.thresholds"))}
    assert found == {
        "sweep.answers.tags": "31 of val",
        "sweep.answers.kind_s": "7 of val",
        "sweep.thresholds.tags": "0.25 0.5 0.333",
    }


def test_a_study_without_missing_answers_and_thresholds_has_no_such_tags(study):
    started = begin(job(study, 0))
    epochs = curve(started)
    assert content.fitted(started, epochs, end(started, epochs, "COMPLETE")) == {}


def test_a_final_has_the_thresholds_that_its_winner_fitted_and_of_a_crowd_the_ends(study):
    crowd = tuple(number / 1000 for number in range(300))
    final = begin(job(study, 0, kind="final", thresholds={"tags": crowd}))
    epochs = curve(final)
    assert content.fitted(final, epochs, end(final, epochs, "COMPLETE")) == {
        "sweep.thresholds.tags": "300 from 0 to 0.299"
    }


def test_weights_are_registered_once_and_their_newest_version_is_named(study, client, tmp_path):
    server, folder = tracking_client.Server(print), tmp_path / "model"
    folder.mkdir()
    (folder / "MLmodel").write_text("flavors: {}\n")
    run = server.run(server.experiment("clothes"), "final", {"sweep.id": "f"}, None, True)
    assert tracking_client.registered("question", "a" * 64) is None
    for checksum in ("a" * 64, "b" * 64, "a" * 64):
        tracking_client.register("question", run, folder, "the final", checksum)
    assert tracking_client.registered("question", "a" * 64) == "models:/question/3"
    assert tracking_client.registered("question", "b" * 64) == "models:/question/2"
    assert tracking_client.registered("question", "c" * 64) is None
    assert tracking_client.registered("another", "a" * 64) is None


def test_parameters_are_the_open_values_and_what_runs_are_compared_by(study, client):
    sweep = Sweep(study)
    sweep.trial(1, gamma=1.23456)
    sweep.close()
    assert runs(client)[0].data.params == {
        "loss.gamma": "1.23",
        "schedule": "cosine",
        "model": "resnet18.a1_in1k",
        "image_size": "224",
        "epochs": "3",
        "seed": "0",
    }


def test_an_epoch_is_a_point_of_every_figure_at_its_recorded_time(study, client):
    sweep = Sweep(study)
    started = sweep.start(0)
    sweep.tracker.epoch(started, epoch(0, 0.123456789), None)
    sweep.close("INTERRUPTED")
    (run,) = runs(client)
    assert run.data.metrics == {
        "overall_accuracy": 0.12346,
        "value": 0.12346,
        "train/overall_accuracy": 0.14346,
        "val_loss": 0.5,
        "train_loss": 1.2346,
        "val/mean_class_accuracy": 0.023457,
        "val/macro_precision": 0.073457,
        "val/macro_recall": 0.023457,
        "val/macro_f1": 0.043457,
        "category_accuracy/material": 0.13346,
        "category_accuracy/sleeve length": 0.11346,
        "optim/lr": 0.00012346,
        "speed/images_per_second": 1234.6,
        "memory/peak_gb": 3.2,
    }
    (point,) = client.get_metric_history(run.info.run_id, "val_loss")
    assert (point.step, point.timestamp) == (1, START * 1000)


@pytest.mark.parametrize(("selection", "worth"), [("last", [0.5, 0.8, 0.7]), ("metric", [0.5, 0.8, 0.8])])
def test_the_value_of_a_trial_is_that_of_the_epoch_that_counts_so_far(study, client, selection, worth):
    sweep = Sweep(study)
    started = sweep.start(0, selection=selection)
    for index, value in enumerate([0.5, 0.8, 0.7]):
        sweep.tracker.epoch(started, epoch(index, value), None)
    sweep.close("INTERRUPTED")
    assert history(client, runs(client)[0], "value") == list(enumerate(worth, 1))


def test_what_is_no_number_makes_no_point():
    made = job(StudyFolder(Path("s")), 0)
    bad = epoch(0, 0.5).model_copy(update={"lr": math.nan})
    assert "optim/lr" not in content.points(made, [bad])[0].figures


def test_a_final_without_val_has_no_figure_of_the_goal_to_be_ranked_by():
    made = job(StudyFolder(Path("s")), 0, kind="final")
    figures = content.points(made, [epoch(0, 0.5, val=None)])[0].figures
    assert "overall_accuracy" not in figures
    assert figures["train/overall_accuracy"] == 0.52


def test_the_study_shows_its_best_so_far_by_trial_and_says_how_to_go_on(study, client):
    sweep = Sweep(study)
    for number, top in enumerate([0.7, 0.9, 0.8]):
        sweep.trial(number, top)
    sweep.close()
    (parent,) = runs(client, kind="study")
    assert [step for step, _ in history(client, parent, "best_overall_accuracy")] == [0, 1, 2]
    best = [value for _, value in history(client, parent, "best_overall_accuracy")]
    assert best[0] < best[1] == best[2]
    note = parent.data.tags["mlflow.note.content"]
    assert "3 complete, of 4 planned" in note
    assert "trial 1 (resnet18.a1_in1k), epoch 3" in note
    assert "`sweep run space.yaml`" in note


@pytest.mark.parametrize(
    ("state", "status"),
    [("COMPLETE", "FINISHED"), ("PRUNED", "FINISHED"), ("FAILED", "FAILED"), ("INTERRUPTED", "KILLED")],
)
def test_every_end_has_its_status(study, client, state, status):
    sweep = Sweep(study)
    sweep.trial(0, state=state)
    sweep.close()
    (run,) = runs(client)
    assert (run.info.status, run.data.tags["sweep.state"]) == (status, state)


def test_a_failed_trial_says_why_and_brings_the_end_of_its_log(study, client):
    sweep = Sweep(study)
    started = sweep.start(0)
    RunFolder(started.folder).log.write_text("step 1\nstep 2\n")
    result = end(started, [], "FAILED", trouble="nan", error="loss is NaN at epoch 3\nmore")
    sweep.tracker.ended(started, result)
    sweep.close()
    (run,) = runs(client)
    assert run.data.tags["sweep.error"] == "loss is NaN at epoch 3"
    assert files(client, run) == {"config.yaml", "log.txt"}


def test_a_trial_has_its_recipe(study, client):
    sweep = Sweep(study)
    sweep.trial(0)
    sweep.close()
    assert files(client, runs(client)[0]) == {"config.yaml"}


def test_a_final_has_the_files_of_its_folder_and_what_was_attached(study, client, tmp_path):
    sweep = Sweep(study)
    started = sweep.start(7, kind="final", folder=study.final("2026-11-21-0007").root)
    RunFolder(started.folder).submission.write_bytes(b"zip")
    report = tmp_path / "report.html"
    report.write_text("<p>")
    sweep.tracker.attached(started, [report])
    sweep.tracker.ended(started, end(started, curve(started), "COMPLETE"))
    sweep.close(files=(report,))
    (run,), (parent,) = runs(client, kind="final"), runs(client, kind="study")
    assert run.info.run_name == "final t0007"
    expected = {"config.yaml", "submission.zip", "history.jsonl", "report.html"}
    assert files(client, run) == expected
    assert files(client, parent) == {"space.yaml", "report.html"}


def test_a_standard_error_stands_beside_its_metric(study, client):
    sweep = Sweep(study)
    for number, errors in enumerate([{"overall_accuracy": 0.0123, "macro_f1": 0.5}, {}]):
        started = sweep.start(number)
        sweep.tracker.ended(started, end(started, curve(started), "COMPLETE", standard_errors=errors))
    sweep.close()
    with_error, without = runs(client)
    assert history(client, with_error, "overall_accuracy_se") == [(3, 0.0123)]
    assert not history(client, without, "overall_accuracy_se")
    assert "macro_f1_se" not in with_error.data.metrics


def test_a_final_has_its_metric_on_test(study, client):
    sweep = Sweep(study)
    started = sweep.start(7, kind="final", folder=study.final("2026-11-21-0007").root)
    ended = end(started, curve(started), "COMPLETE", standard_errors={"overall_accuracy": 0.0123})
    sweep.tracker.ended(started, ended)
    sweep.close()
    (run,) = runs(client, kind="final")
    assert run.data.metrics["test/overall_accuracy"] == pytest.approx(ended.value, rel=1e-4)
    assert run.data.metrics["test/overall_accuracy_se"] == 0.0123


# --------------------------------------------------------------------------------- again and again
def test_a_study_that_is_opened_again_adds_no_point(study, client):
    for _ in range(2):
        sweep = Sweep(study)
        for number in range(2):
            sweep.trial(number) if _ == 0 else None
        assert sweep.close() == []
    assert [len(history(client, run, "val_loss")) for run in runs(client)] == [3, 3]
    (parent,) = runs(client, kind="study")
    assert len(history(client, parent, "best_overall_accuracy")) == 2


def test_sending_everything_again_adds_no_point(study, client):
    sweep = Sweep(study)
    started = sweep.trial(0)
    sweep.close()
    RunFolder(started.folder).sync_state.unlink()
    Sweep(study).close()
    (run,) = runs(client)
    assert history(client, run, "train_loss") == [(1, 1.2346), (2, 1.2346), (3, 1.2346)]


def test_an_interrupted_trial_is_killed_then_runs_again_as_the_same_run(study, client):
    sweep = Sweep(study)
    started = sweep.start(0)
    first, *rest = [epoch(i, 0.5) for i in range(3)]
    records.append(RunFolder(started.folder), first)
    sweep.tracker.epoch(started, first, None)
    sweep.close("INTERRUPTED")
    (before,) = runs(client)
    again = Sweep(study)
    again.tracker.started(started, "cpu")
    for each in [first, *rest]:
        again.tracker.epoch(started, each, None)
    again.tracker.ended(started, end(started, [first, *rest], "COMPLETE"))
    again.close()
    (after,) = runs(client)
    assert (before.info.status, after.info.status) == ("KILLED", "FINISHED")
    assert before.info.run_id == after.info.run_id
    assert [step for step, _ in history(client, after, "val_loss")] == [1, 2, 3]


def test_what_a_killed_sweep_left_running_is_brought_to_its_end_by_the_next(study, client):
    killed = Sweep(study)
    started = killed.start(0)
    killed.tracker.sender.drain(30)
    assert runs(client)[0].info.status == "RUNNING"
    end(started, curve(started), "COMPLETE")
    Sweep(study).close()
    (run,) = runs(client)
    assert run.info.status == "FINISHED"
    assert len(history(client, run, "val_loss")) == 3


def test_a_run_whose_answer_got_lost_is_not_made_twice(study, client):
    killed = Sweep(study)
    started = killed.start(0)
    killed.tracker.sender.drain(30)
    RunFolder(started.folder).sync_state.unlink()
    Sweep(study).close("INTERRUPTED")
    assert len(runs(client)) == 1


def delete_experiment(client, study) -> None:
    client.delete_experiment(sync_state.read(study.sync_state, StudySyncState).experiment)


def delete_both(client, study) -> None:
    client.delete_run(runs(client)[0].info.run_id)
    delete_parent(client, study)


def delete_parent(client, study) -> None:
    client.delete_run(runs(client, kind="study")[0].info.run_id)


def lose_parent(client, study) -> None:
    """As `mlflow gc` does, which leaves those below it."""
    sync = sync_state.read(study.sync_state, StudySyncState)
    delete_parent(client, study)
    sync_state.write(study.sync_state, sync.model_copy(update={"run": "0" * 32}))


def lose_the_twins(client, study) -> None:
    """What the folders know of the runs; but not the name that the study has there."""
    sync = sync_state.read(study.sync_state, StudySyncState)
    sync_state.write(study.sync_state, sync.model_copy(update={"run": ""}))
    study.trial(0).sync_state.unlink()


def rename_experiment(client, study) -> None:
    client.rename_experiment(sync_state.read(study.sync_state, StudySyncState).experiment, "my clothes")


@pytest.mark.parametrize(
    "somebody", [delete_experiment, delete_both, delete_parent, lose_parent, lose_the_twins, rename_experiment]
)
def test_whatever_somebody_does_in_mlflow_a_study_and_its_trials_are_there_once(study, client, somebody):
    sweep = Sweep(study)
    sweep.trial(0)
    sweep.close()
    somebody(client, study)
    again = Sweep(study)
    again.trial(1)
    assert again.close() == []
    (parent,), trials = runs(client, kind="study"), runs(client)
    assert {trial.data.tags["mlflow.parentRunId"] for trial in trials} == {parent.info.run_id}
    assert sorted(trial.data.tags["sweep.trial"] for trial in trials) == ["0", "1"]
    assert {trial.info.experiment_id for trial in trials} == {parent.info.experiment_id}


def test_a_study_that_mlflow_no_longer_knows_is_sent_as_a_whole(study, client):
    sweep = Sweep(study)
    sweep.trial(0)
    sweep.close()
    client.delete_run(runs(client, kind="study")[0].info.run_id)
    client.delete_run(runs(client)[0].info.run_id)
    assert Sweep(study).close() == []
    (parent,), (child,) = runs(client, kind="study"), runs(client)
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert len(history(client, child, "val_loss")) == 3


def test_another_tracking_server_gets_everything_too(study, database, monkeypatch, tmp_path):
    sweep = Sweep(study)
    sweep.trial(0)
    sweep.close()
    shutil.copy(database, tmp_path / "other.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/other.db")
    Sweep(study).close()
    from mlflow import MlflowClient

    assert len(runs(MlflowClient(tracking_uri=tracking_client.uri()))) == 1


def test_a_run_deleted_in_the_pages_stays_deleted_and_is_told_once(study, client):
    sweep = Sweep(study)
    started = sweep.start(0)
    sweep.tracker.sender.drain(30)
    client.delete_run(runs(client)[0].info.run_id)
    again = Sweep(study)
    again.tracker.started(started, "cpu")
    for index in range(3):
        again.tracker.epoch(started, epoch(index, 0.5), None)
    notes = again.close()
    assert len(notes) == 1
    assert "refuses" in notes[0]


def test_mlflow_prints_nothing_on_stdout_whatever_the_environment_says(study, monkeypatch):
    monkeypatch.setenv("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "false")
    tracking_client.Server(print)
    from mlflow.environment_variables import MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT

    assert MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT.get()


# --------------------------------------------------------------------------------- names and places
NAMES = (
    "colour",
    "colour/",
    "either//or",
    "/top",
    "a/../b",
    ".",
    "..",
    "x" * 300,
    "x" * 299,
    "Länge ≤ 1",
    "p=1",
    "p:1",
)


def test_mlflow_takes_every_name_and_none_stands_for_two():
    from mlflow.utils.validation import _validate_metric_name, _validate_param_name

    for names in (NAMES, ("a/", "a_", "a:"), ("a/b", "a_b", "a_b_2", "a:b")):
        found = content.keys(names)
        assert set(found) == set(names)
        assert len(set(found.values())) == len(names)
        for key in found.values():
            _validate_metric_name(f"category_accuracy/{key}")
            _validate_param_name(f"loss.category_weights.{key}")


def test_a_name_that_mlflow_takes_stays():
    assert content.keys(("a/", "a_")) == {"a/": "a__2", "a_": "a_"}


def test_categories_of_another_name_are_told_once(study, client):
    sweep = Sweep(study)
    started = sweep.start(0)
    val = epoch(0, 0.8).val.model_copy(update={"category_accuracy": {"colour/": 0.5, "..": 0.25}})
    for index in range(3):
        sweep.tracker.epoch(started, epoch(index, 0.8, val=val), None)
    (note,) = sweep.close("INTERRUPTED")
    assert note == "MLflow does not allow some category names: 'colour/' is 'colour_', '..' is '__' there"
    (run,) = runs(client)
    assert run.data.metrics["category_accuracy/colour_"] == 0.5
    assert run.data.metrics["category_accuracy/__"] == 0.25


ODD = (
    "my%20project",
    "100%",
    "%",
    "a?b",
    "a#b",
    "a b",
    "Kleider ä",
    "it's",
    'say "x"',
    "u:p@h",
    "a;b&c=d",
    "{x}",
    "+",
)


@pytest.mark.parametrize("name", ODD)
def test_mlflow_finds_its_file_and_its_files_in_a_folder_of_any_name(database, tmp_path, name):
    from mlflow import MlflowClient

    (tmp_path / name).mkdir()
    place = tmp_path / name / "mlflow.db"
    shutil.copy(database, place)
    client = MlflowClient(tracking_uri=local_store.address(place))
    experiment = client.create_experiment("x", artifact_location=(tmp_path / name / "artifacts" / "x y").as_uri())
    client.log_text(client.create_run(experiment).info.run_id, "text", "file.txt")
    with closing(sqlite3.connect(place)) as link:
        assert link.execute("SELECT count(*) FROM runs").fetchone() == (1,)
    assert len(list((tmp_path / name / "artifacts" / "x y").rglob("file.txt"))) == 1
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", ODD)
def test_nothing_is_written_to_the_old_place_of_a_folder_that_was_moved(database, tmp_path, name):
    from mlflow import MlflowClient

    paths.home().mkdir(parents=True, exist_ok=True)
    shutil.copy(database, paths.database())
    old = tmp_path / "before" / name / "artifacts"
    client = MlflowClient(tracking_uri=local_store.address(paths.database()))
    client.create_experiment("x", artifact_location=(old / "x").as_uri())
    notes: list[str] = []
    server = tracking_client.Server(notes.append)
    run = server.run(server.experiment("x"), "run", {"sweep.id": "1"}, None, True)
    again = tracking_client.Server(notes.append)
    again.home(run)
    for one in (server, again):
        one.text(run, "file.txt", "text")
    assert not (tmp_path / "before").exists()
    assert len(notes) == 2
    assert all(f"MLflow stores files at {old}" in note and f"delete {paths.database()}" in note for note in notes)


# ---------------------------------------------------------------------------------------- trouble
class Failing(http.server.BaseHTTPRequestHandler):
    """A server that answers everything with 500."""

    def do_GET(self) -> None:
        self.send_error(500)

    do_POST = do_GET  # noqa: N815

    def log_message(self, *_) -> None:
        """Say nothing."""


class Counting(Failing):
    """Counts the requests at the same time, and holds each until `gate` is open."""

    gate = threading.Event()
    now = most = 0

    def do_GET(self) -> None:
        Counting.now += 1
        Counting.most = max(Counting.most, Counting.now)
        Counting.gate.wait(60)
        Counting.now -= 1
        super().do_GET()

    do_POST = do_GET  # noqa: N815


def test_a_tracker_that_was_abandoned_and_its_successor_never_send_at_the_same_time(study, monkeypatch):
    """As where a search has ended within a second and the retraining follows: both would create the study's run."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Counting) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{server.server_port}")
        first = Sweep(study)
        awaited(lambda: Counting.now)
        assert first.close("INTERRUPTED", timeout=0.0, followed=True) == []
        second = Sweep(study)
        second.trial(0)
        awaited(lambda: second.tracker.sender.busy > 1.0)  # its request would be there by now
        most = Counting.most
        Counting.gate.set()
        second.close(timeout=5.0)
        server.shutdown()
    assert most == 1


@pytest.fixture(params=["closed", "silent", "failing"])
def dead(request) -> Iterator[str]:
    """The address of a server that is not there, never answers, or always fails."""
    if request.param == "failing":
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Failing) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            yield f"http://127.0.0.1:{server.server_port}"
            server.shutdown()
        return
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        if request.param == "silent":
            listener.listen()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def test_a_dead_server_slows_no_epoch_and_the_next_sweep_sends_what_it_missed(study, client, dead, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", dead)
    sweep = Sweep(study)
    began = time.monotonic()
    sweep.trial(0)
    assert time.monotonic() - began < 0.5
    notes = sweep.close(timeout=0.3)
    assert "the next `sweep run` or `sweep ui` sends the rest" in notes[-1]
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert Sweep(study).close() == []
    (run,) = runs(client)
    assert (run.info.status, len(history(client, run, "val_loss"))) == ("FINISHED", 3)


def test_an_outage_is_told_once_and_healed_in_the_same_sweep(study, client, database, monkeypatch):
    paths.database().unlink()
    paths.database().mkdir()
    sweep = Sweep(study)
    started = sweep.start(0)
    until(lambda: sweep.tracker.down)
    paths.database().rmdir()
    shutil.copy(database, paths.database())
    until(lambda: not sweep.tracker.down)
    sweep.tracker.ended(started, end(started, curve(started), "COMPLETE"))
    notes = sweep.close()
    assert ["does not answer" in notes[0], "answers again" in notes[1], len(notes)] == [True, True, 2]
    assert len(history(client, runs(client)[0], "val_loss")) == 3


def test_a_locked_database_is_told_and_loses_nothing(study, client, monkeypatch):
    monkeypatch.setattr(tracker, "SLOW_CALL_S", 0.05)
    sweep = Sweep(study)
    until(lambda: sweep.tracker.reconciler.connected and not sweep.tracker.sender.busy)
    with closing(sqlite3.connect(paths.database(), isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        started = sweep.start(0)
        until(lambda: sweep.tracker.sender.busy > 0.05)
        sweep.tracker.epoch(started, epoch(0, 0.5), None)
        other.execute("ROLLBACK")
    notes = sweep.close("INTERRUPTED")
    assert ["slow to answer" in note for note in notes] == [True]
    assert len(history(client, runs(client)[0], "val_loss")) == 1


def until(true) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_place_that_takes_no_files_still_gets_the_figures(study, client):
    client.create_experiment("clothes", artifact_location="mlflow-artifacts:/elsewhere")
    sweep = Sweep(study)
    sweep.trial(0)
    notes = sweep.close()
    assert len(notes) == 1
    assert "accepts no files" in notes[0]
    assert len(history(client, runs(client)[0], "val_loss")) == 3


def test_settings_of_mlflow_left_in_the_environment_change_nothing(study, client, monkeypatch):
    stray = {"RUN_ID": "0" * 32, "EXPERIMENT_NAME": "other", "EXPERIMENT_ID": "77", "ENABLE_ASYNC_LOGGING": "true"}
    for name, value in stray.items():
        monkeypatch.setenv(f"MLFLOW_{name}", value)
    sweep = Sweep(study)
    sweep.trial(0)
    assert sweep.close() == []
    assert runs(client)[0].info.status == "FINISHED"


@pytest.mark.parametrize("address", ["./mlruns", "nonsense://x", "http://["])
def test_an_address_that_mlflow_cannot_use_is_told_once(study, monkeypatch, address):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    sweep = Sweep(study)
    sweep.trial(0)
    sweep.trial(1)
    notes = sweep.close(timeout=5)
    assert len([note for note in notes if "training continues" in note]) == 1


def test_no_secret_reaches_mlflow(study, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "canary-in-the-environment")
    sweep = Sweep(study, spec_text="root: https://me:canary-in-an-address@host/x\n")
    started = sweep.start(0, params={"weights": "canary-in-the-environment"})
    RunFolder(started.folder).log.write_text("token=canary-in-the-environment\n")
    error = "cannot open postgresql://me:canary-in-an-address@host/db"
    sweep.tracker.ended(started, end(started, curve(started), "FAILED", trouble="error", error=error))
    sweep.close()
    shown_files = [*paths.home().glob("mlflow.db*"), *paths.artifacts().rglob("*"), study.sync_state]
    assert not any(b"canary" in path.read_bytes() for path in shown_files if path.is_file())


def test_a_deleted_experiment_is_restored(study, client, tmp_path):
    place = (tmp_path / "elsewhere").as_uri()
    client.delete_experiment(client.create_experiment("clothes", artifact_location=place))
    sweep = Sweep(study)
    sweep.trial(0)
    assert sweep.close() == []
    assert len(runs(client)) == 1


@pytest.mark.process
def test_another_process_that_holds_the_study_keeps_its_trials_running(study, client):
    sweep = Sweep(study)
    sweep.start(0)
    sweep.tracker.sender.drain(30)
    code = "import sys, pathlib; from sweeper.store import lock\n"
    code += "held = lock.acquire(pathlib.Path(sys.argv[1])); print(); input()"
    command = [sys.executable, "-uc", code, str(study.lock)]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        holder.stdout.readline()
        Sweep(study).close()
    finally:
        holder.communicate(b"\n")
    assert runs(client)[0].info.status == "RUNNING"
    assert runs(client, kind="study")[0].info.status == "RUNNING"


@pytest.mark.slow
def test_the_database_is_made_once_by_two_processes_at_a_time():
    code = "from sweeper.tracking import client; print(client.Server(print).experiment('x'))"
    both = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) for _ in range(2)]
    assert [process.communicate()[0] for process in both] == [b"1\n", b"1\n"]


def test_the_link_opens_the_view_of_the_study(study):
    assert tracking_client.link(study, "http://127.0.0.1:5000") is None
    Sweep(study).close()
    link = tracking_client.link(study, "http://127.0.0.1:5000/")
    assert link.startswith(
        "http://127.0.0.1:5000/#/experiments/1/runs?workflowType=machine_learning&viewStateShareKey="
    )


def test_a_trial_that_has_arrived_is_kept_by_its_end_alone_and_not_read_again(study, client):
    sweep = Sweep(study)
    sweep.trial(0, 0.7)
    sweep.close("INTERRUPTED")
    assert sweep.tracker.reconciler.sides.all() == []
    study.trial(0).config.write_text("unreadable")
    again = Sweep(study)
    again.trial(1, 0.9)
    assert again.close() == []
    (parent,) = runs(client, kind="study")
    assert [step for step, _ in history(client, parent, "best_overall_accuracy")] == [0, 1]
    assert "2 complete, of 4 planned" in parent.data.tags["mlflow.note.content"]


def test_the_best_so_far_is_final_in_the_order_in_which_trials_completed():
    def ended(number, value, epochs=3, state="COMPLETE"):
        return TrialResult(
            number=number,
            state=state,
            metric="overall_accuracy",
            value=value,
            epochs=epochs,
            planned=3,
            backbone="resnet18",
        )

    times = {0: 40.0, 1: 10.0, 2: 20.0, 3: 30.0}
    running = {0: ended(0, 0.9, epochs=1, state="PAUSED"), 1: ended(1, 0.5), 3: ended(3, 0.7)}
    looking = running | {2: ended(2, 0.6, state="RUNNING")}  # trained, and not at its end
    every = {number: ended(number, value) for number, value in enumerate((0.9, 0.5, 0.6, 0.7))}

    def told(results):
        points = content.progress(results, times, "overall_accuracy")
        return [(point.step, point.figures["best_overall_accuracy"]) for point in points]

    assert told(running) == [(0, 0.5), (1, 0.7)]
    assert told(looking) == [(0, 0.5)]
    assert told(every) == [(0, 0.5), (1, 0.6), (2, 0.7), (3, 0.9)]
