"""The losses of all categories at once, against each category alone, by its plain formula in double precision."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from trainers.config import Asymmetric, CrossEntropy, Dice, Focal, LogitAdjusted
from trainers.optim import frequency, losses
from trainers.optim.padding import Padding

CPU = torch.device("cpu")
WEIGHTS = {"class_weights": "inverse_frequency", "category_weights": {"c0": 0.3, "c2": 2.0}}
CONFIGS = [
    CrossEntropy(),
    CrossEntropy(label_smoothing=0.2, **WEIGHTS),
    Focal(gamma=0.5, **WEIGHTS),
    Focal(category_reduction="sum"),
    Asymmetric(**WEIGHTS),
    Asymmetric(gamma_positive=0.5, gamma_negative=0.5, margin=0.0),
    Asymmetric(over="sigmoid", **WEIGHTS),
    Asymmetric(over="sigmoid", gamma_positive=0.0, gamma_negative=0.0, margin=0.0),
    Dice(**WEIGHTS),
    LogitAdjusted(tau=0.7, label_smoothing=0.1, **WEIGHTS),
]
SIX = [[50, 30, 20, 10, 5, 3, 2], [50, 30, 40], [60, 20, 40], [30] * 4, [20] * 6, [40] * 3]


# ------------------------------------------------------------------------------- a category alone
def softmax_loss(config, logits, labels, counts):
    """Of each image, [B], by the papers' formulas; logits [B, C] in double precision."""
    smoothing = getattr(config, "label_smoothing", 0.0)
    if isinstance(config, LogitAdjusted):
        logits = logits + config.tau * torch.from_numpy(frequency.log_prior([counts])).double()
    p, log_p = logits.softmax(1), logits.log_softmax(1)
    true = F.one_hot(labels, logits.shape[1]).bool()
    match config:
        case CrossEntropy() | LogitAdjusted():
            return -((1 - smoothing) * log_p[true] + smoothing * log_p.mean(1))
        case Focal(gamma=gamma):
            return -((1 - p[true]).clamp_min(1e-6) ** gamma) * log_p[true]
        case Dice(smooth=s):
            return 1 - (2 * p[true] + s) / (p.square().sum(1) + 1 + s)
        case Asymmetric():
            p = p if config.over == "softmax" else logits.sigmoid()
            q = (p[~true].view(len(p), -1) - config.margin).clamp_min(0)
            has = (1 - p[true]).clamp_min(1e-6) ** config.gamma_positive * p[true].log()
            lacks = q.clamp_min(1e-6) ** config.gamma_negative * (1 - q).log()
            return -has - lacks.sum(1)


def sigmoid_loss(config, logits, flags, weights):
    """The same of several answers: [B], from flags [B, C] of 1, 0 and -1."""
    p, y = logits.sigmoid(), (flags > 0).double()
    known = torch.where(flags > 0, weights, 1.0) * (flags >= 0)
    match config:
        case CrossEntropy(label_smoothing=s) | LogitAdjusted(label_smoothing=s):
            share = y * (1 - s) + s / 2
            return (-(weights * share * p.log() + (1 - share) * (1 - p).log()) * (flags >= 0)).sum(1)
        case Focal(gamma=gamma):
            each = torch.where(flags > 0, (1 - p) ** gamma * p.log(), p**gamma * (1 - p).log())
        case Asymmetric():
            q = (p - config.margin).clamp_min(0)
            lacks = q.clamp_min(1e-6) ** config.gamma_negative * (1 - q).log()
            each = torch.where(flags > 0, (1 - p) ** config.gamma_positive * p.log(), lacks)
        case Dice(smooth=s):
            return 1 - (2 * (known * p * y).sum(1) + s) / ((known * p * p).sum(1) + (known * y).sum(1) + s)
    return -(known * each).sum(1)


def one_by_one(config, logits, labels, counts, multi, known):
    """The sum over categories of factor times loss, [B]."""
    total, classes, answers = torch.zeros(len(logits)).double(), 0, 0
    factors = losses.category_factors(config, names(counts))
    for count, several, share, factor in zip(counts, multi, known, factors, strict=True):
        width = len(count) if several else 1
        x, y = logits[:, classes : classes + len(count)], labels[:, answers : answers + width]
        classes, answers = classes + len(count), answers + width
        weights = torch.from_numpy(frequency.class_weights(count, config.class_weights, beta=config.beta))
        if several:
            found = sigmoid_loss(config, x, y, weights)
        else:
            there, true = y[:, 0] >= 0, y[:, 0].clamp_min(0)
            found = torch.where(there, weights[true] * softmax_loss(config, x, true, count), 0)
        total = total + factor / share * found
    return total


# ------------------------------------------------------------------------------- all at once
def names(counts):
    return [f"c{k}" for k in range(len(counts))]


def drawn(seed, *, several, missing, images=12):
    """Categories of 1 to 9 classes, with a large one or two, and logits and labels of some images."""
    rng = np.random.default_rng(seed)
    sizes = rng.permutation([*rng.integers(1, 10, rng.integers(1, 8)), *(40, 50)[: seed % 3]])
    counts = [rng.integers(1, 30, size).tolist() for size in sizes]
    multi = [bool(several and rng.random() < 0.5) for _ in counts]
    ranges = [(2, len(count)) if kind else (len(count), 1) for kind, count in zip(multi, counts, strict=True)]
    labels = [rng.integers(most, size=(images, width)) for most, width in ranges]
    known = [0.8 if missing and rng.random() < 0.7 else 1.0 for _ in counts]
    for answers, share in zip(labels, known, strict=True):
        answers[rng.random(answers.shape) > share] = -1
    logits = torch.from_numpy(rng.normal(scale=2, size=(images, sum(map(len, counts))))).float()
    return counts, multi, known, logits, torch.from_numpy(np.concatenate(labels, axis=1))


def objective(config, counts, multi=None, known=None, device=CPU):
    return losses.build(config, names(counts), counts, device, multi=multi, known=known)


def with_gradient(loss, logits):
    logits = logits.clone().requires_grad_()
    found = loss(logits)
    found.sum().backward()
    return found.detach(), logits.grad


KINDS = [(several, missing) for several in (False, True) for missing in (False, True)]


@pytest.mark.parametrize(("several", "missing"), KINDS)
@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
def test_all_categories_at_once_are_each_alone(config, several, missing):
    for seed in range(4):
        counts, multi, known, logits, labels = drawn(seed, several=several, missing=missing)
        at_once = objective(config, counts, multi, known)
        found, slope = with_gradient(lambda x, f=at_once, y=labels: f(x, y), logits)
        wanted, slope_wanted = with_gradient(
            lambda x, y=labels, more=(counts, multi, known): one_by_one(config, x, y, *more), logits.double()
        )
        assert found.dtype == torch.float32
        torch.testing.assert_close(found.double(), wanted, rtol=2e-6, atol=1e-6)
        torch.testing.assert_close(slope.double(), slope_wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_of_one_category_is_torchs_to_the_bit(smoothing):
    logits, labels = torch.randn(20, 7), torch.randint(7, (20, 1))
    found = with_gradient(lambda x: objective(CrossEntropy(label_smoothing=smoothing), SIX[:1])(x, labels), logits)
    more = {"reduction": "none", "label_smoothing": smoothing}
    wanted = with_gradient(lambda x: F.cross_entropy(x, labels[:, 0], **more), logits)
    assert all(map(torch.equal, found, wanted))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
def test_logits_of_sixteen_bits_are_judged_at_once_in_full_precision(config, dtype):
    counts, multi, known, logits, labels = drawn(3, several=True, missing=True)
    at_once = objective(config, counts, multi, known)
    found, slope = with_gradient(lambda x: at_once(x, labels), logits.to(dtype))
    wanted, slope_wanted = with_gradient(lambda x: at_once(x, labels), logits.to(dtype).float())
    assert found.tolist() == wanted.tolist()
    assert slope.tolist() == slope_wanted.to(dtype).tolist()


@pytest.mark.parametrize("scale", [1e4, 1e30])
@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
def test_extreme_logits_beside_padding_have_finite_losses_and_gradients(config, scale):
    counts = [[3], [5, 1, 2, 9], [4, 4]]
    rows = [[0, 1, -1, 0, 0.5, 1, -1], [1, 1, 1, 1, 1, -1, -1], [-1, -1, -1, -1, -1, 0, 1]]
    labels = torch.tensor([[0, 1, 1], [0, 3, 0], [0, 0, -1]])
    for multi in ([False] * 3, [False, False, True]):
        answers = torch.cat([labels[:, :2], labels[:, 2:].expand(3, 2 if multi[2] else 1)], 1)
        at_once = objective(config, counts, multi, [1.0, 1.0, 0.7])
        found, slope = with_gradient(lambda x, f=at_once, y=answers: f(x, y), scale * torch.tensor(rows))
        assert found.isfinite().all()
        assert slope.isfinite().all()


# ------------------------------------------------------------------------------- launches
class Launches(TorchDispatchMode):
    """Counts operations but those that only look at a tensor in another way."""

    VIEWS = ("view", "_unsafe_view", "unsqueeze", "squeeze", "expand", "slice", "select", "detach", "alias", "t")

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func.overloadpacket.__name__ not in self.VIEWS
        return func(*args, **(kwargs or {}))


class Largest(TorchDispatchMode):
    """The size of the largest tensor that an operation makes."""

    def __init__(self):
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.numbers = max(self.numbers, *(x.numel() for x in tree_leaves(out) if isinstance(x, torch.Tensor)), 0)
        return out


def launches(config, counts, multi=None):
    """Forward and backward."""
    at_once = objective(config, counts, multi)
    classes = sum(map(len, counts))
    answers = sum(len(c) if m else 1 for c, m in zip(counts, multi or [False] * len(counts), strict=True))
    logits = torch.zeros(4, classes, requires_grad=True)
    with Launches() as counted:
        at_once(logits, torch.zeros(4, answers, dtype=torch.int64)).mean().backward()
    return counted.count


MOST = {  # of six categories; one by one it would be up to 557
    CrossEntropy(): 20,
    CrossEntropy(label_smoothing=0.1, class_weights="effective_number"): 34,
    Focal(): 38,
    Asymmetric(): 105,
    Asymmetric(over="sigmoid"): 80,
    Dice(): 40,
    LogitAdjusted(label_smoothing=0.1): 38,
}


@pytest.mark.parametrize(("config", "most"), MOST.items(), ids=[config.name for config in MOST])
def test_six_categories_take_few_launches(config, most):
    assert launches(config, SIX) <= most
    assert launches(config, SIX, [True] * 6) <= 80


@pytest.mark.parametrize("config", MOST, ids=lambda config: config.name)
def test_more_categories_take_no_more_launches(config):
    assert launches(config, 3 * SIX) == launches(config, SIX)
    assert launches(config, 3 * SIX, 9 * [True, False]) == launches(config, SIX, 3 * [True, False])


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
def test_the_losses_of_all_categories_ask_for_no_value(config):
    """Tensors of the device meta have none."""
    counts, multi, known, logits, labels = drawn(1, several=True, missing=True)
    at_once = objective(config, counts, multi, known, device=torch.device("meta"))
    found, slope = with_gradient(lambda x: at_once(x, labels.to("meta")), logits.to("meta"))
    assert (found.shape, slope.shape) == (labels.shape[:1], logits.shape)


@pytest.mark.parametrize("kind", [False, True])
def test_a_small_category_is_not_filled_up_to_a_large_one(kind):
    """Twenty times as many numbers would be computed."""
    counts = [[1] * 1000, *[[1] * 3] * 20]
    widest = max(len(one) for one in counts)
    at_once = objective(Asymmetric(), counts, [kind] * 21)
    labels = torch.zeros(1, 1060 if kind else 21, dtype=torch.int64)
    with Largest() as seen:
        at_once(torch.zeros(1, 1060), labels)
    assert seen.numbers <= widest + 60


# ------------------------------------------------------------------------------- the tensor itself
def test_columns_are_filled_up_to_the_widest_category():
    x = torch.arange(1, 7).expand(2, 6)
    padding = Padding([slice(0, 1), slice(3, 6)], CPU)
    assert padding(x, -7).tolist() == 2 * [[[1, -7, -7], [4, 5, 6]]]
    assert padding.real.tolist() == [[True, False, False], [True, True, True]]


def test_categories_of_one_size_are_not_filled_up():
    x = torch.arange(6).expand(2, 6)
    padding = Padding([slice(0, 3), slice(3, 6)], CPU)
    assert padding.real is None
    assert padding(x, -7).tolist() == 2 * [[[0, 1, 2], [3, 4, 5]]]
