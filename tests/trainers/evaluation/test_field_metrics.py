"""Metrics of probabilities: scikit-learn's values, whatever val shows, and those that somebody registers."""

import math
import subprocess
import sys
import warnings
from collections.abc import Iterator

import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, softmax

from trainers.data.table import Category
from trainers.evaluation import logit_adjustment
from trainers.evaluation.field_metrics import figure
from trainers.metrics import definitions
from trainers.metrics.definitions import BOTH, BUILT_IN, STANDARD, MetricDefinition, definition, register
from trainers.support.errors import UserError

FIELD = [name for name in BUILT_IN if name not in STANDARD]
FIVE, TWO, TAGS = (
    Category("kind", tuple("abcde")),
    Category("fit", ("tight", "wide")),
    Category("tags", ("x", "y", "z"), multi=True),
)


@pytest.fixture
def own() -> Iterator[dict[str, MetricDefinition]]:
    """A place for metrics of a test's own, which are unknown after it."""
    yield {}
    definitions.REGISTERED.clear()


def value(name: str, logits: np.ndarray, labels: np.ndarray, *categories: Category) -> float:
    return figure(definition(name), logits, labels, categories)


def of_scikit_learn(name: str, true: np.ndarray, p: np.ndarray) -> float:
    """As one would call it by hand where every class is known to the function."""
    classes, shown = range(p.shape[1]), np.unique(true)
    hot = (true[:, None] == shown).astype(int)
    match name:
        case "log_loss":
            return sklearn.metrics.log_loss(true, p, labels=classes)
        case "roc_auc":
            return sklearn.metrics.roc_auc_score(hot, p[:, shown], average="macro")
        case "average_precision":
            return sklearn.metrics.average_precision_score(hot, p[:, shown], average="macro")
        case "top_3_accuracy":
            return sklearn.metrics.top_k_accuracy_score(true, p, k=3, labels=classes)
        case "quadratic_kappa":
            return sklearn.metrics.cohen_kappa_score(true, p.argmax(1), labels=classes, weights="quadratic")
    return sklearn.metrics.matthews_corrcoef(true, p.argmax(1))


@pytest.mark.parametrize("name", FIELD)
@given(seed=st.integers(0, 2**32 - 1), images=st.integers(3, 40), occur=st.integers(2, 5))
@settings(deadline=None, derandomize=True, max_examples=25)
def test_every_metric_is_scikit_learns_also_where_classes_are_missing_in_val(name, seed, images, occur):
    rng = np.random.default_rng(seed)
    shown = rng.permutation(5)[:occur]
    true = np.concatenate([shown[:2], rng.choice(shown, images - 2)])
    logits = (3 * rng.normal(size=(images, 5))).astype(np.float32)
    p = softmax(logits.astype(np.float64), axis=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = value(name, logits, true[:, None], FIVE)
    assert found == pytest.approx(of_scikit_learn(name, true, p), abs=1e-12)


def test_the_area_under_the_curve_of_two_classes_is_the_plain_one():
    rng = np.random.default_rng(0)
    logits, true = rng.normal(size=(30, 2)).astype(np.float32), rng.integers(2, size=30)
    plain = sklearn.metrics.roc_auc_score(true, softmax(logits, axis=1)[:, 1])
    assert value("roc_auc", logits, true[:, None], TWO) == pytest.approx(plain)


def test_all_classes_against_the_rest_is_scikit_learns_ovr():
    rng = np.random.default_rng(0)
    logits, true = rng.normal(size=(60, 5)).astype(np.float32), np.arange(60) % 5
    p = softmax(logits.astype(np.float64), axis=1)
    ovr = sklearn.metrics.roc_auc_score(true, p, multi_class="ovr", average="macro")
    assert value("roc_auc", logits, true[:, None], FIVE) == pytest.approx(ovr)


@pytest.mark.parametrize("name", FIELD)
def test_of_several_categories_it_is_the_mean_over_the_known_answers_of_each(name):
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(40, 7)).astype(np.float32)
    labels = np.stack([np.arange(40) % 5, np.arange(40) % 2], 1)
    labels[3:15, 0], labels[20:33, 1] = -1, -1
    parts = [(labels[:, 0], logits[:, :5], FIVE), (labels[:, 1], logits[:, 5:], TWO)]
    each = [value(name, part[true >= 0], true[true >= 0][:, None], one) for true, part, one in parts]
    assert value(name, logits, labels, FIVE, TWO) == pytest.approx(np.mean(each))
    labels[:, 1] = -1
    assert value(name, logits, labels, FIVE, TWO) == pytest.approx(each[0])


BINARY = {
    "log_loss": lambda y, p: sklearn.metrics.log_loss(y, p, labels=[0, 1]),
    "roc_auc": sklearn.metrics.roc_auc_score,
    "average_precision": sklearn.metrics.average_precision_score,
}


@pytest.mark.parametrize("name", BINARY)
def test_with_several_answers_it_is_the_mean_over_the_classes_by_their_sigmoid(name):
    rng = np.random.default_rng(2)
    logits, flags = rng.normal(size=(30, 3)).astype(np.float32), rng.integers(2, size=(30, 3))
    flags[:6, 1] = -1
    known = [flags[:, c] >= 0 for c in range(3)]
    p = expit(logits.astype(np.float64))
    each = [BINARY[name](flags[k, c], p[k, c]) for c, k in enumerate(known)]
    assert value(name, logits, flags, TAGS) == pytest.approx(np.mean(each))
    flags[:, 2] = 0  # which defines neither area nor precision
    left = each[:2] if name != "log_loss" else [*each[:2], BINARY[name](flags[:, 2], p[:, 2])]
    assert value(name, logits, flags, TAGS) == pytest.approx(np.mean(left))


@pytest.mark.parametrize("name", ["top_3_accuracy", "quadratic_kappa", "matthews"])
def test_what_has_no_meaning_for_several_answers_stands_on_the_others_alone(name):
    rng = np.random.default_rng(3)
    logits = rng.normal(size=(30, 8)).astype(np.float32)
    labels = np.concatenate([np.arange(30)[:, None] % 5, rng.integers(2, size=(30, 3))], 1)
    assert value(name, logits, labels, FIVE, TAGS) == value(name, logits[:, :5], labels[:, :1], FIVE)
    assert name in definitions.lacking([True])
    assert math.isnan(value(name, logits[:, 5:], labels[:, 1:], TAGS))


@pytest.mark.parametrize("name", ["roc_auc", "quadratic_kappa", "matthews"])
def test_a_category_that_shows_a_single_class_is_left_out(name):
    rng = np.random.default_rng(4)
    logits = rng.normal(size=(30, 7)).astype(np.float32)
    labels = np.stack([np.arange(30) % 5, np.zeros(30, dtype=int)], 1)
    assert value(name, logits, labels, FIVE, TWO) == value(name, logits[:, :5], labels[:, :1], FIVE)
    assert math.isnan(value(name, logits[:, 5:], labels[:, 1:], TWO))


def test_logits_that_are_no_numbers_are_not_handed_on():
    assert math.isnan(value("log_loss", np.full((4, 2), np.nan, np.float32), np.zeros((4, 1), int), TWO))


def test_less_of_log_loss_is_better_and_more_of_any_other():
    assert [name for name, one in BUILT_IN.items() if one.minimize] == ["log_loss"]
    assert [definitions.oriented(2.0, minimize=less) for less in (False, True)] == [2.0, -2.0]


# ----------------------------------------------------------------------------------------- of one's own
def test_a_registered_metric_gets_copies_in_32_bits_of_the_known_answers(own):
    seen = []

    def kept(p: np.ndarray, y: np.ndarray) -> float:
        seen.append((p.dtype, y.dtype, p.shape, y.tolist()))
        p[:] = 0
        return float(len(y))

    register(MetricDefinition("kept", kept, minimize=True))
    logits, labels = np.ones((4, 2), dtype=np.float32), np.array([[0], [1], [-1], [1]])
    assert value("kept", logits, labels, TWO) == 3
    assert seen == [(np.float32, np.int64, (3, 2), [0, 1, 1])]
    assert (logits == 1).all()
    assert definitions.minimizes("kept")


def test_a_metric_of_all_categories_at_once_is_asked_once(own):
    def whole(p: list[np.ndarray], y: np.ndarray) -> float:
        return float(sum(part.shape[1] for part in p) + y.shape[1] + y.min())

    register(MetricDefinition("whole", whole, per_category=False, kinds=BOTH))
    labels = np.array([[0, -1, 1, 0, 1], [4, 1, 0, 0, 0]])
    assert value("whole", np.zeros((2, 10), np.float32), labels, FIVE, TWO, TAGS) == 5 + 2 + 2 - 1


def test_a_number_that_is_none_stays_none(own):
    register(MetricDefinition("broken", lambda *_: math.nan, kinds=BOTH))
    assert math.isnan(value("broken", np.zeros((2, 2), np.float32), np.zeros((2, 1), int), TWO))
    assert math.isnan(value("broken", np.zeros((2, 3), np.float32), np.zeros((2, 3), int), TAGS))


@pytest.mark.parametrize("name", ["log_loss", "overall_accuracy", "loss", "last"])
def test_a_name_that_there_is_cannot_be_given_away(name):
    with pytest.raises(UserError, match="there is a built-in metric"):
        register(MetricDefinition(name, lambda *_: 0.0))


# ------------------------------------------------------------------------------------------ correction
@pytest.mark.parametrize("name", ["log_loss", "matthews"])
def test_a_fitted_correction_is_the_best_by_the_metric_the_lowest_log_loss(name):
    rng = np.random.default_rng(5)
    true = rng.choice(5, size=300, p=[0.6, 0.2, 0.1, 0.06, 0.04])
    prior = np.log([0.6, 0.2, 0.1, 0.06, 0.04]).astype(np.float32)
    logits = (2 * np.eye(5)[true] + rng.normal(size=(300, 5)) + 0.8 * prior).astype(np.float32)
    found = logit_adjustment.Fitting(logits, true[:, None], prior, (FIVE,), further=(name,))
    values = [value(name, logits - np.float32(tau) * prior, true[:, None], FIVE) for tau in logit_adjustment.TAUS]
    best = min(values) if definition(name).minimize else max(values)
    fit = found.fit(name, 0.5)
    assert values[logit_adjustment.TAUS.tolist().index(fit.tau)] == best
    assert fit.scores.value(name) == value(name, fit.logits, true[:, None], FIVE)
    assert found.at(fit.tau, 0.5).further == {name: best}
    assert set(found.corrected()) == {"overall_accuracy", "mean_class_accuracy"}


def test_thresholds_change_answers_and_no_probability():
    rng = np.random.default_rng(6)
    flags = rng.integers(2, size=(60, 3))
    logits = (flags + rng.normal(size=(60, 3)) - 2).astype(np.float32)
    found = logit_adjustment.Fitting(logits, flags, np.zeros(3, np.float32), (TAGS,), least=2, further=("log_loss",))
    assert (found.logits_at(0.0) != logits).any()
    assert found.at(0.0, 0.0).further == {"log_loss": value("log_loss", logits, flags, TAGS)}


@pytest.mark.slow
@pytest.mark.process
def test_scikit_learn_is_loaded_where_such_a_metric_is_asked_for():
    code = "import sys, trainers.train, sweeper.worker.job; print('sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"
