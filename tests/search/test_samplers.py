"""Samplers and pruners as a study file names them: what is proposed depends on seed, number and record alone."""

from pathlib import Path

import optuna
import pytest
from optuna.distributions import FloatDistribution

from sweeper.search import samplers
from sweeper.space import yaml_io
from sweeper.space.space import Space
from sweeper.space.spec import Search
from tests.support.studies import opened, play, write
from trainers.config import Cosine, OneCycle, TrainConfig

SPACE = {"x": FloatDistribution(-5, 5), "y": FloatDistribution(1e-4, 1.0, log=True)}


def search(**given: object) -> Search:
    return Search.model_validate(given)


def study(seed: int) -> optuna.Study:
    return optuna.create_study(direction="maximize", sampler=samplers.sampler(search(sampler="tpe", seed=seed)))


def test_the_seed_and_the_number_decide_and_no_draw_between():
    first, again, other = study(0), study(0), study(1)
    early = again.ask()
    assert early.suggest_float("y", 1e-4, 1.0, log=True) == first.ask(SPACE).params["y"]  # whatever is drawn first
    assert first.ask(SPACE).params == again.ask(SPACE).params != other.ask(SPACE).params


@pytest.mark.parametrize("sampler", ["random", "tpe", "{name: gp, startup_trials: 10}", "grid"])
def test_the_first_that_a_plan_shows_are_the_first_that_are_asked(tmp_path, faked, sampler):
    path = write(
        tmp_path,
        search=f"{{sampler: {sampler}, pruner: none}}",
        budget="{trials: 5}",
        epochs=1,
        loss="{name: focal, gamma: {choice: [0, 1, 2]}}",
        optimizer="{name: adamw, lr: {choice: [0.1, 0.01]}}",
    )
    read = yaml_io.read(path)
    shown = list(samplers.first(read.search, Space(read, ("pattern",)), 5))
    begun = opened(path)
    jobs = [begun.next_job() for _ in range(5)]
    begun.close()
    assert [job.params for job in jobs if job] == shown


def test_of_a_grid_smaller_than_what_is_shown_all_is_shown(tmp_path):
    path = write(tmp_path, search="{sampler: grid, pruner: none}", loss="focal", optimizer="adamw")
    read = yaml_io.read(path)
    assert len(list(samplers.first(read.search, Space(read, ("pattern",)), 5))) == 2


@pytest.mark.parametrize(
    ("schedule", "epochs", "judged"),
    [
        (Cosine(warmup_epochs=0), 20, 4),
        (Cosine(warmup_epochs=5), 20, 6),
        (OneCycle(pct_start=0.25), 20, 6),
        (Cosine(warmup_epochs=1), 8, 4),
        (Cosine(warmup_epochs=1), 6, 3),
        (Cosine(warmup_epochs=1), 4, 2),
        (Cosine(warmup_epochs=2), 4, 3),
        (Cosine(warmup_epochs=0), 2, 1),
    ],
)
def test_no_trial_is_judged_by_the_median_before_half_of_it_or_the_third_epoch_or_the_rise_of_its_rate(
    schedule, epochs, judged
):
    train = TrainConfig(backbone="resnet18", epochs=epochs, schedule=schedule)
    pruner = samplers.pruner(
        search(sampler="random", pruner={"name": "median", "startup_trials": 1, "min_trials": 1}), train
    )
    made = optuna.create_study(direction="maximize")
    made.add_trial(optuna.trial.create_trial(value=0.9, intermediate_values=dict.fromkeys(range(1, 21), 0.9)))
    trial, ends = made.ask(), []
    for epoch in range(1, epochs + 1):
        trial.report(0.1, epoch)
        ends.append(pruner.prune(made, made.trials[-1]))
    assert ends.index(True) + 1 == judged


@pytest.mark.parametrize("pruner", ["none", "asha", {"name": "asha", "type": "stopping"}])
def test_where_the_studys_own_rungs_judge_optuna_prunes_nothing(pruner):
    made = samplers.pruner(search(sampler="random", pruner=pruner), TrainConfig(backbone="resnet18"))
    assert isinstance(made, optuna.pruners.NopPruner)


def test_a_study_of_every_value_proposed_ends(tmp_path: Path, faked):
    """A grid after its last configuration asks nothing of the sampler."""
    path = write(tmp_path, search="{sampler: grid, pruner: none}", loss="focal", optimizer="adamw", epochs=1)
    begun = opened(path)
    play(begun)
    begun.close()
    assert len(begun.results()) == 2
