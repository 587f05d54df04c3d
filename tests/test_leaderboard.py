"""The leaderboard: order, ties, ways out."""

import io
import json
import math

import numpy as np
import pandas as pd
import pytest
from studies import begin, curve, job

from sweeper import leaderboard, record
from sweeper.paths import RunFolder, StudyFolder
from sweeper.trial import TrialResult


@pytest.fixture
def study() -> StudyFolder:
    return StudyFolder.named("focal_weights")


def result(number: int, value: float | None, state="COMPLETE", **changes) -> TrialResult:
    fields = {"params": {"backbone": "resnet18", "loss.gamma": 1.5}, "epochs": 3, "best_epoch": 1}
    fields |= {"goal": "overall_accuracy", "planned": 3, "backbone": "resnet18", "seconds": 90.0}
    return TrialResult(number=number, value=value, state=state, **(fields | changes))


def with_predictions(study: StudyFolder, images: int) -> None:
    """A trial that has left its logits, of two categories."""
    started = begin(job(study, 0))
    curve(started)
    np.save(RunFolder(started.folder).val_logits, np.zeros((images, 5), np.float32))


def test_the_best_comes_first_and_the_earlier_of_equals(study):
    table = leaderboard.frame([result(0, 0.7), result(1, 0.9), result(2, 0.9), result(3, 0.8)], study)
    assert list(table["trial"]) == [1, 2, 3, 0]
    assert list(table["rank"]) == [1, 2, 3, 4]


def test_a_pruned_trial_has_its_place_and_no_rank(study):
    table = leaderboard.frame([result(0, 0.7), result(1, 0.8, "PRUNED"), result(2, 0.6)], study)
    assert list(table["trial"]) == [1, 0, 2]
    assert table["rank"].fillna(0).tolist() == [0, 1, 2]


def test_failed_trials_stand_at_the_end_with_the_reason(study):
    failed = result(0, 0.99, "FAILED", trouble="nan", error="loss is NaN at epoch 3")
    table = leaderboard.frame([failed, result(1, None, "RUNNING"), result(2, 0.5)], study)
    assert list(table["trial"]) == [2, 1, 0]
    assert table["error"].iloc[-1] == "loss is NaN at epoch 3"


def test_the_standard_error_is_that_of_a_share_of_all_labels(study):
    with_predictions(study, images=1000)
    table = leaderboard.frame([result(0, 0.8)], study)
    assert table["standard_error"].iloc[0] == pytest.approx(math.sqrt(0.8 * 0.2 / 2000))


def test_trials_within_one_standard_error_of_the_best_are_tied(study):
    with_predictions(study, images=1000)
    table = leaderboard.frame([result(0, 0.8), result(1, 0.795), result(2, 0.78), result(3, 0.8, "PRUNED")], study)
    tied = dict(zip(table["trial"], table["tied"].astype(object), strict=True))
    assert (tied[0], tied[1], tied[2]) == (True, True, False)
    assert tied[3] is pd.NA


@pytest.mark.parametrize("goal", ["mean_class_accuracy", "macro_f1"])
def test_a_goal_that_is_no_single_share_has_no_standard_error(study, goal):
    with_predictions(study, images=1000)
    table = leaderboard.frame([result(0, 0.8, goal=goal)], study)
    assert table["standard_error"].isna().all()
    assert table["tied"].isna().all()


def test_the_best_epoch_is_counted_from_one(study):
    assert leaderboard.frame([result(0, 0.8)], study)["best_epoch"].iloc[0] == 2


def test_values_that_only_some_trials_have_stay_empty_elsewhere(study):
    other = result(1, 0.5, params={"schedule": "cosine"})
    table = leaderboard.frame([result(0, 0.8), other], study)
    assert pd.isna(table["loss.gamma"].iloc[1])
    assert table["schedule"].iloc[1] == "cosine"


def test_an_open_value_never_hides_a_column_of_ours(study):
    table = leaderboard.frame([result(0, 0.8, params={"epochs": 7})], study)
    assert (table["epochs"].iloc[0], table["train.epochs"].iloc[0]) == (3, 7)


def test_an_empty_study_has_an_empty_leaderboard(study):
    assert len(leaderboard.frame([], study)) == 0
    document = leaderboard.document([], study)
    assert (document["best"], document["trials"]) == (None, [])
    assert leaderboard.csv([], study).startswith("rank,trial,state")
    assert leaderboard.cells(leaderboard.frame([], study))[1] == []


def test_the_document_is_plain_json_with_a_version(study):
    results = [result(0, 0.8), result(1, None, "FAILED", error="x", params={"loss.gamma": 2.0})]
    document = json.loads(json.dumps(leaderboard.document(results, study), allow_nan=False))
    assert (document["schema_version"], document["best"], document["goal"]) == (1, 0, "overall_accuracy")
    first, second = document["trials"]
    assert (first["value"], first["params"]["loss.gamma"]) == (0.8, 1.5)
    assert (second["value"], second["rank"], second["error"]) == (None, None, "x")


def test_the_csv_reads_back(study):
    table = pd.read_csv(io.StringIO(leaderboard.csv([result(0, 0.8), result(1, 0.9)], study)))
    assert table["trial"].tolist() == [1, 0]
    assert table["loss.gamma"].tolist() == [1.5, 1.5]


def test_people_read_ties_errors_and_reasons(study):
    with_predictions(study, images=1000)
    table = leaderboard.frame([result(0, 0.8), result(1, None, "FAILED", error="out of memory")], study)
    headers, rows = leaderboard.cells(table)
    first, second = (dict(zip(headers, row, strict=True)) for row in rows)
    assert (first["rank"], first["value"], first["epochs"], first["minutes"]) == (
        "1~",
        "0.8000 ±0.0089",
        "3/3",
        "1.5",
    )
    assert (second["rank"], second["value"], second["error"]) == ("", "", "out of memory")


def test_running_trials_come_from_the_record(study):
    curve(begin(job(study, 4)), 0.6)
    table = leaderboard.frame(record.results(study), study)
    assert table["state"].tolist() == ["INTERRUPTED"]
