"""TPE in long studies: Optuna's own up to a bound, and beyond it as good."""

import datetime
import random
from statistics import mean

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.samplers import TPESampler
from optuna.trial import FrozenTrial, TrialState

from sweeper.samplers import BOUND, GOOD, SAMPLE, Bounded, Known

SPACE = {"x": FloatDistribution(-5, 5), "y": FloatDistribution(1e-4, 1.0, log=True)}
SETTINGS = {"seed": 3, "n_startup_trials": 10, "multivariate": False, "constant_liar": True}


def worth(x: float, y: float) -> float:
    return -((x - 1) ** 2) - (y - 0.1) ** 2


def study(count: int, sampler: optuna.samplers.BaseSampler) -> optuna.Study:
    """`count` trials at random; each third was pruned, and one runs."""
    draw, states = random.Random(0), [TrialState.COMPLETE, TrialState.COMPLETE, TrialState.PRUNED]
    made = optuna.create_study(direction="maximize", sampler=sampler)
    for number in range(count - 1):
        params = {"x": draw.uniform(-5, 5), "y": 10 ** draw.uniform(-4, 0)}
        value, state = worth(**params), states[number % 3]
        final = value if state == TrialState.COMPLETE else None
        trial = optuna.trial.create_trial(
            state=state, value=final, params=params, distributions=SPACE, intermediate_values={number % 7: value}
        )
        made.add_trial(trial)
    made.add_trial(optuna.trial.create_trial(state=TrialState.RUNNING, params=params, distributions=SPACE))
    return made


def proposed(made: optuna.Study, count: int) -> list[dict[str, float]]:
    found = []
    for _ in range(count):
        trial = made.ask(SPACE)
        found.append(trial.params)
        made.tell(trial, worth(**trial.params))
    return found


@pytest.mark.parametrize("count", [5, 60, BOUND - 6])
def test_up_to_the_bound_the_proposals_are_those_of_optunas_tpe(count):
    ours, theirs = study(count, Bounded(Known(), **SETTINGS)), study(count, TPESampler(**SETTINGS))
    assert proposed(ours, 6) == proposed(theirs, 6)


def test_beyond_the_bound_the_good_trials_are_those_that_optuna_takes():
    from optuna.samplers._tpe.sampler import _split_trials, default_gamma

    made = study(2 * BOUND, Bounded(Known(), **SETTINGS))
    few = Known().few(made.trials, asking=7)
    good, _ = _split_trials(made, made.trials, default_gamma(len(made.trials)))
    assert len(good) == GOOD
    kept, _ = _split_trials(made, few, default_gamma(len(few)))
    assert numbers(kept) == numbers(good)


def test_beyond_the_bound_a_trial_sees_a_sample_of_its_own_and_all_that_run():
    trials = study(2 * BOUND, Bounded(Known(), **SETTINGS)).trials
    known = Known()
    first, second = known.few(trials, asking=7), known.few(trials, asking=8)
    assert len(first) == len(second) == GOOD + SAMPLE + 1
    assert numbers(first) == sorted(numbers(first))
    assert first[-1].state == second[-1].state == TrialState.RUNNING
    assert numbers(first) != numbers(second)
    assert numbers(Known().few(trials, asking=8)) == numbers(second)  # whatever was asked before


def numbers(trials: list[FrozenTrial]) -> list[int]:
    return [trial.number for trial in trials]


def test_beyond_the_bound_what_is_proposed_is_as_good():
    ours, theirs = (
        proposed(study(2 * BOUND, sampler), 30) for sampler in (Bounded(Known(), **SETTINGS), TPESampler(**SETTINGS))
    )
    chance = mean(worth(**trial.params) for trial in study(300, TPESampler(**SETTINGS)).trials)
    gains = [mean(worth(**params) for params in found) - chance for found in (ours, theirs)]
    assert gains[0] > 0.95 * gains[1] > 0
    assert max(worth(**params) for params in ours) > -0.01


def test_a_trial_that_was_paused_is_ranked_anew_when_it_has_gone_on():
    known, start = Known(), datetime.datetime.now(datetime.UTC)

    def trial(number, *values, complete=True):
        made = optuna.trial.create_trial(
            state=TrialState.COMPLETE if complete else TrialState.PRUNED,
            value=values[-1] if complete else None,
            intermediate_values=dict(enumerate(values, 1)),
        )
        made.number, made.datetime_start = number, start
        made.datetime_complete = start + datetime.timedelta(seconds=1) if complete else start  # as the storage has it
        return made

    others = [trial(number, 0.5) for number in range(1, 30)]
    known.few([trial(0, 0.9, complete=False), *others], asking=30)
    assert known._ranked[-1][1] == 0
    known.few([trial(0, 0.9, 0.95), *others], asking=31)
    assert known._ranked[0][1] == 0
    assert len(known._ranked) == 30
