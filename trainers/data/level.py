"""A level of the decoded images as a tensor: the memory map itself, rows gathered from it, or all on a device."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainers.data.cache import Cache

ROOM = 3  # times its bytes must be free on a GPU before a level moves there
PIECE = 2**26  # bytes that move in one go


def level(cache: Cache, image_size: int) -> NDArray[np.uint8]:
    """The images of the smallest level that is not below the network's input, [N, S, S, 3]."""
    return cache.half if image_size <= cache.size // 2 else cache.images


class _Open:
    """An array that says of itself that it may be written to, which torch asks of all it looks at."""

    def __init__(self, array: NDArray[np.uint8]) -> None:
        self.array = array
        self.__array_interface__ = array.__array_interface__ | {"data": (array.ctypes.data, False)}


def shared(images: NDArray[np.uint8]) -> Tensor:
    """The same memory as a tensor. Of a read-only map: whoever writes to it ends the process."""
    return torch.from_numpy(np.asarray(_Open(images)))


def gather(images: NDArray[np.uint8], rows: np.ndarray, *, pinned: bool = False) -> Tensor:
    """A copy of these rows, [B, S, S, 3]."""
    batch = torch.empty((len(rows), *images.shape[1:]), dtype=torch.uint8, pin_memory=pinned)
    np.take(images, rows, axis=0, out=batch.numpy(), mode="clip")
    return batch


@dataclass
class Shelf:
    """The one level that a process keeps on a device, from trial to trial."""

    source: NDArray[np.uint8] | None = None
    images: Tensor | None = None

    def take(self, images: NDArray[np.uint8], device: torch.device) -> Tensor | None:
        """All of `images` on `device`, [N, S, S, 3]; None where it has no room for three times as much.

        What lay here before of another data set, size or device is let go first.
        """
        if self.images is None or self.images.device != device or not self._is(images):
            self.source = self.images = None
            if _free(device) < ROOM * images.nbytes:
                return None
            self.source, self.images = images, _moved(images, device)
        return self.images

    def _is(self, images: NDArray[np.uint8]) -> bool:
        if images is self.source:
            return True
        place = _place(images)
        return place is not None and self.source is not None and place == _place(self.source)


def _place(images: NDArray[np.uint8]) -> Any:
    """The file of a memory map, whose name is of its content; None for other arrays."""
    return getattr(images, "filename", None)


def _free(device: torch.device) -> float:
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else float("inf")


def _moved(images: NDArray[np.uint8], device: torch.device) -> Tensor:
    """Piece by piece, so that no second copy lies in the host's memory."""
    whole = torch.empty(images.shape, dtype=torch.uint8, device=device)
    rows = max(1, PIECE // images[0].nbytes)
    for start in range(0, len(images), rows):
        whole[start : start + rows].copy_(torch.from_numpy(np.array(images[start : start + rows])))
    return whole


SHELF = Shelf()
