"""Image changes on a CPU: straight from the memory map, a few images at a time so that they stay in its cache.

Each image changes as `transforms.apply` would change it, and is smoothed as much where it shrinks. Upright windows,
however, use torch's 8-bit resize: 0.09 ms per image of 224 pixels, where `grid_sample` takes 0.65 ms, and four times
that with the four samples per pixel that smooth.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from trainers.loading import transforms
from trainers.loading.policies import GREY
from trainers.loading.transforms import Change, Draw, Size, pair

GROUP = 2**16  # pixels processed together

Crop = tuple[int, int, int, int, bool]  # left, top, right, bottom in whole pixels; true if mirrored


@dataclass(frozen=True)
class InputFormat:
    """The format of a network's input images: their device, normalisation [3] and memory layout."""

    device: torch.device
    mean: Tensor
    std: Tensor
    layout: torch.memory_format


class BatchBuffers:
    """Memory for two alternating batches: fresh memory costs as much as filling it, 0.26 ms per image of 224 pixels.

    Each batch is overwritten by the next but one.
    """

    def __init__(self) -> None:
        self.first, self.second = torch.empty(0), torch.empty(0)

    def take(self, count: int, size: tuple[int, int], layout: torch.memory_format) -> Tensor:
        """Return a tensor [count, 3, *size] float32 with arbitrary content."""
        self.first, self.second = self.second, self.first
        if self.first.shape[2:] != size or len(self.first) < count:
            self.first = torch.empty((count, 3, *size), memory_format=layout)
        return self.first[:count]


def apply(
    level: Tensor,
    rows: np.ndarray,
    how: Draw,
    size: Size,
    eye: InputFormat,
    room: BatchBuffers,
    custom: Change | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Return the changed, normalised images of `rows`, and each label's own share: see `transforms.apply`.

    level [N, H, W, 3] uint8 -> [B, 3, *size] float32, in `room` or, with `custom`, in memory of their own.
    """
    out = room.take(len(rows), pair(size), eye.layout)
    windows = list(_windows(how, level.shape[1], level.shape[2]))
    later = how.noisy is not None or custom is not None  # steps between these and normalisation
    mean, std = (torch.zeros(3), torch.ones(3)) if later else (eye.mean, eye.std)
    for part in _groups(out):
        _fill(out[part], level, rows[part], windows[part], _part(how, part), mean, std)
    if how.noisy is not None:
        out = transforms.disturb(out, how)
    if custom is not None:
        out = (custom(out) - eye.mean[:, None, None]).div_(eye.std[:, None, None])
    elif later:
        out.sub_(eye.mean[:, None, None]).div_(eye.std[:, None, None])
    return transforms.finish(out, how)


def look(level: Tensor, rows: np.ndarray, window: Crop, size: Size, eye: InputFormat, room: BatchBuffers) -> Tensor:
    """Return the same window of every row as evaluation sees it, resized and normalised, [B, 3, *size] float32."""
    out = room.take(len(rows), pair(size), eye.layout)
    for part in _groups(out):
        for image, row in zip(out[part], rows[part].tolist(), strict=True):
            image.copy_(_cut(level[row], window, pair(size)))
        _normalise(out[part], eye.mean, eye.std)
    return out


def _groups(out: Tensor) -> Iterator[slice]:
    step = max(1, GROUP // (out.shape[2] * out.shape[3]))
    for first in range(0, len(out), step):
        yield slice(first, first + step)


def _part(how: Draw, part: slice) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Return geometry, colour and contrast of some of the images."""
    affine, colour, contrast = (None if x is None else x[part] for x in (how.affine, how.colour, how.contrast))
    return affine, colour, contrast


def _windows(how: Draw, height: int, width: int) -> Iterator[Crop | None]:
    """Yield the window of each image in whole pixels; None if it is rotated, sheared or partly outside the image."""
    if how.affine is None:
        yield from ((0, 0, width, height, flip) for flip in how.flip.tolist())
        return
    side = np.array((width, height), dtype=np.float32)
    affine = how.affine.numpy()
    half, centre = affine[:, (0, 1), (0, 1)], affine[:, :, 2]
    first, last = (np.rint((1 + centre + sign * np.abs(half)) * side / 2).astype(int) for sign in (-1, 1))
    upright = (affine[:, 0, 1] == 0) & (affine[:, 1, 0] == 0) & (half[:, 1] > 0)
    inside = upright & (first >= 0).all(1) & (last <= side).all(1) & (last > first).all(1)
    for k, fits in enumerate(inside.tolist()):
        yield (*first[k].tolist(), *last[k].tolist(), bool(half[k, 0] < 0)) if fits else None


def _fill(
    out: Tensor,
    level: Tensor,
    rows: np.ndarray,
    windows: Sequence[Crop | None],
    how: tuple[Tensor | None, Tensor | None, Tensor | None],
    mean: Tensor,
    std: Tensor,
) -> None:
    """Write some images into `out`, normalised."""
    affine, colour, contrast = how
    plane = out if colour is None else torch.empty(out.shape)  # 0..255
    for k, (row, window) in enumerate(zip(rows.tolist(), windows, strict=True)):
        if window is not None:
            plane[k].copy_(_cut(level[row], window, out.shape[2:]))
    turned = [k for k, window in enumerate(windows) if window is None]
    if turned and affine is not None:
        images = _turned(level, rows[turned], affine[turned], (out.shape[2], out.shape[3]))
        for k, image in zip(turned, images, strict=True):
            plane[k] = image
    if colour is None or contrast is None:
        _normalise(out, mean, std)
    else:
        _recolour(plane, out, colour, contrast, mean, std)


def _cut(image: Tensor, window: Crop, size: tuple[int, ...]) -> Tensor:
    """Resize a window of an image [H, W, 3] uint8 -> [3, *size] uint8."""
    left, top, right, bottom, mirrored = window
    x = image[top:bottom, left:right].permute(2, 0, 1)
    if x.shape[1:] != size:
        x = F.interpolate(x[None], size=size, mode="bilinear", antialias=True)[0]
    return x.flip(2) if mirrored else x


def _turned(level: Tensor, rows: np.ndarray, affine: Tensor, size: tuple[int, int]) -> Iterator[Tensor]:
    """Yield the images of `rows`, each sampled through its matrix of [n, 2, 3], [3, *size] float32 in 0..255."""
    sampled = transforms.sampling_positions(affine, level.shape[1:3], size)
    across, down = (each.expand(len(rows), -1).numpy() for each in sampled)
    for row, matrix, x, y in zip(rows.tolist(), affine.tolist(), across, down, strict=True):
        image, grid = level[row].permute(2, 0, 1)[None].float(), _grid(matrix, x, y)
        found = F.grid_sample(image, grid, padding_mode="reflection", align_corners=False)[0]
        yield found if found.shape[1:] == size else _halved(found)


def _grid(matrix: list[list[float]], across: np.ndarray, down: np.ndarray) -> Tensor:
    """Return `transforms.sampling_grid` of one image, faster, [1, H, W, 2]."""
    grid = np.empty((1, len(down), len(across), 2), dtype=np.float32)
    for k, (right, below, origin) in enumerate(matrix):
        np.add((across * right + origin)[None, :], (down * below)[:, None], out=grid[0, :, :, k])
    return torch.from_numpy(grid)


def _halved(x: Tensor) -> Tensor:
    """Return the means of squares of 4 pixels, as `F.avg_pool2d` does in four times the time, [3, H / 2, W / 2]."""
    rows = x[:, ::2] + x[:, 1::2]
    return (rows[:, :, ::2] + rows[:, :, 1::2]).mul_(0.25)


def _recolour(plane: Tensor, out: Tensor, matrix: Tensor, contrast: Tensor, mean: Tensor, std: Tensor) -> None:
    """Change the colour of images in 0..255, clamp and normalise in one product: the clamp scales along."""
    flat = plane.flatten(2)  # [n, 3, pixels]
    grey = (flat.mean(2) @ torch.tensor(GREY)) * contrast / 255  # [n]
    shift = (grey[:, None] - mean) / std
    flat = torch.baddbmm(shift[:, :, None], matrix / (255 * std[:, None]), flat)
    for k, (low, high) in enumerate(zip((-mean / std).tolist(), ((1 - mean) / std).tolist(), strict=True)):
        torch.clamp(flat[:, k].view(-1, *out.shape[2:]), low, high, out=out[:, k])


def _normalise(out: Tensor, mean: Tensor, std: Tensor) -> None:
    """Normalise images in 0..255 in place, in long rows whatever the layout."""
    scale, shift = 1 / (255 * std), -mean / std
    if out.is_contiguous():
        flat = out.flatten(2)
        torch.addcmul(shift[:, None], flat, scale[:, None], out=flat)
    else:
        rows = out.permute(0, 2, 3, 1).flatten(2)  # [n, height, width * 3]
        torch.addcmul(shift.repeat(out.shape[3]), rows, scale.repeat(out.shape[3]), out=rows)
