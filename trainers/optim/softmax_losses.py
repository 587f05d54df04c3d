"""Losses of categories with one answer: one softmax per category, with a class as the label.

Each takes logits [..., C] float and labels [...] int64 in 0..C-1, and returns [...] float32. Categories of unequal
size form one tensor as wide as the largest, [B, K, C], in which classes that a category does not have are -inf: they
have no probability, cost nothing and get no gradient.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from trainers.optim.binary_losses import TINY

Over = Literal["softmax", "sigmoid"]


def cross_entropy(logits: Tensor, labels: Tensor, *, smoothing: float = 0.0, spread: Tensor | None = None) -> Tensor:
    """Cross entropy of each image, with label smoothing (Szegedy et al. 2016).

    spread [K, C] is the smoothing probability of each class: smoothing over the number of classes of its category, 0
    for padding; by default, smoothing / C.
    """
    log_p = F.log_softmax(_wide(logits), -1)
    nll = F.nll_loss(log_p.flatten(0, -2), labels.flatten(), reduction="none").view(labels.shape)
    if not smoothing:
        return nll
    if spread is None:
        return (1 - smoothing) * nll - log_p.sum(-1) * (smoothing / logits.shape[-1])
    return (1 - smoothing) * nll - _only(spread > 0, log_p).sum(-1) * spread[:, 0]


def focal(logits: Tensor, labels: Tensor, *, gamma: float) -> Tensor:
    """Focal loss of each image (Lin et al. 2017); gamma=0 is cross entropy."""
    nll = cross_entropy(logits, labels)
    if gamma == 0:
        return nll
    miss = -torch.expm1(-nll)  # 1 - p(true class)
    return miss.clamp_min(TINY) ** gamma * nll


def asymmetric(
    logits: Tensor,
    labels: Tensor,
    *,
    over: Over,
    gamma_positive: float,
    gamma_negative: float,
    margin: float,
    real: Tensor | None = None,
) -> Tensor:
    """Asymmetric loss of each image (Ridnik et al. 2021), summed over the classes of a category.

    The class that an image has costs -(1 - p)^gamma_positive log p, every other one -q^gamma_negative log(1 - q) with
    q = max(p - margin, 0). p comes from one sigmoid per class, as in the paper, or from the softmax. Without gammas
    and margin, the sigmoid form is binary cross entropy, and the softmax form of two classes is twice the cross
    entropy. If no other class is above the margin, the softmax form is the focal loss. real [K, C] marks the classes
    that exist, by default all.
    """
    log_p, log_miss = log_chances(_wide(logits), over)  # [..., C], log p and log(1 - p)
    wrong = (log_p.exp() - margin).clamp_min(0)
    log_right = torch.log1p(-wrong) if margin else log_miss
    has = -(log_miss.exp().clamp_min(TINY) ** gamma_positive) * _only(real, log_p)
    lacks = -(wrong.clamp_min(TINY) ** gamma_negative) * log_right
    true = F.one_hot(labels, logits.shape[-1]).bool()
    return torch.where(true, has, lacks).sum(-1)


def log_chances(logits: Tensor, over: Over) -> tuple[Tensor, Tensor]:
    """Return log p and log(1 - p), [..., C] each: finite for any logits, because no 1 - p is rounded to 0."""
    if over == "sigmoid":
        return F.logsigmoid(logits), F.logsigmoid(-logits)
    log_p = F.log_softmax(logits, -1)
    top = F.one_hot(log_p.argmax(-1), logits.shape[-1]).bool()  # the only class whose p can come near 1
    least = torch.finfo(log_p.dtype).min  # finite: a class without an alternative has a gradient, of 0
    others = log_p.masked_fill(top, least).logsumexp(-1, keepdim=True)
    return log_p, torch.where(top, others, torch.log1p(-log_p.exp().masked_fill(top, 0)))


def dice(logits: Tensor, labels: Tensor, *, smooth: float) -> Tensor:
    """Dice loss of each image's softmax (Milletari et al. 2016), 0 to 1; for certain predictions, it is the error.

    It is 1 - (2 p(true) + s) / (sum p^2 + 1 + s).
    """
    p = _wide(logits).softmax(-1)
    true = p.gather(-1, labels[..., None])[..., 0]
    return 1 - (2 * true + smooth) / (p.square().sum(-1) + 1 + smooth)


def logit_adjusted(
    logits: Tensor,
    labels: Tensor,
    log_prior: Tensor,
    *,
    tau: float,
    smoothing: float = 0.0,
    spread: Tensor | None = None,
) -> Tensor:
    """Cross entropy of logits + tau log(prior) of each image (Menon et al. 2021).

    log_prior [C] or [K, C]; smoothing and spread as for cross entropy, to which it reduces with tau=0 or a uniform
    prior. With tau=1 the best logits of an uninformative image are all equal, whatever the prior.
    """
    return cross_entropy(_wide(logits) + tau * log_prior, labels, smoothing=smoothing, spread=spread)


def _wide(logits: Tensor) -> Tensor:
    """Convert 16-bit logits to float32; wider ones stay as they are."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _only(real: Tensor | None, x: Tensor) -> Tensor:
    """Return `x` [..., K, C] for the classes that exist, and 0 for the others."""
    return x if real is None else torch.where(real, x, 0)
