"""Training by a metric of probabilities: recorded on val, decided by, and refused where it is no number."""

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from trainers.config import Plateau, PosthocLogitAdjustment, Recipe, TrainConfig, Views
from trainers.evaluation import field_metrics, predict
from trainers.loading.batches import Data
from trainers.metrics import definitions
from trainers.metrics.definitions import MetricDefinition, definition, register
from trainers.support.checkpoint import read_notes
from trainers.support.errors import Diverged
from trainers.train import train


@pytest.fixture(scope="module")
def data(photos, cache):
    return Data.open(photos, cache)


@pytest.fixture
def own() -> Iterator[None]:
    """Metrics that a test registers are unknown after it."""
    yield
    definitions.REGISTERED.clear()


def recipe(photos, metric="log_loss", **more):
    base = {"backbone": "test_resnet", "pretrained": False, "image_size": 32, "epochs": 3, "batch_size": 16}
    return Recipe(data=photos, metric=metric, train=TrainConfig(**(base | more)))


def test_every_epoch_records_the_metric_of_the_logits_that_it_leaves_and_no_other(photos, data, tmp_path):
    epochs = list(train(recipe(photos, selection="roc_auc"), data, tmp_path))
    assert [(set(one.val.further), one.train.further) for one in epochs] == [({"log_loss", "roc_auc"}, {})] * 3
    best = max(epochs, key=lambda one: one.val.further["roc_auc"])
    assert read_notes(tmp_path / "model.safetensors")["epoch"]["number"] == best.number
    labels = data.labels(data.table.indices("val"))
    logits = predict.predict(recipe(photos), data, tmp_path / "model.safetensors", split="val")
    by_hand = field_metrics.figure(definition("log_loss"), logits, labels, data.categories)
    assert best.val.further["log_loss"] == pytest.approx(by_hand)
    assert list(train(recipe(photos, selection="roc_auc"), data, tmp_path)) == epochs  # resumed: read from its state


def test_the_model_that_is_kept_has_the_lowest_log_loss(photos, data, tmp_path):
    epochs = list(train(recipe(photos, selection="metric", epochs=4), data, tmp_path))
    best = min(epochs, key=lambda one: one.val.further["log_loss"])
    assert read_notes(tmp_path / "model.safetensors")["epoch"]["number"] == best.number


def test_a_correction_may_be_fitted_by_it_and_views_are_judged_by_it(photos, data, tmp_path):
    how = recipe(photos, epochs=1, posthoc_logit_adjustment=PosthocLogitAdjustment(fit=True), tta=Views(flip=True))
    (epoch,) = train(how, data, tmp_path)
    assert epoch.corrected["log_loss"].value == epoch.val.value("log_loss")
    assert epoch.plain.further.keys() == {"log_loss"}
    look = predict.evaluate_tta(how, data, tmp_path / "model.safetensors")
    assert math.isfinite(look.value("log_loss"))
    assert look.tau is not None


def test_without_a_fit_no_correction_is_computed_by_it(photos, data, tmp_path):
    (epoch,) = train(recipe(photos, epochs=1), data, tmp_path)
    assert set(epoch.corrected) == {"overall_accuracy", "mean_class_accuracy"}


def test_a_plateau_steps_where_the_loss_no_longer_falls(photos, data, tmp_path):
    how = recipe(photos, schedule=Plateau(patience=0, factor=0.1), epochs=4)
    rates = [one.lr for one in train(how, data, tmp_path / "a", fit=("train", "val"), past=(0.5, 0.6, 0.4))]
    assert np.array(rates) / rates[0] == pytest.approx([1, 1, 0.1, 0.1])
    falling = [one.train.loss for one in train(how, data, tmp_path / "b", fit=("train", "val"))]
    assert len(falling) == 4  # judged by train's loss, for val is trained on


def test_a_metric_that_is_no_number_ends_the_run_by_its_name_and_epoch(photos, data, tmp_path, own):
    asked = []

    def spoilt(probabilities, labels):
        asked.append(len(labels))
        return math.nan if len(asked) > 2 else 0.5  # two categories: in the second epoch

    register(MetricDefinition("spoilt", spoilt))
    with pytest.raises(Diverged, match=r"spoilt is nan on val in epoch 2, .*: its function returned this value"):
        list(train(recipe(photos, "spoilt"), data, tmp_path))


def test_a_metric_that_val_does_not_define_ends_the_run(photos, cache, tmp_path):
    data = Data.open(photos, cache)
    rows = tuple(
        replace(row, labels=(0,) * len(row.labels)) if row.split == "val" else row for row in data.table.rows
    )
    single = replace(data, table=replace(data.table, rows=rows))
    with pytest.raises(Diverged, match=r"matthews is nan on val in epoch 1, .*: no answer in val defines it"):
        next(train(recipe(photos, "matthews"), single, tmp_path))
