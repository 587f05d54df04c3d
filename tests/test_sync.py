"""`sweep sync`: MLflow is brought to where the folders are, though nothing is swept."""

import json
import shutil
import socket
import sqlite3
from collections import Counter
from contextlib import closing

import pytest
from played import close_all, opened, play, write

from sweeper import lock, paths, record, sync
from sweeper.errors import EnvironmentFault, StudyHeld, UserError
from sweeper.paths import StudyFolder

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


def test_what_mlflow_lacks_is_sent_and_nothing_is_sent_twice(study):
    assert list(sync.run(None)) == ["question: sent 3 runs and 6 epochs"]
    told = shown()
    assert [len(points) for points in told.values()] == [3, 3]
    for number, points in enumerate(told.values()):
        losses = [epoch.val.loss for epoch in record.history(study.trial(number))]
        assert [value for _, value in points] == pytest.approx(losses, rel=1e-4)
    assert states() == {"FINISHED": 2, "KILLED": 2}
    assert list(sync.run("question")) == ["question: MLflow has everything"]
    assert shown() == told


def test_a_server_that_does_not_answer_is_said_and_nothing_hangs(study, monkeypatch):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{closed.getsockname()[1]}")
        with pytest.raises(EnvironmentFault, match="does not answer") as caught:
            list(sync.run("question"))
    assert "0 runs and 0 epochs were sent; `sweep sync question` sends the rest" in caught.value.help


def test_a_study_that_is_swept_is_left_alone(study):
    held = lock.acquire(study.lock)
    try:
        with pytest.raises(StudyHeld, match="is running this study"):
            list(sync.run("question"))
        assert list(sync.run(None)) == ["question: a sweep is at it, and sends its news itself"]
    finally:
        held.release()
    assert states() == {}


def test_without_a_study_there_is_nothing_to_send():
    with pytest.raises(UserError, match="there is no study yet"):
        list(sync.run(None))


def test_mlflow_is_told_of_a_study_what_its_folder_says(study):
    from sweeper import overview

    facts = sync.facts(overview.standing(study))
    asked = json.loads(study.spec.read_text())
    assert (facts.goal, facts.data_name, facts.planned) == ("overall_accuracy", "nothing", 3)
    assert facts.names == ["backbone", "loss.gamma", "optimizer.lr", "schedule", "schedule.step.every"]
    assert facts.spec_text == study.space.read_text()
    assert facts.tags == ({"sweep.data": asked["fingerprint"]} if asked["fingerprint"] else {})
