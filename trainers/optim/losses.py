"""The training objective: the loss of an image, combined over its categories."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from itertools import accumulate

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from trainers import extensions
from trainers.config import Asymmetric, CrossEntropy, CustomLoss, Dice, Focal, LogitAdjusted, Loss
from trainers.optim import frequency
from trainers.optim.binary_losses import (
    binary_asymmetric,
    binary_cross_entropy,
    binary_dice,
    binary_focal,
)
from trainers.optim.padding import Padding
from trainers.optim.softmax_losses import asymmetric, cross_entropy, dice, focal, logit_adjusted
from trainers.support.errors import UserError

Counts = Sequence[Sequence[int]]
Objective = Callable[[Tensor, Tensor], Tensor]
SMALL = 16  # classes: below twice as many, categories share one size group; each doubling starts another
BuiltInLoss = CrossEntropy | Focal | Asymmetric | Dice | LogitAdjusted


@dataclass(frozen=True)
class _Category:
    """The columns of a category, and the values that its loss depends on."""

    classes: slice  # among the logits
    answers: slice  # among the labels
    several: bool
    counts: Sequence[int]  # training images of each class
    factor: float
    complete: bool  # no answer is missing

    def weights(self, config: Loss) -> Tensor:
        """Return the weights of its classes, [C]."""
        return torch.from_numpy(frequency.class_weights(self.counts, config.class_weights, beta=config.beta)).float()


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
    """Return the objective of each image over all categories: (logits [B, sum C], labels [B, D]) -> [B] float32.

    names [K]: names of the categories; counts [K][C]: training images of each class; multi [K]: categories with
    several answers. The D labels are the class of a category with one answer, a flag 0/1 for each class of one with
    several, and -1 if unknown (see `trainers.data.table`). known [K]: the share of known labels among the images to
    come (`Data.known_to`), by default 1. An image whose answer is missing costs nothing in that category, and the
    others count correspondingly more, so that the mean over images is the mean over answers. `smooth=False` turns off
    label smoothing, as in evaluation.

    Categories with up to 31 classes are computed together, separately for one and for several answers; larger ones
    together with those of at most twice as many classes. A user's loss is computed for each category in turn.
    """
    kinds, shares = multi or [False] * len(counts), known or [1.0] * len(counts)
    categories = _categories(counts, kinds, shares, category_factors(config, names))
    if isinstance(config, CustomLoss):
        terms = [_own(config, category, device) for category in categories]
    else:
        alike = _alike(categories)
        terms = [(_several if c[0].several else _single)(config, c, device, smooth) for c in alike]

    def objective(logits: Tensor, labels: Tensor) -> Tensor:
        wide = logits.float()
        return reduce(torch.add, [term(wide, labels) for term in terms])

    return objective


def _categories(
    counts: Counts, kinds: Sequence[bool], shares: Sequence[float], factors: Sequence[float]
) -> list[_Category]:
    sizes = [len(count) for count in counts]
    widths = [size if several else 1 for size, several in zip(sizes, kinds, strict=True)]
    weighed = [factor / share if share else 0.0 for factor, share in zip(factors, shares, strict=True)]
    complete = [share == 1 for share in shares]
    return list(map(_Category, _slices(sizes), _slices(widths), kinds, counts, weighed, complete))


def _alike(categories: Sequence[_Category]) -> list[list[_Category]]:
    """Return groups to compute together: of one kind, and of sizes that take little padding."""
    found: dict[tuple[bool, int], list[_Category]] = {}
    for category in categories:
        found.setdefault((category.several, max(SMALL, len(category.counts)).bit_length()), []).append(category)
    return list(found.values())


def _slices(sizes: Sequence[int]) -> list[slice]:
    """Return the slices of consecutive parts of these sizes."""
    return [slice(end - size, end) for size, end in zip(sizes, accumulate(sizes), strict=True)]


def _single(config: BuiltInLoss, categories: Sequence[_Category], device: torch.device, smooth: bool) -> Objective:
    """Return the loss of categories with one answer, with factors: (logits [B, sum C], labels [B, D]) -> [B]."""
    logits_of = Padding([category.classes for category in categories], device)
    labels_of = Padding([category.answers for category in categories], device)
    weights = pad_sequence([c.factor * c.weights(config) for c in categories], batch_first=True).to(device)  # [K, C]
    every = torch.arange(len(categories), device=device)
    loss = _softmax(config, [category.counts for category in categories], logits_of.real, device, smooth)
    complete = all(category.complete for category in categories)

    def judge(logits: Tensor, labels: Tensor) -> Tensor:
        answers = labels_of(labels, -1).squeeze(2)  # [B, K]
        true = answers if complete else answers.clamp_min(0)
        found = weights[every, true] * loss(logits_of(logits, -math.inf), true)
        return (found if complete else torch.where(answers < 0, 0, found)).sum(1)

    return judge


def _several(config: BuiltInLoss, categories: Sequence[_Category], device: torch.device, smooth: bool) -> Objective:
    """Return the same for categories with several answers; padded classes have unknown flags."""
    logits_of = Padding([category.classes for category in categories], device)
    flags_of = Padding([category.answers for category in categories], device)
    weights = pad_sequence([category.weights(config) for category in categories], batch_first=True).to(device)
    factors = torch.tensor([category.factor for category in categories], device=device)  # [K]
    loss = _sigmoid(config, smooth)

    def judge(logits: Tensor, labels: Tensor) -> Tensor:
        return (factors * loss(logits_of(logits, 0), flags_of(labels, -1), weights)).sum(1)

    return judge


def _own(config: CustomLoss, category: _Category, device: torch.device) -> Objective:
    """Return the same for one category, by a user's loss."""
    loss, weights = custom(config), category.weights(config).to(device)

    def judge(logits: Tensor, answers: Tensor) -> Tensor:
        if category.several:
            return category.factor * loss(logits, answers)
        true = answers[:, 0]
        return category.factor * weights[true] * loss(logits, true)

    seen = judge if category.complete else _known_alone(judge)
    return lambda logits, labels: seen(logits[:, category.classes], labels[:, category.answers])


def _known_alone(judge: Objective) -> Objective:
    """Restrict a loss to images with all labels known: a user's loss need not handle missing ones."""

    def filtered(logits: Tensor, labels: Tensor) -> Tensor:
        known = (labels >= 0).all(1)
        total = torch.zeros(len(logits), device=logits.device)
        return total.index_put((known,), judge(logits[known], labels[known])) if bool(known.any()) else total

    return filtered


def custom(config: CustomLoss) -> Objective:
    """Return a loss from an extension file: (logits [B, C], labels [B] or flags [B, C]) -> [B], or their scalar mean.

    Raises UserError if it returns anything else.
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


def words(config: Loss) -> str:
    """Return a loss and its parameters as text for a message."""
    given = config.model_dump(exclude={"name"}).items()
    return " ".join([config.name, *(f"{key}={value}" for key, value in given if value)])


def category_factors(config: Loss, names: Sequence[str]) -> list[float]:
    """Return the factor of each category's loss: its weight, divided by the number of categories if averaged."""
    given = config.category_weights or {}
    share = 1 / len(names) if config.category_reduction == "mean" else 1.0
    return [given.get(name, 1.0) * share for name in names]


def _softmax(
    config: BuiltInLoss, counts: Counts, real: Tensor | None, device: torch.device, smooth: bool
) -> Objective:
    """Return the loss of categories with training counts `counts` per class: logits [B, K, C], labels [B, K]."""
    match config:
        case CrossEntropy(label_smoothing=smoothing):
            smoothing = smoothing if smooth else 0.0
            return partial(cross_entropy, smoothing=smoothing, spread=_spread(smoothing, counts, real))
        case Focal(gamma=gamma):
            return partial(focal, gamma=gamma)
        case Asymmetric(over=over, gamma_positive=gp, gamma_negative=gn, margin=margin):
            return partial(asymmetric, over=over, gamma_positive=gp, gamma_negative=gn, margin=margin, real=real)
        case Dice(smooth=added):
            return partial(dice, smooth=added)
        case LogitAdjusted(tau=tau, label_smoothing=smoothing):
            logs = [torch.from_numpy(frequency.log_prior([count])) for count in counts]
            prior, smoothing = pad_sequence(logs, batch_first=True).to(device), smoothing if smooth else 0.0
            spread = _spread(smoothing, counts, real)
            return partial(logit_adjusted, log_prior=prior, tau=tau, smoothing=smoothing, spread=spread)


def _spread(smoothing: float, counts: Counts, real: Tensor | None) -> Tensor | None:
    """Return the smoothing probability of each class, [K, C]; None if all categories have the same size."""
    if real is None:
        return None
    return real * torch.tensor([[smoothing / len(count)] for count in counts], device=real.device)


def _sigmoid(config: BuiltInLoss, smooth: bool) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Return the loss of categories, (logits [B, K, C], flags [B, K, C], weights [K, C]) -> [B, K], without prior."""
    match config:
        case Focal(gamma=gamma):
            return partial(binary_focal, gamma=gamma)
        case Asymmetric(gamma_positive=gp, gamma_negative=gn, margin=margin):
            return partial(binary_asymmetric, gamma_positive=gp, gamma_negative=gn, margin=margin)
        case Dice(smooth=added):
            return partial(binary_dice, smooth=added)
        case CrossEntropy(label_smoothing=smoothing) | LogitAdjusted(label_smoothing=smoothing):
            return partial(binary_cross_entropy, smoothing=smoothing if smooth else 0.0)
