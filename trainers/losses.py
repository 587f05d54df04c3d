"""What is minimised: losses of one category, and their combination over categories."""

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from trainers.config import ClassWeights, CrossEntropy, Focal, Loss

Counts = Sequence[Sequence[int]]
Objective = Callable[[Tensor, Tensor], Tensor]


def cross_entropy(logits: Tensor, labels: Tensor, *, smoothing: float = 0.0) -> Tensor:
    """Cross entropy of each image in one category, with label smoothing (Szegedy et al. 2016).

    logits [B, C] float, labels [B] int64 in 0..C-1 -> [B] float32.
    """
    return F.cross_entropy(logits.float(), labels, reduction="none", label_smoothing=smoothing)


def focal(logits: Tensor, labels: Tensor, *, gamma: float) -> Tensor:
    """Focal loss of each image in one category (Lin et al. 2017); gamma=0 is cross entropy.

    logits [B, C] float, labels [B] int64 in 0..C-1 -> [B] float32.
    """
    nll = F.cross_entropy(logits.float(), labels, reduction="none")
    if gamma == 0:
        return nll
    miss = -torch.expm1(-nll)  # 1 - p(true class)
    return miss.clamp_min(1e-6) ** gamma * nll  # unclamped, 0 < gamma < 1 gives NaN gradients


def class_weights(counts: Sequence[int], kind: ClassWeights, *, beta: float = 0.999) -> Tensor:
    """Weight of each class of one category, scaled so that its mean over the counted images is 1.

    counts [C] images a class -> [C] float32. inverse_frequency: N / (C n); effective_number:
    (1 - beta) / (1 - beta^n) up to scale (Cui et al. 2019). A class without images weighs as if it had one.
    """
    n = torch.tensor([max(1, count) for count in counts], dtype=torch.float64)
    if kind == "none":
        return torch.ones(len(counts))
    if kind == "inverse_frequency":
        raw = 1 / n
    else:
        raw = -(1 - beta) / torch.expm1(n * math.log(beta)) if beta else torch.ones_like(n)
    seen = torch.tensor(counts, dtype=torch.float64)
    return (raw * seen.sum() / (raw * seen).sum()).float()


def build(
    config: Loss, names: Sequence[str], counts: Counts, device: torch.device, *, smooth: bool = True
) -> Objective:
    """The objective of each image over all categories: (logits [B, sum C], labels [B, K]) -> [B] float32.

    names [K] and counts [K][C] are the categories' and their training images a class. `smooth=False` leaves label
    smoothing out, as evaluation does.
    """
    sizes = [len(count) for count in counts]
    weights = [class_weights(count, config.class_weights, beta=config.beta).to(device) for count in counts]
    factors = category_factors(config, names)
    one = _one(config, smooth)

    def objective(logits: Tensor, labels: Tensor) -> Tensor:
        parts = torch.split(logits.float(), sizes, dim=1)
        total = torch.zeros(len(logits), device=logits.device)
        for k, part in enumerate(parts):
            total = total + factors[k] * weights[k][labels[:, k]] * one(part, labels[:, k])
        return total

    return objective


def category_factors(config: Loss, names: Sequence[str]) -> list[float]:
    """Factor of each category's loss: its category weight, over the number of categories when they are averaged."""
    given = config.category_weights or {}
    share = 1 / len(names) if config.over_categories == "mean" else 1.0
    return [given.get(name, 1.0) * share for name in names]


def _one(config: Loss, smooth: bool) -> Objective:
    match config:
        case Focal(gamma=gamma):
            return lambda logits, labels: focal(logits, labels, gamma=gamma)
        case CrossEntropy(label_smoothing=smoothing):
            return lambda logits, labels: cross_entropy(logits, labels, smoothing=smoothing if smooth else 0.0)
        case _:
            raise ValueError(f"no function for the loss {config.name}")
