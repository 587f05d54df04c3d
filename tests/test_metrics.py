import numpy as np
import pytest
import torch

from trainers.data.rows import Category
from trainers.metrics import HITS, PREDICTED, TRUE, Tally, scores

CATEGORIES = (Category("sleeve", ("a", "b", "c")), Category("fit", ("d", "e")))


def plain(logits, labels, sizes):
    """The same figures image by image, in plain Python."""
    start, hits, recalls, precisions, f1s, per = 0, 0, [], [], [], []
    for k, size in enumerate(sizes):
        guesses = [int(np.argmax(row[start : start + size])) for row in logits]
        truth = [int(label[k]) for label in labels]
        start += size
        right = sum(g == t for g, t in zip(guesses, truth, strict=True))
        hits += right
        per.append(right / len(truth))
        for c in range(size):
            if truth.count(c):
                both = sum(g == t == c for g, t in zip(guesses, truth, strict=True))
                recall, precision = both / truth.count(c), both / max(1, guesses.count(c))
                recalls.append(recall)
                precisions.append(precision)
                f1s.append(2 * recall * precision / (recall + precision) if both else 0.0)
    mean = lambda values: sum(values) / len(values)  # noqa: E731
    return hits / (len(labels) * len(sizes)), mean(recalls), mean(precisions), mean(f1s), per


@pytest.mark.parametrize("seed", range(5))
def test_every_metric_equals_a_plain_second_computation(seed):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(40, 5)).astype(np.float32)
    labels = np.stack([rng.choice(3, 40, p=[0.8, 0.2, 0.0]), rng.integers(0, 2, 40)], 1)
    found = scores(logits, labels, CATEGORIES, loss=0.5)
    overall, recall, precision, f1, per = plain(logits, labels, [3, 2])
    assert found.overall_accuracy == pytest.approx(overall)
    assert found.mean_class_accuracy == found.macro_recall == pytest.approx(recall)
    assert found.macro_precision == pytest.approx(precision)
    assert found.macro_f1 == pytest.approx(f1)
    assert list(found.category_accuracy.values()) == pytest.approx(per)


def test_predicting_the_majority_everywhere_scores_one_class_a_category():
    sizes = [7, 3, 3, 4, 6, 3]
    categories = [Category(str(k), tuple(map(str, range(n)))) for k, n in enumerate(sizes)]
    labels = np.stack([np.arange(84) % n for n in sizes], 1)
    logits = np.concatenate([np.eye(n, dtype=np.float32)[np.zeros(84, dtype=int)] for n in sizes], 1)
    assert scores(logits, labels, categories, loss=0.5).mean_class_accuracy == pytest.approx(6 / 26)


def test_counting_batch_by_batch_is_counting_at_once():
    logits, labels = torch.randn(30, 5), torch.stack([torch.randint(3, (30,)), torch.randint(2, (30,))], 1)
    whole, parts = Tally([3, 2]), Tally([3, 2])
    whole.update(logits, labels)
    for start in range(0, 30, 7):
        parts.update(logits[start : start + 7], labels[start : start + 7])
    assert torch.equal(whole.counts, parts.counts)


def test_a_tally_counts_what_was_true_what_was_said_and_what_was_both():
    tally = Tally([3, 2])
    tally.update(torch.tensor([[0.0, 0, 9, 9, 0]]), torch.tensor([[1, 0]]))
    counts = tally.counts.view(3, 5).tolist()
    assert counts[TRUE] == [0, 1, 0, 1, 0]
    assert counts[PREDICTED] == [0, 0, 1, 1, 0]
    assert counts[HITS] == [0, 0, 0, 1, 0]


def test_a_tally_on_the_device_agrees_with_scores_in_memory():
    logits, labels = torch.randn(30, 5), torch.stack([torch.randint(3, (30,)), torch.randint(2, (30,))], 1)
    tally = Tally([3, 2])
    tally.update(logits, labels)
    assert tally.scores([c.name for c in CATEGORIES], 0.5) == scores(
        logits.numpy(), labels.numpy(), CATEGORIES, loss=0.5
    )


def test_thousands_of_classes_cost_no_square():
    assert Tally([100_000]).counts.numel() == 300_000


def test_no_image_at_all_is_no_division_by_zero():
    assert Tally([3, 2]).scores(["sleeve", "fit"], 0.0).overall_accuracy == 0
