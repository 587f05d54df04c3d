"""Decoding all images of a data set to disk, in shards: a kill loses no more than the shard that was under way."""

import io
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from trainers.data.decoded_files import SIZES, ImageFormat, sizes
from trainers.data.images import Progress, UnreadableImage, map_rows, resize_square
from trainers.data.table import Row, Table
from trainers.support.errors import DataError, Fault
from trainers.support.files import atomic_write, regular

SHARD = 2**28  # bytes of decoded images after which what is done is put on record


def decode_all(table: Table, how: ImageFormat, folder: Path, progress: Progress | None = None) -> None:
    """Put every image of `table` into `folder`, those apart that an earlier call put there.

    Raises DataError with every unreadable image, and OSError.
    """
    count = len(table.rows)
    done = np.zeros((count, 2), dtype=np.int32) if (kept := sizes(folder, count)) is None else np.array(kept)
    missing = np.flatnonzero(done[:, 0] == 0).tolist()
    faults: dict[int, Fault] = {}
    with _opened(folder, how, count) as levels:
        shards = _Shards(folder, levels, done, every=max(1, SHARD // how.bytes))

        def work(number: int, row: Row) -> None:
            index = missing[number]
            try:
                content = regular(table.root / row.path).read_bytes()
                image, original = resize_square(content, how.height, row.box)
            except (UnreadableImage, OSError) as error:
                faults[index] = Fault(row.where, f"{row.path!r} {getattr(error, 'strerror', error)}")
                return
            for level in levels:
                level.put(index, image)
            done[index] = original

        def note(so_far: int, _: int) -> None:
            shards.note(so_far)
            if progress:
                progress(count - len(missing) + so_far, count)

        map_rows([table.rows[index] for index in missing], work, note)
        if faults:
            raise DataError([faults[index] for index in sorted(faults)])
        shards.save()


@dataclass
class _Level:
    """A .npy file of images that is being filled."""

    file: BinaryIO
    size: tuple[int, int]  # width and height
    start: int  # where its first image begins

    def put(self, index: int, image: Image.Image) -> None:
        """Write image `index`, made smaller where this level has a smaller size."""
        small = image if image.size == self.size else image.resize(self.size, Image.Resampling.BICUBIC)
        pixels = small.tobytes()
        _write(self.file.fileno(), pixels, self.start + index * len(pixels))


@contextmanager
def _opened(folder: Path, how: ImageFormat, count: int) -> Iterator[list[_Level]]:
    """The files of all levels, with what was written before."""
    with ExitStack() as stack:
        levels = []
        for name, (height, width) in how.levels.items():
            path = folder / f"{name}.npy"
            path.touch()
            file = stack.enter_context(path.open("r+b"))
            levels.append(_Level(file, (width, height), _header(file, (count, height, width, 3))))
        yield levels


@dataclass
class _Shards:
    """Puts on record which images are on disk: `sizes` [N, 2], 0 for those that are not."""

    folder: Path
    levels: list[_Level]
    sizes: NDArray[np.int32]
    every: int  # images
    noted: int = field(default=0, init=False)

    def note(self, written: int) -> None:
        """Save what is done where so many images that this process has written make up a shard."""
        if written - self.noted >= self.every:
            self.noted = written
            self.save()

    def save(self) -> None:
        sizes = self.sizes.copy()  # before the files are synced: other threads write on
        for level in self.levels:
            os.fsync(level.file.fileno())
        buffer = io.BytesIO()
        np.save(buffer, sizes)  # straight to a file, a full disk would be an error without a number
        with atomic_write(self.folder / SIZES) as file:
            file.write(buffer.getbuffer())


def _header(file: BinaryIO, shape: tuple[int, ...]) -> int:
    """Write the beginning of a .npy file of bytes of this shape; returns where its first byte goes."""
    about = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, about)
    file.flush()
    return file.tell()


def _write(file: int, content: bytes, at: int) -> None:
    """Not through a memory map: on a full disk that would kill the process, this raises."""
    rest = memoryview(content)
    while rest:
        written = os.pwrite(file, rest, at)
        rest, at = rest[written:], at + written
