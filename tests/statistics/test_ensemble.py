"""Which models answer better together, against a plain second computation."""

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score

from sweeper.statistics import ensemble
from trainers.data.table import Category

CATEGORIES = (Category("shape", ("a", "b", "c")), Category("colour", ("red", "blue")))


def labels(rng: np.random.Generator, images: int = 200) -> np.ndarray:
    return np.stack([rng.integers(0, 3, images), rng.integers(0, 2, images)], axis=1)


def said(rng: np.random.Generator, truth: np.ndarray, noise: float) -> np.ndarray:
    """Logits that lean to the truth."""
    right = np.concatenate([np.eye(3)[truth[:, 0]], np.eye(2)[truth[:, 1]]], axis=1)
    return (right + rng.normal(0, noise, right.shape)).astype(np.float32)


def judge(truth: np.ndarray, metric: str = "overall_accuracy", minimize: bool = False) -> ensemble.Judge:
    further = ("log_loss",) if metric == "log_loss" else ()
    return ensemble.Judge(truth, CATEGORIES, metric, further, minimize)


def accuracy(logits: np.ndarray, truth: np.ndarray) -> float:
    return accuracy_score(truth.ravel(), answers(logits).ravel())


def answers(logits: np.ndarray) -> np.ndarray:
    return np.stack([logits[:, :3].argmax(1), logits[:, 3:].argmax(1)], axis=1)


@pytest.mark.parametrize("seed", range(6))
def test_each_choice_is_the_best_next_one_and_the_best_number_of_choices_counts(seed):
    rng = np.random.default_rng(seed)
    truth = labels(rng)
    candidates = {number: said(rng, truth, noise) for number, noise in enumerate((0.7, 0.8, 0.9, 1.2))}
    chosen, scores = [0], [accuracy(candidates[0], truth)]
    for _ in range(11):
        allowed = candidates if len(set(chosen)) < 3 else set(chosen)
        means = {key: np.mean([candidates[k] for k in [*chosen, key]], axis=0) for key in sorted(allowed)}
        values = {key: accuracy(mean, truth) for key, mean in means.items()}
        chosen.append(max(values, key=values.get))
        scores.append(values[chosen[-1]])
    kept = chosen[: scores.index(max(scores)) + 1]
    found = ensemble.select(candidates, 0, judge(truth).score, 3)
    assert len(found) <= 3
    assert found == pytest.approx({key: kept.count(key) / len(kept) for key in kept})
    assert accuracy(ensemble.mean(candidates, found), truth) == pytest.approx(max(scores))
    assert sum(found.values()) == pytest.approx(1)


def test_a_candidate_that_no_other_helps_stays_alone():
    truth = labels(np.random.default_rng(0))
    perfect = said(np.random.default_rng(0), truth, 0.0)
    found = ensemble.select({4: perfect, 7: -perfect}, 4, judge(truth).score, 3)
    assert found == {4: 1.0}


def test_two_that_err_elsewhere_are_better_together():
    truth = np.zeros((100, 2), np.int64)
    first, second = (np.tile(np.array([1, 0, 0, 1, 0], np.float32), (100, 1)) for _ in range(2))
    first[:40] = [0, 0.5, 0, 0, 0.5]
    second[60:] = [0, 0.5, 0, 0, 0.5]
    found = ensemble.select({1: first, 2: second}, 1, judge(truth).score, 2)
    assert found == {1: 0.5, 2: 0.5}
    scores = accuracy(first, truth), accuracy(ensemble.mean({1: first, 2: second}, found), truth)
    assert scores == pytest.approx((0.6, 1.0))


def test_less_of_a_loss_is_better():
    rng = np.random.default_rng(0)
    truth = labels(rng)
    good, bad = said(rng, truth, 0.3), said(rng, truth, 3.0)
    score = judge(truth, "log_loss", minimize=True).score
    found = ensemble.select({0: bad, 1: good}, 0, score, 2)
    assert found[1] > found.get(0, 0)
    assert score(ensemble.mean({0: bad, 1: good}, found)) > score(bad)


@pytest.mark.parametrize(("metric", "plain"), [("overall_accuracy", accuracy_score), ("mean_class_accuracy", None)])
def test_scores_are_those_of_scikit_learn(metric, plain):
    rng = np.random.default_rng(3)
    truth = labels(rng)
    logits = said(rng, truth, 1.0)
    wanted = answers(logits)
    if plain is None:
        shares = [balanced_accuracy_score(truth[:, k], wanted[:, k]) for k in (0, 1)]
        expected = (3 * shares[0] + 2 * shares[1]) / 5
    else:
        expected = plain(truth.ravel(), wanted.ravel())
    assert judge(truth, metric).score(logits) == pytest.approx(expected)


def test_the_interval_of_the_gain_is_that_of_resampled_differences():
    rng = np.random.default_rng(1)
    truth = labels(rng, 400)
    better, worse = said(rng, truth, 0.5), said(rng, truth, 1.0)
    one = judge(truth)
    low, high = one.gain(better, worse)
    right = [(answers(logits) == truth).mean(1) for logits in (better, worse)]
    weights = rng.exponential(size=(400, 2000))
    differences = (right[0] - right[1]) @ (weights / weights.sum(0))
    assert (low, high) == pytest.approx(np.percentile(differences, (2.5, 97.5)), abs=0.006)
    assert one.gain(better, better) == (0, 0)


def test_logits_are_divided_by_the_temperature_of_their_category():
    logits = np.arange(10, dtype=np.float32).reshape(2, 5)
    found = ensemble.divided(logits, CATEGORIES, {"colour": 2.0})
    np.testing.assert_array_equal(found[:, :3], logits[:, :3])
    np.testing.assert_array_equal(found[:, 3:], logits[:, 3:] / 2)


def test_the_mean_counts_each_member_by_its_share():
    rng = np.random.default_rng(2)
    parts = {key: rng.normal(size=(4, 5)).astype(np.float32) for key in (3, 5)}
    found = ensemble.mean(parts, {3: 0.75, 5: 0.25})
    np.testing.assert_allclose(found, 0.75 * parts[3] + 0.25 * parts[5], rtol=1e-6)
