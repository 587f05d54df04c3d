"""Studies whose trials are several trainings each: their length, their pruning, their resume, their hours."""

from pathlib import Path

import pytest

from sweeper.engine import disk_space
from sweeper.engine.disk_space import TrialSize
from sweeper.errors import UserError
from sweeper.space import yaml_io
from sweeper.space.space import Space
from sweeper.store import records
from sweeper.store.paths import RunFolder, StudyFolder
from sweeper.study import transfer
from sweeper.study.budget import TimeBudget
from sweeper.trial import Done
from tests.support.records import epoch
from tests.support.studies import curve, opened, outcome, play, played, uninterrupted, write
from trainers.config import TrainConfig

pytestmark = pytest.mark.usefixtures("faked")

FOLDS = "{{sampler: random, folds: {count}, pruner: {pruner}}}"
PRUNERS = {
    "median": "{name: median, startup_trials: 2, min_trials: 2, warmup_epochs: 1}",
    "asha": "{name: asha, min_epochs: 1, reduction_factor: 2}",
    "stopping": "{name: asha, type: stopping, min_epochs: 2}",
    "early_stopping": "{name: early_stopping, patience: 0}",
    "none": "none",
}


def search(pruner: str = "none", count: int = 3) -> str:
    return FOLDS.format(count=count, pruner=PRUNERS[pruner])


def test_a_trial_is_its_folds_one_after_another(tmp_path: Path):
    study = opened(write(tmp_path, search=search(), epochs=4, budget="{trials: 1}"))
    job = study.next_job()
    assert job is not None
    assert (job.planned, job.recipe.epochs, job.recipe.train.epochs) == (12, 12, 4)
    played(study, job)
    (result,) = study.results()
    assert (result.state, result.epoch, result.epochs, result.planned) == ("COMPLETE", 12, 12, 12)


@pytest.mark.parametrize("selection", ["last", "metric"])
def test_the_value_is_that_of_the_last_epoch_whatever_the_folds_select(tmp_path: Path, selection: str):
    """Which is that of all folds together, each after the epoch that it has selected."""
    path = write(tmp_path, search=search(), epochs=4, budget="{trials: 1}", selection=selection)
    study = opened(path)
    play(study)
    (result,) = study.results()
    history = records.history(study.folder.trial(0))
    assert result.value == history[-1].value("overall_accuracy")


@pytest.mark.parametrize("pruner", PRUNERS)
def test_every_pruner_works_across_folds_and_a_resume_goes_on_as_if_nothing_had_been(tmp_path: Path, pruner: str):
    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
    whole = uninterrupted(tmp_path / "whole", epochs=4, search=search(pruner))
    states = {one[1] for one in whole}
    assert "COMPLETE" in states
    assert ("PRUNED" in states) == (pruner not in ("none", "early_stopping"))  # each fold only rises
    path = write(tmp_path / "parts", search=search(pruner), epochs=4, budget="{trials: 8}")
    for _ in range(4):
        study = opened(path)
        play(study, jobs=1)
        if job := study.next_job():  # and a kill in its second fold
            for one in curve(job)[:5]:
                if not study.report(job.key, one):
                    break
        study.close()
    study = opened(path)
    play(study)
    assert outcome(study) == whole


def test_a_fold_that_begins_below_the_end_of_the_one_before_is_not_taken_for_a_trial_that_gets_worse(tmp_path: Path):
    study = opened(write(tmp_path, search=search("early_stopping"), epochs=4, budget="{trials: 2}"))
    play(study)
    values = [one.value("overall_accuracy") for one in records.history(study.folder.trial(1))]
    assert values[4] < values[3]
    assert [one.state for one in study.results()] == ["COMPLETE", "COMPLETE"]


def test_a_trial_that_gets_worse_in_its_second_fold_is_stopped_there(tmp_path: Path):
    study = opened(write(tmp_path, search=search("early_stopping"), epochs=4, budget="{trials: 2}"))
    play(study, jobs=1)
    job = study.next_job()
    assert job is not None
    kept = [
        study.report(job.key, epoch(number, value)) for number, value in enumerate([0.1, 0.2, 0.3, 0.4, 0.3, 0.2])
    ]
    assert kept == [True] * 5 + [False]
    assert study.finish(Done(key=job.key, stopped=True)).state == "PRUNED"


def test_the_number_of_folds_is_a_part_of_what_the_study_asks(tmp_path: Path):
    path = write(tmp_path, search=search(), budget="{trials: 1}")
    opened(path).close()
    with pytest.raises(UserError, match=r"search\.folds: 3 -> 5"):
        opened(path, sets=["search.folds=5"])


def test_a_study_of_other_folds_teaches_nothing(tmp_path: Path):
    path = write(tmp_path, search=search(), budget="{trials: 2}")
    study = opened(path)
    play(study)
    study.close()
    spec = yaml_io.read(path, sets=["search.folds=4"])
    said = transfer.warm_start(spec, Space(spec, ("pattern",)), StudyFolder(tmp_path), study.folder, "")
    assert "nothing learnt from question: its trials were judged in 3 folds, not in 4 folds" in " ".join(said)


def test_the_recipe_knows_its_folds_and_one_without_them_is_written_as_before(tmp_path: Path):
    spec = yaml_io.read(write(tmp_path, search=search(), backbone="resnet18"))
    recipe = next(Space(spec, ("pattern",)).recipes())
    assert recipe.folds == 3
    assert recipe.of_fold.folds is None
    assert "folds" not in recipe.of_fold.model_dump()
    text = yaml_io.recipe_yaml("again", recipe)
    assert "search: {folds: 3}" in text
    (tmp_path / "again.yaml").write_text(text)
    again = yaml_io.read(tmp_path / "again.yaml")
    assert next(Space(again, ("pattern",)).recipes()).folds == 3


@pytest.mark.parametrize("folds", [1, 0, 21])
def test_too_few_or_too_many_folds_are_refused(tmp_path: Path, folds: int):
    with pytest.raises(UserError, match=r"search\.folds") as caught:
        yaml_io.read(write(tmp_path, search=search(count=folds)))
    if folds == 1:
        assert "write folds: 5, or leave it out" in str(caught.value)


def test_what_a_kill_left_in_a_folds_folder_is_removed_and_the_rest_stays(tmp_path: Path):
    folder = RunFolder(tmp_path)
    for name in ("fold_1", "fold_10", "fold_2", "fold_x"):
        (tmp_path / name).mkdir()
    assert [fold.root.name for fold in folder.folds] == ["fold_1", "fold_2", "fold_10"]
    (tmp_path / "fold_1" / ".last.ckpt.7.tmp").touch()
    (tmp_path / "fold_2" / "model.safetensors").touch()
    records.remove_leftovers(tmp_path)
    assert [path.name for path in tmp_path.glob("fold_*/*")] == ["model.safetensors"]
    assert folder.folds[1].model in folder.checkpoints
    study = StudyFolder(tmp_path / "study")
    assert RunFolder(study.trial(3).root / "fold_2").study == study == study.trial(3).study


# ------------------------------------------------------------------------------------------ disk and hours
def test_the_weights_of_all_folds_and_the_whole_state_of_one_lie_there_at_once():
    assert disk_space.of_folds(TrialSize(10, 30, 2), 3) == TrialSize(30, 30, 6)
    assert disk_space.of_folds(TrialSize(10, 30, 2), 1) == TrialSize(10, 30, 2)


def test_a_trial_costs_all_its_folds_and_the_retraining_one(tmp_path: Path):
    folder = StudyFolder(tmp_path)
    small = TrainConfig(backbone="small", epochs=10)
    made = TimeBudget(folder, 500 / 3600, {}, folds=4)
    made.epoch(small, epoch(0, 0.5, seconds=10.0))
    assert made.fits_whole(small)  # 400 s
    made.expect_final(4 / 3)
    assert not made.fits_whole(small)  # 133 s more
    assert made.fits(small, 30)
