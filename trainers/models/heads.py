"""Heads: modules that turn the backbone's output into class scores, with the categories side by side."""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from trainers import extensions
from trainers.config import CategoryMLP, CustomHead, Head, LinearHead, LogitsMLP, Query2Label, ReluLogits, SharedMLP
from trainers.models import query2label

Need = Literal["features", "logits", "map"]
NEEDS: dict[str, Need] = {
    "linear": "features",
    "relu_logits": "logits",
    "logits_mlp": "logits",
    "category_mlp": "features",
    "shared_mlp": "features",
    "query2label": "map",
}
"""The backbone output that each head needs: pooled features, the backbone's own class scores, or its last map."""


def need(config: Head) -> Need:
    """Return the backbone output that this head needs; one from an extension file gets features."""
    return NEEDS.get(config.name, "features")


LOGITS_MLP = (512, 256, 128, 64)


def build(config: Head, width: int, sizes: Sequence[int], *, prefix: int = 0, aspect: float = 1.0) -> nn.Module:
    """Return the head of a recipe: the backbone's output -> logits [B, sum C].

    width: number of input features, sizes [K]: classes of each category, prefix: tokens before those of the map,
    aspect: height / width of the network's input.
    """
    match config:
        case LinearHead(dropout=dropout):
            return nn.Sequential(nn.Dropout(dropout), _gentle(nn.Linear(width, sum(sizes))))
        case ReluLogits():
            return nn.Sequential(nn.ReLU(), nn.Linear(width, sum(sizes)))
        case LogitsMLP(layers=layers, dropout=dropout):
            widths = (width, *LOGITS_MLP[:layers])
            ends = Side(nn.Sequential(nn.Dropout(dropout), nn.Linear(widths[-1], size)) for size in sizes)
            return nn.Sequential(*_hidden(widths, 0.0), ends)
        case CategoryMLP(hidden=hidden, dropout=dropout):
            return nn.Sequential(nn.BatchNorm1d(width), Side(_branch(width, hidden, n, dropout) for n in sizes))
        case SharedMLP(hidden=hidden, dropout=dropout):
            widths = (width, *hidden)
            return nn.Sequential(*_hidden(widths, dropout), nn.Linear(widths[-1], sum(sizes)))
        case Query2Label():
            return query2label.Decoder(config, width, sizes, prefix=prefix, aspect=aspect)
        case CustomHead(name=name):
            definition = extensions.needed("heads", name)
            made: nn.Module = definition.module(width, list(sizes), **definition.given(config.model_dump()))
            return made


class Side(nn.Module):
    """One module per category, all with the same input [B, D]: their logits [B, C] side by side, [B, sum C]."""

    def __init__(self, parts: Iterable[nn.Module]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, features: Tensor) -> Tensor:
        return torch.cat([part(features) for part in self.parts], dim=1)


def _gentle(linear: nn.Linear) -> nn.Linear:
    nn.init.normal_(linear.weight, std=0.01)
    nn.init.zeros_(linear.bias)
    return linear


def _hidden(widths: Sequence[int], dropout: float) -> list[nn.Module]:
    """Return linear and ReLU layers from each width to the next, with dropout between them but not at the end."""
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU(), nn.Dropout(dropout)]
    return layers[:-1]


def _branch(width: int, hidden: int, classes: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(width, hidden),
        nn.BatchNorm1d(hidden),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(hidden, classes),
    )
