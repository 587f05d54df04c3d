"""Decode all images of a data set to disk in shards: a killed process loses at most the shard in progress."""

import io
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from trainers.data.decoded_files import SIZES, SPANS, ImageFormat, Images, as_jpeg, encode
from trainers.data.decoded_files import table as kept
from trainers.data.images import Progress, UnreadableImage, map_rows, pillow_errors, resized
from trainers.data.table import Row, Table
from trainers.support.errors import DataError, Fault
from trainers.support.files import atomic_write, regular

SHARD = 2**28  # bytes of decoded images after which progress is recorded
SAMPLE = 16  # images on which the cost of JPEGs is measured


def decode_all(table: Table, how: ImageFormat, folder: Path, progress: Progress | None = None) -> None:
    """Decode every image of `table` into `folder`, except those that an earlier call has put there.

    Raises DataError with every unreadable image, and OSError.
    """
    count, faults = len(table.rows), dict[int, Fault]()
    with _opened(folder, how, count) as shards:
        missing = np.flatnonzero(shards.sizes[:, 0] == 0).tolist()

        def work(number: int, row: Row) -> None:
            index = missing[number]
            try:
                image, original = _looked_at(table, row, how)
            except (UnreadableImage, OSError) as error:
                faults[index] = Fault(row.where, f"{row.path!r} {_why(error)}")
                return
            for level in shards.levels:
                level.put(index, _resized(image, level.size))
            shards.sizes[index] = original

        def note(written: int, _: int) -> None:
            shards.note(written)
            if progress:
                progress(count - len(missing) + written, count)

        map_rows([table.rows[index] for index in missing], work, note)
        if faults:
            raise DataError([faults[index] for index in sorted(faults)])
        shards.save()


def _looked_at(table: Table, row: Row, how: ImageFormat) -> tuple[Image.Image, tuple[int, int]]:
    """Return an image as the cache stores it, and the width and height of the part of the original that it shows."""
    content = regular(table.root / row.path).read_bytes()
    image, original = resized(content, (how.width, how.height), row.box, how.framing.fit)
    return image, how.framing.shown(*original)


def decode_rows(table: Table, how: ImageFormat) -> tuple[list[Images], dict[int, str]]:
    """Return the images of `table` in memory, each level as the cache would store it, and the errors by row."""
    faults = dict[int, str]()

    def work(index: int, row: Row) -> Image.Image | None:
        try:
            return _looked_at(table, row, how)[0]
        except (UnreadableImage, OSError) as error:
            faults[index] = _why(error)
            return None

    found = [image for image in map_rows(table.rows, work) if image is not None]
    levels: list[Images] = []
    for height, width in how.levels.values():
        pixels = np.empty((len(found), height, width, 3), np.uint8)
        for row, image in zip(pixels, found, strict=True):
            row[:] = np.asarray(_resized(image, (width, height)))
        levels.append(as_jpeg(pixels) if how.kind == "jpeg" else pixels)
    return levels, faults


def _why(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)


def _resized(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    return image if image.size == size else image.resize(size, Image.Resampling.BICUBIC)


# ------------------------------------------------------------------------------------------ what JPEGs cost
@dataclass(frozen=True)
class JpegCost:
    """The cost of storing an image as JPEG: bytes on disk at all levels, and milliseconds on one core to read it."""

    bytes: float
    ms: float
    raw_bytes: int  # of its pixels at all levels


def jpeg_cost(table: Table, how: ImageFormat) -> JpegCost:
    """Measure the cost on a few images of the data set, or return a typical one if none can be read."""
    images = []
    with pillow_errors():
        for row in table.rows[:: max(1, len(table.rows) // SAMPLE)][:SAMPLE]:
            try:
                images.append(_looked_at(table, row, how)[0])
            except (UnreadableImage, OSError):
                continue  # the check reports it
    if not images:
        return JpegCost(how.bytes / 5, 0.0, how.bytes)
    levels = [
        as_jpeg(np.stack([np.asarray(_resized(image, (width, height))) for image in images]))
        for height, width in how.levels.values()
    ]
    out, paces = np.empty(levels[0].shape, np.uint8), []
    for _ in range(5):
        began = time.thread_time()
        levels[0].read(np.arange(len(images)), out)
        paces.append(time.thread_time() - began)
    stored, count = sum(len(level.content) for level in levels), len(images)
    return JpegCost(stored / count, 1000 * min(paces) / count, how.bytes)


# ------------------------------------------------------------------------------------------ writing
@dataclass
class _RawLevel:
    """A .npy file that is being filled with images."""

    file: BinaryIO
    size: tuple[int, int]  # width and height
    start: int  # offset of its first image

    def put(self, index: int, image: Image.Image) -> None:
        pixels = image.tobytes()
        _write(self.file.fileno(), pixels, self.start + index * len(pixels))


@dataclass
class _JpegLevel:
    """A file that is being filled with JPEGs, in the order in which they arrive."""

    file: BinaryIO
    size: tuple[int, int]
    spans: NDArray[np.int64]  # [N, 2]
    end: int
    lock: Lock = field(default_factory=Lock)

    def put(self, index: int, image: Image.Image) -> None:
        content = encode(image)
        with self.lock:
            start, self.end = self.end, self.end + len(content)
        _write(self.file.fileno(), content, start)
        self.spans[index] = start, len(content)


@dataclass
class _Shards:
    """The files of all levels, and a record of the images that are on disk."""

    folder: Path
    levels: Sequence[_RawLevel | _JpegLevel]
    sizes: NDArray[np.int32]  # [N, 2], 0 for images that are not on disk yet
    spans: NDArray[np.int64] | None  # of JPEGs, [levels, N, 2]
    every: int  # images per shard
    noted: int = field(default=0, init=False)

    def note(self, written: int) -> None:
        """Save progress when the images that this process has written complete another shard."""
        if written - self.noted >= self.every:
            self.noted = written
            self.save()

    def save(self) -> None:
        sizes = self.sizes.copy()  # copied before anything is saved: other threads keep writing
        for level in self.levels:
            os.fsync(level.file.fileno())
        if self.spans is not None:
            _save(self.folder / SPANS, self.spans.copy())
        _save(self.folder / SIZES, sizes)


@contextmanager
def _opened(folder: Path, how: ImageFormat, count: int) -> Iterator[_Shards]:
    """Open the files of all levels, keeping what was written before."""
    shape = (len(how.levels), count, 2)
    sizes, spans = kept(folder / SIZES, (count, 2)), kept(folder / SPANS, shape) if how.kind == "jpeg" else None
    if sizes is None or (how.kind == "jpeg" and spans is None):
        sizes, spans = np.zeros((count, 2), np.int32), np.zeros(shape, np.int64)
    sizes, spans = np.array(sizes), np.array(spans) if how.kind == "jpeg" else None
    with ExitStack() as stack:
        levels: list[_RawLevel | _JpegLevel] = []
        for number, (name, (height, width)) in enumerate(zip(how.files, how.levels.values(), strict=False)):
            (folder / name).touch()
            file = stack.enter_context((folder / name).open("r+b"))
            if spans is None:
                levels.append(_RawLevel(file, (width, height), _header(file, (count, height, width, 3))))
            else:
                levels.append(_JpegLevel(file, (width, height), spans[number], file.seek(0, os.SEEK_END)))
        yield _Shards(folder, levels, sizes, spans, every=max(1, SHARD // how.bytes))


def _header(file: BinaryIO, shape: tuple[int, ...]) -> int:
    """Write the header of a .npy file of bytes of this shape; return the offset of its first byte."""
    about = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, about)
    file.flush()
    return file.tell()


def _write(file: int, content: bytes, at: int) -> None:
    """Write without a memory map, which would kill the process on a full disk; this raises instead."""
    rest = memoryview(content)
    while rest:
        written = os.pwrite(file, rest, at)
        rest, at = rest[written:], at + written


def _save(path: Path, numbers: NDArray[np.integer]) -> None:
    buffer = io.BytesIO()
    np.save(buffer, numbers)  # written straight to a file, a full disk would raise an error without an errno
    with atomic_write(path) as file:
        file.write(buffer.getbuffer())
