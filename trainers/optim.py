"""Optimizers with their parameter groups, and the learning rate as a pure function of the step."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from trainers.config import SGD, Adam, AdamW, Constant, Cosine, OneCycle, Optimizer, Plateau, Schedule, Step


def build(config: Optimizer, backbone: nn.Module, head: nn.Module) -> torch.optim.Optimizer:
    """An optimizer over four groups: backbone and head, each with and without decay.

    Vectors (biases, scales of norms) are not decayed. Each group carries its peak rate as `peak`.
    """
    fused = next(head.parameters()).device.type in ("cpu", "cuda")
    groups = [
        *_groups(backbone, config.lr * config.backbone_lr, config.weight_decay),
        *_groups(head, config.lr, config.weight_decay),
    ]
    match config:
        case AdamW(betas=betas):
            return torch.optim.AdamW(groups, lr=config.lr, betas=betas, fused=fused)
        case Adam(betas=betas):
            return torch.optim.Adam(groups, lr=config.lr, betas=betas, fused=fused)
        case SGD(momentum=momentum, nesterov=nesterov):
            return torch.optim.SGD(groups, lr=config.lr, momentum=momentum, nesterov=nesterov, fused=fused)


def _groups(module: nn.Module, peak: float, decay: float) -> list[dict[str, Any]]:
    parameters = [p for p in module.parameters() if p.requires_grad]
    split = (([p for p in parameters if p.ndim > 1], decay), ([p for p in parameters if p.ndim <= 1], 0.0))
    return [{"params": chosen, "peak": peak, "lr": peak, "weight_decay": d} for chosen, d in split if chosen]


def set_rate(optimizer: torch.optim.Optimizer, factor: float) -> float:
    """Set every group's rate to `factor` times its peak; returns the last group's, the head's."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * factor
    return float(optimizer.param_groups[-1]["lr"])


def factor(config: Schedule, progress: float, epochs: int, past: Sequence[float] = ()) -> float:
    """The learning rate as a share of its peak, `progress` epochs into a run of `epochs`.

    past holds the goal after each finished epoch, which only plateau looks at. A function of nothing else, so a
    resumed run has the rates of an uninterrupted one.
    """
    if isinstance(config, OneCycle):
        return _one_cycle(config, progress / epochs)
    warmup = min(1.0, progress / config.warmup_epochs) if config.warmup_epochs else 1.0
    match config:
        case Constant():
            return warmup
        case Step(every=every, factor=by):
            return warmup * by ** (int(progress) // every)
        case Cosine(floor=floor, warmup_epochs=start):
            done = min(1.0, max(0.0, (progress - start) / max(epochs - start, 1e-9)))
            return warmup * _cosine(1.0, floor, done)
        case Plateau(patience=patience, factor=by):
            return warmup * by ** reductions(past, patience)


def reductions(past: Sequence[float], patience: int) -> int:
    """How often a plateau schedule has stepped: once for every patience + 1 epochs in a row without a new best."""
    best, waited, steps = -math.inf, 0, 0
    for value in past:
        best, waited = (value, 0) if value > best else (best, waited + 1)
        if waited > patience:
            steps, waited = steps + 1, 0
    return steps


def _one_cycle(config: OneCycle, done: float) -> float:
    if done < config.rise:
        return _cosine(config.start, 1.0, done / config.rise)
    return _cosine(1.0, config.floor, (done - config.rise) / (1 - config.rise))


def _cosine(start: float, end: float, done: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * min(done, 1.0))) / 2
