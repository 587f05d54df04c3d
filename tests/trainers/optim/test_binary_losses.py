"""Losses of missing and of several answers, against plain second computations."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torchvision.ops import sigmoid_focal_loss

from trainers.config import TrainConfig
from trainers.optim import binary_losses, losses, softmax_losses

CPU = torch.device("cpu")
RNG = np.random.default_rng(0)
LOGITS = torch.from_numpy(RNG.normal(scale=3, size=(40, 5))).float()
FLAGS = torch.from_numpy(RNG.integers(0, 2, (40, 5)))
ONES = torch.ones(5)
SETTINGS = [
    {"name": "cross_entropy"},
    {"name": "cross_entropy", "label_smoothing": 0.2},
    {"name": "focal", "gamma": 1.5},
    {"name": "asymmetric"},
    {"name": "dice"},
    {"name": "logit_adjusted"},
]
NAMES, COUNTS, MULTI = ["sleeve", "tags", "fit"], [[5, 3, 2], [4, 1, 9, 2], [6, 4]], [False, True, False]


def loss(settings, **more):
    config = TrainConfig(backbone="resnet18", loss=settings)
    return losses.build(config.loss, NAMES, COUNTS, CPU, multi=MULTI, **more)


def drawn(images=30):
    """Logits of 3 + 4 + 2 classes, and complete labels of them: a class, four flags, a class."""
    logits = torch.from_numpy(RNG.normal(size=(images, 9))).float()
    single = [RNG.integers(0, 3, (images, 1)), RNG.integers(0, 2, (images, 4)), RNG.integers(0, 2, (images, 1))]
    return logits, torch.from_numpy(np.concatenate(single, axis=1))


# ------------------------------------------------------------------------------- the functions themselves
def test_binary_cross_entropy_is_torchs():
    wanted = F.binary_cross_entropy_with_logits(LOGITS, FLAGS.float(), reduction="none").sum(1)
    torch.testing.assert_close(binary_losses.binary_cross_entropy(LOGITS, FLAGS, ONES), wanted)
    weights = torch.tensor([0.5, 1, 2, 4, 8])
    wanted = F.binary_cross_entropy_with_logits(LOGITS, FLAGS.float(), pos_weight=weights, reduction="none").sum(1)
    torch.testing.assert_close(binary_losses.binary_cross_entropy(LOGITS, FLAGS, weights), wanted)


def test_smoothed_flags_are_half_way_to_a_half():
    wanted = F.binary_cross_entropy_with_logits(LOGITS, FLAGS * 0.8 + 0.1, reduction="none").sum(1)
    torch.testing.assert_close(binary_losses.binary_cross_entropy(LOGITS, FLAGS, ONES, smoothing=0.2), wanted)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_is_torchvisions(gamma):
    wanted = sigmoid_focal_loss(LOGITS, FLAGS.float(), alpha=-1, gamma=gamma).sum(1)
    torch.testing.assert_close(binary_losses.binary_focal(LOGITS, FLAGS, ONES, gamma=gamma), wanted)


def test_asymmetric_is_the_formula_of_the_paper():
    p = LOGITS.double().sigmoid()
    moved = (p - 0.05).clamp_min(0)
    wanted = torch.where(FLAGS > 0, -(1 - p) * p.log(), -(moved**4) * (1 - moved).log()).sum(1).float()
    found = binary_losses.binary_asymmetric(LOGITS, FLAGS, ONES, gamma_positive=1.0, gamma_negative=4.0, margin=0.05)
    torch.testing.assert_close(found, wanted)


def test_asymmetric_of_several_answers_is_that_of_one_answer_over_sigmoids():
    labels = torch.arange(40) % 5
    settings = {"gamma_positive": 1.0, "gamma_negative": 4.0, "margin": 0.05}
    wanted = softmax_losses.asymmetric(LOGITS, labels, over="sigmoid", **settings)
    found = binary_losses.binary_asymmetric(LOGITS, F.one_hot(labels, 5), ONES, **settings)
    torch.testing.assert_close(found, wanted)


def test_dice_is_the_ratio_of_sums():
    p, y = LOGITS.double().sigmoid(), FLAGS.double()
    wanted = 1 - (2 * (p * y).sum(1) + 1) / ((p * p).sum(1) + y.sum(1) + 1)
    torch.testing.assert_close(binary_losses.binary_dice(LOGITS, FLAGS, ONES, smooth=1.0), wanted.float())


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_no_logit_however_large_makes_a_loss_or_a_gradient_that_is_no_number(settings):
    logits = torch.tensor([[-1e4, 1e4, 0.0, 100, -100, 50, -50, 1e3, -1e3]], requires_grad=True)
    labels = torch.tensor([[0, 1, 0, -1, 1, 1]])
    value = loss(settings, known=[1.0, 0.75, 1.0])(logits, labels).sum()
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(logits.grad).all()


# ------------------------------------------------------------------------------------------ the objective
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_the_loss_of_an_image_is_the_mean_over_its_categories(settings):
    logits, labels = drawn()
    alone = TrainConfig(backbone="resnet18", loss=settings).loss
    parts = [
        losses.build(alone, [name], [count], CPU, multi=[several])(logits[:, classes], labels[:, columns])
        for name, count, several, classes, columns in zip(
            NAMES,
            COUNTS,
            MULTI,
            (slice(0, 3), slice(3, 7), slice(7, 9)),
            (slice(0, 1), slice(1, 5), slice(5, 6)),
            strict=True,
        )
    ]
    torch.testing.assert_close(loss(settings)(logits, labels), sum(parts) / 3)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_a_missing_answer_costs_nothing_and_learns_nothing(settings):
    logits, labels = drawn(2)
    labels[0, 0], labels[1, 1:5] = -1, -1
    logits.requires_grad_()
    loss(settings, known=[0.5, 0.5, 1.0])(logits, labels).sum().backward()
    silent = logits.grad == 0
    assert silent[0, :3].all()
    assert silent[1, 3:7].all()
    assert not silent[0, 3:].all()
    assert not silent[1, :3].any()


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_the_mean_over_images_is_that_over_the_answers_of_each_category(settings):
    logits, labels = drawn(200)
    labels[:, 0][torch.rand(200) < 0.4] = -1
    labels[:, 1:5][torch.rand(200) < 0.3] = -1
    known = [(labels[:, 0] >= 0).float().mean().item(), (labels[:, 1] >= 0).float().mean().item(), 1.0]
    whole = TrainConfig(backbone="resnet18", loss=settings).loss
    means = []
    for k, (classes, columns) in enumerate(
        [(slice(0, 3), slice(0, 1)), (slice(3, 7), slice(1, 5)), (slice(7, 9), slice(5, 6))]
    ):
        rows = labels[:, columns.start] >= 0
        one = losses.build(whole, [NAMES[k]], [COUNTS[k]], CPU, multi=[MULTI[k]])
        means.append(one(logits[rows][:, classes], labels[rows][:, columns]).mean())
    torch.testing.assert_close(loss(settings, known=known)(logits, labels).mean(), sum(means) / 3)


def test_a_category_that_nobody_answers_costs_nothing():
    logits, labels = drawn()
    labels[:, 0] = -1
    found = loss({"name": "focal"}, known=[0.0, 1.0, 1.0])(logits, labels)
    labels[:, 0] = 2
    wanted = loss({"name": "focal"})(logits, labels) - loss({"name": "focal"}, known=[1.0, 0.0, 0.0])(logits, labels)
    torch.testing.assert_close(found, wanted)


def test_a_single_flag_may_be_missing():
    logits, labels = drawn(1)
    labels[0, 2] = -1
    alone = losses.build(TrainConfig(backbone="x").loss, ["tags"], [COUNTS[1]], CPU, multi=[True], known=[0.75])
    each = F.binary_cross_entropy_with_logits(logits[:, 3:7], labels[:, 1:5].float(), reduction="none")[0]
    found = alone(logits[:, 3:7], labels[:, 1:5]).item()
    assert found == pytest.approx((each.sum() - each[1]).item() / 0.75, rel=1e-5)


def test_what_is_complete_is_computed_as_if_nothing_could_be_missing():
    logits, labels = drawn()
    both = [loss({"name": "focal"}, known=known)(logits, labels) for known in (None, [1.0] * 3)]
    assert torch.equal(*both)


def test_class_weights_weigh_the_images_that_have_a_class():
    config = TrainConfig(backbone="x", loss={"name": "cross_entropy", "class_weights": "inverse_frequency"}).loss
    one = losses.build(config, ["tags"], [[1, 3]], CPU, multi=[True])
    found = one(torch.zeros(3, 2), torch.tensor([[0, 0], [1, 0], [0, 1]]))
    half = math.log(2)
    np.testing.assert_allclose(found.numpy(), [2 * half, 2 * half + half, 2 * half - half / 3], rtol=1e-6)
