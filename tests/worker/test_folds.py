"""A trial of several folds: what is trained, what its predictions come to, and that it goes on where it was."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from sweeper.store.paths import RunFolder
from sweeper.trial import Done, Job, Kind, Progress, WorkerMessage
from sweeper.worker.job import advance, run
from tests.worker.test_job import messages
from trainers.config import Recipe, Views
from trainers.cross_validation import Folds
from trainers.data_config import DataConfig
from trainers.epoch import Epoch
from trainers.evaluation import metrics
from trainers.evaluation.bootstrap import standard_errors
from trainers.evaluation.predict import predict
from trainers.loading.batches import Data
from trainers.support.checkpoint import read_notes
from trainers.support.checksummed import load_array

COUNT, EPOCHS = 3, 2


def job(data: DataConfig, folder: Path, cache: Path, *, kind: Kind = "trial", **train: object) -> Job:
    folder.mkdir(parents=True, exist_ok=True)
    tiny = {"backbone": "test_byobnet", "pretrained": False, "image_size": 32, "epochs": EPOCHS, "batch_size": 16}
    recipe = Recipe.model_validate({"data": data, "train": tiny | train, "folds": COUNT})
    return Job(study="s", trial=4, kind=kind, recipe=recipe, folder=folder, cache=cache)


def epochs(said: list[WorkerMessage]) -> list[Epoch]:
    return [one.epoch for one in said if isinstance(one, Progress)]


def figures(found: list[Epoch]) -> list[dict[str, object]]:
    """All that does not tell the time."""
    dated = {"seconds", "images_per_second", "peak_memory_gb", "time"}
    return [one.model_dump(exclude=dated) for one in found]


@pytest.fixture
def folds(photos, cache) -> Folds:
    return Folds(Data.open(photos, cache), COUNT, photos.split_seed)


def test_epochs_are_numbered_from_fold_to_fold_and_the_last_one_is_of_all(photos, cache, tmp_path, folds):
    *_, done = said = messages(job(photos, tmp_path / "t", cache))
    found = epochs(said)
    assert [one.number for one in found] == list(range(1, COUNT * EPOCHS + 1))
    assert [one.folds for one in found[:-1]] == [()] * (COUNT * EPOCHS - 1)
    last = found[-1]
    assert [fold.epoch for fold in last.folds] == [EPOCHS] * COUNT
    for number in range(1, COUNT):
        assert last.folds[number - 1].metrics == found[number * EPOCHS - 1].val.metrics
    logits = load_array(tmp_path / "t" / "val_logits.npy")
    labels = folds.pooled.labels(folds.pooled.table.indices("val"))
    assert len(logits) == len(photos_of(folds)) == 72
    assert last.val.metrics == metrics.scores(logits, labels, folds.data.categories, loss=0.0).metrics
    assert isinstance(done, Done)
    resampled = load_array(tmp_path / "t" / "val_bootstrap.npy")
    assert done.standard_errors == standard_errors(resampled)


def photos_of(folds: Folds) -> list[str]:
    return [row.path for row in folds.pooled.table.split("val")]


def test_each_image_is_predicted_by_the_training_that_did_not_see_it(photos, cache, tmp_path, folds):
    one = job(photos, tmp_path / "t", cache)
    messages(one)
    logits = load_array(tmp_path / "t" / "val_logits.npy")
    paths = photos_of(folds)
    for number in range(1, COUNT + 1):
        fold = folds.fold(number)
        model = tmp_path / "t" / f"fold_{number}" / "model.safetensors"
        seen = predict(one.recipe, fold, model, split="val")
        mine = [paths.index(row.path) for row in fold.table.split("val")]
        np.testing.assert_array_equal(logits[mine], seen)
        trained = read_notes(model)["categories"][0]["images"]
        assert sum(trained) == len(fold.table.split("train")) == 72 - len(mine)


def test_all_folds_begin_with_the_same_weights_and_the_trainings_differ(photos, cache, tmp_path):
    found = epochs(messages(job(photos, tmp_path / "t", cache)))
    assert len({one.train.loss for one in found}) == COUNT * EPOCHS
    again = epochs(messages(job(photos, tmp_path / "u", cache)))
    assert figures(again) == figures(found)


@pytest.mark.parametrize("kept", [1, 2, 3, 4, 5])
def test_a_trial_that_was_stopped_goes_on_in_its_fold_bit_for_bit(photos, cache, tmp_path, kept):
    whole = messages(job(photos, tmp_path / "whole", cache))
    one = job(photos, tmp_path / "parts", cache)
    *_, stopped = messages(one, keep=kept - 1)
    assert isinstance(stopped, Done)
    assert stopped.stopped
    resumed = messages(one)
    assert figures(epochs(resumed)) == figures(epochs(whole))
    for name in ("val_logits.npy", "fold_3/val_logits.npy"):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.parametrize("reached", [1, 3, 4, 6])
def test_a_trial_that_was_killed_trains_again_what_no_checkpoint_has(photos, cache, tmp_path, reached):
    """The folder is that of the moment when an epoch was reported; the fold in progress has no checkpoint yet."""
    whole = messages(job(photos, tmp_path / "whole", cache))
    one = job(photos, tmp_path / "killed", cache)
    running = run(one, "cpu")
    said = [advance(running, None)]
    while len(said) < reached:
        said.append(advance(running, True))
    shutil.copytree(one.folder, tmp_path / "again")
    running.close()
    again = one.model_copy(update={"folder": tmp_path / "again", "recorded": tuple(epochs(said))})
    assert figures(epochs(messages(again))) == figures(epochs(whole))
    for name in ("val_logits.npy", "fold_3/val_logits.npy"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_trial_that_is_over_tells_the_same_again(photos, cache, tmp_path):
    one = job(photos, tmp_path / "t", cache)
    first, again = epochs(messages(one)), epochs(messages(one))
    assert figures(again) == figures(first)


def test_correction_and_temperature_are_fitted_to_all_folds_together(photos, cache, tmp_path, folds):
    asked = {"posthoc_logit_adjustment": {"fit": True}, "selection": "metric"}
    last = epochs(messages(job(photos, tmp_path / "t", cache, **asked)))[-1]
    assert last.plain is not None
    raw = np.concatenate([load_array(tmp_path / "t" / f"fold_{n}" / "val_logits.npy") for n in (1, 2, 3)])
    labels = folds.pooled.labels(folds.pooled.table.indices("val"))
    mine = metrics.scores(folds.joined(np.split(raw, 3)), labels, folds.data.categories, loss=0.0)
    assert last.plain.metrics == mine.metrics
    assert last.corrected["overall_accuracy"].value == last.val.value("overall_accuracy")


def test_test_time_views_are_looked_through_in_every_fold(photos, cache, tmp_path):
    *_, done = messages(job(photos, tmp_path / "t", cache, tta=Views(flip=True).model_dump()))
    assert isinstance(done, Done)
    assert done.tta is not None
    assert 0 <= done.tta.value("overall_accuracy") <= 1


def test_a_final_is_one_training_and_predicts_test_with_every_fold_as_well(photos, cache, tmp_path):
    trial = job(photos, tmp_path / "study" / "trials" / "0004", cache)
    messages(trial)
    final = job(photos, tmp_path / "study" / "finals" / "f", cache, kind="final")
    said = messages(final)
    assert [one.number for one in epochs(said)] == list(range(1, EPOCHS + 1))
    assert not (final.folder / "fold_1").exists()
    shapes = [load_array(RunFolder(final.folder).test_logits_of_fold(n)).shape for n in (1, 2, 3)]
    assert shapes == [(12, 5)] * COUNT


def test_without_the_models_of_all_folds_a_final_predicts_with_none_of_them(photos, cache, tmp_path):
    trial = job(photos, tmp_path / "study" / "trials" / "0004", cache)
    messages(trial)
    RunFolder(trial.folder).folds[1].model.unlink()
    final = job(photos, tmp_path / "study" / "finals" / "f", cache, kind="final")
    messages(final)
    assert RunFolder(final.folder).of_folds == []
