"""Gaussian noise that every device makes alike, from two seeds an image."""

import math

import torch
from torch import Tensor


def disturb(x: Tensor, noisy: Tensor, std: Tensor) -> Tensor:
    """`x` [B, 3, S, S] in 0..1 with noise on the chosen images, clamped; written into x, which nobody else holds.

    noisy [n, 3] int64: the number of an image and the seeds of its noise; std [n]. Only the chosen ones cost
    anything: 1.5 ms each at 224 pixels on two CPU cores.
    """
    images = noisy[:, 0]
    clean = x[images]
    noise = gaussian(noisy[:, 1:], x[0].numel()).view_as(clean)
    return x.index_copy_(0, images, (clean + std[:, None, None, None] * noise).clamp(0, 1))


def gaussian(seeds: Tensor, count: int) -> Tensor:
    """Standard normal numbers of two seeds an image, [n, 2] int64 in 0..2^32-1 -> [n, count] float32.

    Hashed place by place in whole numbers (Box and Muller 1958 make them normal), so that every device makes the
    same up to the rounding of its logarithm and cosine, and no noise crosses from the host.
    """
    half = (count + 1) // 2
    place = _hash(torch.arange(half, device=seeds.device))
    first, second = ((_hash(place ^ seed[:, None]).float() + 0.5) / 2**32 for seed in seeds.unbind(1))
    radius, angle = (-2 * first.log()).sqrt(), 2 * math.pi * second
    return torch.cat([radius * angle.cos(), radius * angle.sin()], 1)[:, :count]


def _hash(x: Tensor) -> Tensor:
    """A mix of 32-bit numbers held in int64 (Wellons 2018, "lowbias32"); what overflows is cut off."""
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        x = ((x ^ (x >> shift)) * factor) & 0xFFFFFFFF
    return x ^ (x >> 16)
