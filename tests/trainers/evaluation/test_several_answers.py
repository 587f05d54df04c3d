"""Metrics of missing and of several answers, against scikit-learn."""

import numpy as np
import pytest
import sklearn.metrics
import torch

from trainers.data.table import Category
from trainers.evaluation import tally, thresholds
from trainers.evaluation.logit_adjustment import Fitting
from trainers.evaluation.metrics import average_precision, scores
from trainers.metrics.definitions import lacking
from trainers.optim import frequency

CATEGORIES = (
    Category("sleeve", ("a", "b", "c")),
    Category("tags", ("p", "q", "r", "s"), multi=True),
    Category("fit", ("d", "e")),
)
TAGS, FLAGS = slice(3, 7), slice(1, 5)


def drawn(images=300, missing=0.0, seed=0):
    """Logits [N, 9] that know something, and labels [N, 6], a share of each category's answers missing."""
    rng = np.random.default_rng(seed)
    columns = [rng.choice(3, images, p=[0.7, 0.2, 0.1])[:, None], rng.random((images, 4)) < [0.5, 0.3, 0.1, 0.02]]
    labels = np.concatenate([*columns, rng.integers(0, 2, (images, 1))], axis=1).astype(np.int64)
    shown = np.concatenate([np.eye(3)[labels[:, 0]], labels[:, FLAGS], np.eye(2)[labels[:, 5]]], axis=1)
    logits = (3 * shown - 1.5 + rng.normal(scale=1.5, size=shown.shape)).astype(np.float32)
    logits[:, TAGS] = np.round(logits[:, TAGS], 1)  # some are equal
    for columns in (slice(0, 1), FLAGS, slice(5, 6)):
        labels[rng.random(images) < missing, columns] = -1
    return logits, labels


def sleeves_and_fits(logits, labels):
    """Truths and answers of the categories with one answer, each class of each a label of its own."""
    true, said = [], []
    for start, end, column in ((0, 3, 0), (7, 9, 5)):
        known = labels[:, column] >= 0
        true.append(start + labels[known, column])
        said.append(start + logits[known, start:end].argmax(1))
    return np.concatenate(true), np.concatenate(said)


def tags(logits, labels):
    """Flags and scores of the images whose tags are known."""
    known = labels[:, 1] >= 0
    return labels[known, FLAGS], logits[known, TAGS]


@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_each_metric_is_scikit_learns_on_the_answers_that_are_known(missing):
    logits, labels = drawn(missing=missing)
    found = scores(logits, labels, CATEGORIES, loss=0.5)
    true, said = sleeves_and_fits(logits, labels)
    flags, ranked = tags(logits, labels)
    assert found.overall_accuracy == pytest.approx(sklearn.metrics.accuracy_score(true, said))
    assert found.mean_class_accuracy == pytest.approx(sklearn.metrics.balanced_accuracy_score(true, said))
    assert found.micro_f1 == pytest.approx(sklearn.metrics.f1_score(flags, ranked > 0, average="micro"))
    precision = sklearn.metrics.average_precision_score(flags, ranked, average=None)
    assert found.mean_average_precision == pytest.approx(precision.mean())
    one = {name: (labels[:, k] >= 0, at) for name, k, at in (("sleeve", 0, 0), ("fit", 5, 7))}
    right = {
        name: sklearn.metrics.accuracy_score(
            labels[rows, 0 if at == 0 else 5], logits[rows, at : at + (3 if at == 0 else 2)].argmax(1)
        )
        for name, (rows, at) in one.items()
    }
    assert found.category_accuracy == pytest.approx({**right, "tags": precision.mean()})
    assert found.mean_category_score == pytest.approx((right["sleeve"] + right["fit"] + precision.mean()) / 3)


@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_the_macro_figures_are_over_the_classes_of_both_kinds(missing):
    logits, labels = drawn(missing=missing)
    found = scores(logits, labels, CATEGORIES, loss=0.5)
    true, said = sleeves_and_fits(logits, labels)
    flags, ranked = tags(logits, labels)
    for name in ("f1", "precision", "recall"):
        score = getattr(sklearn.metrics, f"{name}_score")
        single = score(true, said, average=None, zero_division=0)
        several = score(flags, ranked > 0, average=None, zero_division=0)
        assert getattr(found, f"macro_{name}") == pytest.approx(np.concatenate([single, several]).mean())


def test_average_precision_is_scikit_learns_where_scores_are_equal_and_where_flags_are_missing():
    rng = np.random.default_rng(1)
    for _ in range(50):
        ranked, flags = rng.integers(0, 6, (30, 1)).astype(np.float32), rng.integers(-1, 2, (30, 1))
        known = flags[:, 0] >= 0
        if not (flags > 0).any():
            continue
        wanted = sklearn.metrics.average_precision_score(flags[known, 0], ranked[known, 0])
        assert average_precision(ranked, flags)[0] == pytest.approx(wanted)


def test_a_class_that_no_image_has_counts_in_no_mean():
    logits, labels = drawn()
    labels[:, 4] = 0
    found = scores(logits, labels, CATEGORIES, loss=0.0)
    wanted = sklearn.metrics.average_precision_score(labels[:, 1:4], logits[:, 3:6])
    assert found.mean_average_precision == pytest.approx(wanted)


@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_a_tally_of_batches_is_the_scores_of_the_whole(missing):
    logits, labels = drawn(missing=missing)
    counts = tally.Tally(CATEGORIES, missing=missing > 0, images=300)
    for start in range(0, 300, 64):
        chunk = slice(start, start + 64)
        counts.update(torch.from_numpy(logits[chunk]), torch.from_numpy(labels[chunk]))
    found, wanted = counts.scores(0.5), scores(logits, labels, CATEGORIES, loss=0.5)
    assert found.metrics == pytest.approx(wanted.metrics)
    assert found.category_accuracy == pytest.approx(wanted.category_accuracy)
    assert found.category_answers == wanted.category_answers


@pytest.mark.parametrize("batch", [1, 7, 64, 300])
def test_of_many_images_average_precision_is_that_of_an_even_sample_and_all_else_of_all(batch, monkeypatch):
    monkeypatch.setattr(tally, "RANKED", 4 * 100)
    logits, labels = drawn(missing=0.1)
    counts = tally.Tally(CATEGORIES, missing=True, images=300)
    for start in range(0, 300, batch):
        chunk = slice(start, start + batch)
        counts.update(torch.from_numpy(logits[chunk]), torch.from_numpy(labels[chunk]))
    kept = [each.untyped_storage().nbytes() for parts in counts.ranked for each in parts]
    assert sum(kept) == 4 * 100 * (4 + 1)  # a float and a byte each
    found, whole = counts.scores(0.5), scores(logits, labels, CATEGORIES, loss=0.5)
    sample = np.nanmean(average_precision(logits[::3, TAGS], labels[::3, FLAGS]))
    assert found.mean_average_precision == found.category_accuracy["tags"] == pytest.approx(sample)
    exact = whole.metrics.keys() - {"mean_average_precision", "mean_category_score"}
    assert {name: found.metrics[name] for name in exact} == pytest.approx({n: whole.metrics[n] for n in exact})


def test_it_is_said_how_many_answers_a_figure_stands_on_where_some_are_missing():
    logits, labels = drawn(missing=0.3)
    answers = scores(logits, labels, CATEGORIES, loss=0.0).category_answers
    assert answers == {
        "sleeve": (labels[:, 0] >= 0).sum(),
        "tags": (labels[:, 1] >= 0).sum(),
        "fit": (labels[:, 5] >= 0).sum(),
    }
    assert "category_answers" not in scores(*drawn(), CATEGORIES, loss=0.0).model_dump()


def test_data_of_one_kind_have_the_metrics_of_that_kind():
    logits, labels = drawn()
    alone = scores(logits[:, TAGS], labels[:, FLAGS], CATEGORIES[1:2], loss=0.0)
    assert alone.overall_accuracy is None
    assert "overall_accuracy" not in alone.model_dump()
    with pytest.raises(ValueError, match="no overall_accuracy"):
        alone.value("overall_accuracy")
    single = {"overall_accuracy", "mean_class_accuracy", "top_3_accuracy", "quadratic_kappa", "matthews"}
    assert set(lacking([True])) == single
    assert set(lacking([False])) == {"micro_f1", "mean_average_precision", "mean_category_score"}
    assert not lacking([True, False])


def test_records_of_several_answers_are_read_back_as_they_were():
    found = scores(*drawn(missing=0.2), CATEGORIES, loss=0.5)
    assert type(found).model_validate_json(found.model_dump_json()) == found


# --------------------------------------------------------------------------------------------- thresholds
def f1(scores_, flags, threshold):
    return sklearn.metrics.f1_score(flags, scores_ > threshold, zero_division=0)


def test_a_fitted_threshold_has_the_highest_f1_of_all():
    rng = np.random.default_rng(0)
    for _ in range(30):
        flags = (rng.random(60) < 0.2).astype(int)
        ranked = np.round(rng.normal(size=60) + flags, 1)
        best = thresholds.best(ranked, flags, 1)
        every = [f1(ranked, flags, t) for t in np.unique(ranked) - 0.05]
        assert f1(ranked, flags, best) == pytest.approx(max(every))


def test_a_class_with_few_images_keeps_a_half():
    ranked, flags = np.arange(20.0) - 15, np.arange(20) >= 17
    assert thresholds.best(ranked, flags.astype(int), 4) == 0
    assert thresholds.best(ranked, flags.astype(int), 3) == 1.5


def fitting(missing=0.0, least=None):
    logits, labels = drawn(missing=missing)
    counts = [[70, 20, 10], [50, 30, 10, 2], [50, 50]]
    prior = frequency.log_prior(counts, [c.multi for c in CATEGORIES])
    return Fitting(logits, labels, prior, CATEGORIES, least=least), logits, labels


def test_correction_by_class_frequency_leaves_several_answers_alone():
    plain, logits, _ = fitting()
    np.testing.assert_array_equal(plain.logits_at(1.0)[:, TAGS], logits[:, TAGS])
    assert (plain.logits_at(1.0)[:, :3] != logits[:, :3]).any()


@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_the_scores_of_a_fit_are_those_of_its_logits(missing):
    found, _, labels = fitting(missing, least=5)
    for one, logits in (
        (found.at(0.5, 0.1), found.logits_at(0.5)),
        (found.fit("macro_f1", 0.1).scores, found.fit("macro_f1", 0.1).logits),
    ):
        theirs = scores(logits, labels, CATEGORIES, loss=0.1)
        for name in theirs.metrics.keys() - {"mean_average_precision", "mean_category_score"}:  # of ranks unmoved
            assert one.value(name) == pytest.approx(theirs.value(name))


def test_fitted_thresholds_pay_on_images_that_they_were_not_fitted_on():
    found, _, _ = fitting(least=5)
    logits, labels = drawn(4000, seed=9)
    logits[:, TAGS] -= 1.5  # a model that says no too often
    moved = Fitting(logits[:2000], labels[:2000], found.prior, CATEGORIES, least=5).thresholds
    rest, truth = logits[2000:], labels[2000:]
    before, after = (scores(one, truth, CATEGORIES, loss=0).micro_f1 for one in (rest, rest - moved))
    assert after > before + 0.05
    crossed = Fitting(logits[:2000], labels[:2000], found.prior, CATEGORIES, least=5).at(0.0, 0.0).micro_f1
    assert crossed == pytest.approx(after, abs=0.04)


def test_an_image_has_no_say_in_its_own_threshold():
    before, logits, labels = fitting(least=5)
    turned = labels.copy()
    mine = before.folds == 0
    turned[mine, FLAGS] = 1 - turned[mine, FLAGS]
    after = Fitting(logits, turned, before.prior, CATEGORIES, least=5)
    np.testing.assert_array_equal(before.logits_at(0.0)[mine], after.logits_at(0.0)[mine])
