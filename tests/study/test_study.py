"""The study: what it asks, what it remembers, and that it goes on after any interruption."""

import json
import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from sweeper.errors import EnvironmentFault, StudyHeld, UserError
from sweeper.space import compare, yaml_io
from sweeper.space.space import Space
from sweeper.store import records, study_file
from sweeper.store.paths import RunFolder, StudyFolder
from sweeper.study import outcomes
from sweeper.trial import Done, Failed
from tests.support.studies import (
    CLIMB,
    QUICK,
    SPACE,
    close_all,
    curve,
    numbers,
    opened,
    outcome,
    past,
    play,
    played,
    write,
)
from trainers.support import files

pytestmark = pytest.mark.usefixtures("faked")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write(tmp_path)


class Killed(BaseException):
    """A kill -9, as far as one process can do that to itself: nothing that follows is run."""


# ----------------------------------------------------------------------------------------- asking
def test_the_first_trials_are_one_default_a_backbone(path):
    study = opened(path)
    jobs = [study.next_job(), study.next_job()]
    study.close()
    assert [job.recipe.train.backbone for job in jobs if job] == ["resnet18", "resnet50"]
    assert [job.recipe.train.loss.gamma for job in jobs if job] == [2.0, 2.0]


def test_the_budget_counts_the_trials_of_the_study_not_of_the_call(path):
    for trials in (2, 3):
        study = opened(path)
        play(study, trials)
        study.close()
    study = opened(path, sets=["budget.trials=6"])
    play(study)
    assert [one.number for one in study.results()] == [0, 1, 2, 3, 4, 5]
    assert study.next_job() is None
    study.close()


def test_trials_that_run_are_part_of_the_budget(path):
    study = opened(path, sets=["budget.trials=2"])
    assert [bool(study.next_job()) for _ in range(3)] == [True, True, False]
    study.close()


def test_the_hours_of_earlier_calls_are_part_of_the_budget(path):
    study = opened(path, sets=["budget.hours=0.5"])
    job = study.next_job()
    study.close()
    study.folder.elapsed.write_text("1800.0")
    study = opened(path, sets=["budget.hours=0.5"])
    assert study.next_job() is None
    assert "the budget of 0.5 h is used up: no trial would finish in time" in study.outcome.reason
    study.close()
    study = opened(path, sets=["budget.hours=0.6"])
    adopted = study.next_job()
    study.close()
    assert job
    assert adopted
    assert adopted.trial == job.trial


def test_a_study_whose_search_has_ended_starts_nothing_and_keeps_that_on_record(path):
    study = opened(path)
    study_file.end_search(study.folder, 0.5)
    study.close()
    study = opened(path)
    assert study_file.searched_hours(study.folder) == 0.5
    study.end_search()
    assert study.next_job() is None
    assert study.settle() == []
    study.close()


def test_the_hours_of_a_study_that_did_not_count_them_are_those_of_its_epochs(path):
    study = opened(path, sets=["budget.hours=0.5"])
    job = study.next_job()
    assert job
    study.report(job.key, curve(job)[0].model_copy(update={"seconds": 1801.0}))
    study.close()
    study.folder.elapsed.unlink()
    study = opened(path, sets=["budget.hours=0.5"])
    assert study.next_job() is None
    study.close()


def finite() -> str:
    """A space of twelve configurations."""
    return SPACE.replace("{{uniform: [0.0, 5.0]}}", "1").replace("{{loguniform: [1.0e-5, 1.0e-1]}}", "1.0e-3")


def test_a_grid_asks_every_configuration_once_and_ends(tmp_path):
    path = write(tmp_path, search="{sampler: grid, pruner: none}", budget="{hours: 1}", text=finite(), epochs=1)
    for jobs in (5, None):
        study = opened(path)
        play(study, jobs)
        results = study.results()
        study.close()
    configurations = {json.dumps(one.params, sort_keys=True) for one in results}
    assert len(results) == len(configurations) == 2 * (1 + 5)


SAMPLERS = [
    "random",
    "{name: tpe, startup_trials: 3}",
    pytest.param("{name: gp, startup_trials: 3}", marks=pytest.mark.slow),  # loads torch
]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_asks_the_same_after_an_interruption(tmp_path, sampler):
    whole, parts = (
        write(folder, search=f"{{sampler: {sampler}, pruner: none}}", epochs=1) for folder in two(tmp_path)
    )
    asked = []
    for path, calls in ((whole, [8]), (parts, [4, 2, 2])):
        for jobs in calls:
            study = opened(path)
            play(study, jobs)
            asked.append(outcome(study))
            study.close()
    assert asked[0] == asked[-1]
    assert len(asked[0]) == 8


def two(folder: Path) -> list[Path]:
    made = [folder / "whole", folder / "parts"]
    for one in made:
        one.mkdir()
    return made


@pytest.mark.parametrize("pruner", ["{name: asha, type: stopping}", "{name: early_stopping, patience: 0}", "none"])
def test_every_pruner_of_a_study_file_works(tmp_path, pruner):
    study = opened(write(tmp_path, search=f"{{sampler: random, pruner: {pruner}}}"))
    play(study)
    assert len(study.results()) == 12
    study.close()


def test_the_same_configuration_again_is_a_new_seed_of_the_first(tmp_path):
    text = finite().replace("{{int: [1, 5]}}", "2")
    study = opened(write(tmp_path, search="{sampler: random, pruner: none}", text=text, epochs=1))
    play(study)
    jobs = [records.read_config(folder) for _, folder in records.folders(study.folder)]
    study.close()
    recipes = [job.recipe.model_dump_json() for job in jobs if job]
    assert len(set(recipes)) == 12
    for job in jobs:
        assert job
        alike = [one for one in jobs if one and one.params == job.params]
        assert job.recipe.train.seed == alike.index(job)
        assert job.repeat_of == (None if job == alike[0] else alike[0].trial)


# ---------------------------------------------------------------------------------------- telling
@pytest.mark.parametrize("selection", ["last", "metric"])
def test_a_trial_is_worth_its_last_epoch_or_the_one_that_its_selection_chooses(tmp_path, selection):
    path = write(tmp_path, selection=selection)
    study = opened(path)
    job = study.next_job()
    assert job
    first, *others = curve(job)
    for epoch in (first, *others):
        study.report(job.key, epoch.model_copy(update={"val": first.val if epoch.number > 3 else epoch.val}))
    result = study.finish(Done(key=job.key))
    study.close()
    values = [epoch.value("overall_accuracy") for epoch in records.history(study.folder.trial(0))]
    assert values[-1] < max(values)
    assert result.value == (max(values) if selection == "metric" else values[-1])
    assert past(path)[0].value == result.value


def test_bad_trials_are_pruned_and_say_so_everywhere(tmp_path):
    path = write(tmp_path, search="{sampler: random}", budget="{trials: 20}")
    study = opened(path)
    play(study)
    results = study.results()
    study.close()
    pruned = {one.number for one in results if one.state == "PRUNED"}
    assert pruned
    assert min(one.epochs for one in results) == 3  # half of their 6 epochs
    assert pruned == {number for number, trial in enumerate(past(path)) if trial.state.name == "PRUNED"}


def test_the_warm_up_of_the_learning_rate_is_not_judged(tmp_path):
    path = write(tmp_path, search="{sampler: random}", budget="{trials: 20}")
    study = opened(path, sets=["train.schedule={name: cosine, warmup_epochs: 5}"])
    play(study)
    assert {one.state for one in study.results()} == {"COMPLETE"}
    study.close()


def test_a_failed_trial_is_recorded_and_counted(path):
    study = opened(path)
    job = study.next_job()
    assert job
    study.report(job.key, curve(job)[0])
    result = study.finish(Failed(key=job.key, failure="nan", text="the loss is nan in epoch 2"))
    upcoming = study.next_job()
    study.close()
    assert (result.state, result.failure, result.error, result.epochs) == ("FAILED", "nan", result.error, 1)
    assert upcoming
    assert upcoming.trial == 1
    assert [trial.state.name for trial in past(path)] == ["FAIL", "RUNNING"]


def test_a_trial_that_diverged_in_fp16_goes_on_in_full_precision(path):
    study = opened(path)
    job = study.next_job()
    assert job
    study.report(job.key, curve(job)[0])
    left = study.finish(Failed(key=job.key, failure="overflow", text="fp16 overflows in epoch 2"))
    assert (left.state, left.error) == ("INTERRUPTED", "fp16 overflows in epoch 2; continues in full precision")
    again = study.next_job()
    assert again
    assert (again.trial, again.full_precision, again.recipe) == (0, True, job.recipe)
    study.close()
    study = opened(path)  # after a kill
    again = study.next_job()
    assert again
    assert (again.trial, again.full_precision, again.computed.train.precision) == (0, True, "fp32")
    assert study.finish(Failed(key=job.key, failure="nan", text="the loss is nan in epoch 2")).state == "FAILED"
    study.close()


def test_a_trial_whose_worker_died_is_handed_out_again_once_for_every_epoch_it_gains(path):
    study = opened(path)
    job = study.next_job()
    assert job
    epochs = curve(job)
    states = []
    for reported in (0, 0, 1):  # epochs reported before each death
        for epoch in epochs[:reported]:
            study.report(job.key, epoch)
        states.append(study.finish(Failed(key=job.key, failure="died", text="killed")).state)
        if states[-1] == "FAILED":
            break
        again = study.next_job()
        assert again
        assert (again.trial, again.resumed, again.recipe) == (0, True, job.recipe)
    assert states == ["INTERRUPTED", "FAILED"]
    study.close()


def test_a_death_after_a_new_epoch_is_forgiven(path):
    study = opened(path)
    job = study.next_job()
    assert job
    for epoch in curve(job)[:3]:
        study.report(job.key, epoch)
        assert study.finish(Failed(key=job.key, failure="died", text="killed")).state == "INTERRUPTED"
        study.next_job()
    assert len(study.epochs(job.key)) == 3
    study.close()


def test_a_trial_that_is_handed_out_again_brings_its_records_along_and_they_stand(path):
    """What a GPU makes of an epoch that it trains again differs: that is neither recorded nor judged."""
    study = opened(path)
    job = study.next_job()
    assert job
    first, second, third = curve(job)[:3]
    study.report(job.key, first)
    study.report(job.key, second)
    study.finish(Failed(key=job.key, failure="died", text="killed"))
    again = study.next_job()
    assert again
    assert (job.recorded, again.recorded) == ((), (first, second))
    for other in (first, second):
        assert study.report(job.key, other.model_copy(update={"time": 0.0, "val": third.val}))
    assert list(study.epochs(job.key)) == records.history(RunFolder(job.folder)) == [first, second]
    assert "recorded" not in RunFolder(job.folder).config.read_text()
    study.close()


def test_a_full_disk_leaves_the_trial_open(path):
    study = opened(path)
    job = study.next_job()
    assert study.finish(Failed(key=job.key, failure="disk", text="no space")).state == "INTERRUPTED"
    study.close()
    study = opened(path)
    job = study.next_job()
    study.close()
    assert job
    assert (job.trial, job.resumed) == (0, True)


# ------------------------------------------------------------------------------------- recovering
PRUNERS = {
    "none": "none",
    "median": "{name: median, startup_trials: 2, min_trials: 2, warmup_epochs: 0}",
    "asha": "{name: asha, min_epochs: 1, reduction_factor: 2}",
    "asha stopping": "{name: asha, type: stopping, min_epochs: 1, reduction_factor: 2}",
    "early_stopping": "{name: early_stopping, patience: 0}",
}


def wishes(patch: pytest.MonkeyPatch, come: Callable[[str, Callable[[], object] | None], None]) -> None:
    """Have `come` called at every point between two writes, with what half a write leaves."""
    for place in (files, outcomes):
        patch.setattr(place, "failpoint", lambda name, torn=None: come(name, torn))


def dies(path: Path, wanted: str, times: int) -> bool:
    """Play the study until it comes to the point `wanted` for so many times; False where it never does."""
    left = times

    def come(name: str, torn: Callable[[], object] | None) -> None:
        nonlocal left
        left -= name == wanted
        if name == wanted and left == 0:
            if torn:
                torn()
            raise Killed

    with pytest.MonkeyPatch.context() as patch:
        wishes(patch, come)
        try:
            play(opened(path))
        except Killed:
            return True
        finally:
            patch.undo()
            close_all()
    return False


def passed(path: Path) -> list[str]:
    """The points that a study comes to which nothing disturbs, by their first time."""
    names: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        wishes(patch, lambda name, _: names.append(name))
        play(opened(path))
    close_all()
    return list(dict.fromkeys(names))


def ended(path: Path) -> list[tuple[object, ...]]:
    study = opened(path)
    assert study.next_job() is None
    study.close()
    return outcome(study)


@pytest.mark.parametrize("pruner", PRUNERS)
@pytest.mark.parametrize("sampler", [*SAMPLERS, "grid"])
def test_a_study_killed_at_one_point_between_two_writes_after_another_comes_to_the_same(tmp_path, sampler, pruner):
    whole, cut = (
        write(
            folder,
            search=f"{{sampler: {sampler}, pruner: {PRUNERS[pruner]}}}",
            text=finite() if sampler == "grid" else SPACE,
            epochs=3,
            budget="{trials: 8}",
        )
        for folder in two(tmp_path)
    )
    names = passed(whole)
    names.insert(
        names.index("renamed result.json") + 1, "renamed trial_index.jsonl"
    )  # which a kill there leaves to do
    died = [name for name in names if dies(cut, name, 1)]
    for name in names:
        dies(cut, name, 2)
    dies(cut, "", 1)
    assert died == names
    assert ended(cut) == ended(whole)
    assert len(ended(cut)) == 8
    assert ("PRUNED" in {one[1] for one in ended(whole)}) == (pruner not in ("none", "early_stopping"))  # all rise
    study = StudyFolder(cut.parent / "question")
    for one in records.results(study):
        assert numbers(study.trial(one.number)) == list(range(1, one.epochs + 1))


@pytest.mark.parametrize("search", [QUICK, CLIMB])
def test_what_the_next_call_takes_from_the_folders_is_what_became_of_the_trials(tmp_path, search):
    path = write(tmp_path, search=search)
    study = opened(path)
    play(study)
    results = study.results()
    study.close()
    there = past(path)
    assert [(one.number, one.state, one.params) for one in results] == [
        (number, trial.state.name, trial.params) for number, trial in enumerate(there)
    ]
    assert [one.value for one in results if one.state == "COMPLETE"] == [
        trial.value for trial in there if trial.state.name == "COMPLETE"
    ]
    for one, trial in zip(results, there, strict=True):
        epochs = records.history(study.folder.trial(one.number))
        assert trial.intermediate_values == {epoch.number: epoch.value("overall_accuracy") for epoch in epochs}


@pytest.mark.parametrize("budget", ["{trials: 12}", "{trials: 12, hours: 1}"])
@pytest.mark.parametrize("search", [QUICK, CLIMB])
def test_a_study_of_thousands_is_opened_by_its_ledger_alone(tmp_path, search, budget):
    """Of a trial that has ended no other file is read."""
    asked = []
    for folder in two(tmp_path):
        study = opened(write(folder, search=search, budget=budget))
        play(study, 8)
        study.close()
        if asked:
            for _, run in records.folders(study.folder):
                for path in (run.config, run.history) if run.result.exists() else ():
                    path.write_text("{")
        study = opened(folder / "question.yaml")
        asked.append([job.params for job in (study.next_job() for _ in range(3)) if job])
        study.close()
    assert asked[0] == asked[1]
    assert asked[0]


def test_a_value_that_is_no_number_is_taken_from_the_ledger_as_it_was(tmp_path):
    path = write(tmp_path, search=QUICK)
    study = opened(path)
    job = study.next_job()
    assert job
    values = [0.25, float("inf"), float("-inf"), float("nan"), 1 / 3]
    for epoch, value in zip(curve(job), values, strict=False):
        seen = epoch.train.model_copy(update={"overall_accuracy": value})
        study.report(job.key, epoch.model_copy(update={"val": seen}))
    study.finish(Failed(key=job.key, failure="nan", text="the loss is nan"))
    study.close()
    assert records.ended(study.folder)[0].values[:2] == (0.25, float("inf"))
    (trial,) = past(path)
    assert str([trial.intermediate_values[step] for step in range(1, 6)]) == str(values)


# ------------------------------------------------------------------------------------- what was removed
def test_a_number_whose_folder_was_removed_stays_taken_but_does_not_use_up_the_budget(path):
    study = opened(path)
    play(study, 3)
    study.close()
    shutil.rmtree(study.folder.trial(1).root)
    study = opened(path, sets=["budget.trials=5"])
    play(study)
    study.close()
    assert [one.number for one in study.results()] == [0, 2, 3, 4, 5]
    assert past(path)[1].state.name == "FAIL"


def test_a_removed_trial_of_a_complete_study_is_made_up_for_by_the_same_command(path):
    study = opened(path, sets=["budget.trials=4"])
    play(study)
    study.close()
    shutil.rmtree(study.folder.trial(3).root)
    shutil.rmtree(study.folder.trial(0).root)
    study = opened(path, sets=["budget.trials=4"])
    play(study)
    assert [one.number for one in study.results()] == [1, 2, 3, 4]
    assert study.next_job() is None


def test_a_trial_is_born_with_its_config_and_its_number_is_given_out_again_before(path):
    study = opened(path)
    play(study, 2)
    study.close()
    study.folder.trial(2).root.mkdir()
    (study.folder.trial(2).root / ".config.json.1.tmp").write_text("{")
    study = opened(path)
    assert len(past(path)) == 2
    job = study.next_job()
    study.close()
    assert job
    assert (job.trial, job.resumed) == (2, False)
    assert [one.name for one in job.folder.iterdir()] == ["config.json"]


@pytest.mark.parametrize("number", [1, 2])
def test_a_trial_without_an_end_whose_config_is_gone_is_not_begun_anew_over_its_history(path, number):
    study = opened(path)
    jobs = [study.next_job() for _ in range(3)]
    for job in jobs:
        assert job
        study.report(job.key, curve(job)[0])
    study.close()
    lost = study.folder.trial(number).config
    lost.unlink()
    with pytest.raises(EnvironmentFault, match="the configuration of an unfinished trial is missing") as caught:
        opened(path)
    assert caught.value.where == str(lost)
    shutil.rmtree(lost.parent)
    study = opened(path)
    assert [job.trial for job in (study.next_job() for _ in range(3)) if job] == [[0, 2, 3], [0, 1, 2]][number - 1]
    study.close()


def test_an_adopted_trial_keeps_number_parameters_and_history(path):
    study = opened(path)
    play(study, 2)
    job = study.next_job()
    assert job
    for epoch in curve(job)[:2]:
        study.report(job.key, epoch)
    study.close()
    study = opened(path)
    again = study.next_job()
    assert again
    assert (again.trial, again.params, again.resumed) == (job.trial, job.params, True)
    assert len(study.epochs(again.key)) == 2
    played(study, again)
    study.close()
    assert numbers(study.folder.trial(job.trial)) == list(range(1, 7))


def test_a_torn_line_is_mended_when_its_trial_is_adopted(path):
    study = opened(path)
    job = study.next_job()
    assert job
    epochs = curve(job)
    study.report(job.key, epochs[0])
    study.close()
    with study.folder.trial(0).history.open("ab") as file:
        file.write(b'{"number": 2, "tra')
    study = opened(path)
    again = study.next_job()
    assert again
    played(study, again)
    study.close()
    assert records.history(study.folder.trial(0)) == epochs


def test_an_end_that_is_on_record_alone_is_known_when_the_study_is_opened(path):
    study = opened(path)
    job = study.next_job()
    assert job
    epochs = curve(job)
    for epoch in epochs:
        study.report(job.key, epoch)
    records.write_result(study.folder.trial(0), records.result_of(job, epochs, "COMPLETE"))
    study.close()
    study = opened(path)
    upcoming = study.next_job()
    assert study.best
    study.close()
    assert upcoming
    assert upcoming.trial == 1
    assert past(path)[0].value == study.best.value


def test_a_moved_folder_is_taken_up_where_it_is(path, tmp_path):
    study = opened(path)
    study.next_job()
    study.close()
    there = tmp_path / "elsewhere"
    there.mkdir()
    (tmp_path / "question").rename(there / "question")
    study = opened(path.rename(there / path.name))
    job = study.next_job()
    study.close()
    assert job
    assert job.folder == there / "question" / "trials" / "0000"


# --------------------------------------------------------------------------------------- identity
def test_a_second_sweep_on_a_study_is_told_who_holds_it(path):
    study = opened(path)
    with pytest.raises(StudyHeld, match="process"):
        opened(path)
    study.close()
    opened(path).close()


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ("train.loss.gamma={uniform: [0, 6]}", "train.loss.gamma: uniform [0.0, 5.0] -> uniform [0.0, 6.0]"),
        ("metric=macro_f1", "metric: overall_accuracy -> macro_f1"),
        ("data.root=elsewhere", "data.root: nothing -> elsewhere"),
        ("train.epochs=7", "train.epochs: 6 -> 7"),
    ],
)
def test_a_changed_question_is_refused_with_the_difference(path, change, line):
    opened(path).close()
    before = (path.parent / "question" / "study.json").read_text()
    with pytest.raises(UserError) as raised:
        opened(path, sets=[change])
    assert line in raised.value.what
    assert "--new-study NAME" in raised.value.help
    assert raised.value.exit_code == 2
    assert (path.parent / "question" / "study.json").read_text() == before
    assert not past(path)
    opened(path).close()


V2 = '{"schema_version": 2, '


@pytest.mark.parametrize(
    "text", ["", "{", "[]", V2 + '"study": "x"}', V2 + '"identity": {"metric": "macro_f1"}}', "null"]
)
def test_a_damaged_study_file_is_said_in_words(path, text):
    opened(path).close()
    folder = StudyFolder(path.parent / "question")
    folder.study_file.write_text(text)
    for _ in range(2):  # which does not hold the study
        with pytest.raises(EnvironmentFault, match="this file is damaged") as caught:
            opened(path)
        assert caught.value.where == str(folder.study_file)


def test_what_a_study_asks_names_its_open_values_as_its_space_does(path):
    opened(path).close()
    asked = json.loads((path.parent / "question" / "study.json").read_text())["identity"]["train"]
    assert sorted(compare.opened(asked)) == sorted(Space(yaml_io.read(path), ("pattern",)).names)


def test_budget_and_search_may_change(path):
    opened(path).close()
    opened(path, sets=["budget.trials=99", "search.sampler=random"]).close()
    document = json.loads((path.parent / "question" / "study.json").read_text())
    assert document["budget"]["trials"] == 99


def test_the_study_keeps_the_file_it_was_begun_with(path):
    opened(path).close()
    assert (path.parent / "question" / "space.yaml").read_text() == path.read_text()


def test_numbers_are_never_used_twice(path):
    study = opened(path)
    play(study)
    seen = [one.number for one in study.results()]
    study.close()
    assert all(b == a + 1 for a, b in pairwise(seen))


def test_a_grid_after_another_sampler_tries_what_is_left(tmp_path):
    space = {
        "loss": "{name: focal, gamma: {choice: [0, 1, 2]}}",
        "optimizer": "{name: adamw, lr: {choice: [0.1, 0.01]}}",
    }
    path = write(tmp_path, search="{sampler: random}", budget="{trials: 2}", **space)
    study = opened(path)
    play(study)
    study.close()
    path = write(tmp_path, search="{sampler: grid}", budget="{trials: 20}", **space)
    study = opened(path)
    play(study)
    tried = {tuple(sorted(one.params.items())) for one in study.results()}
    study.close()
    assert len(tried) == 12


def test_a_resume_on_other_data_is_refused(tmp_path):
    path = write(tmp_path)
    opened(path, fingerprint="a").close()
    opened(path, fingerprint="a").close()
    with pytest.raises(UserError, match="have changed since study"):
        opened(path, fingerprint="b")
