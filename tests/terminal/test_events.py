"""What happens in a sweep as JSON, a line each."""

import io
import json
import math
from datetime import datetime
from pathlib import Path

import pytest

from sweeper.store.paths import StudyFolder
from sweeper.terminal.events import Events
from sweeper.terminal.heading import Heading
from sweeper.terminal.summary import Known
from sweeper.trial import Closing, TrialResult
from tests.support.records import epoch, job, scores

STUDY = StudyFolder(Path("studies/x"))
HEADING = Heading(
    study="x",
    source="space.yaml",
    metric="overall_accuracy",
    minimize=False,
    data=("data: clothes",),
    images={"train": 800, "val": 200},
    classes={"material": 6},
    devices=("cuda:0",),
    slots=2,
    trials=9,
    hours=None,
    folder="mlruns/studies/x",
    browse=None,
)


@pytest.fixture
def told():
    """A view, and a function that returns its events, their times taken out and looked at."""
    stream = io.StringIO()

    def read() -> list[dict]:
        lines = [json.loads(line) for line in stream.getvalue().splitlines()]
        assert all(datetime.fromisoformat(line.pop("time")).tzinfo for line in lines)
        return lines

    return Events(Known(history=lambda one: [epoch(0, 0.5)] if one.trial == 5 else []), stream), read


def test_a_sweep_is_one_object_a_line(told):
    view, read = told
    one = job(STUDY, 4, epochs=3, params={"loss.gamma": 2.0})
    view.begin(HEADING, [])
    view.plan(9)
    view.started(one, "cuda:0")
    view.moved({})
    view.epoch(one, epoch(0, 0.5, seconds=2.0), None)
    fields = {"metric": "overall_accuracy", "planned": 3, "epochs": 1, "backbone": "a", "error": "bad"}
    view.ended(one, TrialResult(number=4, state="FAILED", **fields))
    view.closed(Closing("COMPLETE"))
    begin, start, middle, end = read()
    assert begin == {
        "event": "begin",
        "study": "x",
        "schema_version": 1,
        "recorded": 0,
        "source": "space.yaml",
        "metric": "overall_accuracy",
        "minimize": False,
        "images": {"train": 800, "val": 200},
        "slots": 2,
        "classes": {"material": 6},
        "devices": ["cuda:0"],
        "trials": 9,
        "hours": None,
        "folder": "mlruns/studies/x",
        "browse": None,
        "plan": None,
        "folds": None,
    }
    run = {"study": "x", "trial": 4, "kind": "trial"}
    params = {"loss.gamma": 2.0}
    assert start == {"event": "trial_begin", **run, "device": "cuda:0", "params": params, "done": 0, "epochs": 3}
    wanted = {"train": scores(0.52, 1.234567), "val": scores(0.5)}
    assert middle.pop("metrics") == {split: one.metrics | {"loss": one.loss} for split, one in wanted.items()}
    assert middle == {
        "event": "epoch",
        **run,
        "epoch": 1,
        "epochs": 3,
        "metric": "overall_accuracy",
        "split": "val",
        "value": 0.5,
        "seconds": 2.0,
        "images_per_second": 1234.56,
        "best": None,
    }
    assert (end["event"], end["state"], end["done"], end["error"]) == ("trial_end", "FAILED", 1, "bad")


def test_a_run_that_goes_on_says_how_many_epochs_it_has(told):
    view, read = told
    view.started(job(STUDY, 5), "cpu")
    assert read()[0]["done"] == 1


def test_of_a_final_epochs_are_of_train_and_the_end_has_no_value_of_another_split(told):
    view, read = told
    final = job(STUDY, 4, kind="final", stop_after=2)
    view.epoch(final, epoch(0, 0.5, val=None), None)
    ended = TrialResult(number=4, state="COMPLETE", metric="overall_accuracy", value=0.9, planned=2, backbone="a")
    view.ended(final, ended)
    middle, end = read()
    assert (middle["kind"], middle["split"], middle["value"], middle["epochs"]) == ("final", "train", 0.52, 2)
    assert middle["metrics"]["val"] is None
    assert end["value"] is None


def test_a_training_with_another_seed_than_its_trials_names_it(told):
    view, read = told
    one = job(STUDY, 4)
    recipe = one.recipe.model_copy(update={"train": one.recipe.train.model_copy(update={"seed": 1000})})
    changes = [{"kind": "confirm"}, {"kind": "final", "seed": 1000}, {"kind": "final"}]
    runs = [one.model_copy(update={"recipe": recipe, **each}) for each in changes]
    for each in runs:
        view.started(each, "cpu")
    assert [line.get("seed") for line in read()] == [1000, 1000, None]
    assert [each.has_new_seed for each in runs] == [True, True, False]


def test_a_figure_that_is_no_number_is_null_and_names_stay_within_a_line(told):
    view, read = told
    view.epoch(job(STUDY, 4, params={}), epoch(0, 0.5, val=scores(math.nan)), None)
    view.started(job(STUDY, 4, params={"a": "two\nlines \x1b[31m"}), "cpu")
    assert read()[0]["value"] is None
    assert read()[1]["params"] == {"a": "two\nlines \x1b[31m"}


def test_words_go_to_stderr(told, capsys):
    view, read = told
    view.note("finishing the epoch")
    assert read() == []
    assert capsys.readouterr() == ("", "finishing the epoch\n")
