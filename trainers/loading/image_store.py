"""A level of the decoded images as a tensor: the memory map itself, copied or decoded rows, or all on a device."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainers.data.cache import Cache
from trainers.data.decoded_files import Images, JpegImages
from trainers.loading.transforms import Size, pair

ROOM = 3  # multiple of a level's bytes that must be free on a GPU before the level moves there
PIECE = 2**26  # bytes moved at once


def level(cache: Cache, size: Size, window: float = 1.0) -> Images:
    """Return the images [N, H, W, 3] of the smallest level whose windows are not smaller than the network's input.

    window: side of a window, as a share of the image's. The largest level is returned if all are too small.
    """
    there = zip(pair(size), cache.half.shape[1:3], strict=True)
    return cache.half if all(wanted <= round(window * side, 6) for wanted, side in there) else cache.images


class _Open:
    """An array that claims to be writable, as torch requires.

    The system refuses a truly writable (copy-on-write) map if it is larger than memory.
    """

    def __init__(self, array: NDArray[np.uint8]) -> None:
        self.array = array
        self.__array_interface__ = array.__array_interface__ | {"data": (array.ctypes.data, False)}


def shared(images: NDArray[np.uint8]) -> Tensor:
    """Return a tensor on the same memory. Writing to that of a read-only map kills the process."""
    return torch.from_numpy(np.asarray(_Open(images)))


def gather(images: Images, rows: np.ndarray, *, pinned: bool = False, threads: int = 1) -> Tensor:
    """Return a copy of these rows, [B, H, W, 3]; `threads` share the decoding of JPEGs."""
    batch = torch.empty((len(rows), *images.shape[1:]), dtype=torch.uint8, pin_memory=pinned)
    if isinstance(images, JpegImages):
        images.read(rows, batch.numpy(), threads)
    else:
        np.take(images, rows, axis=0, out=batch.numpy(), mode="clip")
    return batch


@dataclass
class DeviceImageCache:
    """The levels of one data set that a process keeps on one device, from trial to trial."""

    home: object = None
    levels: dict[object, tuple[Images, Tensor]] = field(default_factory=dict)

    def take(self, images: Images, device: torch.device) -> Tensor | None:
        """Return all of `images` on `device`, [N, H, W, 3]; None if it does not have room for three times as much.

        Images of another data set, or on another device, are released first.
        """
        place = _place(images)
        home = Path(place).parent if isinstance(place, str) else place, device.type, device.index or 0
        if home != self.home:
            self.levels, self.home = {}, home
        if place not in self.levels:
            if _free(device) < ROOM * images.nbytes:
                return None
            self.levels[place] = images, _moved(images, device)
        return self.levels[place][1]

    def clear(self, *, unless: bool = False) -> None:
        """Release the images, `unless` they are still needed."""
        if not unless:
            self.levels, self.home = {}, None


def _place(images: Images) -> str | int:
    """Return the file of the images, named after its content, or the id of others, which the cache keeps alive."""
    place = getattr(images, "filename", None)
    return str(place) if place is not None else id(images)


def _free(device: torch.device) -> float:
    """Return the free bytes; infinite for the host, where this gains nothing and only tests use it."""
    if device.type == "cpu":
        return float("inf")
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 0.0


def _moved(images: Images, device: torch.device) -> Tensor:
    """Move the images piece by piece, so that host memory never holds a second copy."""
    whole = torch.empty(images.shape, dtype=torch.uint8, device=device)
    rows, threads = max(1, PIECE // (images.nbytes // len(images))), torch.get_num_threads()
    for start in range(0, len(images), rows):
        piece = np.arange(start, min(start + rows, len(images)))
        whole[start : start + rows].copy_(gather(images, piece, threads=threads))
    return whole


DEVICE_IMAGES = DeviceImageCache()
