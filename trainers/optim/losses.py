"""What is minimised: losses of one category, and their combination over categories."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from trainers import extensions
from trainers.config import Asymmetric, CrossEntropy, CustomLoss, Dice, Focal, LogitAdjusted, Loss
from trainers.optim import frequency
from trainers.optim.binary_losses import (
    TINY,
    binary_asymmetric,
    binary_cross_entropy,
    binary_dice,
    binary_focal,
)
from trainers.support.errors import UserError

Counts = Sequence[Sequence[int]]
Objective = Callable[[Tensor, Tensor], Tensor]
BuiltInLoss = CrossEntropy | Focal | Asymmetric | Dice | LogitAdjusted
Over = Literal["softmax", "sigmoid"]


def cross_entropy(logits: Tensor, labels: Tensor, *, smoothing: float = 0.0) -> Tensor:
    """Cross entropy of each image in one category, with label smoothing (Szegedy et al. 2016).

    logits [B, C] float, labels [B] int64 in 0..C-1 -> [B] float32.
    """
    return F.cross_entropy(_wide(logits), labels, reduction="none", label_smoothing=smoothing)


def focal(logits: Tensor, labels: Tensor, *, gamma: float) -> Tensor:
    """Focal loss of each image in one category (Lin et al. 2017); gamma=0 is cross entropy.

    logits [B, C] float, labels [B] int64 in 0..C-1 -> [B] float32.
    """
    nll = cross_entropy(logits, labels)
    if gamma == 0:
        return nll
    miss = -torch.expm1(-nll)  # 1 - p(true class)
    return miss.clamp_min(TINY) ** gamma * nll


def asymmetric(
    logits: Tensor, labels: Tensor, *, over: Over, gamma_positive: float, gamma_negative: float, margin: float
) -> Tensor:
    """Asymmetric loss of each image in one category (Ridnik et al. 2021), summed over its classes.

    logits [B, C] float, labels [B] int64 in 0..C-1 -> [B] float32. The class an image has costs
    -(1 - p)^gamma_positive log p, every other one -q^gamma_negative log(1 - q) with q = max(p - margin, 0). p is of
    one sigmoid a class, as in the paper, or of the softmax. Without gammas and margin, the sigmoid form is binary
    cross entropy, the softmax form of two classes twice the cross entropy. Where no other class is above the margin,
    the softmax form is the focal loss.
    """
    log_p, log_miss = log_chances(_wide(logits), over)  # [B, C], log p and log(1 - p)
    wrong = (log_p.exp() - margin).clamp_min(0)
    log_right = torch.log1p(-wrong) if margin else log_miss
    has = -(log_miss.exp().clamp_min(TINY) ** gamma_positive) * log_p
    lacks = -(wrong.clamp_min(TINY) ** gamma_negative) * log_right
    true = F.one_hot(labels, logits.shape[1]).bool()
    return torch.where(true, has, lacks).sum(1)


def log_chances(logits: Tensor, over: Over) -> tuple[Tensor, Tensor]:
    """log p and log(1 - p), [B, C] each: finite however large the logits, for no 1 - p is rounded to 0."""
    if over == "sigmoid":
        return F.logsigmoid(logits), F.logsigmoid(-logits)
    log_p = F.log_softmax(logits, 1)
    if logits.shape[1] == 1:
        return log_p, torch.zeros_like(log_p)  # a class without an alternative: nothing to learn
    top = F.one_hot(log_p.argmax(1), logits.shape[1]).bool()  # the only one that can come near 1
    others = log_p.masked_fill(top, -math.inf).logsumexp(1, keepdim=True)
    return log_p, torch.where(top, others, torch.log1p(-log_p.exp().masked_fill(top, 0)))


def dice(logits: Tensor, labels: Tensor, *, smooth: float) -> Tensor:
    """Dice loss of each image's softmax in one category (Milletari et al. 2016), 0 to 1; of certain ones the error.

    logits [B, C] float, labels [B] int64 in 0..C-1 -> [B] float32: 1 - (2 p(true) + s) / (sum p^2 + 1 + s).
    """
    p = _wide(logits).softmax(1)
    true = p.gather(1, labels[:, None])[:, 0]
    return 1 - (2 * true + smooth) / (p.square().sum(1) + 1 + smooth)


def logit_adjusted(
    logits: Tensor, labels: Tensor, log_prior: Tensor, *, tau: float, smoothing: float = 0.0
) -> Tensor:
    """Cross entropy of logits + tau log(prior) of each image in one category (Menon et al. 2021).

    logits [B, C] float, labels [B] int64 in 0..C-1, log_prior [C] -> [B] float32. tau=0, or a uniform prior, is
    cross entropy. At tau=1 the best logits of an image that says nothing are all alike, whatever the prior.
    """
    return cross_entropy(_wide(logits) + tau * log_prior, labels, smoothing=smoothing)


def _wide(logits: Tensor) -> Tensor:
    """Logits of 16 bits in float32; wider ones as they are."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def build(
    config: Loss,
    names: Sequence[str],
    counts: Counts,
    device: torch.device,
    *,
    multi: Sequence[bool] | None = None,
    known: Sequence[float] | None = None,
    smooth: bool = True,
) -> Objective:
    """The objective of each image over all categories: (logits [B, sum C], labels [B, D]) -> [B] float32.

    names [K] are the categories', counts [K][C] the training images of each class, multi [K] says which categories
    have several answers. D labels: the class of a category with one answer, a flag 0/1 for each class of one with
    several, -1 where nobody knows (see `trainers.data.table`). known [K] is the share of the labels that are known
    among the images to come (`Data.known_to`), 1 where it is left out: an image whose answer is missing costs nothing
    in that category, and the others count the more, so that the mean over images is that over answers. `smooth=False`
    leaves label smoothing out, as evaluation does.
    """
    kinds, shares = multi or [False] * len(counts), known or [1.0] * len(counts)
    sizes = [len(count) for count in counts]
    widths = [size if several else 1 for size, several in zip(sizes, kinds, strict=True)]
    factors = [f / share if share else 0.0 for f, share in zip(category_factors(config, names), shares, strict=True)]
    each = [
        (_several if several else _one)(config, count, device, smooth, factor)
        for several, count, factor in zip(kinds, counts, factors, strict=True)
    ]
    masked = _known_alone if isinstance(config, CustomLoss) else _answered
    each = [judge if share == 1 else masked(judge) for judge, share in zip(each, shares, strict=True)]

    def objective(logits: Tensor, labels: Tensor) -> Tensor:
        total = torch.zeros(len(logits), device=logits.device)
        parts = zip(torch.split(logits.float(), sizes, dim=1), torch.split(labels, widths, dim=1), strict=True)
        for judge, (part, answer) in zip(each, parts, strict=True):
            total = total + judge(part, answer)
        return total

    return objective


def _answered(judge: Objective) -> Objective:
    """The same, but nothing for images whose only label is missing; several flags are looked at one by one."""

    def masked(logits: Tensor, labels: Tensor) -> Tensor:
        if labels.shape[1] > 1:
            return judge(logits, labels)
        return torch.where(labels[:, 0] < 0, 0, judge(logits, labels.clamp_min(0)))

    return masked


def _known_alone(judge: Objective) -> Objective:
    """The same of the images that have all their labels alone: a user's loss need not know of missing ones."""

    def filtered(logits: Tensor, labels: Tensor) -> Tensor:
        known = (labels >= 0).all(1)
        total = torch.zeros(len(logits), device=logits.device)
        return total.index_put((known,), judge(logits[known], labels[known])) if bool(known.any()) else total

    return filtered


def custom(config: CustomLoss) -> Objective:
    """A loss of an extension file: (logits [B, C], labels [B] or flags [B, C]) -> [B], or a scalar, their mean.

    Raises UserError where it returns anything else.
    """
    definition = extensions.needed("losses", config.name)
    function = definition.bound(config.model_dump())

    def judge(logits: Tensor, labels: Tensor) -> Tensor:
        found = definition.called(function, logits, labels)
        if not isinstance(found, Tensor) or found.shape not in ((), labels.shape[:1]):
            got = f"a tensor {list(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
            what = f"the loss {config.name} returns {got} for logits {list(logits.shape)}"
            raise UserError(what, where=definition.where, help="return one figure for each image, [B], or their mean")
        return found.float().expand(len(logits))

    return judge


def _weights(config: Loss, count: Sequence[int]) -> Tensor:
    return torch.from_numpy(frequency.class_weights(count, config.class_weights, beta=config.beta)).float()


def words(config: Loss) -> str:
    """A loss and its parameters, for a message."""
    given = config.model_dump(exclude={"name"}).items()
    return " ".join([config.name, *(f"{key}={value}" for key, value in given if value)])


def category_factors(config: Loss, names: Sequence[str]) -> list[float]:
    """Factor of each category's loss: its category weight, over the number of categories when they are averaged."""
    given = config.category_weights or {}
    share = 1 / len(names) if config.category_reduction == "mean" else 1.0
    return [given.get(name, 1.0) * share for name in names]


def _one(config: Loss, counts: Sequence[int], device: torch.device, smooth: bool, factor: float) -> Objective:
    """`factor` times the loss of a category with one answer: (logits [B, C], labels [B, 1]) -> [B]."""
    weights, loss = _weights(config, counts).to(device), _softmax(config, counts, device, smooth)

    def judge(logits: Tensor, labels: Tensor) -> Tensor:
        true = labels[:, 0]
        return factor * weights[true] * loss(logits, true)

    return judge


def _several(config: Loss, counts: Sequence[int], device: torch.device, smooth: bool, factor: float) -> Objective:
    """`factor` times the loss of a category with several answers: (logits [B, C], flags [B, C]) -> [B]."""
    if isinstance(config, CustomLoss):
        return _times(factor, custom(config))
    weights, loss = _weights(config, counts).to(device), _sigmoid(config, smooth)

    def judge(logits: Tensor, flags: Tensor) -> Tensor:
        return factor * loss(logits, flags, weights)

    return judge


def _times(factor: float, loss: Objective) -> Objective:
    return lambda logits, labels: factor * loss(logits, labels)


def _softmax(config: Loss, counts: Sequence[int], device: torch.device, smooth: bool) -> Objective:
    """The loss of a category whose training images of each class are `counts`: (logits [B, C], labels [B]) -> [B]."""
    match config:
        case CrossEntropy(label_smoothing=smoothing):
            return partial(cross_entropy, smoothing=smoothing if smooth else 0.0)
        case Focal(gamma=gamma):
            return partial(focal, gamma=gamma)
        case Asymmetric(over=over, gamma_positive=gp, gamma_negative=gn, margin=margin):
            return partial(asymmetric, over=over, gamma_positive=gp, gamma_negative=gn, margin=margin)
        case Dice(smooth=added):
            return partial(dice, smooth=added)
        case LogitAdjusted(tau=tau, label_smoothing=smoothing):
            prior = torch.from_numpy(frequency.log_prior([counts])).to(device)
            return partial(logit_adjusted, log_prior=prior, tau=tau, smoothing=smoothing if smooth else 0.0)
        case CustomLoss():
            return custom(config)


def _sigmoid(config: BuiltInLoss, smooth: bool) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """The loss of one category: (logits [B, C], flags [B, C], weights [C]) -> [B]; without a prior to adjust for."""
    match config:
        case Focal(gamma=gamma):
            return partial(binary_focal, gamma=gamma)
        case Asymmetric(gamma_positive=gp, gamma_negative=gn, margin=margin):
            return partial(binary_asymmetric, gamma_positive=gp, gamma_negative=gn, margin=margin)
        case Dice(smooth=added):
            return partial(binary_dice, smooth=added)
        case CrossEntropy(label_smoothing=smoothing) | LogitAdjusted(label_smoothing=smoothing):
            return partial(binary_cross_entropy, smoothing=smoothing if smooth else 0.0)
