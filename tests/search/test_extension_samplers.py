"""Samplers and pruners of extension files: killed and resumed they go on as if nothing had happened."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from sweeper.search import samplers
from sweeper.search.optimizer import Optimizer
from sweeper.space import yaml_io
from sweeper.space.space import Space
from sweeper.space.spec import StudySpec
from sweeper.store.paths import StudyFolder
from sweeper.trial import SearchState, TrialResult
from tests.support.studies import close_all, curve, opened, outcome, play
from trainers import extensions
from trainers.config import TrainConfig
from trainers.support.errors import UserError

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")

OWN = """\
import optuna
from optuna.samplers import BaseSampler


def cma(seed: int, population: int = 4) -> BaseSampler:
    return optuna.samplers.CmaEsSampler(seed=seed, popsize=population, warn_independent_sampling=False)


def cma_margin(seed: int) -> BaseSampler:
    return optuna.samplers.CmaEsSampler(seed=seed, popsize=4, with_margin=True, warn_independent_sampling=False)


def qmc(seed: int, scramble: bool = True) -> BaseSampler:
    return optuna.samplers.QMCSampler(seed=seed, scramble=scramble, warn_independent_sampling=False)


def nsga(seed: int) -> BaseSampler:
    return optuna.samplers.NSGAIISampler(seed=seed, population_size=3)


def joint(seed: int) -> BaseSampler:
    return optuna.samplers.TPESampler(seed=seed, multivariate=True, n_startup_trials=3, constant_liar=True)


class Walk(BaseSampler):
    \"\"\"Keeps what it needs where Optuna's own do, in the attributes of the study, once a trial has ended.\"\"\"

    def infer_relative_search_space(self, study, trial):
        return {}

    def sample_relative(self, study, trial, search_space):
        return {}

    def sample_independent(self, study, trial, param_name, param_distribution):
        ended = study._storage.get_study_system_attrs(study._study_id).get("walk:ended", 0)
        low, high = param_distribution.low, param_distribution.high
        return low + (high - low) * ((0.37 * ended + 0.11) % 1)

    def after_trial(self, study, trial, state, values):
        ended = study._storage.get_study_system_attrs(study._study_id).get("walk:ended", 0)
        study._storage.set_study_system_attr(study._study_id, "walk:ended", ended + 1)


def walk(seed: int) -> BaseSampler:
    return Walk()


samplers = {"cma": cma, "cma_margin": cma_margin, "qmc": qmc, "nsga": nsga, "joint": joint, "walk": walk}


def threshold(seed: int, lower: float) -> optuna.pruners.BasePruner:
    return optuna.pruners.ThresholdPruner(lower=lower)


def ceiling(seed: int, upper: float) -> optuna.pruners.BasePruner:
    return optuna.pruners.ThresholdPruner(upper=upper)


def percentile(seed: int, percent: float = 50.0) -> optuna.pruners.BasePruner:
    return optuna.pruners.PercentilePruner(percent, n_startup_trials=2, n_min_trials=1)


def halving(seed: int) -> optuna.pruners.BasePruner:
    return optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=2)


pruners = {"threshold": threshold, "ceiling": ceiling, "percentile": percentile, "halving": halving}
"""
SPACE = """\
study: question
extensions: [own.py]
data: {{layout: folder, root: nothing}}
metric: {metric}
budget: {{trials: {trials}}}
search: {{sampler: {sampler}, pruner: {pruner}, seed: {seed}}}
train:
  backbone: resnet18
  loss: {{name: focal, gamma: {{uniform: [0.0, 5.0]}}}}
  optimizer: {{name: adamw, lr: {{loguniform: [1.0e-5, 1.0e-1]}}}}
  epochs: {epochs}
"""
SAMPLERS = ["cma", "{name: cma, population: 6}", "cma_margin", "qmc", "{name: qmc, scramble: false}", "nsga", "joint"]


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    yield
    close_all()
    extensions.use([])


def write(
    folder: Path,
    *,
    sampler: str = "random",
    pruner: str = "none",
    metric: str = "overall_accuracy",
    trials: int = 12,
    epochs: int = 2,
    seed: int = 0,
    own: str = OWN,
) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "own.py").write_text(own)
    path = folder / "question.yaml"
    path.write_text(
        SPACE.format(sampler=sampler, pruner=pruner, metric=metric, trials=trials, epochs=epochs, seed=seed)
    )
    return path


def loss(params: dict[str, Any]) -> float:
    """A quadratic in the numbers of the space, 0 at its best."""
    return float((params["loss.gamma"] - 1.3) ** 2 + (math.log10(params["optimizer.lr"]) + 2.2) ** 2)


def told(optimizer: Optimizer, spec: StudySpec, number: int, params: dict[str, Any]) -> SearchState | None:
    value = loss(params) if spec.minimize else -loss(params)
    optimizer.tell(
        TrialResult(
            number=number,
            state="COMPLETE",
            metric=spec.metric,
            minimize=spec.minimize,
            value=value,
            epoch=1,
            epochs=1,
            planned=1,
            backbone="resnet18",
            params=params,
            seconds=1.0,
        )
    )
    return optimizer.state(number)


def searched(path: Path, trials: int) -> list[dict[str, Any]]:
    spec = yaml_io.read(path)
    space, found = Space(spec, ("pattern",)), list[dict[str, Any]]()
    optimizer = Optimizer(spec.search, space, minimize=spec.minimize)
    for _ in range(trials):
        number, params = optimizer.ask()
        told(optimizer, spec, number, params)
        found.append(params)
    return found


# ------------------------------------------------------------------------------------------------------ proposals
@pytest.mark.parametrize("sampler", [*SAMPLERS, "walk"])
def test_a_study_that_is_interrupted_and_opened_again_is_the_one_that_is_not(
    tmp_path: Path, faked: None, sampler: str
):
    whole = opened(write(tmp_path / "whole", sampler=sampler))
    play(whole)
    meant = outcome(whole)
    path = write(tmp_path / "parts", sampler=sampler)
    for jobs in (2, 3, 1, 3, None):
        part = opened(path)
        play(part, jobs)
        part.close()
    assert outcome(part) == meant
    assert len({one[2]["loss.gamma"] for one in meant}) > 9  # type: ignore[index]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_study_that_is_killed_within_a_trial_goes_on_with_it(tmp_path: Path, faked: None, sampler: str):
    whole = opened(write(tmp_path / "whole", sampler=sampler))
    play(whole)
    path = write(tmp_path / "parts", sampler=sampler)
    for jobs in (3, 4):
        part = opened(path)
        play(part, jobs - 1)
        job = part.next_job()
        assert job
        part.report(job.key, curve(job)[0])  # and no more: it is killed
        part.close()
    play(part := opened(path))
    assert outcome(part) == outcome(whole)


def test_a_kill_before_a_trial_is_born_repeats_its_proposal(tmp_path: Path, faked: None):
    """Its state is written before its config.json, and counts for nothing without one."""
    path = write(tmp_path, sampler="qmc")
    study = opened(path)
    play(study, 4)
    job = study.next_job()
    assert job
    study.close()
    (StudyFolder(tmp_path / "question").trial(job.trial).config).unlink()
    again = opened(path).next_job()
    assert again
    assert (again.trial, again.params) == (job.trial, job.params)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_preview_is_what_is_asked_then(tmp_path: Path, sampler: str):
    spec = yaml_io.read(write(tmp_path, sampler=sampler))
    optimizer = Optimizer(spec.search, Space(spec, ("pattern",)))
    for _ in range(9):
        foreseen = optimizer.preview({})
        assert foreseen == optimizer.preview({})
        number, params = optimizer.ask()
        assert params == foreseen
        told(optimizer, spec, number, params)


@pytest.mark.parametrize("metric", ["overall_accuracy", "log_loss"])
def test_cma_es_learns_whichever_way_the_metric_is_better(tmp_path: Path, metric: str):
    late = {
        sampler: [
            sum(map(loss, searched(write(tmp_path, sampler=sampler, metric=metric, seed=seed), 60)[40:])) / 20
            for seed in range(3)
        ]
        for sampler in ("cma", "random")
    }
    assert max(late["cma"]) < 0.25 * min(late["random"])


@pytest.mark.parametrize("scramble", ["true", "false"])
def test_a_quasi_random_sequence_is_one_sequence(tmp_path: Path, scramble: str):
    """Of its 2^n points each 2^-n of the range of every number holds one."""
    params = searched(write(tmp_path, sampler=f"{{name: qmc, scramble: {scramble}}}"), 17)[1:]
    for cells in (
        [one["loss.gamma"] / 5 for one in params],
        [(math.log10(one["optimizer.lr"]) + 5) / 4 for one in params],
    ):
        assert sorted(int(16 * cell) for cell in cells) == list(range(16))


def test_a_plain_study_keeps_nothing_beside_its_trials(tmp_path: Path, faked: None):
    for sampler in ("tpe", "random"):
        path = write(tmp_path / sampler, sampler=sampler, pruner="median")
        play(opened(path))
        assert not list((tmp_path / sampler).rglob("search.json"))


# -------------------------------------------------------------------------------------------------------- pruners
PRUNERS = ["{name: threshold, lower: 0.3}", "percentile", "{name: percentile, percent: 75}", "halving"]


@pytest.mark.parametrize("pruner", PRUNERS)
def test_a_pruner_stops_trials_as_before_after_a_kill(tmp_path: Path, faked: None, pruner: str):
    whole = opened(write(tmp_path / "whole", pruner=pruner, epochs=6))
    play(whole)
    meant = outcome(whole)
    assert {one[1] for one in meant} == {"COMPLETE", "PRUNED"}
    path = write(tmp_path / "parts", pruner=pruner, epochs=6)
    for jobs in (1, 3, 3, None):
        part = opened(path)
        play(part, jobs)
        if jobs and (job := part.next_job()):
            for epoch in curve(job)[:2]:
                if not part.report(job.key, epoch):
                    break
        part.close()
    assert outcome(part) == meant


@pytest.mark.parametrize(
    ("pruner", "metric", "values", "stops"),
    [
        ("{name: threshold, lower: 0.3}", "overall_accuracy", (0.4, 0.2), [False, True]),
        ("{name: ceiling, upper: 1.5}", "log_loss", (1.2, 1.7), [False, True]),
        ("percentile", "overall_accuracy", (0.6,), [False]),
        ("percentile", "overall_accuracy", (0.4,), [True]),
        ("percentile", "log_loss", (0.6,), [True]),
        ("percentile", "log_loss", (0.4,), [False]),
    ],
)
def test_a_pruner_judges_values_as_the_metric_gives_them(
    tmp_path: Path, pruner: str, metric: str, values: Sequence[float], stops: list[bool]
):
    spec = yaml_io.read(write(tmp_path, pruner=pruner, metric=metric))
    optimizer = Optimizer(spec.search, Space(spec, ("pattern",)), minimize=spec.minimize)
    for _ in range(3):
        number, params = optimizer.ask()
        for epoch in (1, 2):
            optimizer.report(number, epoch, 0.5)
        told(optimizer, spec, number, params)
    number, _ = optimizer.ask()
    found = []
    for epoch, value in enumerate(values, 1):
        optimizer.report(number, epoch, value)
        found.append(optimizer.should_prune(number, TrainConfig(backbone="resnet18", epochs=9)))
    assert found == stops


# ------------------------------------------------------------------------------------------------------ bad input
def made(tmp_path: Path, body: str, kind: str = "samplers") -> StudySpec:
    """A search with a function of this body."""
    own = f"import optuna\n\n\ndef mine(seed: int):\n    {body}\n\n\n{kind} = {{'mine': mine}}\n"
    name = {"samplers": "sampler", "pruners": "pruner"}[kind]
    return yaml_io.read(write(tmp_path, own=own, **{name: "mine"}))  # type: ignore[arg-type]


GRID = "return optuna.samplers.GridSampler({'loss.gamma': [1.0, 2.0], 'optimizer.lr': [0.01]})"
CLASS = "return type('Odd', (optuna.samplers.RandomSampler,), {'sample_independent': lambda *_: 1 / 0})(seed)"
FAULTY = {
    ("samplers", "return 7"): (4, "mine of samplers returns int, not an Optuna BaseSampler"),
    ("samplers", "return None"): (4, "mine of samplers returns NoneType, not an Optuna BaseSampler"),
    ("samplers", "return optuna.pruners.NopPruner()"): (
        4,
        "mine of samplers returns NopPruner, not an Optuna BaseSampler",
    ),
    ("samplers", "raise ValueError('no population')"): (5, "mine of samplers failed: ValueError: no population"),
    ("samplers", "return optuna.samplers.TPESampler(seed=seed, populaton=3)"): (
        5,
        "mine of samplers failed: TypeError",
    ),
    ("samplers", "import nowhere_at_all"): (5, "mine of samplers failed: it needs nowhere_at_all"),
    ("samplers", GRID): (4, "mine of samplers returns a GridSampler, which can only stop Optuna's own loop"),
    ("samplers", CLASS): (5, "mine of samplers failed: ZeroDivisionError: division by zero"),
    ("samplers", "return optuna.samplers.RandomSampler()"): (
        4,
        "mine of samplers proposes different values for equal seeds",
    ),
    ("pruners", "return optuna.samplers.RandomSampler()"): (
        4,
        "mine of pruners returns RandomSampler, not an Optuna BasePruner",
    ),
    ("pruners", "return optuna.pruners.PercentilePruner(200)"): (5, "mine of pruners failed: ValueError"),
}


@pytest.mark.parametrize(("kind", "body"), FAULTY)
def test_what_cannot_sample_or_prune_is_named_with_its_line(tmp_path: Path, kind: str, body: str):
    spec, (line, what) = made(tmp_path, body, kind), FAULTY[kind, body]
    with pytest.raises(UserError) as raised:
        samplers.try_own(spec.search, Space(spec, ("pattern",)))
    assert raised.value.where == f"{tmp_path / 'own.py'}:{line}"
    assert raised.value.what.startswith(what)
    assert (raised.value.exit_code, bool(raised.value.help)) == (2, True)


@pytest.mark.parametrize(
    ("sampler", "pruner"), [*((one, "none") for one in (*SAMPLERS, "walk")), *(("tpe", one) for one in PRUNERS)]
)
def test_what_works_is_tried_without_a_trace(tmp_path: Path, sampler: str, pruner: str):
    spec = yaml_io.read(write(tmp_path, sampler=sampler, pruner=pruner))
    before = sorted(tmp_path.iterdir())
    samplers.try_own(spec.search, Space(spec, ("pattern",)), minimize=spec.minimize)
    assert sorted(tmp_path.iterdir()) == before
