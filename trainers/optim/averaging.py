"""Averages of the weights over a run: a second network that follows the first and is evaluated in its place.

`torch.optim.swa_utils` (2.15) is not used: its AveragedModel copies a counter to the device in each update, which
waits for the device, and copies the first update entirely; its `update_bn` leaves dropout on during the statistics.
"""

import copy
from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor, nn

from trainers.config import EMA, SWA, Average, NoAverage

Pairs = tuple[list[Tensor], list[Tensor]]
_Norm = nn.modules.batchnorm._BatchNorm
STATISTICS = 4096  # training images from which batch-norm statistics are recomputed


class Averaged:
    """The average network of a run; `ready` once it holds more than the initial weights.

    EMA: w <- d w + (1 - d) v after each step, with d = min(decay, (1 + n) / (10 + n)) in step n, including running
    statistics of norms. SWA: the plain mean after each epoch from `start` on. The tensors of both networks are listed
    once per epoch, because walking all modules takes a millisecond.
    """

    def __init__(self, config: EMA | SWA, net: nn.Module, epochs: int) -> None:
        self.config, self.first = config, int(config.start * epochs) if isinstance(config, SWA) else 0
        self.net = copy.deepcopy(net).eval().requires_grad_(False)
        self.count = 0  # updates so far
        self._followed: nn.Module | None = None  # the network whose tensors are in the pairs
        self._floats: Pairs = [], []
        self._wholes: Pairs = [], []

    @property
    def ready(self) -> bool:
        return self.count > 0

    def step(self, net: nn.Module) -> None:
        """Follow `net` after one step of its optimizer; does not wait for the device."""
        if isinstance(self.config, EMA):
            self._move(net, 1 - min(self.config.decay, (1 + self.count) / (10 + self.count)))

    def epoch(self, net: nn.Module, index: int) -> bool:
        """Follow `net` after an epoch (0 for the first); returns True if norm statistics must be recomputed."""
        self._followed = None  # a network of another image size, or on another device, has other tensors
        if not isinstance(self.config, SWA) or index < self.first:
            return False
        self._move(net, 1 / (self.count + 1))
        return bool(training_norms(net))

    @torch.no_grad()
    def _move(self, net: nn.Module, share: float) -> None:
        """Move towards `net` by `share` of the distance; integers are copied."""
        if self._followed is not net:
            self._followed, self._floats, self._wholes = net, *_pairs(self.net, net)
        torch._foreach_lerp_(*self._floats, share)
        if self._wholes[0]:
            torch._foreach_copy_(*self._wholes)
        self.count += 1

    def state_dict(self) -> dict[str, object]:
        return {"network": self.net.state_dict(), "count": self.count}

    def load_state_dict(self, state: dict[str, object]) -> None:
        self.net.load_state_dict(state["network"])  # type: ignore[arg-type]
        self.count = int(state["count"])  # type: ignore[call-overload]


def build(config: Average, net: nn.Module, epochs: int) -> Averaged | None:
    """Return the average that a recipe requests, which starts as a copy of `net`."""
    return None if isinstance(config, NoAverage) else Averaged(config, net, epochs)


def _pairs(own: nn.Module, other: nn.Module) -> tuple[Pairs, Pairs]:
    """Return the tensors of both networks in pairs: floats, then integers."""
    both = list(zip(_tensors(own), _tensors(other), strict=True))
    floats = [pair for pair in both if pair[0].is_floating_point()]
    wholes = [pair for pair in both if not pair[0].is_floating_point()]
    return ([a for a, _ in floats], [b for _, b in floats]), ([a for a, _ in wholes], [b for _, b in wholes])


def _tensors(net: nn.Module) -> list[Tensor]:
    """Return parameters and the buffers that are saved, each once; a forward may replace the others by new ones."""
    saved = net.state_dict().keys()
    return [*net.parameters(), *(buffer for name, buffer in net.named_buffers() if name in saved)]


def training_norms(net: nn.Module) -> list[str]:
    """Return the names of the batch norms whose statistics each batch changes; those of frozen layers stay fixed."""
    return [name for name, module in net.named_modules() if isinstance(module, _Norm) and module.training]


@torch.no_grad()
def renew_statistics(net: nn.Module, names: Iterable[str], batches: Iterable[Tensor]) -> None:
    """Set the running statistics of the batch norms of these names to the means over `batches`, each [B, 3, S, S]."""
    norms = [cast(_Norm, net.get_submodule(name)) for name in names]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean of all batches
        norm.train()
    for images in batches:
        net(images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.eval()
