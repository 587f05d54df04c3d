"""Importance of open values: who is first, both directions, pruned trials."""

import random

import pytest

from sweeper.search import importance
from sweeper.trial import TrialResult

ASKED = {
    "optimizer.lr": {"loguniform": [1e-4, 1.0]},
    "loss.gamma": {"uniform": [0.0, 5.0]},
    "layers": {"int": [0, 4], "step": 2},
    "schedule": {"choice": [["constant", "constant"], ["step", {"name": "step"}]]},
}


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch):
    monkeypatch.setattr(importance, "RESAMPLES", 5)


def trial(number: int, value: float | None, state="COMPLETE", **changes) -> TrialResult:
    fields = {"metric": "overall_accuracy", "planned": 1, "backbone": "b"}
    return TrialResult(number=number, value=value, state=state, **(fields | changes))


def trials(count: int, matters: str, **changes) -> list[TrialResult]:
    """Trials whose value follows one open value alone."""
    draw, made = random.Random(3), []
    for number in range(count):
        params = {
            "optimizer.lr": 10 ** draw.uniform(-4, 0),
            "loss.gamma": draw.uniform(0, 5),
            "layers": draw.choice([0, 2, 4]),
            "schedule": draw.choice(["constant", "step"]),
        }
        made.append(trial(number, worth(params[matters]) + draw.gauss(0, 0.01), params=params, **changes))
    return made


def worth(value: object) -> float:
    return {"constant": 0.2, "step": 0.9}[value] if isinstance(value, str) else float(value)  # type: ignore[arg-type]


def first(results: list[TrialResult]) -> str:
    return next(iter(importance.shares(results, ASKED)))


@pytest.mark.parametrize("name", ASKED)
def test_the_open_value_that_the_metric_follows_is_first(name):
    assert first(trials(60, name)) == name


def test_shares_are_of_one_whole_and_have_errors():
    found = importance.shares(trials(60, "loss.gamma"), ASKED)
    assert sum(one.share for one in found.values()) == pytest.approx(1)
    assert list(found.values()) == sorted(found.values(), key=lambda one: -one.share)
    assert all(0 <= one.error < 0.5 for one in found.values())


def test_the_same_trials_give_the_same_shares():
    results = trials(40, "loss.gamma")
    assert importance.shares(results, ASKED) == importance.shares(results, ASKED)


def test_of_a_metric_that_is_minimised_the_small_values_are_the_best():
    up = trials(40, "loss.gamma")
    down = [one.model_copy(update={"minimize": True, "value": -(one.value or 0)}) for one in up]
    assert importance.shares(down, ASKED) == importance.shares(up, ASKED)
    wrong = [one.model_copy(update={"minimize": True}) for one in up]
    assert importance.shares(wrong, ASKED) != importance.shares(up, ASKED)


def test_a_pruned_trial_counts_as_worse_than_those_that_completed_whatever_it_had_reached():
    results = trials(60, "schedule")
    lost = [
        one.model_copy(update={"state": "PRUNED"}) if one.params["schedule"] == "constant" else one for one in results
    ]
    high = [one.model_copy(update={"value": 5.0}) if one.state == "PRUNED" else one for one in lost]
    assert first(lost) == "schedule"
    assert importance.shares(high, ASKED) == importance.shares(lost, ASKED)


@pytest.mark.parametrize("state", ["FAILED", "RUNNING", "PAUSED", "INTERRUPTED"])
def test_trials_that_did_not_end_well_do_not_count(state):
    results = trials(40, "loss.gamma")
    more = [one.model_copy(update={"state": state, "value": 9.0, "number": 40 + one.number}) for one in results[:20]]
    assert importance.shares([*results, *more], ASKED) == importance.shares(results, ASKED)


def test_values_of_a_branch_count_where_it_was_chosen():
    asked = ASKED | {"schedule.step.every": {"int": [1, 5]}}
    results = [
        one.model_copy(update={"params": one.params | ({"schedule.step.every": 3} if one.number % 2 else {})})
        for one in trials(40, "optimizer.lr")
    ]
    assert set(importance.shares(results, asked)) == set(asked)


def test_nothing_is_said_where_no_trial_is_better_than_another_or_one_value_is_open():
    same = [one.model_copy(update={"value": 0.5}) for one in trials(40, "loss.gamma")]
    assert importance.shares(same, ASKED) == {}
    assert importance.shares(trials(40, "loss.gamma"), {"loss.gamma": ASKED["loss.gamma"]}) == {}


@pytest.mark.parametrize("completed", [6, 12, 24])
def test_where_most_trials_are_pruned_those_that_completed_are_the_best(completed):
    """A quarter of the trials would be all of them, for pruned ones are equal, and every share the same."""
    results = sorted(trials(120, "optimizer.lr"), key=lambda one: -(one.value or 0))
    pruned = [one.model_copy(update={"state": "PRUNED"}) for one in results[completed:]]
    found = importance.shares([*results[:completed], *pruned], ASKED)
    assert next(iter(found)) == "optimizer.lr"
    assert found["optimizer.lr"].share > 0.5
