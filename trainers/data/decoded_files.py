"""The files in which decoded images lie: their names, shapes and sizes, and how they are opened."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

SIZES = "sizes.npy"


@dataclass(frozen=True)
class ImageFormat:
    """How the images of a cache are kept."""

    height: int
    width: int

    @property
    def levels(self) -> dict[str, tuple[int, int]]:
        """Height and width of each level, by the name of its file: whole, and half as large."""
        return {"images": (self.height, self.width), "half": (self.height // 2, self.width // 2)}

    @property
    def files(self) -> tuple[str, ...]:
        """Names of all files of a cache but its description and its checksums."""
        return (*(f"{name}.npy" for name in self.levels), SIZES)

    @property
    def bytes(self) -> int:
        """Bytes of one image at all levels."""
        return sum(3 * height * width for height, width in self.levels.values())

    def opened(self, folder: Path, count: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]] | None:
        """The levels of `count` images in `folder` as read-only memory maps, or None where they are not there."""
        wanted = [(count, *level, 3) for level in self.levels.values()]
        try:
            images, half = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in self.levels)
        except (OSError, ValueError):
            return None
        return (images, half) if [images.shape, half.shape] == wanted else None


def sizes(folder: Path, count: int) -> NDArray[np.int32] | None:
    """Width and height of the original of each of `count` images, [N, 2], read-only; None where they are not there.

    In a folder that is still filled it is 0 for images that are not on disk yet.
    """
    try:
        found: NDArray[np.int32] = np.load(folder / SIZES, mmap_mode="r")
    except (OSError, ValueError):
        return None
    return found if found.shape == (count, 2) else None
