"""Optimizers with their parameter groups, and the learning rate as a pure function of the step."""

import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from timm.models import group_parameters
from timm.models._manipulate import group_with_matcher
from timm.optim import auto_group_layers
from torch import nn

from trainers.config import SGD, Adam, AdamW, Constant, Cosine, Freeze, OneCycle, Optimizer, Plateau, Schedule, Step

Named = Iterable[tuple[str, nn.Parameter]]
Group = dict[str, Any]


def build(config: Optimizer, backbone: nn.Module, head: nn.Module) -> torch.optim.Optimizer:
    """Return an optimizer over groups of equal rate and decay, the head's groups last.

    Vectors (biases, scales of norms) and parameters in timm's no_weight_decay() are not decayed, unless
    decay_norm_and_bias is set. Each group carries its peak rate as `peak`: lr in the head, and
    lr x backbone_lr_scale x layer_decay^n in the backbone, where n comes from `layers_above`.
    """
    fused = next(head.parameters()).device.type in ("cpu", "cuda")
    groups = [*_backbone_groups(config, backbone), *_groups(config, head.named_parameters(), config.lr)]
    match config:
        case AdamW(betas=betas):
            return torch.optim.AdamW(groups, lr=config.lr, betas=betas, fused=fused)
        case Adam(betas=betas):
            return torch.optim.Adam(groups, lr=config.lr, betas=betas, fused=fused)
        case SGD(momentum=momentum, nesterov=nesterov):
            sgd = torch.optim.SGD(groups, lr=config.lr, momentum=momentum, nesterov=nesterov, fused=fused)
            return _with_momentum(sgd) if momentum else sgd


def parameters(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    """Return every parameter that the optimizer changes."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _with_momentum(sgd: torch.optim.SGD) -> torch.optim.SGD:
    """Give SGD a momentum of zeros: the results equal those of a first step that creates its own.

    A fused step fails if only some parameters have momentum, as when layers are unfrozen, and leaves momentum that it
    has just allocated uninitialised if a scaler skips the step.
    """
    for parameter in parameters(sgd):
        sgd.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return sgd


def _backbone_groups(config: Optimizer, backbone: nn.Module) -> Iterator[Group]:
    peak, named = config.lr * config.backbone_lr_scale, list(backbone.named_parameters())
    spared = tuple(backbone.no_weight_decay()) if hasattr(backbone, "no_weight_decay") else ()  # type: ignore[operator]
    if config.layer_decay == 1:
        yield from _groups(config, named, peak, spared)
        return
    above = layers_above(backbone)
    for count in sorted(set(above.values()), reverse=True):
        inside = [(name, p) for name, p in named if above[name] == count]
        yield from _groups(config, inside, peak * config.layer_decay**count, spared)


def _groups(config: Optimizer, named: Named, peak: float, spared: Sequence[str] = ()) -> Iterator[Group]:
    """Yield the decayed group, then the exempt one: vectors, and names that match a pattern in `spared`."""

    def decays(name: str, parameter: nn.Parameter) -> bool:
        alone = parameter.ndim <= 1 or any(fnmatchcase(name, pattern) for pattern in spared)
        return config.decay_norm_and_bias or not alone

    learning = [(p, decays(name, p)) for name, p in named if p.requires_grad]
    for wanted, decay in ((True, config.weight_decay), (False, 0.0)):
        if chosen := [p for p, decayed in learning if decayed is wanted]:
            yield {"params": chosen, "peak": peak, "lr": peak, "weight_decay": decay}


def layers_above(backbone: nn.Module) -> dict[str, int]:
    """Return the number of layers above each parameter, by name, as in timm.optim.param_groups_layer_decay.

    Our head takes the place of timm's classifier; if it keeps that classifier, both are one layer.
    """
    known = (getattr(backbone, "pretrained_cfg", None) or {}).get("classifier") or "head"
    classifier = known if isinstance(known, str) else known[0]
    if hasattr(backbone, "group_matcher"):
        top = f"{classifier}.weight"
        named = {**dict(backbone.named_parameters()), top: None}
        layer = group_with_matcher(iter(named.items()), backbone.group_matcher(coarse=False), reverse=True)  # type: ignore[operator]
        last = layer[top]
    else:
        layer = auto_group_layers(backbone)
        last = max(layer.values()) + (not any(name.startswith(classifier) for name in layer))
    return {name: last - layer[name] for name, _ in backbone.named_parameters()}


def depths(backbone: nn.Module) -> dict[str, float]:
    """Return the depth of each parameter below the head, by name: 1/L for the last of L layers, 1 for the first.

    Layers are those of timm's group_matcher; in a backbone without one, every module with its own weights is a layer,
    in the order of definition.
    """
    names = [name for name, _ in backbone.named_parameters()]
    layer = _layers(backbone, names)
    ranks = {level: rank for rank, level in enumerate(sorted(set(layer.values())))}
    return {name: 1 - ranks[layer[name]] / len(ranks) for name in names}


def _layers(backbone: nn.Module, names: Sequence[str]) -> dict[str, int]:
    if hasattr(backbone, "group_matcher"):
        matcher = backbone.group_matcher(coarse=False)  # type: ignore[operator]
        found: dict[str, int] = group_parameters(backbone, matcher, reverse=True)
        return found
    owners = {name: name.rpartition(".")[0] for name in names}
    place = {owner: number for number, owner in enumerate(dict.fromkeys(owners.values()))}
    return {name: place[owner] for name, owner in owners.items()}


# ---------------------------------------------------------------------------------------------- thaw
def learning(config: Freeze, epoch: int) -> float:
    """Return the share of the backbone's depth that learns in an epoch (0 for the first): 0 is none, 1 is all."""
    joined = epoch - config.epochs
    if joined < 0:
        return 0.0
    return min(1.0, (joined + 1) / (config.gradual_epochs + 1))


def frozen_names(backbone: nn.Module) -> frozenset[str]:
    """Return the parameters that do not learn in a model that has just been built: its own code has frozen them."""
    return frozenset(name for name, parameter in backbone.named_parameters() if not parameter.requires_grad)


def thaw(backbone: nn.Module, share: float, frozen: Collection[str]) -> None:
    """Let the layers up to this depth learn, except for parameters named in `frozen`, which no optimizer has; freeze
    the others together with their batch-norm statistics.
    """
    depth = depths(backbone) if share < 1 else {}
    for name, parameter in backbone.named_parameters():
        learns = depth.get(name, 0.0) <= share + 1e-9 and share > 0
        parameter.requires_grad_(learns and name not in frozen)
    for module in backbone.modules():
        own = list(module.parameters(recurse=False))
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and own and not any(p.requires_grad for p in own):
            module.eval()


# ---------------------------------------------------------------------------------------------- rate
def set_rate(optimizer: torch.optim.Optimizer, factor: float) -> float:
    """Set every group's rate to `factor` times its peak; returns the last group's, the head's."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * factor
    return float(optimizer.param_groups[-1]["lr"])


def factor(config: Schedule, progress: float, epochs: int, past: Sequence[float] = ()) -> float:
    """Return the learning rate as a share of its peak, `progress` epochs into a run of `epochs`.

    past: the metric after each finished epoch, oriented so that larger is better; only plateau uses it. The result
    depends on nothing else, so a resumed run has the rates of an uninterrupted one.
    """
    if isinstance(config, OneCycle):
        return _one_cycle(config, progress / epochs)
    warmup = min(1.0, progress / config.warmup_epochs) if config.warmup_epochs else 1.0
    match config:
        case Constant():
            return warmup
        case Step(every=every, factor=by):
            return warmup * by ** (int(progress) // every)
        case Cosine(min_lr_ratio=floor, warmup_epochs=start):
            done = min(1.0, max(0.0, (progress - start) / max(epochs - start, 1e-9)))
            return warmup * _cosine(1.0, floor, done)
        case Plateau(patience=patience, factor=by):
            return warmup * by ** reductions(past, patience)


def reductions(past: Sequence[float], patience: int) -> int:
    """Return the number of steps of a plateau schedule: one per patience + 1 epochs in a row without a new best."""
    best, waited, steps = -math.inf, 0, 0
    for value in past:
        best, waited = (value, 0) if value > best else (best, waited + 1)
        if waited > patience:
            steps, waited = steps + 1, 0
    return steps


def _one_cycle(config: OneCycle, done: float) -> float:
    if done < config.pct_start:
        return _cosine(config.start, 1.0, done / config.pct_start)
    return _cosine(1.0, config.min_lr_ratio, (done - config.pct_start) / (1 - config.pct_start))


def _cosine(start: float, end: float, done: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * min(done, 1.0))) / 2
