"""Losses of categories with several answers: one sigmoid per class, with flags as labels.

Each takes logits [..., C] float and flags [..., C] int64 (1: the image has the class, 0: it lacks it, -1: unknown)
and returns [...] float32: the sum over the known classes. weights, [C] or [K, C] for K categories, are factors of the
classes that an image has.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

TINY = 1e-6  # smallest base of a power: at 0, an exponent between 0 and 1 has no finite gradient


def binary_cross_entropy(logits: Tensor, flags: Tensor, weights: Tensor, *, smoothing: float = 0.0) -> Tensor:
    """Binary cross entropy, with label smoothing (Szegedy et al. 2016): flags become 1 - s/2 and s/2."""
    has, lacks = -F.logsigmoid(logits), -F.logsigmoid(-logits)
    share = flags.float().lerp(torch.full_like(logits, 0.5), smoothing) if smoothing else flags.float()
    return _known(weights * share * has + (1 - share) * lacks, flags)


def binary_focal(logits: Tensor, flags: Tensor, weights: Tensor, *, gamma: float) -> Tensor:
    """Focal loss (Lin et al. 2017), without its alpha; gamma=0 is binary cross entropy."""
    if gamma == 0:
        return binary_cross_entropy(logits, flags, weights)
    p = logits.sigmoid().clamp(TINY, 1 - TINY)
    has, lacks = -((1 - p) ** gamma) * F.logsigmoid(logits), -(p**gamma) * F.logsigmoid(-logits)
    return _known(torch.where(flags > 0, weights * has, lacks), flags)


def binary_asymmetric(
    logits: Tensor, flags: Tensor, weights: Tensor, *, gamma_positive: float, gamma_negative: float, margin: float
) -> Tensor:
    """Asymmetric loss (Ridnik et al. 2021): an absent class counts less, and costs nothing below the margin."""
    p = logits.sigmoid()
    wrong = (p - margin).clamp_min(0)
    log_right = torch.log1p(-wrong) if margin else F.logsigmoid(-logits)
    has = -((1 - p).clamp_min(TINY) ** gamma_positive) * F.logsigmoid(logits)
    lacks = -(wrong.clamp_min(TINY) ** gamma_negative) * log_right
    return _known(torch.where(flags > 0, weights * has, lacks), flags)


def binary_dice(logits: Tensor, flags: Tensor, weights: Tensor, *, smooth: float) -> Tensor:
    """Dice loss (Milletari et al. 2016) of an image's sigmoids: 1 - (2 sum p y + s) / (sum p^2 + sum y + s).

    The weights count in all three sums.
    """
    p, y = logits.sigmoid() * (flags >= 0), (flags > 0) * weights
    known = torch.where(flags > 0, weights, 1.0)
    return 1 - (2 * (p * y).sum(-1) + smooth) / ((known * p.square()).sum(-1) + y.sum(-1) + smooth)


def _known(losses: Tensor, flags: Tensor) -> Tensor:
    return torch.where(flags >= 0, losses, 0).sum(-1)
