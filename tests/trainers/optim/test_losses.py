import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from trainers.config import Asymmetric, CrossEntropy, Dice, Focal, LogitAdjusted
from trainers.optim import frequency, losses, softmax_losses

LOGITS, LABELS = torch.randn(7, 5, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 3, 4, 0, 1])
CPU = torch.device("cpu")
EVERY = [CrossEntropy(), Focal(), Asymmetric(), Asymmetric(over="sigmoid"), Dice(), LogitAdjusted()]
BARE = {"gamma_positive": 0.0, "gamma_negative": 0.0, "margin": 0.0}


def class_weights(*given, **more):
    return torch.from_numpy(frequency.class_weights(*given, **more)).float()


def log_prior(counts):
    return torch.from_numpy(frequency.log_prior([counts]))


def test_cross_entropy_is_torchs():
    theirs = F.cross_entropy(LOGITS, LABELS, reduction="none")
    torch.testing.assert_close(softmax_losses.cross_entropy(LOGITS, LABELS), theirs)


def test_smoothed_cross_entropy_mixes_in_the_mean_over_classes():
    log = F.log_softmax(LOGITS, 1)
    expected = -0.8 * log.gather(1, LABELS[:, None])[:, 0] - 0.2 * log.mean(1)
    torch.testing.assert_close(softmax_losses.cross_entropy(LOGITS, LABELS, smoothing=0.2), expected)


def test_focal_with_gamma_zero_is_cross_entropy():
    torch.testing.assert_close(
        softmax_losses.focal(LOGITS, LABELS, gamma=0.0), softmax_losses.cross_entropy(LOGITS, LABELS)
    )


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0, 5.0])
def test_focal_is_the_papers_formula(gamma):
    p = LOGITS.softmax(1).gather(1, LABELS[:, None])[:, 0]
    torch.testing.assert_close(softmax_losses.focal(LOGITS, LABELS, gamma=gamma), -((1 - p) ** gamma) * p.log())


@pytest.mark.parametrize("gamma", [0.1, 0.5, 2.0])
def test_focal_has_finite_gradients_for_a_certain_prediction(gamma):
    logits = torch.tensor([[200.0, 0.0]], requires_grad=True)
    softmax_losses.focal(logits, torch.tensor([0]), gamma=gamma).sum().backward()
    assert torch.isfinite(logits.grad).all()


# ------------------------------------------------------------------------------------------ asymmetric
def papers_asymmetric(p, labels, positive, negative, margin):
    """Equations 5 to 7 of Ridnik et al. 2021, in NumPy and double precision."""
    p, true = p.double().numpy(), np.eye(p.shape[1], dtype=bool)[labels.numpy()]
    q = np.maximum(p - margin, 0)
    each = np.where(true, (1 - p) ** positive * np.log(p), q**negative * np.log(1 - q))
    return torch.from_numpy(-each.sum(1)).float()


@pytest.mark.parametrize("over", ["softmax", "sigmoid"])
@pytest.mark.parametrize(("positive", "negative", "margin"), [(1, 4, 0.05), (0, 4, 0.05), (0.5, 2, 0), (0, 0, 0.2)])
def test_asymmetric_is_the_papers_formula(over, positive, negative, margin):
    p = LOGITS.softmax(1) if over == "softmax" else LOGITS.sigmoid()
    ours = softmax_losses.asymmetric(
        LOGITS, LABELS, over=over, gamma_positive=positive, gamma_negative=negative, margin=margin
    )
    torch.testing.assert_close(ours, papers_asymmetric(p, LABELS, positive, negative, margin))


def test_bare_asymmetric_over_sigmoids_is_binary_cross_entropy():
    true = F.one_hot(LABELS, 5).float()
    theirs = F.binary_cross_entropy_with_logits(LOGITS, true, reduction="none").sum(1)
    torch.testing.assert_close(softmax_losses.asymmetric(LOGITS, LABELS, over="sigmoid", **BARE), theirs)


@pytest.mark.parametrize("scale", [1.0, 30.0, 1e4])
def test_bare_asymmetric_over_a_softmax_of_two_is_twice_the_cross_entropy(scale):
    logits, labels = LOGITS[:, :2] * scale, LABELS % 2
    ours = softmax_losses.asymmetric(logits, labels, over="softmax", **BARE)
    torch.testing.assert_close(ours, 2 * softmax_losses.cross_entropy(logits, labels))


@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.0])
def test_asymmetric_over_a_softmax_is_focal_where_no_class_is_above_the_margin(gamma):
    ours = softmax_losses.asymmetric(
        LOGITS, LABELS, over="softmax", gamma_positive=gamma, gamma_negative=4.0, margin=0.9999
    )
    torch.testing.assert_close(ours, softmax_losses.focal(LOGITS, LABELS, gamma=gamma))


# ------------------------------------------------------------------------------------------ dice
def test_dice_is_the_papers_formula():
    p, true = LOGITS.softmax(1), F.one_hot(LABELS, 5).float()
    expected = 1 - (2 * (p * true).sum(1) + 0.5) / ((p**2).sum(1) + (true**2).sum(1) + 0.5)
    torch.testing.assert_close(softmax_losses.dice(LOGITS, LABELS, smooth=0.5), expected)


def test_dice_of_certain_predictions_is_their_error():
    ours = softmax_losses.dice(1e4 * torch.eye(3), torch.tensor([0, 1, 1]), smooth=0.0)
    torch.testing.assert_close(ours, torch.tensor([0.0, 0.0, 1.0]))


# ------------------------------------------------------------------------------------------ logit adjustment
def adjusted(logits, labels, counts, **settings):
    return softmax_losses.logit_adjusted(logits, labels, log_prior(counts), **settings)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_logit_adjustment_of_strength_zero_is_cross_entropy(smoothing):
    ours = adjusted(LOGITS, LABELS, [9, 5, 3, 2, 1], tau=0.0, smoothing=smoothing)
    torch.testing.assert_close(ours, softmax_losses.cross_entropy(LOGITS, LABELS, smoothing=smoothing))


@pytest.mark.parametrize("tau", [0.5, 1.0, 3.0])
def test_logit_adjustment_of_balanced_classes_is_cross_entropy(tau):
    torch.testing.assert_close(
        adjusted(LOGITS, LABELS, [7] * 5, tau=tau), softmax_losses.cross_entropy(LOGITS, LABELS)
    )


@pytest.mark.parametrize("tau", [0.0, 0.7, 1.0, 2.0])
def test_the_best_logits_without_an_image_are_the_priors_of_which_the_adjustment_takes_tau(tau):
    counts = [60, 30, 9, 1]
    bias = ((1 - tau) * log_prior(counts)).requires_grad_()
    labels = torch.repeat_interleave(torch.arange(4), torch.tensor(counts))
    adjusted(bias.expand(100, 4), labels, counts, tau=tau).mean().backward()
    torch.testing.assert_close(bias.grad, torch.zeros(4), atol=1e-6, rtol=0)


def test_the_prior_of_a_class_without_images_is_that_of_one_image():
    torch.testing.assert_close(log_prior([0, 3]).exp(), torch.tensor([0.25, 0.75]))


def test_every_category_is_adjusted_by_its_own_prior():
    logits, labels = torch.randn(6, 5), torch.stack([torch.arange(6) % 2, torch.arange(6) % 3], 1)
    ours = objective(LogitAdjusted(category_reduction="sum"), ((4, 6), (8, 1, 1)))(logits, labels)
    parts = [
        adjusted(logits[:, :2], labels[:, 0], (4, 6), tau=1.0),
        adjusted(logits[:, 2:], labels[:, 1], (8, 1, 1), tau=1.0),
    ]
    torch.testing.assert_close(ours, parts[0] + parts[1])


# ------------------------------------------------------------------------------------------ every loss
FUNCTIONS = {
    "cross_entropy": lambda z, y: softmax_losses.cross_entropy(z, y, smoothing=0.1),
    "focal": lambda z, y: softmax_losses.focal(z, y, gamma=2.0),
    "dice": lambda z, y: softmax_losses.dice(z, y, smooth=1.0),
    "logit_adjusted": lambda z, y: adjusted(z, y, [9, 5, 3, 2, 1], tau=1.0),
} | {
    f"asymmetric {over} {gp} {gn} {margin}": lambda z, y, o=over, p=gp, n=gn, m=margin: softmax_losses.asymmetric(
        z, y, over=o, gamma_positive=p, gamma_negative=n, margin=m
    )
    for over, (gp, gn, margin) in itertools.product(["softmax", "sigmoid"], [(1, 4, 0.05), (0.5, 0.5, 0), (0, 0, 0)])
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_gradient_is_the_slope_in_double_precision(name):
    assert torch.autograd.gradcheck(lambda z: FUNCTIONS[name](z, LABELS), LOGITS.double().requires_grad_())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_extreme_logits_have_finite_losses_and_gradients(name, dtype):
    rows = [[1e4, -1e4, 0, 0, 0], [1e4, 1e4, 1e4, 1e4, 1e4], [-1e4] * 5, [0.0] * 5, [-1e4, 1e4, 50, -50, 0]]
    logits = torch.tensor(rows * 2, dtype=dtype, requires_grad=True)
    loss = FUNCTIONS[name](logits, torch.tensor([0, 1, 2, 3, 1, 1, 0, 4, 4, 0]))
    assert loss.dtype == torch.float32
    assert torch.isfinite(loss).all()
    loss.sum().backward()
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("config", EVERY, ids=lambda config: config.name)
def test_every_loss_falls_as_the_right_class_leads(config):
    logits, labels = torch.zeros(4, 5), torch.tensor([[0, 0], [1, 2], [0, 1], [1, 1]])
    lead = torch.cat([F.one_hot(labels[:, 0], 2), F.one_hot(labels[:, 1], 3)], 1)
    found = [objective(config)(logits + by * lead, labels) for by in (-2, 0, 2, 4)]
    assert all((worse > better).all() for worse, better in itertools.pairwise(found))


@pytest.mark.parametrize("config", EVERY, ids=lambda config: config.name)
def test_category_and_class_weights_are_factors_of_every_loss(config):
    logits, labels = torch.randn(6, 5), torch.stack([torch.arange(6) % 2, torch.arange(6) % 3], 1)

    def of(**settings):
        config_ = config.model_copy(update={"category_reduction": "sum", "category_weights": {"fit": 0.0}} | settings)
        return objective(config_)(logits, labels)

    weights = class_weights((4, 6), "inverse_frequency")[labels[:, 0]]
    torch.testing.assert_close(of(class_weights="inverse_frequency"), weights * of())
    torch.testing.assert_close(of(category_weights={"sleeve": 0.7, "fit": 0.0}), 0.7 * of())
    torch.testing.assert_close(of(category_reduction="mean"), of() / 2)


# ------------------------------------------------------------------------------------------ weights
def test_inverse_frequency_weighs_every_class_alike_in_sum():
    counts = [10, 20, 70]
    weights = class_weights(counts, "inverse_frequency")
    torch.testing.assert_close(weights * torch.tensor(counts), torch.full((3,), 100 / 3))


def test_effective_number_is_the_papers_formula_up_to_scale():
    counts, beta = [10, 200, 3000], 0.999
    raw = torch.tensor([(1 - beta) / (1 - beta**n) for n in counts])
    weights = class_weights(counts, "effective_number", beta=beta)
    torch.testing.assert_close(weights / weights[0], raw / raw[0], rtol=1e-4, atol=0)


def test_effective_number_with_beta_zero_weighs_all_classes_alike():
    torch.testing.assert_close(class_weights([1, 9], "effective_number", beta=0.0), torch.ones(2))


def test_effective_number_is_finite_for_every_beta_below_one():
    assert torch.isfinite(class_weights([3, 50], "effective_number", beta=1 - 1e-12)).all()


@pytest.mark.parametrize("kind", ["none", "inverse_frequency", "effective_number"])
def test_class_weights_have_mean_one_over_the_images(kind):
    counts = [1, 5, 94]
    weights = class_weights(counts, kind)
    assert float((weights * torch.tensor(counts)).sum() / 100) == pytest.approx(1)


@pytest.mark.parametrize("kind", ["inverse_frequency", "effective_number"])
def test_a_class_without_images_has_a_finite_weight(kind):
    assert torch.isfinite(class_weights([0, 5, 5], kind)).all()


def objective(config, counts=((4, 6), (3, 3, 4)), **more):
    return losses.build(config, ["sleeve", "fit"], counts, CPU, **more)


def test_the_objective_is_the_mean_over_categories():
    logits, labels = torch.randn(6, 5), torch.stack([torch.arange(6) % 2, torch.arange(6) % 3], 1)
    parts = [
        F.cross_entropy(logits[:, :2], labels[:, 0], reduction="none"),
        F.cross_entropy(logits[:, 2:], labels[:, 1], reduction="none"),
    ]
    torch.testing.assert_close(objective(CrossEntropy())(logits, labels), (parts[0] + parts[1]) / 2)
    torch.testing.assert_close(objective(CrossEntropy(category_reduction="sum"))(logits, labels), parts[0] + parts[1])


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


def test_evaluation_leaves_smoothing_out_of_the_adjusted_loss_and_keeps_its_prior():
    logits, labels = torch.randn(6, 5), torch.randint(2, (6, 2))
    smoothed = objective(LogitAdjusted(label_smoothing=0.3), smooth=False)(logits, labels)
    torch.testing.assert_close(smoothed, objective(LogitAdjusted())(logits, labels))
    assert not torch.allclose(smoothed, objective(CrossEntropy())(logits, labels))


def test_sixteen_bit_logits_are_judged_in_full_precision():
    labels = torch.randint(2, (6, 2))
    assert objective(Focal())(torch.randn(6, 5).bfloat16(), labels).dtype == torch.float32


@pytest.mark.parametrize("margin", [0.0, 0.05])
def test_a_category_of_one_class_teaches_nothing(margin):
    logits = torch.randn(4, 1, requires_grad=True)
    loss = softmax_losses.asymmetric(
        logits, torch.zeros(4, dtype=torch.int64), over="softmax", gamma_positive=1, gamma_negative=4, margin=margin
    )
    loss.sum().backward()
    assert loss.tolist() == [0.0] * 4
    assert logits.grad.tolist() == [[0.0]] * 4
