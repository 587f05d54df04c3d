import warnings

import numpy as np
import pytest
import sklearn.metrics
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trainers.data.table import Category
from trainers.evaluation.metrics import HITS, PREDICTED, TRUE, scores
from trainers.evaluation.tally import Tally
from trainers.metrics.definitions import STANDARD, lacking

CATEGORIES = (Category("sleeve", ("a", "b", "c")), Category("fit", ("d", "e")))


CASES = {
    "every class occurs and is predicted": ([0, 1, 2, 0, 1, 2], [0, 1, 2, 1, 2, 0]),
    "a class is only predicted": ([0, 0, 1, 1], [0, 2, 1, 1]),
    "a class occurs and is never predicted": ([0, 1, 2, 0], [0, 1, 1, 0]),
    "a class neither occurs nor is predicted": ([0, 0, 2, 2], [0, 2, 2, 2]),
    "every answer is wrong": ([0, 0], [1, 2]),
    "two classes are only predicted": ([0, 0, 0], [0, 1, 2]),
    "one image": ([1], [1]),
}


def single(true, said):
    """Scores of answers in one category of three classes."""
    logits, labels = np.eye(3, dtype=np.float32)[said], np.array(true)[:, None]
    return scores(logits, labels, [Category("colour", ("a", "b", "c"))], loss=0.5)


def of_scikit_learn(true, said):
    """The figures of the same names, each class of each category a label of its own."""
    average = {"average": "macro", "zero_division": 0}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "y_pred contains classes not in y_true")
        warnings.filterwarnings("ignore", "A single label was found")
        balanced = sklearn.metrics.balanced_accuracy_score(true, said)
    return {
        "overall_accuracy": sklearn.metrics.accuracy_score(true, said),
        "mean_class_accuracy": balanced,
        "macro_f1": sklearn.metrics.f1_score(true, said, **average),
        "macro_precision": sklearn.metrics.precision_score(true, said, **average),
        "macro_recall": sklearn.metrics.recall_score(true, said, **average),
    }


@pytest.mark.parametrize(("true", "said"), CASES.values(), ids=CASES)
def test_every_metric_is_scikit_learns_of_that_name(true, said):
    expected = of_scikit_learn(true, said)
    found = single(true, said)
    assert set(expected) == set(STANDARD) - set(lacking([False]))
    assert found.metrics == pytest.approx(expected)


def test_a_class_that_is_only_predicted_costs_the_macro_figures_and_not_the_mean_class_accuracy():
    found = single([0, 0, 1, 1], [0, 2, 1, 1])  # recall 1/2 and 1, precision 1 and 1, F1 2/3 and 1; class 2: 0
    assert found.mean_class_accuracy == pytest.approx(3 / 4)
    assert found.macro_recall == pytest.approx(1 / 2)
    assert found.macro_precision == pytest.approx(2 / 3)
    assert found.macro_f1 == pytest.approx(5 / 9)


ANSWERS = st.lists(st.tuples(*(st.integers(0, size - 1) for size in (3, 2, 3, 2))), min_size=1, max_size=30)


@given(ANSWERS)
@settings(deadline=None, derandomize=True)
def test_several_categories_are_counted_as_one_set_of_classes(answers):
    true, said = np.array(answers)[:, :2], np.array(answers)[:, 2:]
    logits = np.concatenate([np.eye(size, dtype=np.float32)[said[:, k]] for k, size in enumerate([3, 2])], 1)
    found = scores(logits, true, CATEGORIES, loss=0.5)
    start = np.array([0, 3])
    assert found.metrics == pytest.approx(of_scikit_learn((true + start).ravel(), (said + start).ravel()))
    assert list(found.category_accuracy.values()) == pytest.approx((true == said).mean(0).tolist())


def test_predicting_the_majority_everywhere_scores_one_class_a_category():
    sizes = [7, 3, 3, 4, 6, 3]
    categories = [Category(str(k), tuple(map(str, range(n)))) for k, n in enumerate(sizes)]
    labels = np.stack([np.arange(84) % n for n in sizes], 1)
    logits = np.concatenate([np.eye(n, dtype=np.float32)[np.zeros(84, dtype=int)] for n in sizes], 1)
    assert scores(logits, labels, categories, loss=0.5).mean_class_accuracy == pytest.approx(6 / 26)


def test_counting_batch_by_batch_is_counting_at_once():
    logits, labels = torch.randn(30, 5), torch.stack([torch.randint(3, (30,)), torch.randint(2, (30,))], 1)
    whole, parts = Tally(CATEGORIES), Tally(CATEGORIES)
    whole.update(logits, labels)
    for start in range(0, 30, 7):
        parts.update(logits[start : start + 7], labels[start : start + 7])
    assert torch.equal(whole.counts, parts.counts)


def test_a_tally_counts_what_was_true_what_was_said_and_what_was_both():
    tally = Tally(CATEGORIES)
    tally.update(torch.tensor([[0.0, 0, 9, 9, 0]]), torch.tensor([[1, 0]]))
    counts = tally.counts.view(3, 5).tolist()
    assert counts[TRUE] == [0, 1, 0, 1, 0]
    assert counts[PREDICTED] == [0, 0, 1, 1, 0]
    assert counts[HITS] == [0, 0, 0, 1, 0]


def test_a_tally_on_the_device_agrees_with_scores_in_memory():
    logits, labels = torch.randn(30, 5), torch.stack([torch.randint(3, (30,)), torch.randint(2, (30,))], 1)
    tally = Tally(CATEGORIES)
    tally.update(logits, labels)
    assert tally.scores(0.5) == scores(logits.numpy(), labels.numpy(), CATEGORIES, loss=0.5)


def test_thousands_of_classes_cost_no_square():
    assert Tally([Category("kind", tuple(map(str, range(100_000))))]).counts.numel() == 300_000


def test_no_image_at_all_is_no_division_by_zero():
    assert Tally(CATEGORIES).scores(0.0).overall_accuracy == 0
