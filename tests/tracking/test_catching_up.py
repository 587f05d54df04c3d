"""MLflow is brought to where the folders are, though nothing is swept."""

import json
import os
import shutil
import socket
import sqlite3
import time
from collections import Counter
from contextlib import closing

import pytest

from sweeper.errors import EnvironmentFault, message
from sweeper.store import lock, paths, records, studies
from sweeper.store.importance import Importance, Share
from sweeper.store.paths import StudyFolder
from sweeper.tracking import catching_up, client, tracker
from tests.support.cli import sweep
from tests.support.records import begin, curve, end
from tests.support.studies import close_all, opened, play, write

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*noload.*"),  # sqlalchemy 2.1, of mlflow 3.17's own models
    pytest.mark.filterwarnings("ignore::DeprecationWarning:(mlflow|google|starlette|alembic).*"),
]


@pytest.fixture
def study(database, monkeypatch) -> StudyFolder:
    """Two trials that have ended and one cut short, none of which MLflow has heard of."""
    monkeypatch.setenv("SWEEP_TRAINER", "fake")
    paths.studies().mkdir(parents=True)
    shutil.copy(database, paths.database())
    begun = opened(write(paths.studies(), epochs=3, budget="{trials: 3}", search="{sampler: random, pruner: none}"))
    play(begun, 2)
    begun.next_job()
    close_all()
    return StudyFolder.named("question")


def shown() -> dict[str, list[tuple[int, float]]]:
    """The loss on val after each epoch, by run."""
    with closing(sqlite3.connect(paths.database())) as link:
        query = (
            "SELECT name, step, value FROM metrics JOIN runs USING (run_uuid) WHERE key = 'val_loss' ORDER BY 1, 2"
        )
        rows = link.execute(query).fetchall()
    names = dict.fromkeys(name for name, *_ in rows)
    return {name: [(step, value) for one, step, value in rows if one == name] for name in names}


def states() -> Counter[str]:
    with closing(sqlite3.connect(paths.database())) as link:
        return Counter(status for (status,) in link.execute("SELECT status FROM runs"))


def caught_up() -> list[str]:
    said: list[str] = []
    catching_up.catch_up(studies.studies(), said.append)
    return said


def test_what_mlflow_lacks_is_sent_and_nothing_is_sent_twice(study):
    assert caught_up() == ["sent 3 runs and 6 epochs of question to MLflow"]
    told = shown()
    assert [len(points) for points in told.values()] == [3, 3]
    for number, points in enumerate(told.values()):
        losses = [epoch.val.loss for epoch in records.history(study.trial(number))]
        assert [value for _, value in points] == pytest.approx(losses, rel=1e-4)
    assert states() == {"FINISHED": 2, "KILLED": 2}
    assert caught_up() == []
    assert shown() == told


def test_whoever_did_not_ask_is_told_the_command(study):
    said = []
    assert catching_up.catch_up(studies.studies(), said.append, beside=True)
    assert said == ["sent 3 runs and 6 epochs of question to MLflow; `sweep sync question` does the same"]


@pytest.mark.slow
@pytest.mark.process
def test_sync_sends_what_there_is_and_fails_where_the_server_does_not_take_it(study, tmp_path):
    for words, said in (((), "sent 3 runs and 6 epochs of question to MLflow"), (("question",), "")):
        ended = sweep(tmp_path, "sync", *words, SWEEP_HOME=os.environ["SWEEP_HOME"])
        assert (ended.returncode, ended.stdout) == (0, "MLflow has all of question\n")
        assert said in ended.stderr
    study.sync_state.unlink()
    with socket.socket() as link:
        link.bind(("127.0.0.1", 0))  # and nobody listens
        dead = f"http://127.0.0.1:{link.getsockname()[1]}"
        ended = sweep(tmp_path, "sync", SWEEP_HOME=os.environ["SWEEP_HOME"], MLFLOW_TRACKING_URI=dead)
    assert (ended.returncode, ended.stdout) == (3, "")
    assert "MLflow still lacks part of question" in ended.stderr


@pytest.mark.process
def test_sync_does_not_claim_a_study_that_a_sweep_is_at(study, tmp_path):
    held = lock.acquire(study.lock)
    try:
        ended = sweep(tmp_path, "sync", SWEEP_HOME=os.environ["SWEEP_HOME"])
        said: list[str] = []
        catching_up.catch_up(studies.studies(), said.append, beside=True)
    finally:
        held.release()
    assert (ended.returncode, ended.stdout) == (3, "")
    assert f"question was not sent: process {os.getpid()} on" in ended.stderr
    assert "run `sweep sync question` afterwards" in ended.stderr
    assert said == []  # `sweep ui` has not been asked to


@pytest.mark.parametrize("kind", ["dead", "silent"])
def test_a_server_that_does_not_answer_is_given_up_with_all_studies(study, monkeypatch, kind):
    shutil.copytree(study.root, study.root.with_name("other"))
    with socket.socket() as link:
        link.bind(("127.0.0.1", 0))
        if kind == "silent":
            link.listen()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{link.getsockname()[1]}")
        monkeypatch.setattr(catching_up, "SERVER_STALL_TIMEOUT_S", 3.0)
        began, said = time.monotonic(), caught_up()
    assert time.monotonic() - began < 15
    first = studies.studies()[0].name
    assert said[-1] == f"MLflow still lacks part of {first}; the next `sweep run` or `sweep ui` sends the rest"
    assert len(said) == len([line for line in said if "does not answer" in line]) + 1


def test_a_study_that_is_swept_is_left_alone(study):
    held = lock.acquire(study.lock)
    try:
        (said,) = caught_up()
    finally:
        held.release()
    assert said.startswith(f"question was not sent: process {os.getpid()} on")
    assert states() == {}


def test_a_damaged_study_is_named_and_keeps_no_other_from_being_sent(study):
    shutil.copytree(study.root, study.root.with_name("damaged"))
    (study.root.with_name("damaged") / "study.json").write_text("{")
    os.utime(study.study_file, (0, 0))  # the last one to be sent
    assert caught_up() == [
        "damaged was not sent to MLflow: this file is damaged:"
        " it no longer holds the definition that the study started with",
        "sent 3 runs and 6 epochs of question to MLflow",
    ]


def test_mlflow_is_told_of_a_study_what_its_folder_says(study):
    facts = tracker.facts(studies.status_of(study))
    asked = json.loads(study.study_file.read_text())
    assert (facts.metric, facts.data_name, facts.planned) == ("overall_accuracy", "nothing", 3)
    assert facts.names == ["backbone", "loss.gamma", "optimizer.lr", "schedule", "schedule.step.every"]
    assert facts.spec_text == study.space.read_text()
    assert facts.tags == ({"sweep.data": asked["fingerprint"]} if asked["fingerprint"] else {})


def asked(query: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(paths.database())) as link:
        return link.execute(query).fetchall()


@pytest.mark.parametrize("noted", [None, 12.5])
def test_a_study_lasts_as_long_as_it_was_swept_whenever_it_is_sent(study, noted):
    """What MLflow shows as its duration is the time between the two; pauses between calls do not count."""
    study.elapsed.unlink(missing_ok=True)
    if noted is not None:
        study.elapsed.write_text(f"{noted}\n")
    spent = noted or records.seconds(study)
    for line in study.trial(1).history, study.trial(0).history:  # it was swept last week
        epochs = [json.loads(each) for each in line.read_text().splitlines()]
        line.write_text("".join(json.dumps(one | {"time": one["time"] - 7 * 86400}) + "\n" for one in epochs))
    study.trial_index.unlink(missing_ok=True)
    caught_up()
    ((start, end),) = asked("SELECT start_time, end_time FROM runs WHERE name = 'question'")
    assert end - start == pytest.approx(1000 * spent, abs=2)
    assert start == pytest.approx(1000 * (records.began(study) or 0), abs=2)
    caught_up()
    assert asked("SELECT start_time, end_time FROM runs WHERE name = 'question'") == [(start, end)]


def test_what_mattered_is_told_where_it_was_computed_of_the_trials_there_are(study):
    shares = (Share(name="optimizer.lr", share=0.75, error=0.1), Share(name="loss.gamma", share=0.25, error=0.1))
    for completed in (3, 2):  # of three, and there are two; then of two
        found = Importance(record="", completed=completed, pruned=0, shares=shares)
        study.importance.write_text(found.model_dump_json())
        caught_up()
        told = dict(asked("SELECT key, value FROM latest_metrics WHERE key LIKE 'importance/%'"))
        assert told == ({} if completed == 3 else {"importance/optimizer.lr": 0.75, "importance/loss.gamma": 0.25})
    ((note,),) = asked("SELECT value FROM tags WHERE key = 'mlflow.note.content'")
    assert "What mattered: optimizer.lr 75 % ±10, loss.gamma 25 % ±10" in str(note)


def test_what_a_board_says_of_a_final_that_was_sent_before_is_sent_once(study):
    config = records.read_config(study.trial(0))
    assert config
    begun = begin(config.model_copy(update={"kind": "final", "folder": study.final("2026-11-21-0000").root}))
    end(begun, curve(begun), "COMPLETE")
    caught_up()
    for value in (0.71, 0.73):
        studies.note_score("question", value, "board")
        caught_up()
    query = "SELECT step, value FROM metrics WHERE key = 'board' ORDER BY step"
    assert asked(query) == [(1, 0.71), (2, 0.73)]
    caught_up()
    assert asked(query) == [(1, 0.71), (2, 0.73)]


def test_a_server_that_refuses_a_model_is_named_without_its_password(monkeypatch, tmp_path):
    with socket.socket() as link:
        link.bind(("127.0.0.1", 0))  # and nobody listens
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:canary@127.0.0.1:{link.getsockname()[1]}")
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        (tmp_path / "MLmodel").touch()
        with pytest.raises(EnvironmentFault, match="MLflow did not accept the model") as caught:
            client.register("question", "0" * 32, tmp_path, "a model", "a" * 64)
    assert "canary" not in message(caught.value)
    assert "127.0.0.1" in caught.value.where
