"""A new study learns from an earlier one: which trials lie in its space, what it does with them, what it does not."""

import math
import shutil
from pathlib import Path

import pytest

from sweeper.space import yaml_io
from sweeper.space.inside import NotInSpace
from sweeper.space.space import Space
from sweeper.space.spec import StudySpec
from sweeper.store.paths import StudyFolder
from sweeper.store.records import read_config, read_result
from sweeper.study import transfer
from sweeper.study.state import Definition
from sweeper.study.study import Study
from sweeper.trial import Done
from tests.support.studies import curve, past, play, write
from trainers.epoch import Epoch

CATEGORIES = ("pattern",)
RANDOM = "{sampler: random, pruner: {name: median, startup_trials: 2, min_trials: 2, warmup_epochs: 1}}"


pytestmark = pytest.mark.usefixtures("faked")


def read(folder: Path, **changes: str) -> tuple[StudySpec, Space]:
    """The space of `played` with lines of it replaced."""
    made = yaml_io.read(write(folder, **{"search": RANDOM, "epochs": 3} | changes))
    return made, Space(made, CATEGORIES)


def begun(folder: Path, name: str, source: StudyFolder | None = None, fingerprint: str = "f", **changes):
    """The study `name`, which learns from `source`; and what is said of that."""
    asked, space = read(folder, **changes)
    place, said = StudyFolder(folder / name), []

    def teach() -> None:
        if source:
            said.extend(transfer.warm_start(asked, space, place, source, fingerprint))

    study = Study.open(Definition(asked, space, place, fingerprint), folder / "cache", teach=teach)
    return study, said


@pytest.fixture(scope="module")
def played_once(tmp_path_factory) -> Path:
    """A study of twelve trials, ended in more than one way."""
    place = tmp_path_factory.mktemp("earlier")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SWEEP_TRAINER", "fake")
        study, _ = begun(place, "earlier")
        play(study)
        study.close()
    assert {result.state for result in study.results()} == {"COMPLETE", "PRUNED"}
    return study.folder.root


@pytest.fixture
def earlier(tmp_path, played_once) -> StudyFolder:
    """A copy of it."""
    return StudyFolder(Path(shutil.copytree(played_once, tmp_path / "earlier")))


def lessons(study: Study) -> set[int]:
    found = transfer.read(study.folder)
    return {one.number for one in found.trials} if found else set()


def params(folder: StudyFolder) -> dict[int, dict]:
    return {number: read_config(folder.trial(number)).params for number in range(12)}


# ------------------------------------------------------------------------------------- what is taken
def test_a_wider_space_learns_from_every_trial(tmp_path, earlier):
    study, said = begun(tmp_path, "wider", earlier, loss="{name: focal, gamma: {uniform: [0, 9]}}", schedule=SCHEDULE)
    assert lessons(study) == set(range(12))
    assert said == [
        "question.yaml no longer matches study 'earlier':",
        "  train.loss.gamma: uniform [0.0, 5.0] -> uniform [0.0, 9.0]",
        "learnt from 12 of 12 trials of earlier",
    ]
    study.close()


SCHEDULE = "{choice: [constant, {name: step, every: {int: [1, 5]}}]}"
INSIDE = {
    "a narrower range": (
        {"loss": "{name: focal, gamma: {uniform: [0, 3]}}", "schedule": SCHEDULE},
        lambda p: p["loss.gamma"] <= 3,
        "loss.gamma",
    ),
    "a choice that is closed now": ({"schedule": "constant"}, lambda p: p["schedule"] == "constant", "schedule"),
    "a branch that is closed now, its value open": (
        {"schedule": "{name: step, every: {int: [1, 5]}}"},
        lambda p: p["schedule"] == "step",
        "schedule",
    ),
    "a new choice": (
        {"backbone": "{choice: [resnet18, resnet101]}", "schedule": SCHEDULE},
        lambda p: p["backbone"] == "resnet18",
        "backbone",
    ),
    "a value that is open now and was the default": (
        {
            "loss": "{name: focal, gamma: {uniform: [0, 5]}, category_reduction: {choice: [sum, mean]}}",
            "schedule": SCHEDULE,
        },
        lambda p: "backbone" in p,
        "",
    ),
}


@pytest.mark.parametrize("name", INSIDE)
def test_the_trials_whose_recipes_lie_in_the_new_space_are_taken(tmp_path, earlier, name):
    changes, inside, why = INSIDE[name]
    expected = {number for number, p in params(earlier).items() if inside(p)}
    study, said = begun(tmp_path, "other", earlier, **changes)
    assert lessons(study) == expected
    assert f"learnt from {len(expected)} of 12 trials of earlier" in said[-1]
    assert why in said[-1]
    study.close()


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"epochs": 4}, "epochs was 3, not 4"),
        ({"batch_size": "16"}, "batch_size was 64, not 16"),
        ({"loss": "cross_entropy"}, "loss was focal, not cross_entropy"),
    ],
)
def test_no_trial_is_taken_whose_values_cannot_be_compared(tmp_path, earlier, changes, why):
    study, said = begun(tmp_path, "other", earlier, **({"schedule": SCHEDULE} | changes))
    assert said[-1] == f"learnt from 0 of 12 trials of earlier; 12 lie outside the new space ({why})"
    assert study.next_job().trial == 0
    study.close()


def test_other_data_and_another_goal_teach_nothing(tmp_path, earlier):
    study, said = begun(tmp_path, "other", earlier, fingerprint="g")
    assert said == ["nothing learnt from earlier: its images, labels or splits were different"]
    study.close()
    text = (tmp_path / "question.yaml").read_text() + "metric: macro_f1\n"
    (tmp_path / "question.yaml").write_text(text)
    asked = yaml_io.read(tmp_path / "question.yaml")
    space = Space(asked, CATEGORIES)
    said = list(transfer.warm_start(asked, space, StudyFolder(tmp_path / "third"), earlier, "f"))
    assert said[-1] == "nothing learnt from earlier: its metric was overall_accuracy, not macro_f1"


@pytest.mark.parametrize("number", range(12))
def test_the_parameters_of_a_recipe_are_found_again(tmp_path, earlier, number):
    _, space = read(tmp_path)
    job = read_config(earlier.trial(number))
    assert space.params(job.recipe.train) == job.params


def test_a_value_between_two_steps_lies_outside(tmp_path, earlier):
    _, space = read(tmp_path, loss="{name: focal, gamma: {uniform: [0, 5], step: 0.5}}", schedule=SCHEDULE)
    with pytest.raises(NotInSpace, match=r"loss.gamma [0-9.]+ is not in uniform \[0.0, 5.0\] step 0.5"):
        space.params(read_config(earlier.trial(2)).recipe.train)


# ---------------------------------------------------------------------------------- what becomes of it
def test_what_was_learnt_is_no_result_and_takes_no_number(tmp_path, earlier):
    study, _ = begun(tmp_path, "again", earlier, budget="{trials: 3}")
    play(study)
    assert [result.number for result in study.results()] == [0, 1, 2]
    study.close()
    assert len(past(tmp_path / "question.yaml", "again")) == 3


def test_what_was_learnt_survives_a_kill_and_comes_to_the_same(tmp_path, earlier):
    study, _ = begun(tmp_path, "whole", earlier, search="{sampler: tpe}", budget="{trials: 4}")
    play(study)
    study.close()
    for count in range(4):
        cut, said = begun(tmp_path, "cut", earlier, search="{sampler: tpe}", budget="{trials: 4}")
        assert bool(said) == (count == 0)
        play(cut, 1)
        cut.close()
    assert [one.params for one in cut.results()] == [one.params for one in study.results()]


def test_nothing_is_learnt_twice_nor_by_a_study_that_has_begun(tmp_path, earlier):
    study, _ = begun(tmp_path, "fresh", budget="{trials: 1}")
    study.close()
    study, said = begun(tmp_path, "fresh", earlier, budget="{trials: 1}")
    assert (said, transfer.read(study.folder)) == ([], None)
    study.close()


def near(folder: StudyFolder, count: int) -> list[float]:
    """How far from the fake trainer's best rate (1e-3) trials were, in decades."""
    jobs = [read_config(folder.trial(number)) for number in range(count)]
    return [abs(math.log10(job.recipe.train.optimizer.lr) + 3) for job in jobs]


def test_a_taught_tpe_proposes_near_the_old_optimum(tmp_path):
    text = "{sampler: {name: tpe, startup_trials: 10}, prior: off, pruner: none}"  # the default is the optimum
    many, _ = begun(tmp_path, "many", budget="{trials: 40}", search=text)
    play(many)
    many.close()
    distance = {}
    for name, source in (("cold", None), ("taught", many.folder)):
        study, _ = begun(tmp_path, name, source, budget="{trials: 8}", search=text)
        play(study)
        study.close()
        distance[name] = sorted(near(study.folder, 8))[4]
    assert distance["taught"] < 0.5 < distance["cold"]


def test_a_configuration_known_from_the_earlier_study_is_not_trained_with_its_seed(tmp_path):
    finite = {
        "backbone": "{choice: [resnet18, resnet50]}",
        "loss": "focal",
        "optimizer": "adamw",
        "schedule": "constant",
    }
    first, _ = begun(tmp_path, "first", search="{sampler: grid}", budget="{}", **finite)
    play(first)
    first.close()
    second, _ = begun(tmp_path, "second", first.folder, search="{sampler: grid}", budget="{}", **finite)
    play(second)
    second.close()
    seeds = [read_config(second.folder.trial(n)).recipe.train.seed for n in range(2)]
    assert seeds == [1, 1]
    assert [one.repeat_of for one in second.results()] == [None, None]


def test_the_defaults_are_not_tried_again_where_they_are_known(tmp_path, earlier):
    study, _ = begun(tmp_path, "again", earlier, budget="{trials: 3}")
    play(study)
    study.close()
    old = [params(earlier)[number] for number in range(2)]
    assert not any(one.params in old for one in study.results())


@pytest.mark.parametrize("pruner", ["median", "{name: asha, min_epochs: 1, reduction_factor: 2}"])
@pytest.mark.parametrize("sampler", ["tpe", "gp", "random"])
def test_every_sampler_and_pruner_takes_lessons(tmp_path, earlier, sampler, pruner):
    search = f"{{sampler: {sampler}, pruner: {pruner}}}"
    study, _ = begun(tmp_path, "other", earlier, search=search, budget="{trials: 4}")
    play(study)
    study.close()
    assert {read_result(study.folder.trial(n)).state for n in range(4)} <= {"COMPLETE", "PRUNED"}


@pytest.mark.parametrize(
    "pruner",
    [
        "{name: median, startup_trials: 0, min_trials: 1, warmup_epochs: 0}",
        "{name: asha, type: stopping}",
        "{name: asha, type: stopping, reduction_factor: 2}",
        "{name: asha, min_epochs: 1, reduction_factor: 2}",
        "{name: early_stopping, patience: 0}",
        "none",
    ],
)
def test_the_first_trial_of_a_study_is_never_pruned_however_bad_it_is(tmp_path, earlier, pruner):
    """A study of one trial that has learnt from better ones would end without a result."""

    def worse(epoch: Epoch) -> Epoch:
        return epoch.model_copy(
            update={"val": epoch.val.model_copy(update={"overall_accuracy": 0.01 / epoch.number})}
        )

    search = f"{{sampler: random, pruner: {pruner}}}"
    study, _ = begun(tmp_path, "other", earlier, search=search, budget="{trials: 1}")
    while job := study.next_job():
        whole = all(study.report(job.key, worse(epoch)) for epoch in curve(job))
        study.finish(Done(key=job.key, stopped=not whole))
    study.settle()
    study.close()
    assert lessons(study) == set(range(12))
    assert [(one.state, one.epochs) for one in study.results()] == [("COMPLETE", 3)]


def test_a_bad_old_trial_is_pruned_by_what_was_learnt(tmp_path, earlier):
    """A cold median pruner lets the first trials pass; a taught one has something to compare with."""
    search = "{sampler: random, pruner: {name: median, startup_trials: 2, min_trials: 2, warmup_epochs: 0}}"
    poor = {"optimizer": "{name: adamw, lr: {loguniform: [1.0e-5, 1.0e-1]}}", "schedule": SCHEDULE}
    states = {}
    for name, source in (("cold", None), ("taught", earlier)):
        study, _ = begun(tmp_path, name, source, search=search, budget="{trials: 2}", epochs=3, **poor)
        play(study)
        study.close()
        states[name] = [one.state for one in study.results()]
    assert states["cold"] == ["COMPLETE", "COMPLETE"]
    assert "PRUNED" in states["taught"]
