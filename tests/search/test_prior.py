"""The first draws of a study lie near the defaults, or near what search.prior says; then the sampler takes over."""

import math
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import optuna
import pytest

from sweeper.search import samplers
from sweeper.search.optimizer import Optimizer
from sweeper.space import yaml_io
from sweeper.space.space import Space
from sweeper.space.spec import Search
from tests.search.test_optimizer import ended, result

SPACE = """\
study: near
data: {root: d}
budget: {trials: 9}
train:
  backbone: %s
  loss: {choice: [{name: focal, gamma: {uniform: [0, 5]}}, cross_entropy, dice]}
  optimizer: {name: adamw, lr: {loguniform: [1e-5, 1]}, weight_decay: {loguniform: [1e-3, 1]}}
  schedule: {name: cosine, warmup_epochs: {int: [0, 20]}}
  epochs: {int: [1, 100]}
  balanced_sampling: {uniform: [0, 1]}
search: {seed: 3, %s}
"""


def read(search: str = "", backbone: str = "mobilenetv2_100") -> tuple[Search, Space]:
    spec = yaml_io.read(Path("near.yaml"), text=SPACE % (backbone, search))
    return spec.search, Space(spec, ())


def drawn(search: str = "", count: int = 200, backbone: str = "mobilenetv2_100") -> list[dict[str, Any]]:
    """What so many trials ask for while none has a result."""
    optimizer = Optimizer(*read(search, backbone))
    return [optimizer.ask()[1] for _ in range(count)]


def alone(search: str, count: int) -> list[dict[str, Any]]:
    """The same without a prior: the sampler's own draws, of a study that is asked without this package."""
    asked, space = read(search)
    study = optuna.create_study(direction="maximize", sampler=samplers.sampler(asked))
    return [space.suggest(study.ask()) for _ in range(count)]


def within(values: list[float], low: float, high: float) -> float:
    return sum(low <= value <= high for value in values) / len(values)


@pytest.mark.parametrize("sampler", ["tpe", pytest.param("gp", marks=pytest.mark.slow)])  # loads torch
def test_first_draws_lie_near_the_familys_defaults(sampler):
    trials = drawn(f"sampler: {sampler}")
    lrs = [params["optimizer.lr"] for params in trials]
    assert 1.6e-3 < median(lrs) < 2.5e-3
    assert 0.6 < within(lrs, 2e-3 / 3, 2e-3 * 3) < 0.75  # a standard deviation
    assert min(lrs) < 2e-3 / 9
    assert 0.42 < sum(params["loss"] == "cross_entropy" for params in trials) / len(trials) < 0.58
    others = [params["loss"] for params in trials if params["loss"] != "cross_entropy"]
    assert 0.35 < others.count("focal") / len(others) < 0.65
    warmups = [params["schedule.warmup_epochs"] for params in trials]
    assert all(type(warmup) is int for warmup in warmups)
    assert within(warmups, 0, 5) > 0.55  # the default is 1 of up to 20
    assert 0.6 < within([params["balanced_sampling"] for params in trials], 0, 0.2) < 0.8  # its default is an end


def test_a_branch_that_is_not_the_default_has_a_default_of_its_own():
    gammas = [params["loss.focal.gamma"] for params in drawn() if params["loss"] == "focal"]
    assert 1.5 < median(gammas) < 2.5  # of focal, 2


def test_what_has_no_default_is_drawn_as_without_a_prior():
    epochs = [params["epochs"] for params in drawn(count=20)]
    assert epochs == [params["epochs"] for params in alone("prior: off", 20)]


@pytest.mark.parametrize("prior", ["prior: off", "prior: false", "sampler: random", "prior: off, sampler: random"])
def test_off_and_random_draw_what_the_sampler_draws(prior):
    assert drawn(prior, 12) == alone(prior, 12)


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_what_is_written_is_where_draws_lie(sampler):
    prior = "{optimizer.lr: {around: 0.1, factor: 1.5}, loss: {around: dice, share: 0.9}"
    trials = drawn(f"sampler: {sampler}, prior: {prior}, balanced_sampling: {{around: 1, spread: 0.05}}}}")
    lrs = [params["optimizer.lr"] for params in trials]
    assert 0.6 < within(lrs, 0.1 / 1.5, 0.15) < 0.75
    assert 0.85 < sum(params["loss"] == "dice" for params in trials) / len(trials) < 0.95
    assert within([params["balanced_sampling"] for params in trials], 0.8, 1) == 1
    decays = [math.log(params["optimizer.weight_decay"] / 0.05) for params in trials]
    near = within(decays, -math.log(3), math.log(3))
    assert near > 0.6 if sampler == "tpe" else near < 0.45  # nobody wrote that for random


def test_each_backbone_has_its_own_defaults():
    trials = drawn(backbone="{choice: [mobilenetv2_100, swin_tiny]}")
    found = {
        name: [params["optimizer.lr"] for params in trials if params["backbone"] == name]
        for name in ("mobilenetv2_100", "swin_tiny")
    }
    assert all(len(lrs) > 70 for lrs in found.values())
    assert median(found["mobilenetv2_100"]) > 2.5 * median(found["swin_tiny"])  # 2e-3 and 5e-4


def test_a_backbone_that_is_given_has_its_defaults():
    optimizer = Optimizer(*read(backbone="{choice: [mobilenetv2_100, swin_tiny]}"))
    lrs = [optimizer.ask({"backbone": "swin_tiny"})[1]["optimizer.lr"] for _ in range(100)]
    assert 3e-4 < median(lrs) < 8e-4


def test_the_sampler_takes_over_once_there_are_results():
    sampler = "sampler: {name: tpe, startup_trials: 4}"
    search, space = read(sampler)
    optimizer = Optimizer(search, space)
    ended(optimizer, 6, ["COMPLETE", "FAILED", "PRUNED"])  # four of them show something
    off = Optimizer(read(f"{sampler}, prior: off")[0], space, optimizer.own_trials())
    assert [optimizer.ask() for _ in range(5)] == [off.ask() for _ in range(5)]


def judged(values: Callable[[dict[str, Any]], float], count: int, *, minimize: bool = False) -> Optimizer:
    """A study of so many trials, the default first, whose values a function of their parameters tells."""
    search, space = read()
    optimizer = Optimizer(search, space, minimize=minimize)
    (default,) = space.default()
    for number in range(count):
        _, params = optimizer.ask({} if number else default)
        optimizer.report(number, 1, value := values(params))
        optimizer.tell(result(number, params, "COMPLETE", value))
    return optimizer


def off_default(params: dict[str, Any]) -> float:
    """How many factors of e the learning rate is from its default."""
    return abs(math.log(params["optimizer.lr"] / 2e-3))


def evenly_drawn(optimizer: Optimizer) -> list[int]:
    """Which trials lie where the sampler alone would draw them."""
    search, space = read("prior: off")
    trials, found = optimizer.own_trials(), []
    for number, trial in enumerate(trials):
        off = Optimizer(search, space, trials[:number])
        found += [number] * (off.ask()[1] == trial.params)
    return found


@pytest.mark.parametrize("minimize", [False, True])
def test_one_draw_is_even_to_see_whether_the_prior_is_worth_it(minimize):
    good = judged(lambda params: off_default(params) * (1 if minimize else -1), 9, minimize=minimize)
    assert evenly_drawn(good) == [3]
    bad = judged(lambda params: off_default(params) * (-1 if minimize else 1), 9, minimize=minimize)
    assert evenly_drawn(bad) == [3, 4, 5, 6, 7, 8]


def test_a_prior_is_taken_up_again_once_even_draws_turn_out_worse():
    values = iter([0.5, 0.5, 0.5, 0.9, 0.2, 0.0, 0.3, 0.3, 0.3])
    assert evenly_drawn(judged(lambda _: next(values), 9)) == [3, 4, 5]


def test_a_backbone_that_was_given_does_not_make_a_draw_even():
    search, space = read(backbone="{choice: [mobilenetv2_100, swin_tiny]}")
    optimizer = Optimizer(search, space)
    defaults = space.default()
    for number in range(6):
        _, params = optimizer.ask(defaults[number] if number < 2 else {"backbone": "swin_tiny"})
        optimizer.tell(result(number, params, "COMPLETE", 0.5))
    lrs = [optimizer.own_trials()[number].params["optimizer.lr"] for number in (2, 4, 5)]
    alone = Optimizer(search, space)
    near = [alone.ask({"backbone": "swin_tiny"})[1]["optimizer.lr"] for _ in range(6)]
    assert lrs == [near[2], near[4], near[5]]
    assert optimizer.own_trials()[3].params["optimizer.lr"] != near[3]


def test_a_study_that_is_resumed_doubts_its_prior_alike():
    whole = judged(off_default, 9)
    search, space = read()
    resumed = Optimizer(search, space, whole.own_trials()[:6])
    assert resumed.ask()[1] == whole.own_trials()[6].params


def test_failed_trials_show_nothing_so_draws_stay_near():
    search, space = read("sampler: {name: tpe, startup_trials: 4}")
    optimizer = Optimizer(search, space)
    ended(optimizer, 30, ["FAILED"])
    lrs = [optimizer.ask()[1]["optimizer.lr"] for _ in range(50)]
    assert within(lrs, 2e-3 / 9, 2e-3 * 9) > 0.9


def test_a_preview_of_the_first_trials_shows_what_is_asked():
    search, space = read()
    optimizer = Optimizer(search, space)
    asked = [optimizer.ask(fixed)[1] for fixed in [*space.default(), *[{}] * 4]]
    assert list(samplers.first(search, space, 5)) == asked


@pytest.mark.parametrize("given", ["off", "false", "{loss: {around: dice}}"])
def test_an_assignment_sets_it(given):
    spec = yaml_io.read(Path("near.yaml"), text=SPACE % ("a", ""), sets=[f"search.prior={given}"])
    wanted = "off" if "{" not in given else {"loss": {"around": "dice"}}
    assert spec.search.model_dump(exclude_none=True)["prior"] == wanted
