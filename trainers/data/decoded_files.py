"""The files that hold decoded images: their names, shapes and sizes, and how to open and read them."""

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from trainers.data.images import GROUND
from trainers.data_config import Framing
from trainers.support.threads import share

SQUASHED = Framing()
SIZES = "sizes.npy"
SPANS = "spans.npy"  # of JPEGs: offset in the file of the level, and length in bytes, [levels, N, 2]
QUALITY = 95  # of JPEGs, which keep colour at full resolution


@dataclass(frozen=True)
class JpegImages:
    """Images that are stored as JPEG and decoded when they are read."""

    filename: Path | None
    content: NDArray[np.uint8]  # all JPEGs, one after another
    spans: NDArray[np.int64]  # [N, 2], offset and length in bytes
    size: tuple[int, int]  # height and width

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """The shape of the decoded pixels: [N, H, W, 3]."""
        return len(self.spans), *self.size, 3

    @property
    def nbytes(self) -> int:
        """The bytes of the decoded pixels."""
        return math.prod(self.shape)

    def __len__(self) -> int:
        return len(self.spans)

    def read(self, rows: NDArray[np.int64], out: NDArray[np.uint8], threads: int = 1) -> None:
        """Decode these rows into `out` [B, H, W, 3]. The number of threads makes no difference to the result."""

        def part(thread: int) -> None:
            for number in range(thread, len(rows), threads):
                start, length = self.spans[rows[number]].tolist()
                with Image.open(io.BytesIO(self.content[start : start + length].tobytes())) as image:
                    out[number] = np.asarray(image)

        share(part, threads)


Images = NDArray[np.uint8] | JpegImages


def encode(image: Image.Image) -> bytes:
    """Return the image as the JPEG that the cache stores."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=QUALITY, subsampling=0)
    return buffer.getvalue()


def as_jpeg(images: NDArray[np.uint8]) -> JpegImages:
    """Return images [N, H, W, 3] as JPEGs in memory."""
    parts = [encode(Image.fromarray(image)) for image in images]
    lengths = np.array([len(part) for part in parts], dtype=np.int64)
    spans = np.stack([lengths.cumsum() - lengths, lengths], 1)
    return JpegImages(None, np.frombuffer(b"".join(parts), np.uint8), spans, images.shape[1:3])


@dataclass(frozen=True)
class ImageFormat:
    """The format in which a cache stores its images."""

    height: int
    width: int
    kind: Literal["raw", "jpeg"] = "raw"
    framing: Framing = SQUASHED

    @classmethod
    def of(cls, longer: int, kind: Literal["raw", "jpeg"] = "raw", framing: Framing = SQUASHED) -> "ImageFormat":
        """Return the format of images whose longer side is `longer`."""
        return cls(*framing.size(longer), kind, framing)

    @property
    def name(self) -> str:
        """The name of the format, as in the name of the cache's folder."""
        fit = self.framing.fit
        size = f"{self.height}" if fit == "squash" else f"{self.height}x{self.width}-{fit}"
        return size if self.kind == "raw" else f"{size}-{self.kind}"

    @property
    def levels(self) -> dict[str, tuple[int, int]]:
        """Height and width of each level by name: full size and half size."""
        return {"images": (self.height, self.width), "half": (self.height // 2, self.width // 2)}

    @property
    def files(self) -> tuple[str, ...]:
        """Names of all files of a cache except its description and checksums; those of the levels come first."""
        ending, tables = ("npy", (SIZES,)) if self.kind == "raw" else ("jpegs", (SPANS, SIZES))
        return (*(f"{name}.{ending}" for name in self.levels), *tables)

    def level(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return height and width of the smallest level that is not below `size`, or else of the largest level."""
        whole, half = self.levels.values()
        return half if size[0] <= half[0] and size[1] <= half[1] else whole

    def as_python(self, size: tuple[int, int]) -> list[str]:
        """Return lines of Python with Pillow that turn photo.jpg into the image that inputs of this size are made of.

        They do not handle images with alpha, which sweep lays on white, or with 16 bits, which it scales.
        """
        whole, level = (self.width, self.height), self.level(size)[::-1]
        image = 'ImageOps.exif_transpose(image).convert("RGB")'
        line = {
            "squash": f"{image}.resize({whole}, Image.Resampling.BICUBIC)",
            "pad": f"ImageOps.pad({image}, {whole}, Image.Resampling.BICUBIC, color={GROUND})",
            "center": f"ImageOps.fit({image}, {whole}, Image.Resampling.BICUBIC)",
        }[self.framing.fit]
        longer = 2 * max(whole)
        lines = [
            'image = Image.open("photo.jpg")',
            f"image.draft(image.mode, ({longer}, {longer}))",
            f"image = {line}",
        ]
        if level != whole:
            lines.append(f"image = image.resize({level}, Image.Resampling.BICUBIC)")
        if self.kind == "jpeg":
            lines.append(f'image.save(file := io.BytesIO(), "JPEG", quality={QUALITY}, subsampling=0)')
            lines.append("image = Image.open(file)")
        return lines

    def classify(self, size: tuple[int, int], categories: Sequence[str]) -> list[str]:
        """Return lines of Python with ONNX Runtime that classify photo.jpg with model.onnx; see `as_python`."""
        lines, name = self.as_python(size), input_name(categories)
        return [
            f"import {'io, ' * (self.kind == 'jpeg')}json, numpy, onnxruntime",
            "from PIL import Image, ImageOps",
            "",
            *lines,
            f'found = onnxruntime.InferenceSession("model.onnx").run(None, {{"{name}": numpy.asarray(image)[None]}})',
            'for category, shares in zip(json.load(open("labels.json"))["categories"], found):',
            '    print(category["name"], category["classes"][shares[0].argmax()], shares[0].max())',
        ]

    @property
    def bytes(self) -> int:
        """Bytes of the pixels of one image, over all levels."""
        return sum(3 * height * width for height, width in self.levels.values())

    def opened(self, folder: Path, count: int) -> tuple[Images, Images] | None:
        """Return the levels of `count` images in `folder`, mapped read-only; None if they are not there."""
        try:
            images, half = self._raw(folder) if self.kind == "raw" else self._jpegs(folder)
        except (OSError, ValueError):
            return None
        wanted = [(count, *level, 3) for level in self.levels.values()]
        return (images, half) if [images.shape, half.shape] == wanted else None

    def _raw(self, folder: Path) -> list[Images]:
        return [np.load(folder / name, mmap_mode="r") for name in self.files[: len(self.levels)]]

    def _jpegs(self, folder: Path) -> list[Images]:
        spans = np.load(folder / SPANS, mmap_mode="r")
        paths = [folder / name for name in self.files[: len(self.levels)]]
        maps = [np.memmap(path, np.uint8, "r") for path in paths]
        return [JpegImages(*each) for each in zip(paths, maps, spans, self.levels.values(), strict=True)]


def input_name(categories: Sequence[str]) -> str:
    """Return a name for an exported program's input that none of its outputs, named after the categories, has."""
    return next(name for name in ("images", "input", "input images") if name not in categories)


def table(path: Path, shape: tuple[int, ...]) -> NDArray[Any] | None:
    """Return the whole numbers in a .npy file of this shape, read-only; None if there is no such file.

    In a folder that is still being filled, the numbers of images that are not on disk yet are 0.
    """
    try:
        found: NDArray[Any] = np.load(path, mmap_mode="r")
    except (OSError, ValueError):
        return None
    return found if found.shape == shape else None
