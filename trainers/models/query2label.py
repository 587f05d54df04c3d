"""Query2Label (Liu et al. 2021): one learned query per category gathers its evidence from the backbone's map."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trainers.config import Query2Label
from trainers.support.device import in_full


class Decoder(nn.Module):
    """A map of features -> logits [B, sum C].

    A 1x1 convolution, sine positions added once, encoder layers over the map, decoder layers with cross-attention
    from the queries to the map, a norm, and one linear layer per category. The map is [B, D, H, W], [B, H, W, D], or
    tokens [B, prefix + H W, D], whose prefix (class and register tokens) is left out; H / W is near `aspect`, that of
    the network's input.
    """

    def __init__(
        self, config: Query2Label, width: int, sizes: Sequence[int], *, prefix: int = 0, aspect: float = 1.0
    ) -> None:
        super().__init__()
        self.width, self.prefix, self.aspect = width, prefix, aspect
        self.project = nn.Conv2d(width, config.width, 1)
        self.queries = nn.Parameter(torch.randn(len(sizes), config.width))
        self.encoders = nn.ModuleList(_layer(config) for _ in range(config.encoders))
        self.decoders = nn.ModuleList(_layer(config) for _ in range(config.decoders))
        self.norm = nn.LayerNorm(config.width)
        self.ends = nn.ModuleList(nn.Linear(config.width, size) for size in sizes)

    def forward(self, features: Tensor) -> Tensor:
        grid = self.project(as_map(features, self.width, self.prefix, self.aspect))  # [B, d, H, W]
        seen = (grid + positions(grid)).flatten(2).transpose(1, 2)  # [B, H W, d]
        for encoder in self.encoders:
            seen = encoder(seen, seen)
        queries = self.queries.expand(seen.shape[0], -1, -1)  # [B, K, d]
        for decoder in self.decoders:
            queries = decoder(queries, seen)
        answers = self.norm(queries).unbind(1)  # [K] of [B, d]
        return torch.cat([in_full(end, answer) for end, answer in zip(self.ends, answers, strict=True)], dim=1)


class Layer(nn.Module):
    """Attention from `x` [B, N, d] to `memory` [B, M, d], then a feed-forward part; a norm follows each sum.

    With x as its own memory this is the encoder layer of Vaswani et al. 2017, otherwise their decoder layer without
    self-attention: the queries of different categories need not exchange information.
    """

    def __init__(self, width: int, heads: int, feed_forward: int, dropout: float) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, heads, dropout=dropout, batch_first=True)
        self.linear1, self.linear2 = nn.Linear(width, feed_forward), nn.Linear(feed_forward, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        found, _ = self.attention(x, memory, memory, need_weights=False)
        x = self.norm1(x + self.dropout(found))
        hidden = self.dropout(F.relu(self.linear1(x)))
        y: Tensor = self.norm2(x + self.dropout(self.linear2(hidden)))
        return y


def _layer(config: Query2Label) -> Layer:
    return Layer(config.width, config.heads, config.feed_forward, config.dropout)


def as_map(features: Tensor, width: int, prefix: int = 0, aspect: float = 1.0) -> Tensor:
    """Return a backbone's output before pooling as a map [B, width, H, W]. Raises ValueError if it is not one."""
    if features.ndim == 4 and features.shape[1] == width:
        return features
    if features.ndim == 4 and features.shape[3] == width:
        return features.permute(0, 3, 1, 2)
    if features.ndim == 3 and features.shape[2] == width and features.shape[1] > prefix:
        height, breadth = sides(features.shape[1] - prefix, aspect)
        return features[:, prefix:].transpose(1, 2).reshape(-1, width, height, breadth)
    raise ValueError(f"no map of {width} features: its shape is {tuple(features.shape)}")


def sides(tokens: int, aspect: float) -> tuple[int, int]:
    """Return height and width of the grid that the tokens of an input of height / width `aspect` form.

    Patches may leave out part of the input's edge, so the proportions are off by less than one patch. Raises
    ValueError if no such grid has that many tokens.
    """
    ratio = max(aspect, 1 / aspect)
    short = max(1, round(math.sqrt(tokens / ratio)))
    long = tokens // short
    if short * long != tokens or abs(long - short * ratio) >= ratio:
        raise ValueError(f"{tokens} tokens are no grid in the proportions of the input, {aspect:.3g} : 1")
    return (long, short) if aspect > 1 else (short, long)


def positions(grid: Tensor) -> Tensor:
    """Return sines and cosines of row and column, [d, H, W], for a map [B, d, H, W]; d is a multiple of 4.

    As in Carion et al. 2020, section A.4: the first half of the features encodes the row, the second the column, each
    scaled to 0..2 pi over the map, at frequencies that fall to 1 / 10000.
    """
    width, height, breadth = grid.shape[1:]
    powers = torch.arange(width // 4, device=grid.device, dtype=torch.float32) / (width // 4)
    down, across = (_waves(side, 10_000.0**-powers) for side in (height, breadth))  # [d / 2, side]
    rows = down[:, :, None].expand(-1, -1, breadth)
    columns = across[:, None, :].expand(-1, height, -1)
    return torch.cat([rows, columns])


def _waves(side: int, frequencies: Tensor) -> Tensor:
    """Return a sine and, next to it, a cosine of each frequency, [d / 2, side]."""
    steps = torch.arange(1, side + 1, device=frequencies.device) * (2 * math.pi / side)
    angles = frequencies[:, None] * steps
    return torch.stack([angles.sin(), angles.cos()], dim=1).flatten(0, 1)
