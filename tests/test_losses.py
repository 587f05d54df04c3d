import pytest
import torch
import torch.nn.functional as F

from trainers import losses
from trainers.config import CrossEntropy, Focal

LOGITS, LABELS = torch.randn(7, 5, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 3, 4, 0, 1])
CPU = torch.device("cpu")


def test_cross_entropy_is_torchs():
    theirs = F.cross_entropy(LOGITS, LABELS, reduction="none")
    torch.testing.assert_close(losses.cross_entropy(LOGITS, LABELS), theirs)


def test_smoothed_cross_entropy_mixes_in_the_mean_over_classes():
    log = F.log_softmax(LOGITS, 1)
    expected = -0.8 * log.gather(1, LABELS[:, None])[:, 0] - 0.2 * log.mean(1)
    torch.testing.assert_close(losses.cross_entropy(LOGITS, LABELS, smoothing=0.2), expected)


def test_focal_with_gamma_zero_is_cross_entropy():
    torch.testing.assert_close(losses.focal(LOGITS, LABELS, gamma=0.0), losses.cross_entropy(LOGITS, LABELS))


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0, 5.0])
def test_focal_is_the_papers_formula(gamma):
    p = LOGITS.softmax(1).gather(1, LABELS[:, None])[:, 0]
    torch.testing.assert_close(losses.focal(LOGITS, LABELS, gamma=gamma), -((1 - p) ** gamma) * p.log())


@pytest.mark.parametrize("gamma", [0.1, 0.5, 2.0])
def test_focal_has_finite_gradients_for_a_certain_prediction(gamma):
    logits = torch.tensor([[200.0, 0.0]], requires_grad=True)
    losses.focal(logits, torch.tensor([0]), gamma=gamma).sum().backward()
    assert torch.isfinite(logits.grad).all()


def test_inverse_frequency_weighs_every_class_alike_in_sum():
    counts = [10, 20, 70]
    weights = losses.class_weights(counts, "inverse_frequency")
    torch.testing.assert_close(weights * torch.tensor(counts), torch.full((3,), 100 / 3))


def test_effective_number_is_the_papers_formula_up_to_scale():
    counts, beta = [10, 200, 3000], 0.999
    raw = torch.tensor([(1 - beta) / (1 - beta**n) for n in counts])
    weights = losses.class_weights(counts, "effective_number", beta=beta)
    torch.testing.assert_close(weights / weights[0], raw / raw[0], rtol=1e-4, atol=0)


def test_effective_number_with_beta_zero_weighs_all_classes_alike():
    torch.testing.assert_close(losses.class_weights([1, 9], "effective_number", beta=0.0), torch.ones(2))


def test_effective_number_is_finite_for_every_beta_below_one():
    assert torch.isfinite(losses.class_weights([3, 50], "effective_number", beta=1 - 1e-12)).all()


@pytest.mark.parametrize("kind", ["none", "inverse_frequency", "effective_number"])
def test_class_weights_have_mean_one_over_the_images(kind):
    counts = [1, 5, 94]
    weights = losses.class_weights(counts, kind)
    assert float((weights * torch.tensor(counts)).sum() / 100) == pytest.approx(1)


@pytest.mark.parametrize("kind", ["inverse_frequency", "effective_number"])
def test_a_class_without_images_has_a_finite_weight(kind):
    assert torch.isfinite(losses.class_weights([0, 5, 5], kind)).all()


def objective(config, counts=((4, 6), (3, 3, 4)), **more):
    return losses.build(config, ["sleeve", "fit"], counts, CPU, **more)


def test_the_objective_is_the_mean_over_categories():
    logits, labels = torch.randn(6, 5), torch.stack([torch.arange(6) % 2, torch.arange(6) % 3], 1)
    parts = [
        F.cross_entropy(logits[:, :2], labels[:, 0], reduction="none"),
        F.cross_entropy(logits[:, 2:], labels[:, 1], reduction="none"),
    ]
    torch.testing.assert_close(objective(CrossEntropy())(logits, labels), (parts[0] + parts[1]) / 2)
    torch.testing.assert_close(objective(CrossEntropy(over_categories="sum"))(logits, labels), parts[0] + parts[1])


def test_a_category_weight_of_zero_silences_the_category():
    loss = objective(Focal(category_weights={"fit": 0.0}))
    logits, labels = torch.randn(6, 5, requires_grad=True), torch.zeros(6, 2, dtype=torch.int64)
    loss(logits, labels).sum().backward()
    assert (logits.grad[:, 2:] == 0).all()
    assert (logits.grad[:, :2] != 0).any()


def test_doubling_the_batch_changes_nothing():
    loss = objective(Focal(class_weights="inverse_frequency"))
    logits, labels = torch.randn(6, 5), torch.randint(2, (6, 2))
    twice = loss(logits.repeat(2, 1), labels.repeat(2, 1)).mean()
    torch.testing.assert_close(twice, loss(logits, labels).mean())


def test_evaluation_leaves_label_smoothing_out():
    logits, labels = torch.randn(6, 5), torch.randint(2, (6, 2))
    smoothed = objective(CrossEntropy(label_smoothing=0.3), smooth=False)
    torch.testing.assert_close(smoothed(logits, labels), objective(CrossEntropy())(logits, labels))


def test_sixteen_bit_logits_are_judged_in_full_precision():
    labels = torch.randint(2, (6, 2))
    assert objective(Focal())(torch.randn(6, 5).bfloat16(), labels).dtype == torch.float32
