"""Training where answers are missing, where a category has several, and where images are weighed."""

from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch

from trainers import extensions
from trainers.config import AdamW, Augment, CustomLoss, PosthocLogitAdjustment, Recipe, Thresholds, TrainConfig, Views
from trainers.data.table import MISSING, Category, Table
from trainers.evaluation import answers, metrics, predict
from trainers.extensions import ExtensionFile
from trainers.loading.batches import Data, balanced
from trainers.loading.transforms import minority
from trainers.optim import losses
from trainers.support.checksummed import load_array
from trainers.train import TrainingRun, train

FITTED = Thresholds(fit=True, min_images=2)
COLOURS = Category("colours", ("red", "green", "blue", "dark"), multi=True)


@pytest.fixture(scope="module")
def plain(photos, cache):
    return Data.open(photos, cache)


def changed(data, labels, categories=None, **more):
    """The same images with the labels that `labels(row)` makes of each row."""
    rows = tuple(replace(row, labels=labels(row)) for row in data.table.rows)
    return Data(Table(data.table.root, categories or data.table.categories, rows, **more), data.cache)


def shown(row):
    """Several answers that the picture shows: its colour, and whether the square lies low, for want of another."""
    colour, place = row.labels
    return (*(int(k == colour) for k in range(3)), int(place == 0))


@pytest.fixture(scope="module")
def mixed(plain):
    """Colours as several answers, the place as one; every fourth answer of each is missing."""
    rng = np.random.default_rng(0)

    def labels(row):
        tags = (MISSING,) * 4 if rng.random() < 0.25 else shown(row)
        return (*tags, MISSING if rng.random() < 0.25 else row.labels[1])

    return changed(plain, labels, (COLOURS, plain.table.categories[1]))


def recipe(photos, metric="mean_category_score", **more):
    base = {
        "backbone": "test_resnet",
        "pretrained": False,
        "image_size": 32,
        "epochs": 3,
        "batch_size": 16,
        "optimizer": AdamW(lr=1e-2),
        "augment": Augment(mixup=0.2, cutmix=0.2),
    }
    return Recipe(data=photos, metric=metric, train=TrainConfig(**(base | more)))


def comparable(epochs):
    clocks = {"seconds", "images_per_second", "peak_memory_gb", "time"}
    return [epoch.model_dump(exclude=clocks) for epoch in epochs]


def test_both_kinds_of_category_are_learnt_from_what_is_known(photos, mixed, tmp_path):
    *_, last = train(recipe(photos, epochs=10, augment=Augment()), mixed, tmp_path)
    assert last.val.category_accuracy["colours"] > 0.8
    assert last.val.category_accuracy["place"] > 0.8
    assert last.val.category_answers["colours"] < 24
    assert last.train.mean_average_precision > 0.8
    assert last.value("mean_category_score") == pytest.approx(np.mean(list(last.val.category_accuracy.values())))


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"loss": "asymmetric", "balanced_sampling": 0.5},
        {
            "loss": {"name": "focal", "class_weights": "inverse_frequency"},
            "thresholds": FITTED,
        },
    ],
    ids=["plain", "asymmetric", "fitted"],
)
def test_an_interrupted_run_with_both_kinds_is_bit_for_bit_the_run_that_was_not(photos, mixed, tmp_path, more):
    how = recipe(photos, **more)
    whole = list(train(how, mixed, tmp_path / "whole"))
    first = train(how, mixed, tmp_path / "parts")
    list(islice(first, 2))
    first.close()
    assert comparable(train(how, mixed, tmp_path / "parts")) == comparable(whole)


def test_the_predictions_that_are_kept_are_those_that_were_judged(photos, mixed, tmp_path):
    how = recipe(
        photos,
        metric="macro_f1",
        thresholds=FITTED,
        posthoc_logit_adjustment=PosthocLogitAdjustment(fit=True),
    )
    *_, last = train(how, mixed, tmp_path)
    val = mixed.table.indices("val")
    found = metrics.scores(load_array(tmp_path / "val_logits.npy"), mixed.labels(val), mixed.categories, loss=0)
    assert found.macro_f1 == pytest.approx(last.val.macro_f1)
    assert found.micro_f1 == pytest.approx(last.val.micro_f1)
    assert last.plain.micro_f1 != last.val.micro_f1
    assert [len(shares) for shares in last.thresholds.values()] == [4]


def test_thresholds_of_a_winner_are_taken_off_the_logits_of_its_classes(photos, mixed):
    shares = {"colours": (0.5, 0.25, 0.9, 0.5)}
    counts = mixed.counts(mixed.table.indices("train"))
    offset = answers.logit_offset(mixed.categories, counts, 1.0, shares)
    np.testing.assert_allclose(1 / (1 + np.exp(-offset[:4])), shares["colours"], rtol=1e-6)
    np.testing.assert_array_equal(answers.logit_offset(mixed.categories, counts, 1.0)[:4], 0)
    assert (offset[4:] < 0).all()  # log shares of the classes that compete


def test_views_are_judged_with_thresholds_of_their_own(photos, mixed, tmp_path):
    how = recipe(photos, tta=Views(flip=True), thresholds=FITTED)
    *_, last = train(how, mixed, tmp_path)
    found = predict.evaluate_tta(how, mixed, tmp_path / "model.safetensors")
    assert found.thresholds.keys() == {"colours"}
    assert found.thresholds != last.thresholds


# ------------------------------------------------------------------------------------------------ missing
def test_rows_without_any_answer_leave_the_loss_to_the_others(photos, plain, tmp_path):
    half = {row.path for row in plain.table.split("train")[::2]}
    silent = changed(plain, lambda row: None if row.path in half else row.labels)
    how = recipe(photos, metric="overall_accuracy", epochs=1)
    runs = [TrainingRun(how, data, ("train",), torch.device("cpu"), tmp_path) for data in (silent, plain)]
    logits = torch.linspace(-1, 1, 48 * 5).reshape(-1, 5)
    mine, whole = (run.objective(logits, torch.from_numpy(run.data.labels(run.rows))) for run in runs)
    assert (mine[::2] == 0).all()
    torch.testing.assert_close(mine.mean(), whole[1::2].mean())


def test_a_category_with_missing_answers_is_scored_on_the_others(photos, plain, tmp_path):
    val = {row.path: k for k, row in enumerate(plain.table.split("val"))}
    data = changed(plain, lambda row: (MISSING, row.labels[1]) if val.get(row.path, 1) % 2 == 0 else row.labels)
    *_, last = train(recipe(photos, metric="overall_accuracy", epochs=2), data, tmp_path)
    assert last.val.category_answers == {"colour": 12, "place": 24}
    logits = load_array(tmp_path / "val_logits.npy")
    rows = [data.table.rows[k] for k in data.table.indices("val")]
    known = [k for k, row in enumerate(rows) if row.labels[0] >= 0]
    right = np.mean([logits[k, :3].argmax() == rows[k].labels[0] for k in known])
    assert last.val.category_accuracy["colour"] == pytest.approx(right)


def test_complete_labels_train_as_before_whatever_the_test_split_lacks(photos, plain, tmp_path):
    blank = changed(plain, lambda row: None if row.split == "test" else row.labels)
    how = recipe(photos, metric="overall_accuracy")
    assert comparable(train(how, blank, tmp_path / "a")) == comparable(train(how, plain, tmp_path / "b"))


def test_draws_balance_the_classes_that_are_known():
    categories = (Category("one", ("a", "b")), COLOURS)
    labels = np.array([[0, 1, 0, 0, 0], [1, -1, -1, -1, -1], [-1, 0, 1, 1, 0], [-1, -1, -1, -1, -1]])
    shares = balanced(labels, [[4, 1], [8, 2, 4, 1]], 1.0, categories)
    first, second, third = (1 / 4 + 1 / 8) / 2, 1.0, (1 / 2 + 1 / 4) / 2
    wanted = np.array([first, second, third, (first + second + third) / 3])
    np.testing.assert_allclose(shares, wanted / wanted.sum())


def test_an_image_is_of_the_minority_by_an_answer_that_is_known():
    categories = (Category("one", ("a", "b")), COLOURS)
    labels = np.array([[0, 1, 0, 0, 0], [1, 0, 0, 0, 0], [-1, 1, 0, 0, 1], [-1, -1, -1, -1, -1]])
    assert minority(labels, [[4, 1], [8, 8, 8, 1]], categories).tolist() == [False, True, True, False]


# ------------------------------------------------------------------------------------------------ weights
def test_images_are_weighed_whatever_the_unit_of_the_weights(photos, plain, tmp_path):
    def weighed(factor):
        rows = tuple(replace(row, weight=factor * (1 + k % 3)) for k, row in enumerate(plain.table.rows))
        return Data(replace(plain.table, rows=rows), plain.cache)

    how = recipe(photos, metric="overall_accuracy", epochs=2)
    one, other = (list(train(how, weighed(by), tmp_path / str(by))) for by in (1, 4))
    assert comparable(one) == comparable(other)
    assert comparable(one) != comparable(train(how, plain, tmp_path / "plain"))


def test_an_image_that_weighs_nothing_teaches_nothing(photos, plain, tmp_path):
    wrong = {row.path for row in plain.table.split("train")[::2]}
    rows = tuple(
        replace(row, weight=0.0, labels=((row.labels[0] + 1) % 3, row.labels[1])) if row.path in wrong else row
        for row in plain.table.rows
    )
    noisy = Data(replace(plain.table, rows=rows), plain.cache)
    *_, last = train(recipe(photos, metric="overall_accuracy", epochs=10, augment=Augment()), noisy, tmp_path)
    assert last.val.category_accuracy["colour"] > 0.8


OWN = """
from torch.nn import functional

def mine(logits, labels):
    if labels.ndim == 2:
        return functional.binary_cross_entropy_with_logits(logits, labels.float(), reduction="none").mean(1)
    return functional.cross_entropy(logits, labels, reduction="none")

losses = {"mine": mine}
"""


def test_a_loss_of_ones_own_counts_each_image_with_all_its_labels_alike(plain, tmp_path):
    """A fifth of the flags are missing, and two thirds of the images: the mean is that over the others."""
    rng = np.random.default_rng(0)
    data = changed(
        plain, lambda row: tuple(MISSING if rng.random() < 0.2 else flag for flag in shown(row)), (COLOURS,)
    )
    rows, labels = data.table.indices("train"), data.labels(data.table.indices("train"))
    logits = torch.zeros(len(rows), 4)
    (tmp_path / "mine.py").write_text(OWN)
    extensions.use([ExtensionFile.read(tmp_path / "mine.py")])
    loss = CustomLoss(name="mine")
    shares = data.known_to(loss, rows)
    assert shares[0] < 0.6 < data.known(rows)[0]
    judge = losses.build(loss, data.names, data.counts(rows), torch.device("cpu"), multi=data.multi, known=shares)
    assert judge(logits, torch.from_numpy(labels)).mean().item() == pytest.approx(np.log(2))
    extensions.use([])
