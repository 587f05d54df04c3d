import numpy as np
import pytest

from trainers.data.table import Category
from trainers.evaluation import logit_adjustment
from trainers.evaluation.metrics import scores
from trainers.optim import frequency

SIZES = [3, 2]
COUNTS = [[80, 15, 5], [60, 40]]
CATEGORIES = [Category("shape", ("a", "b", "c")), Category("colour", ("d", "e"))]


def drawn(images=4000, seed=0):
    """Labels as frequent as in COUNTS, and the logits of their exact posthoc_logit_adjustment: evidence plus prior.

    An image shows a number a class, normal around 1.5 for its own class and 0 for the others.
    """
    rng = np.random.default_rng(seed)
    prior = frequency.log_prior(COUNTS)
    labels = np.stack([rng.choice(len(c), size=images, p=np.array(c) / sum(c)) for c in COUNTS], axis=1)
    shown = rng.normal(size=(images, 5))
    shown[np.arange(images), labels[:, 0]] += 1.5
    shown[np.arange(images), 3 + labels[:, 1]] += 1.5
    return (1.5 * shown + prior).astype(np.float32), labels, prior


@pytest.fixture(scope="module")
def fitting():
    logits, labels, prior = drawn()
    return logit_adjustment.Fitting(logits, labels, prior, CATEGORIES)


def test_the_prior_of_a_category_adds_up_to_one():
    prior = np.exp(frequency.log_prior([*COUNTS, [0, 9]]))
    assert prior[:3].sum() == pytest.approx(1)
    assert prior[5:] == pytest.approx([0.1, 0.9])  # a class without images counts as one


def test_no_strength_is_no_correction(fitting):
    logits, labels, _ = drawn()
    assert fitting.at(0.0, 1.25) == scores(logits, labels, CATEGORIES, loss=1.25)


def test_a_strength_is_taken_off_the_logits(fitting):
    logits, labels, prior = drawn()
    assert fitting.at(0.7, 0.0) == scores(logits - np.float32(0.7) * prior, labels, CATEGORIES, loss=0.0)


def test_the_mean_over_classes_wants_more_correction_than_the_share_of_right_answers(fitting):
    found = fitting.corrected("overall_accuracy")
    assert found["mean_class_accuracy"].tau > 0.5 > found["overall_accuracy"].tau


def test_a_fitted_correction_pays_on_images_that_it_was_not_fitted_on(fitting):
    tau = fitting.fit("mean_class_accuracy", 0.0).tau
    logits, labels, prior = drawn(images=5000, seed=1)
    other = logit_adjustment.Fitting(logits, labels, prior, CATEGORIES)
    assert other.at(tau, 0.0).mean_class_accuracy > other.at(0.0, 0.0).mean_class_accuracy + 0.05


def test_the_reported_figure_is_cross_fitted_and_not_the_best_that_was_found():
    logits, labels, prior = drawn(images=60, seed=3)
    few = logit_adjustment.Fitting(logits, labels, prior, CATEGORIES)
    best = max(few.at(float(tau), 0.0).mean_class_accuracy for tau in logit_adjustment.TAUS)
    fit = few.fit("mean_class_accuracy", 0.0)
    assert few.at(fit.tau, 0.0).mean_class_accuracy == best
    assert fit.scores.mean_class_accuracy < best


def test_the_corrected_logits_give_the_reported_figure(fitting):
    fit = fitting.fit("macro_f1", 0.5)
    assert scores(fit.logits, drawn()[1], CATEGORIES, loss=0.5) == fit.scores


def test_a_label_has_no_say_in_its_own_correction():
    logits, labels, prior = drawn(images=60, seed=3)
    before = logit_adjustment.Fitting(logits, labels, prior, CATEGORIES)
    turned = labels.copy()
    turned[before.folds == 0] = (turned[before.folds == 0] + 1) % np.array(SIZES)
    after = logit_adjustment.Fitting(logits, turned, prior, CATEGORIES)
    metric = "mean_class_accuracy"
    mine = before.folds == 0
    np.testing.assert_array_equal(before.fit(metric, 0.0).logits[mine], after.fit(metric, 0.0).logits[mine])


def test_equal_classes_need_no_correction():
    logits, labels, _ = drawn()
    same = logit_adjustment.Fitting(logits, labels, frequency.log_prior([[5, 5, 5], [5, 5]]), CATEGORIES)
    assert {fit.tau for fit in same.corrected("macro_f1").values()} == {0.0}


def test_a_single_image_is_enough():
    logits, labels, prior = drawn(images=1)
    assert (
        logit_adjustment.Fitting(logits, labels, prior, CATEGORIES).fit("overall_accuracy", 0.0).tau
        in logit_adjustment.TAUS
    )
