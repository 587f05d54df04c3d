"""The optimizer: filled from the record it goes on as if nothing had happened, whatever waits or was transferred."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import FrozenTrial, TrialState, create_trial

from sweeper.search import history
from sweeper.search.optimizer import Optimizer
from sweeper.space import yaml_io
from sweeper.space.space import Space
from sweeper.space.spec import Search
from sweeper.trial import State, TrialResult
from tests.support.studies import write
from trainers.config import TrainConfig

SAMPLERS = ["random", "{name: tpe, startup_trials: 3}", pytest.param("gp", marks=pytest.mark.slow)]  # loads torch


@pytest.fixture
def space(tmp_path: Path) -> Space:
    return Space(yaml_io.read(write(tmp_path)), ("pattern",))


def search(tmp_path: Path, sampler: str = "{name: tpe, startup_trials: 3}", pruner: str = "none") -> Search:
    return yaml_io.read(write(tmp_path, search=f"{{sampler: {sampler}, pruner: {pruner}}}")).search


def result(number: int, params: dict[str, Any], state: State, value: float) -> TrialResult:
    return TrialResult(
        number=number,
        state=state,
        metric="overall_accuracy",
        value=value,
        epoch=1,
        epochs=1,
        planned=6,
        backbone="resnet18",
        params=params,
        seconds=1.0,
    )


def ended(optimizer: Optimizer, trials: int, states: Sequence[State] = ("COMPLETE", "PRUNED", "FAILED")) -> None:
    """Ask and tell so many trials, each of one epoch."""
    for _ in range(trials):
        number, params = optimizer.ask()
        value = 0.5 + number / 100
        optimizer.report(number, 1, value)
        optimizer.tell(result(number, params, states[number % len(states)], value))


def lessons(space: Space, count: int) -> list[FrozenTrial]:
    """Trials of another study, as `history.transferred` has them."""
    other = Optimizer(search_of_others(), space)
    ended(other, count, ["COMPLETE"])
    made = other.own_trials()
    for number, trial in enumerate(made, -count):
        trial.number = number
    return made


def search_of_others() -> Search:
    return Search.model_validate({"sampler": "random", "pruner": "none", "seed": 7})


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_one_that_is_filled_anew_asks_what_the_other_would(tmp_path, space, sampler):
    asked = search(tmp_path, sampler)
    first = Optimizer(asked, space, transferred=lessons(space, 4))
    ended(first, 12)
    again = Optimizer(asked, space, first.own_trials(), lessons(space, 4))
    assert [again.ask() for _ in range(3)] == [first.ask() for _ in range(3)]


def test_what_is_asked_depends_on_the_number_and_not_on_what_was_asked_between(tmp_path, space):
    asked = search(tmp_path)
    calm, busy = Optimizer(asked, space), Optimizer(asked, space)
    for optimizer in (calm, busy):
        ended(optimizer, 6)
    for _ in range(4):
        busy.preview({})
    assert calm.ask() == busy.ask()


@pytest.mark.parametrize("fixed", [{}, {"backbone": "resnet50"}, {"loss.gamma": 2.0}])
def test_a_preview_is_what_is_asked_then(tmp_path, space, fixed):
    optimizer = Optimizer(search(tmp_path), space, transferred=lessons(space, 3))
    ended(optimizer, 7)
    waiting, _ = optimizer.ask()
    optimizer.report(waiting, 1, 0.4)
    optimizer.pause(waiting)
    optimizer.ask()  # one that runs
    before = len(optimizer.own_trials())
    foreseen = optimizer.preview(fixed)
    assert len(optimizer.own_trials()) == before
    number, params = optimizer.ask(fixed)
    assert (number, params) == (before, foreseen)
    assert fixed.items() <= params.items()


@pytest.mark.parametrize(
    "pruner", ["{name: early_stopping, patience: 1}", "{name: median, startup_trials: 1, min_trials: 1}"]
)
def test_a_trial_is_judged_after_a_kill_as_it_was_to_be_before(tmp_path, space, pruner):
    asked, train = search(tmp_path, pruner=pruner), TrainConfig(backbone="resnet18", epochs=9)
    optimizer = Optimizer(asked, space)
    for values in ([0.5, 0.6, 0.7, 0.8, 0.9, 0.9], [0.4, 0.3, 0.3, 0.3, 0.3, 0.3]):
        number, params = optimizer.ask()
        judged = []
        for epoch, value in enumerate(values, 1):
            optimizer.report(number, epoch, value)
            again = Optimizer(asked, space, optimizer.own_trials())
            again.report(number, epoch, value)  # what is on record is told once more
            judged.append(optimizer.should_prune(number, train))
            assert again.should_prune(number, train) == judged[-1]
        assert any(judged) == (number == 1)
        optimizer.tell(result(number, params, "COMPLETE", values[-1]))


# -------------------------------------------------------------------------------------- who is seen
def test_a_paused_trial_is_a_pruned_one_until_it_goes_on_and_can_be_told_its_end(tmp_path, space):
    optimizer = Optimizer(search(tmp_path), space)
    number, params = optimizer.ask()
    optimizer.report(number, 1, 0.4)
    optimizer.pause(number)
    (seen,) = optimizer.own_trials()
    assert (seen.state, seen.intermediate_values) == (TrialState.PRUNED, {1: 0.4})
    optimizer.resume(number)
    assert optimizer.own_trials()[0].state == TrialState.RUNNING
    optimizer.pause(number)
    optimizer.tell(result(number, params, "COMPLETE", 0.6))
    (seen,) = optimizer.own_trials()
    assert (seen.state, seen.value) == (TrialState.COMPLETE, 0.6)


def test_transferred_trials_take_no_number_and_teach_sampler_and_pruner(tmp_path, space):
    pruner = "{name: median, startup_trials: 2, min_trials: 2, warmup_epochs: 0}"
    asked, train = search(tmp_path, pruner=pruner), TrainConfig(backbone="resnet18", epochs=6)
    cold, taught = Optimizer(asked, space), Optimizer(asked, space, transferred=lessons(space, 20))
    for optimizer, prunes in ((cold, False), (taught, True)):
        number, _ = optimizer.ask()
        optimizer.report(number, 1, 0.1)
        assert (number, optimizer.should_prune(number, train)) == (0, prunes)
        assert len(optimizer.own_trials()) == 1
    assert cold.ask() != taught.ask()


def test_a_failed_trial_leaves_the_sampler_no_value(tmp_path, space):
    optimizer = Optimizer(search(tmp_path), space)
    ended(optimizer, 1, ["FAILED"])
    (seen,) = optimizer.own_trials()
    assert (seen.state, seen.values) == (TrialState.FAIL, None)


# ------------------------------------------------------------------------------------ what it had told
@pytest.mark.parametrize("state", ["COMPLETE", "PRUNED", "FAILED"])
def test_a_trial_made_from_its_record_is_the_one_that_was_told(tmp_path, space, state):
    optimizer = Optimizer(search(tmp_path), space)
    ended(optimizer, 1, [state])
    (told,) = optimizer.own_trials()
    made = history.past_trial(space.suggest, told.params, told.state, 0.5, [0.5])
    for name in ("state", "values", "params", "distributions", "intermediate_values"):
        assert getattr(made, name) == getattr(told, name), name


def test_a_pruned_trial_whose_last_value_is_no_number_has_none(space):
    params = Optimizer(search_of_others(), space).ask()[1]
    made = history.past_trial(space.suggest, params, TrialState.PRUNED, None, [0.5, float("nan")])
    assert made.values is None


def test_a_removed_trial_is_a_failed_one_and_says_nothing(tmp_path, space):
    asked = search(tmp_path)
    first = Optimizer(asked, space)
    ended(first, 6, ["COMPLETE"])
    past = first.own_trials()
    past[2] = history.gone()
    assert Optimizer(asked, space, past).ask()[0] == 6
    empty = create_trial(state=TrialState.FAIL)
    assert (history.gone().state, history.gone().params) == (empty.state, {})
