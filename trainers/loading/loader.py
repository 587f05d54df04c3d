"""Batches for training steps: a side thread gathers, draws and sends one while the step works on another."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from trainers.config import Augment
from trainers.data.decoded_files import JpegImages
from trainers.loading import cpu_transforms, transforms
from trainers.loading.batches import Data
from trainers.loading.cpu_transforms import BatchBuffers, Crop, InputFormat
from trainers.loading.custom_augmentations import NONE, CustomAugmentations
from trainers.loading.image_store import DEVICE_IMAGES, gather, level, shared
from trainers.loading.prefetch import prefetch
from trainers.loading.transforms import Size
from trainers.support.device import send


@dataclass(frozen=True)
class Batch:
    """The input of one training step."""

    images: Tensor  # [B, 3, *size] float32, changed and normalised
    labels: Tensor  # [B, D] int64
    own: Tensor | None = None  # [B], share of each image's own label; None without mixing
    other: Tensor | None = None  # [B, D] int64, labels of the image that is mixed in
    weights: Tensor | None = None  # [B], factor of the loss; None if all are 1
    other_weights: Tensor | None = None  # [B], of the image that is mixed in

    def pieces(self, most: int) -> Iterator["Batch"]:
        """Yield the batch in the fewest pieces of at most `most` images, as equal in size as possible."""
        count = len(self.images)
        number = math.ceil(count / most)
        for start, end in pairwise(count * k // number for k in range(number + 1)):
            more = (self.own, self.other, self.weights, self.other_weights)
            parts = (None if whole is None else whole[start:end] for whole in more)
            yield Batch(self.images[start:end], self.labels[start:end], *parts)


@dataclass(frozen=True)
class RawBatch:
    """Images that a device has yet to change: [B, H, W, 3] uint8, their labels and parameters."""

    images: Tensor
    labels: Tensor | None = None
    how: transforms.Draw | None = None
    weights: Tensor | None = None


@dataclass(frozen=True)
class AugmentationSource:
    """The source of random parameters: the augmentations, the generator of one epoch, and the minority images."""

    config: Augment
    rng: np.random.Generator
    minority: np.ndarray  # [rows] bool

    @cached_property
    def custom(self) -> CustomAugmentations:
        """The custom augmentations, made again for each epoch so that a resumed run equals an uninterrupted one."""
        return CustomAugmentations.of(self.config, torch.get_num_threads())


class Loader:
    """Batches from the smallest level of the cache in which no window has to be enlarged.

    window: side of the smallest window used, as a share of the image's side.
    hosted: the CPU changes the images. Otherwise the device of `eye` does, and the host only gathers; resident: not
    even that, because the device keeps the level if it has room. All three see the same random parameters.
    Each batch is overwritten when the next one is requested.
    """

    def __init__(
        self,
        data: Data,
        size: Size,
        eye: InputFormat,
        *,
        hosted: bool,
        resident: bool = False,
        window: float = 1.0,
    ) -> None:
        self.data, self.size, self.eye, self.hosted = data, size, eye, hosted
        self.room = BatchBuffers()
        self.images = level(data.cache, size, window)
        self.level = None if isinstance(self.images, JpegImages) else shared(self.images)
        self.source = self.images.shape[1:3]  # height and width
        self.threads = torch.get_num_threads()  # that decode JPEGs
        self.read: tuple[np.ndarray | None, Tensor] = None, torch.empty(0)  # the rows decoded last, and their images
        self.kept = DEVICE_IMAGES.take(self.images, eye.device) if resident and not hosted else None

    def training(self, chunks: Sequence[np.ndarray], drawing: AugmentationSource) -> Iterator[Batch]:
        """Yield one batch per chunk of row numbers, with parameters drawn in order."""
        custom = drawing.custom
        if not self.hosted:
            yield from (self.change(raw, custom) for raw in self.raw(chunks, drawing))
            return

        def made(rows: np.ndarray) -> Batch:
            how = self.draw(rows, drawing)
            changed = self._changed(rows, how, custom)
            level, places = self._pixels(rows) if changed is None else (changed, np.arange(len(rows)))
            images, own = cpu_transforms.apply(
                level, places, how, self.size, self.eye, self.room, custom.of_batch(how)
            )
            return _batch(self._laid(images), self._labels(rows), own, how.partner, self._weights(rows))

        yield from prefetch(chunks, made, self.eye.device)

    def raw(self, chunks: Sequence[np.ndarray], drawing: AugmentationSource) -> Iterator[RawBatch]:
        """Return the raw batches, which a device has yet to change."""

        def made(rows: np.ndarray) -> RawBatch:
            how = transforms.with_noise(self.draw(rows, drawing), self.size).to(self.eye.device)
            changed = self._changed(rows, how, drawing.custom)
            raw = self._raw(rows) if changed is None else RawBatch(send(changed, self.eye.device))
            return replace(raw, labels=self._labels(rows), how=how, weights=self._weights(rows))

        return prefetch(chunks, made, self.eye.device, depth=2)  # one more than is being made: hosts are not punctual

    def plain(self, chunks: Sequence[np.ndarray], windows: Sequence[Crop]) -> Iterator[Tensor]:
        """Yield what evaluation sees of each chunk, window by window, [B, 3, *size] float32 on the device."""
        asked = [(rows, window) for rows in chunks for window in windows]
        if self.hosted:
            yield from prefetch(asked, self._look, self.eye.device)
            return
        for raw in prefetch(chunks, self._raw, self.eye.device):
            yield from (self.seen(raw.images, window) for window in windows)

    def draw(self, rows: np.ndarray, drawing: AugmentationSource) -> transforms.Draw:
        """Return the random parameters for these rows."""
        shapes = np.asarray(self.data.cache.sizes[rows])
        how = transforms.draw(drawing.config, shapes, drawing.rng, drawing.minority[rows], self.source)
        return drawing.custom.draw(how, drawing.rng)

    def _look(self, asked: tuple[np.ndarray, Crop]) -> Tensor:
        rows, window = asked
        return cpu_transforms.look(*self._pixels(rows), window, self.size, self.eye, self.room)

    def _pixels(self, rows: np.ndarray) -> tuple[Tensor, np.ndarray]:
        """Return images [.., H, W, 3] uint8, and the rows' positions. JPEGs are decoded once for all windows."""
        if self.level is not None:
            return self.level, rows
        if self.read[0] is not rows:
            self.read = rows, gather(self.images, rows, threads=self.threads)
        return self.read[1], np.arange(len(rows))

    def _gathered(self, rows: np.ndarray) -> Tensor:
        pinned = self.eye.device.type == "cuda"
        return gather(self.images, rows, pinned=pinned, threads=self.threads)

    def _changed(self, rows: np.ndarray, how: transforms.Draw, custom: CustomAugmentations) -> Tensor | None:
        """Return copies of these images on the host, [B, H, W, 3] uint8, changed by augmentations from extension
        files; None if there are none.
        """
        return None if how.image_seeds is None else custom.change_images(self._gathered(rows), how.image_seeds)

    def _raw(self, rows: np.ndarray) -> RawBatch:
        if self.kept is not None:
            return RawBatch(self.kept.index_select(0, send(torch.from_numpy(rows), self.eye.device)))
        return RawBatch(send(self._gathered(rows), self.eye.device))

    def _labels(self, rows: np.ndarray) -> Tensor:
        return send(torch.from_numpy(self.data.labels(rows)), self.eye.device)

    def _weights(self, rows: np.ndarray) -> Tensor | None:
        weights = self.data.weights
        return None if weights is None else send(torch.from_numpy(weights[rows]), self.eye.device)

    def change(self, raw: RawBatch, custom: CustomAugmentations = NONE) -> Batch:
        """Return the batch that the device makes from a raw one."""
        if raw.how is None or raw.labels is None:
            raise ValueError("images without parameters cannot be changed")
        eye, images = self.eye, raw.images.permute(0, 3, 1, 2)
        x, own = transforms.apply(images, raw.how, self.size, eye.mean, eye.std, custom.of_batch(raw.how))
        return _batch(self._laid(x), raw.labels, own, raw.how.partner, raw.weights)

    def seen(self, images: Tensor, window: Crop) -> Tensor:
        """Return what evaluation sees of these images through a window."""
        left, top, right, bottom, mirrored = window
        x = images[:, top:bottom, left:right].permute(0, 3, 1, 2)
        x = x.flip(3) if mirrored else x
        return self._laid(transforms.plain(x, self.size, self.eye.mean, self.eye.std))

    def _laid(self, x: Tensor) -> Tensor:
        return x.contiguous(memory_format=self.eye.layout)


def _batch(
    images: Tensor, labels: Tensor, own: Tensor | None, partner: Tensor | None, weights: Tensor | None
) -> Batch:
    """Return a batch whose images are mixed with their partners, [B] int64, if there are any."""
    if partner is None:
        return Batch(images, labels, own, weights=weights)
    return Batch(images, labels, own, labels[partner], weights, None if weights is None else weights[partner])
