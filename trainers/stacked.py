"""Many heads of one shape that train together: weights stacked [T, ...], each head with its own loss and rate."""

import copy
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from trainers import losses
from trainers.config import (
    SGD,
    AdamW,
    Asymmetric,
    CrossEntropy,
    Dice,
    Focal,
    LogitAdjusted,
    Loss,
    Optimizer,
    TrainConfig,
)
from trainers.models import heads

Vectors = Mapping[str, Tensor]
Stacked = dict[str, Tensor]
EPS = 1e-8  # of Adam, as torch has it


class Heads:
    """T heads whose recipes differ in loss, optimizer settings and dropout, but neither in shape nor in optimizer.

    width: features D; names [K] and counts [K][C] are the categories' and their training images a class.
    """

    def __init__(
        self,
        configs: Sequence[TrainConfig],
        width: int,
        names: Sequence[str],
        counts: losses.Counts,
        device: torch.device,
    ) -> None:
        modules = [_head(config, width, [len(count) for count in counts]).to(device) for config in configs]
        weights, self.buffers = stack_module_state(modules)
        self.weights: Stacked = {name: weight.detach().requires_grad_() for name, weight in weights.items()}
        self.base = copy.deepcopy(modules[0]).to("meta")
        self.objective = Objective([config.loss for config in configs], names, counts, device)
        self.optimizer = Stepper([config.optimizer for config in configs], self.weights)

    def logits(self, features: Tensor) -> Tensor:
        """features [B, D] -> logits [T, B, sum C]; in training mode dropout acts and batch norm takes statistics."""

        def one(weights: Stacked, buffers: Stacked) -> Tensor:
            return cast(Tensor, functional_call(self.base, (weights, buffers), (features,)))

        stacked: Tensor = vmap(one, randomness="different")(self.weights, self.buffers)
        return stacked

    def step(self, features: Tensor, labels: Tensor, factors: Tensor, shares: Tensor | None = None) -> Tensor:
        """Train every head on one batch at `factors` [T] of its peak rate; returns the mean losses [T], detached.

        features [B, D] float32, labels [B, K] int64; shares [T, B] weigh the images, 1 being usual.
        """
        self.base.train()
        loss = self.objective(self.logits(features), labels)  # [T, B]
        means = (loss if shares is None else loss * shares).mean(1)
        gradients = torch.autograd.grad(means.sum(), list(self.weights.values()))  # heads do not see each other
        self.optimizer.step(dict(zip(self.weights, gradients, strict=True)), factors)
        return means.detach()

    @torch.no_grad()
    def evaluate(self, features: Tensor) -> Tensor:
        """features [M, D] float32 -> logits [T, M, sum C]."""
        self.base.eval()
        return self.logits(features)


class Dropout(nn.Module):
    """nn.Dropout with its probability in a buffer, so that stacked heads can differ in it."""

    p: Tensor

    def __init__(self, p: float) -> None:
        super().__init__()
        self.register_buffer("p", torch.tensor(p))

    def forward(self, x: Tensor) -> Tensor:
        return x * (torch.rand_like(x) >= self.p) / (1 - self.p) if self.training else x


def _head(config: TrainConfig, width: int, sizes: Sequence[int]) -> nn.Module:
    """A recipe's head, drawn from its seed."""
    torch.manual_seed(config.seed)
    module = heads.build(config.head, width, sizes)
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.Dropout):
                setattr(parent, name, Dropout(child.p) if child.p else nn.Identity())
    return module


# ---------------------------------------------------------------------------------------------- loss
class Objective:
    """The losses of trainers/losses.py for T heads at once, with parameters of their own each.

    Heads of the same loss are one operation where they stand side by side.
    """

    def __init__(
        self, configs: Sequence[Loss], names: Sequence[str], counts: losses.Counts, device: torch.device
    ) -> None:
        self.sizes = [len(count) for count in counts]
        self.kinds = [list(members) for _, members in groupby(configs, _kind)]
        self.vectors = [_vectors([one.model_dump() for one in members], device) for members in self.kinds]
        self.priors = [losses.log_prior(count).to(device) for count in counts]
        self.weights = [_weights(configs, k, names, counts[k]).to(device) for k in range(len(counts))]

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        """logits [T, B, sum C] float32, labels [B, K] int64 -> the loss of each image, [T, B]."""
        parts = torch.split(logits, self.sizes, dim=2)
        total = torch.zeros(logits.shape[:2], device=logits.device)
        for k, part in enumerate(parts):
            each = torch.split(part, [len(members) for members in self.kinds])
            found = [
                _of_kind(members[0], one, labels[:, k], vectors, self.priors[k])
                for one, members, vectors in zip(each, self.kinds, self.vectors, strict=True)
            ]
            total = total + self.weights[k][:, labels[:, k]] * torch.cat(found)
        return total


def _kind(config: Loss) -> tuple[str, str]:
    return config.name, config.over if isinstance(config, Asymmetric) else ""


def _vectors(given: Sequence[dict[str, Any]], device: torch.device) -> Stacked:
    """The numbers among the parameters of several losses of one kind, each [T, 1]."""
    numbers = [name for name, value in given[0].items() if isinstance(value, float)]
    return {name: torch.tensor([[one[name]] for one in given], device=device) for name in numbers}


def _weights(configs: Sequence[Loss], k: int, names: Sequence[str], counts: Sequence[int]) -> Tensor:
    """What category k's loss is multiplied by, for each class, [T, C]."""
    return torch.stack(
        [
            losses.category_factors(config, names)[k]
            * losses.class_weights(counts, config.class_weights, beta=config.beta)
            for config in configs
        ]
    )


def _of_kind(config: Loss, logits: Tensor, labels: Tensor, p: Vectors, prior: Tensor) -> Tensor:
    """The losses [T, B] of one category: logits [T, B, C], labels [B], prior [C] the log of its classes' shares."""
    match config:
        case CrossEntropy():
            return _smoothed(logits, labels, p["label_smoothing"])
        case LogitAdjusted():
            return _smoothed(logits + p["tau"][:, :, None] * prior, labels, p["label_smoothing"])
        case Focal():
            nll = _smoothed(logits, labels, torch.zeros_like(p["gamma"]))
            return (-torch.expm1(-nll)).clamp_min(losses.TINY) ** p["gamma"] * nll
        case Dice():
            chance = logits.softmax(2)
            return 1 - (2 * _true(chance, labels) + p["smooth"]) / (chance.square().sum(2) + 1 + p["smooth"])
        case Asymmetric(over=over):
            return _asymmetric(logits, labels, p, over)


def _smoothed(logits: Tensor, labels: Tensor, smoothing: Tensor) -> Tensor:
    log_p = logits.log_softmax(2)
    hit = -_true(log_p, labels)
    return hit + smoothing * (-log_p.mean(2) - hit)


def _asymmetric(logits: Tensor, labels: Tensor, p: Vectors, over: losses.Over) -> Tensor:
    found = losses.log_chances(logits.flatten(0, 1), over)
    log_p, log_miss = (one.view(logits.shape) for one in found)
    margin = p["margin"][:, :, None]
    wrong = (log_p.exp() - margin).clamp_min(0)
    log_right = torch.where(margin > 0, torch.log1p(-torch.where(margin > 0, wrong, 0)), log_miss)
    has = -(log_miss.exp().clamp_min(losses.TINY) ** p["gamma_positive"][:, :, None]) * log_p
    lacks = -(wrong.clamp_min(losses.TINY) ** p["gamma_negative"][:, :, None]) * log_right
    return lacks.sum(2) + _true(has - lacks, labels)


def _true(values: Tensor, labels: Tensor) -> Tensor:
    """The values [T, B, C] of the true classes [B], [T, B]."""
    return values.gather(2, labels[None, :, None].expand(len(values), -1, 1))[:, :, 0]


# ----------------------------------------------------------------------------------------- optimizer
class Stepper:
    """AdamW, Adam or SGD of torch over stacked weights, with rate, decay and momentum of each head."""

    def __init__(self, configs: Sequence[Optimizer], weights: Mapping[str, Tensor]) -> None:
        device = next(iter(weights.values())).device
        self.first, self.weights, self.steps = configs[0], weights, 0
        self.peaks = torch.tensor([config.lr for config in configs], device=device)
        self.decays = {name: _decays(configs, weight) for name, weight in weights.items()}
        betas = [getattr(config, "betas", (getattr(config, "momentum", 0.0), 0.0)) for config in configs]
        self.betas = torch.tensor(betas, device=device)  # [T, 2]; of SGD the momentum
        self.nesterov = torch.tensor([getattr(config, "nesterov", False) for config in configs], device=device)
        self.moments = {name: torch.zeros_like(weight) for name, weight in weights.items()}
        self.squares = {} if isinstance(configs[0], SGD) else {n: torch.zeros_like(w) for n, w in weights.items()}

    @torch.no_grad()
    def step(self, gradients: Mapping[str, Tensor], factors: Tensor) -> None:
        """One update at `factors` [T] of the peak rates."""
        self.steps += 1
        for name, weight in self.weights.items():
            rate, decay = _wide(self.peaks * factors, weight), self.decays[name]
            gradient = gradients[name]
            if isinstance(self.first, AdamW):
                weight.mul_(1 - rate * decay)
            else:
                gradient = gradient + decay * weight
            change = self._sgd if isinstance(self.first, SGD) else self._adam
            weight.sub_(change(name, gradient).mul_(rate))

    def _sgd(self, name: str, gradient: Tensor) -> Tensor:
        moment, momentum = self.moments[name], _wide(self.betas[:, 0], gradient)
        moment.mul_(momentum).add_(gradient)
        return torch.where(_wide(self.nesterov, gradient), gradient + momentum * moment, moment)

    def _adam(self, name: str, gradient: Tensor) -> Tensor:
        first, second = (_wide(beta, gradient) for beta in self.betas.unbind(1))
        moment, square = self.moments[name], self.squares[name]
        moment.lerp_(gradient, 1 - first)
        square.mul_(second).addcmul_(gradient, (1 - second) * gradient)
        size = (square / (1 - second**self.steps)).sqrt_().add_(EPS).mul_(1 - first**self.steps)
        return torch.div(moment, size, out=size)


def _decays(configs: Sequence[Optimizer], weight: Tensor) -> Tensor:
    """The weight decay of each head for this weight, [T, 1, ...]; vectors have none unless decay_norms."""
    given = [one.weight_decay if weight.ndim > 2 or one.decay_norms else 0.0 for one in configs]
    return _wide(torch.tensor(given, device=weight.device), weight)


def _wide(vector: Tensor, like: Tensor) -> Tensor:
    """[T] -> [T, 1, ...] with as many dimensions as `like`."""
    return vector.view(-1, *[1] * (like.ndim - 1))
