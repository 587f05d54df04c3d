"""A level of the decoded images as a tensor: the memory map itself, rows gathered or decoded, or all on a device."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainers.data.cache import Cache
from trainers.data.decoded_files import Images, JpegImages
from trainers.loading.transforms import Size, pair

ROOM = 3  # times its bytes must be free on a GPU before a level moves there
PIECE = 2**26  # bytes that move in one go


def level(cache: Cache, size: Size, window: float = 1.0) -> Images:
    """The images of the smallest level whose windows, a share of the side, are not below the network's input.

    [N, H, W, 3]; the largest level where all are below.
    """
    there = zip(pair(size), cache.half.shape[1:3], strict=True)
    return cache.half if all(wanted <= round(window * side, 6) for wanted, side in there) else cache.images


class _Open:
    """An array that says of itself that it may be written to, which torch asks of all it looks at.

    A map that may be (copy on write) is refused by the system where it is larger than the memory.
    """

    def __init__(self, array: NDArray[np.uint8]) -> None:
        self.array = array
        self.__array_interface__ = array.__array_interface__ | {"data": (array.ctypes.data, False)}


def shared(images: NDArray[np.uint8]) -> Tensor:
    """The same memory as a tensor. Of a read-only map: whoever writes to it ends the process."""
    return torch.from_numpy(np.asarray(_Open(images)))


def gather(images: Images, rows: np.ndarray, *, pinned: bool = False, threads: int = 1) -> Tensor:
    """A copy of these rows, [B, H, W, 3]; `threads` share the decoding of JPEGs."""
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
        """All of `images` on `device`, [N, H, W, 3]; None where it has no room for three times as much.

        What lay here of another data set, or on another device, is let go first.
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
        """Let go of what lies here, `unless` it is still wanted."""
        if not unless:
            self.levels, self.home = {}, None


def _place(images: Images) -> str | int:
    """The file of the images, which is named for its content; of others, which the shelf holds, their id."""
    place = getattr(images, "filename", None)
    return str(place) if place is not None else id(images)


def _free(device: torch.device) -> float:
    """Of the host's own memory as much as is wanted: there is nothing to gain, and only tests ask for it."""
    if device.type == "cpu":
        return float("inf")
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 0.0


def _moved(images: Images, device: torch.device) -> Tensor:
    """Piece by piece, so that no second copy lies in the host's memory."""
    whole = torch.empty(images.shape, dtype=torch.uint8, device=device)
    rows, threads = max(1, PIECE // (images.nbytes // len(images))), torch.get_num_threads()
    for start in range(0, len(images), rows):
        piece = np.arange(start, min(start + rows, len(images)))
        whole[start : start + rows].copy_(gather(images, piece, threads=threads))
    return whole


DEVICE_IMAGES = DeviceImageCache()
