"""The bootstrap against plain second computations: scikit-learn with weights, a loop that draws images, a formula."""

import math
import warnings

import numpy as np
import pytest
import sklearn.metrics

from trainers.data.table import Category, spans
from trainers.evaluation import bootstrap, metrics
from trainers.evaluation.bootstrap import RESAMPLES, resample, standard_errors

SLEEVE, FIT = Category("sleeve", ("a", "b", "c")), Category("fit", ("d", "e"))
MATERIAL = Category("material", ("f", "g", "h"), multi=True)
ONE, MIXED = (SLEEVE, FIT), (SLEEVE, MATERIAL, FIT)


def drawn(categories, images, *, seed=0, missing=0.0):
    """Logits of a model that is often right, and labels of unequal classes, every one of which occurs."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((images, sum(category.width for category in categories)), dtype=np.int32)
    logits = rng.normal(size=(images, sum(len(category.classes) for category in categories))).astype(np.float32)
    for span in spans(categories):
        if span.category.multi:
            labels[:, span.labels] = rng.random((images, span.category.width)) < 0.3
            logits[:, span.classes] += 2 * labels[:, span.labels] - 1
        else:
            classes = len(span.category.classes)
            true = np.minimum(rng.geometric(0.6, images) - 1, classes - 1)
            true[:classes] = range(classes)
            labels[:, span.labels.start] = true
            logits[np.arange(images), span.classes.start + true] += 1.5
    labels[rng.random(labels.shape) < missing] = -1
    return logits, labels


def answers(logits, labels, categories):
    """Truth, answer and image of every known answer in the categories with one, classes counted through all."""
    found = []
    for span in spans(categories):
        if not span.category.multi:
            said = logits[:, span.classes].argmax(1) + span.classes.start
            rows = np.flatnonzero(labels[:, span.labels.start] >= 0)
            true = labels[rows, span.labels.start] + span.classes.start
            found.append(np.stack([true, said[rows], rows]))
    return np.concatenate(found, axis=1)


def flags(logits, labels, categories):
    """Truth, score and image of every known flag of each class in the categories with several answers."""
    found = {}
    for span in spans(categories):
        for k in range(span.category.width if span.category.multi else 0):
            true = labels[:, span.labels.start + k]
            rows = np.flatnonzero(true >= 0)
            found[span.classes.start + k] = true[rows], logits[rows, span.classes.start + k], rows
    return found


def first_weights(labels):
    return next(iter(bootstrap.weights(labels)))[:, 0]


# -------------------------------------------------------------------------------- resample by resample
@pytest.mark.parametrize("missing", [0.0, 0.2])
def test_a_resample_is_scikit_learn_with_the_same_weights(missing):
    logits, labels = drawn(ONE, 60, missing=missing)
    found, weights = resample(logits, labels, ONE)[0], first_weights(labels)
    true, said, rows = answers(logits, labels, ONE)
    how = {"sample_weight": weights[rows]}
    average = how | {"average": "macro", "zero_division": 0}
    expected = {
        "overall_accuracy": sklearn.metrics.accuracy_score(true, said, **how),
        "mean_class_accuracy": sklearn.metrics.balanced_accuracy_score(true, said, **how),
        "macro_f1": sklearn.metrics.f1_score(true, said, **average),
        "macro_precision": sklearn.metrics.precision_score(true, said, **average),
        "macro_recall": sklearn.metrics.recall_score(true, said, **average),
    }
    assert set(found.dtype.names) == set(expected)
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("decimals", [6, 0])
@pytest.mark.parametrize("missing", [0.0, 0.2])
def test_with_several_answers_a_resample_is_scikit_learn_too_ties_included(decimals, missing):
    logits, labels = drawn(MIXED, 60, missing=missing)
    logits = logits.round(decimals)
    found, weights = resample(logits, labels, MIXED)[0], first_weights(labels)
    each = flags(logits, labels, MIXED)
    precision = [
        sklearn.metrics.average_precision_score(true, scores, sample_weight=weights[rows])
        for true, scores, rows in each.values()
    ]
    true, said, rows = (np.concatenate(part) for part in zip(*each.values(), strict=True))
    assert found["mean_average_precision"] == pytest.approx(np.mean(precision), rel=1e-5)
    assert found["micro_f1"] == pytest.approx(
        sklearn.metrics.f1_score(true, said > 0, sample_weight=weights[rows]), rel=1e-5
    )
    accuracies = [
        sklearn.metrics.accuracy_score(one[0], one[1], sample_weight=weights[one[2]])
        for one in (answers(logits[:, :3], labels[:, :1], [SLEEVE]), answers(logits[:, 6:], labels[:, 4:], [FIT]))
    ]
    expected = np.mean([*accuracies, np.mean(precision)])
    assert found["mean_category_score"] == pytest.approx(expected, rel=1e-5)


def test_equal_weights_are_the_metrics_themselves(monkeypatch):
    logits, labels = drawn(MIXED, 40, missing=0.1)
    monkeypatch.setattr(bootstrap, "weights", lambda labels: [np.full((len(labels), bootstrap.AT_ONCE), 0.3)])
    found = resample(logits, labels, MIXED)[0]
    expected = metrics.scores(logits, labels, MIXED, loss=0.0).metrics
    assert {name: found[name] for name in found.dtype.names} == pytest.approx(expected, rel=1e-5)


# ---------------------------------------------------------------------------------------- its spread
def efron(logits, labels, categories, metric, *, rounds=500):
    """A plain loop: draw as many images as there are, with putting back, and ask scikit-learn."""
    rng, values = np.random.default_rng(1), []
    for _ in range(rounds):
        rows = rng.integers(0, len(labels), len(labels))
        values.append(metric(*answers(logits[rows], labels[rows], categories)[:2]))
    return np.std(values, ddof=1)


@pytest.mark.parametrize("seed", range(2))
def test_the_standard_error_is_that_of_a_loop_that_draws_images(seed):
    logits, labels = drawn(ONE, 300, seed=seed)
    found = standard_errors(resample(logits, labels, ONE))
    accuracy = efron(logits, labels, ONE, sklearn.metrics.accuracy_score)
    f1 = efron(logits, labels, ONE, lambda true, said: sklearn.metrics.f1_score(true, said, average="macro"))
    assert found["overall_accuracy"] == pytest.approx(accuracy, rel=0.08)
    assert found["macro_f1"] == pytest.approx(f1, rel=0.1)


@pytest.mark.parametrize("seed", range(2))
def test_a_mean_over_classes_is_resampled_within_classes(seed):
    logits, labels = drawn([SLEEVE], 200, seed=seed)
    true, said, _ = answers(logits, labels, [SLEEVE])
    rng, values = np.random.default_rng(1), []
    classes = [np.flatnonzero(true == one) for one in range(3)]
    for _ in range(500):
        rows = np.concatenate([rng.choice(rows, len(rows)) for rows in classes])
        values.append(sklearn.metrics.balanced_accuracy_score(true[rows], said[rows]))
    found = standard_errors(resample(logits, labels, [SLEEVE]))["mean_class_accuracy"]
    assert found == pytest.approx(np.std(values, ddof=1), rel=0.1)


@pytest.mark.parametrize(("images", "right"), [(400, 0.5), (1000, 0.84), (2500, 0.97)])
def test_the_standard_error_of_a_share_is_the_square_root_of_p_1_p_over_n(images, right):
    labels = np.zeros((images, 1), dtype=np.int32)
    labels[::2] = 1
    hits = np.arange(images) < right * images
    logits = np.eye(2, dtype=np.float32)[np.where(hits, labels[:, 0], 1 - labels[:, 0])]
    found = standard_errors(resample(logits, labels, [FIT]))["overall_accuracy"]
    assert found == pytest.approx(math.sqrt(right * (1 - right) / images), rel=0.08)


def test_categories_that_go_wrong_together_vary_together():
    """Six copies of one category are worth no more than one of them."""
    logits, labels = drawn([FIT], 300)
    copies = [Category(f"fit {k}", FIT.classes) for k in range(6)]
    once = standard_errors(resample(logits, labels, [FIT]))["overall_accuracy"]
    six = standard_errors(resample(np.tile(logits, 6), np.tile(labels, 6), copies))["overall_accuracy"]
    assert six == pytest.approx(once, rel=0.1)


def test_a_class_of_one_image_is_in_every_resample():
    logits, labels = drawn([SLEEVE], 50)
    labels[labels == 2] = 1
    labels[0] = 2
    logits[0] = 0, 0, 9  # right: the class alone is worth 1/3
    assert resample(logits, labels, [SLEEVE])["mean_class_accuracy"].min() > 1 / 3


# ------------------------------------------------------------------------------------------- pairs
def test_models_on_the_same_images_are_weighed_alike():
    logits, labels = drawn(ONE, 400)
    other = logits.copy()
    other[:8, :3] = -other[:8, :3]
    first, second = (resample(one, labels, ONE)["overall_accuracy"] for one in (logits, other))
    assert np.array_equal(first, resample(logits, labels, ONE)["overall_accuracy"])
    assert np.std(first - second) < np.std(first) / 3


def test_models_on_different_images_are_independent():
    first, second = (resample(*drawn(ONE, 400, seed=seed), ONE)["overall_accuracy"] for seed in (0, 1))
    assert np.std(first - second) == pytest.approx(math.hypot(np.std(first), np.std(second)), rel=0.1)


# ---------------------------------------------------------------------------------- what is left out
def test_without_the_order_of_scores_there_is_no_average_precision():
    logits, labels = drawn(MIXED, 60)
    whole, counted = (resample(logits, labels, MIXED, ranked=ranked).dtype.names for ranked in (True, False))
    assert set(whole) - set(counted) == {"mean_average_precision", "mean_category_score"}


def test_what_would_take_too_long_is_left_out(monkeypatch):
    monkeypatch.setattr(bootstrap, "MAX_RANKED", RESAMPLES * 60 * 3 - 1)
    logits, labels = drawn(MIXED, 60)
    assert "mean_average_precision" not in resample(logits, labels, MIXED).dtype.names


def test_the_metrics_of_a_single_image_are_sure_of_themselves():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = resample(np.float32([[1, 0, 0]]), np.int32([[0]]), [SLEEVE])
    assert found.shape == (RESAMPLES,)
    assert set(standard_errors(found).values()) == {0.0}
