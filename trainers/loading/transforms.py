"""Random changes of a batch of training images: parameters are drawn per image on the host, applied on the device.

Geometry is one 2x3 matrix per image and colour one 3x4 matrix per image, so both cost the same few operations on the
device, whatever they combine.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from trainers.config import Augment, ColorJitter
from trainers.data.table import Category, spans
from trainers.loading import policies
from trainers.loading.policies import GREY
from trainers.support.device import send

Size = int | tuple[int, int]  # of images: the side of squares, or height and width
Change = Callable[[Tensor], Tensor]
SHRINKS = 1.2  # ratio of pixels in the cache to pixels in the input, above which windows are smoothed
_TO_YIQ = np.array([GREY, (0.596, -0.274, -0.322), (0.211, -0.523, 0.312)])


@dataclass(frozen=True)
class Draw:
    """The random parameters of one batch; None for a change that is off."""

    flip: Tensor  # [B] bool
    affine: Tensor | None  # [B, 2, 3]: output coordinates -> input coordinates, both -1..1
    colour: Tensor | None  # [B, 3, 3]
    contrast: Tensor | None  # [B], share of the image's mean grey that is added
    noisy: Tensor | None  # [n] int64: the images that get noise
    noise: float  # its standard deviation, on a scale of 0 to 1
    seed: int  # of the noise
    erase: Tensor | None  # [B, 4] left, top, right, bottom in shares of the side; an empty box erases nothing
    partner: Tensor | None  # [B] int64: the image that is mixed in
    share: Tensor | None  # [B] float: the remaining share of the image itself
    cut: Tensor | None  # [B, 4] box that comes from the partner; None for MixUp
    image_seeds: np.ndarray | None = None  # [B] int64, for extension files' augmentations of single images
    batch_seed: int = 0  # for those of a batch
    added: Tensor | None = None  # [n, 3, *size]: the noise, of deviation 1; None if it is drawn when it is added

    def to(self, device: torch.device) -> "Draw":
        given = {f.name: getattr(self, f.name) for f in fields(self)}
        sent: dict[str, Any] = {k: send(t, device) for k, t in given.items() if isinstance(t, Tensor)}
        return replace(self, **sent)


def pair(size: Size) -> tuple[int, int]:
    """Return height and width."""
    return (size, size) if isinstance(size, int) else size


def draw(
    config: Augment,
    shapes: np.ndarray,
    rng: np.random.Generator,
    minority: np.ndarray | None = None,
    size: Size | None = None,
) -> Draw:
    """Draw the parameters for one batch from `rng` only: they are the same on every device.

    shapes [B, 2] int: width and height of the originals, which turn a rotation of the squashed image into one of
    the original. minority [B] bool: the images that `mixup_classes: minority` mixes, see `minority`.
    size: size of the images to be changed; upright windows then start and end at whole pixels.
    """
    batch = len(shapes)
    flip = rng.random(batch) < config.horizontal_flip
    affine = _affine(config, shapes, flip, rng) if _moves(config) else None
    colour, contrast = _colour(config.color_jitter, batch, rng)
    erase = _boxes(batch, rng, config.random_erasing) if config.random_erasing else None
    partner, share, cut = _mix(config, batch, rng, minority)
    plan = policies.draw(config, batch, rng)
    if plan is not None and affine is not None:
        affine = then(affine, plan, shapes)
        unchanged = np.tile(np.eye(3), (batch, 1, 1)), np.zeros(batch)
        colour, contrast = policies.colour(plan, *(unchanged if colour is None else (colour, contrast)))
    noisy = torch.from_numpy(np.flatnonzero(rng.random(batch) < config.noise)) if config.noise else None
    return Draw(
        flip=torch.from_numpy(flip),
        affine=_tensor(affine if affine is None or size is None else _snapped(affine, pair(size))),
        colour=_tensor(colour),
        contrast=_tensor(contrast),
        noisy=noisy,
        noise=config.noise_std,
        seed=int(rng.integers(2**63)) if config.noise else 0,
        erase=_tensor(erase),
        partner=partner,
        share=share,
        cut=cut,
    )


def minority(labels: np.ndarray, counts: Sequence[Sequence[int]], categories: Sequence[Category]) -> np.ndarray:
    """Return which images have a class that is rarer than the average of its category, [N] bool.

    labels [N, D] int, counts [K][C] training images of each class. The average is over the classes of the category,
    including those without images.
    """
    found = np.zeros(len(labels), dtype=bool)
    for span, count in zip(spans(categories), counts, strict=True):
        rare, own = np.asarray(count) < np.mean(count), labels[:, span.labels]
        found |= (rare & (own > 0)).any(1) if span.category.multi else rare[own[:, 0]] & (own[:, 0] >= 0)
    return found


def _tensor(array: np.ndarray | None) -> Tensor | None:
    return None if array is None else torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))


def _moves(config: Augment) -> bool:
    """True if anything besides a horizontal flip changes the geometry."""
    whole = config.random_resized_crop is None and not config.random_shift and not config.rotation
    return not whole or config.trivial_augment or config.rand_augment is not None


def _affine(config: Augment, shapes: np.ndarray, flip: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    half = _window(config, len(shapes), rng)  # [B, 2]
    centre = rng.uniform(-1, 1, half.shape) * (1 - half)
    angle = np.radians(rng.uniform(-config.rotation, config.rotation, len(shapes)))
    width, height = shapes[:, 0], shapes[:, 1]
    across, down = half[:, 0] * np.where(flip, -1.0, 1.0), half[:, 1]
    cos, sin = np.cos(angle), np.sin(angle)
    rows = [[cos * across, -sin * down * height / width], [sin * across * width / height, cos * down]]
    linear = np.array(rows).transpose(2, 0, 1)  # [B, 2, 2]
    return np.concatenate([linear, centre[:, :, None]], axis=2)


def then(affine: np.ndarray, plan: policies.Plan, shapes: np.ndarray) -> np.ndarray:
    """Return the window that `affine` [B, 2, 3] shows, changed by the plan in the proportions of the original."""
    width, height = np.linalg.norm(shapes[:, :, None] * affine[:, :, :2], axis=1).T  # of the window, in its pixels
    after = policies.geometry(plan, height / width)
    whole: np.ndarray = affine @ after
    return whole


def _snapped(affine: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Move upright windows to whole pixels of an image of that size, [B, 2, 3], by at most half a pixel."""
    side = np.array(size[::-1])
    half, centre = affine[:, (0, 1), (0, 1)], affine[:, :, 2]  # [B, 2] each; half is negative where mirrored
    first = np.round((1 + centre - np.abs(half)) * side / 2)
    last = np.maximum(np.round((1 + centre + np.abs(half)) * side / 2), first + 1)
    moved = affine.copy()
    moved[:, (0, 1), (0, 1)] = np.copysign((last - first) / side, half)
    moved[:, :, 2] = (first + last) / side - 1
    turned = (affine[:, 0, 1] != 0) | (affine[:, 1, 0] != 0)
    return np.where(turned[:, None, None], affine, moved)


def _window(config: Augment, batch: int, rng: np.random.Generator) -> np.ndarray:
    """Return half the sides of the visible windows, [B, 2] in 0..1; random_resized_crop as in Szegedy et al. 2015."""
    half = np.full((batch, 2), 1 - config.random_shift)
    if config.random_resized_crop is None:
        return half
    area = rng.uniform(*config.random_resized_crop.scale, batch)
    aspect = np.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3), batch))
    return half * np.minimum(np.sqrt(np.stack([area * aspect, area / aspect], axis=1)), 1.0)


def _colour(config: ColorJitter, batch: int, rng: np.random.Generator) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Return brightness, contrast, saturation and hue, in this order, as [B, 3, 3] and the share of mean grey [B]."""
    if not (config.brightness or config.contrast or config.saturation or config.hue):
        return None, None
    brightness, contrast, saturation = (
        rng.uniform(1 - by, 1 + by, batch) for by in (config.brightness, config.contrast, config.saturation)
    )
    turn = 2 * math.pi * rng.uniform(-config.hue, config.hue, batch)
    matrix = (contrast * brightness)[:, None, None] * (_hue(turn) @ policies.saturation(saturation))
    return matrix, (1 - contrast) * brightness


def _hue(turn: np.ndarray) -> np.ndarray:
    """Return the rotation of the chroma plane of YIQ by `turn` radians, [B] -> [B, 3, 3] in RGB."""
    rotation = np.zeros((len(turn), 3, 3))
    rotation[:, 0, 0] = 1
    rotation[:, 1, 1] = rotation[:, 2, 2] = np.cos(turn)
    rotation[:, 1, 2], rotation[:, 2, 1] = -np.sin(turn), np.sin(turn)
    turned: np.ndarray = np.linalg.inv(_TO_YIQ) @ rotation @ _TO_YIQ
    return turned


def _boxes(batch: int, rng: np.random.Generator, probability: float) -> np.ndarray:
    """Draw rectangles of 2 to 33 % of the area with an aspect ratio of 0.3 to 3.3 (Zhong et al. 2020), [B, 4]."""
    area = rng.uniform(0.02, 1 / 3, batch) * (rng.random(batch) < probability)
    aspect = np.exp(rng.uniform(math.log(0.3), math.log(1 / 0.3), batch))
    size = np.minimum(np.sqrt(np.stack([area * aspect, area / aspect], axis=1)), 1.0)
    corner = rng.random((batch, 2)) * (1 - size)
    return np.concatenate([corner, corner + size], axis=1)


def _mix(
    config: Augment, batch: int, rng: np.random.Generator, minority: np.ndarray | None
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Draw MixUp or CutMix for the whole batch, with a share per image; if both are on, a coin flip decides.

    MixUp of the minority leaves all other images unchanged: they only serve as partners.
    """
    if not config.mixup and not config.cutmix:
        return None, None, None
    cutting = bool(config.cutmix) and (not config.mixup or rng.random() < 0.5)
    alpha = config.cutmix if cutting else config.mixup
    partner = torch.from_numpy(rng.permutation(batch))
    share = rng.beta(alpha, alpha, batch)
    if not cutting:
        return partner, _tensor(_of_minority(share, minority) if config.mixup_classes == "minority" else share), None
    side = np.sqrt(1 - share)[:, None].repeat(2, axis=1)
    centre = rng.random((batch, 2))
    box = np.clip(np.concatenate([centre - side / 2, centre + side / 2], axis=1), 0, 1)
    return partner, None, _tensor(box)


def _of_minority(share: np.ndarray, minority: np.ndarray | None) -> np.ndarray:
    if minority is None:
        raise ValueError("mixup_classes: minority needs to know which images are in the minority")
    return np.where(minority, share, 1.0)


def apply(
    images: Tensor, how: Draw, size: Size, mean: Tensor, std: Tensor, custom: Change | None = None
) -> tuple[Tensor, Tensor | None]:
    """Return the changed, normalised images, and the share of each label that is the image's own.

    images [B, 3, H, W] uint8 -> [B, 3, *size] float32; mean, std [3]; the share is [B], or None without mixing.
    custom: the changes of extension files to the images [B, 3, *size] in 0..1.
    """
    x = _warp(images, how, pair(size))
    if how.colour is not None and how.contrast is not None:
        x = recolour(x, how.colour, how.contrast)
    x = disturb(x, how)
    x = x if custom is None else custom(x)
    return finish((x - mean[:, None, None]) / std[:, None, None], how)


def with_noise(how: Draw, size: Size) -> Draw:
    """Return the parameters with the noise that images of that size receive.

    To draw it takes over a millisecond per image of 224 pixels: a GPU's main thread leaves that to the side thread.
    """
    return how if how.noisy is None else replace(how, added=_noise(how, len(how.noisy), pair(size)))


def _noise(how: Draw, count: int, size: tuple[int, int]) -> Tensor:
    """Draw Gaussian noise of deviation 1 on the host, so that it is the same on every device, [count, 3, *size]."""
    return torch.randn((count, 3, *size), generator=torch.Generator().manual_seed(how.seed))


def disturb(x: Tensor, how: Draw) -> Tensor:
    """Add Gaussian noise, in place, to those of the images [B, 3, H, W] in 0..1 that receive it; clamped."""
    if how.noisy is None:
        return x
    height, width = x.shape[2:]
    added = send(_noise(how, len(how.noisy), (height, width)), x.device) if how.added is None else how.added
    return x.index_copy_(0, how.noisy, (x[how.noisy] + how.noise * added).clamp(0, 1))


def finish(x: Tensor, how: Draw) -> tuple[Tensor, Tensor | None]:
    """Erase and mix normalised images [B, 3, H, W] in place; returns them and the own share of each label."""
    if how.erase is not None:
        x.masked_fill_(_inside(how.erase, *x.shape[2:])[:, None], 0.0)  # 0 is the mean colour
    return _blend(x, how)


def plain(images: Tensor, size: Size, mean: Tensor, std: Tensor) -> Tensor:
    """Return the images as evaluation sees them, resized and normalised.

    images [B, 3, H, W] uint8 -> [B, 3, *size] float32; mean, std [3].
    """
    return (_resize(images, pair(size)) - mean[:, None, None]) / std[:, None, None]


def _resize(images: Tensor, size: tuple[int, int]) -> Tensor:
    x = images.float() / 255
    if x.shape[2:] == size:
        return x
    return F.interpolate(x, size=size, mode="bilinear", antialias=True, align_corners=False)


def _warp(images: Tensor, how: Draw, size: tuple[int, int]) -> Tensor:
    if how.affine is None:
        x = _resize(images, size)
        return torch.where(how.flip[:, None, None, None], x.flip(3), x)
    across, down = sampling_positions(how.affine, images.shape[2:], size)
    x = _sample(images.float() / 255, sampling_grid(how.affine, across, down))
    return x if x.shape[2:] == size else F.avg_pool2d(x, 2)


def sampling_positions(affine: Tensor, level: Sequence[int], size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Return the positions across and down at which images of height and width `level` are sampled, -1..1: one per
    pixel, [1, W] and [1, H], or, for smaller outputs, two whose mean is smoothed, [B, 2 W] and [B, 2 H].
    """
    (height, width), ratios = size, (level[1] / size[1], level[0] / size[0])
    if max(ratios) <= SHRINKS:
        across, down = (pixel_centers(count, affine.device)[None] for count in (width, height))
        return across, down
    across, down = (_spread(_step(affine, k, level), ratios[k], n) for k, n in enumerate((width, height)))
    return across, down


def _step(affine: Tensor, axis: int, level: Sequence[int]) -> Tensor:
    """Return the direction of a row (axis 0) or column (1) of the output in images of height and width `level`, see
    `_spread`.

    Only with Python numbers: a tensor made of them on a GPU would wait for all its work.
    """
    pixels = level[1], level[0]  # across and down
    return torch.stack([affine[:, k, axis] * (pixels[k] / pixels[axis]) for k in (0, 1)], 1)  # [B, 2]


def _sample(x: Tensor, grid: Tensor) -> Tensor:
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def pixel_centers(size: int, device: torch.device) -> Tensor:
    """Return the centres of `size` pixels in a row, -1..1, [size]."""
    return (torch.arange(size, device=device) + 0.5) * (2 / size) - 1


def _spread(step: Tensor, ratio: float, size: int) -> Tensor:
    """Return two positions per pixel of a row whose mean blurs as torch's antialiased resize does, [B, 2 size].

    step [B, 2] is the row's direction in the input, in units with the same number of pixels either way; at `ratio` 1
    its length is the extent of a pixel, in pixels of the input. Where that is s > 1, a resize weights with a triangle
    of half-width s, of variance s^2 / 6, and bilinear sampling with one of half-width 1: two positions a distance d
    away on either side add the difference, d^2 = (s^2 - 1) / 6.
    """
    shrinks = (step.square().sum(1).sqrt() * ratio).clamp_min(1)  # [B], s
    apart = ((1 - shrinks**-2) / 6).sqrt() * (2 / size)  # d / s output pixels
    both = torch.stack([-apart, apart], 1)  # [B, 2]
    return (pixel_centers(size, step.device)[:, None] + both[:, None]).flatten(1)


def sampling_grid(affine: Tensor, across: Tensor, down: Tensor) -> Tensor:
    """Return the position in the input, -1..1, of each pixel of the output, [B, H, W, 2].

    affine [B, 2, 3]; across and down: positions in the output, [B or 1, W] and [B or 1, H]. `F.affine_grid` would use
    a matrix product, which a GPU computes in TF32: with its 10 bits, it is off by 0.06 pixels in 256.
    """
    right, below, origin = affine[:, None].unbind(3)  # [B, 1, 2] each
    rows = below * down[:, :, None] + origin  # [B, H, 2]
    columns = right * across[:, :, None]  # [B, W, 2]
    return rows[:, :, None] + columns[:, None]


def recolour(x: Tensor, matrix: Tensor, contrast: Tensor) -> Tensor:
    """Change colours by a sum of three products instead of a matrix product, also to avoid TF32."""
    red, green, blue = x.mean((2, 3)).unbind(1)
    grey = (GREY[0] * red + GREY[1] * green + GREY[2] * blue) * contrast  # [B]
    out = grey[:, None, None, None].expand_as(x).contiguous()
    for k in range(3):
        out.addcmul_(matrix[:, :, k, None, None], x[:, k : k + 1])
    return out.clamp_(0, 1)


def _inside(boxes: Tensor, height: int, width: int) -> Tensor:
    """Return the mask of boxes [B, 4], given in shares of the sides -> [B, height, width] bool."""
    x, y = ((torch.arange(size, device=boxes.device) + 0.5) / size for size in (width, height))
    left, top, right, bottom = (edge[:, None] for edge in boxes.unbind(1))
    across, down = (x >= left) & (x < right), (y >= top) & (y < bottom)
    return down[:, :, None] & across[:, None, :]


def _blend(x: Tensor, how: Draw) -> tuple[Tensor, Tensor | None]:
    if how.partner is None:
        return x, None
    if how.cut is not None:
        mask = _inside(how.cut, *x.shape[2:])
        return torch.where(mask[:, None], x[how.partner], x), 1 - mask.float().mean((1, 2))
    if how.share is not None:
        return x.lerp_(x[how.partner], (1 - how.share)[:, None, None, None]), how.share
    return x, None
