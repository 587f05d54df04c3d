"""Opening one image right, whatever its mode, and doing so for many at once."""

import hashlib
import io
import os
import struct
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import TypeVar

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError, features

from trainers.data.table import FITTED, SPLITS, Box, Row, Table
from trainers.data_config import Fit

Progress = Callable[[int, int], None]
Result = TypeVar("Result")

DECODERS = {
    **dict.fromkeys((".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".bmp", ".dib", ".gif"), ""),
    **dict.fromkeys((".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".tga"), ""),
    **dict.fromkeys((".webp",), "webp"),
    **dict.fromkeys((".avif",), "avif"),
    **dict.fromkeys((".jp2", ".j2k", ".jpx"), "jpg_2000"),
}  # endings of files taken for images -> what Pillow must have been built with
RAW = (".cr2", ".cr3", ".nef", ".arw", ".dng", ".raf", ".orf", ".rw2", ".raw")


def pillow_reads(feature: str) -> bool:
    """Whether the Pillow here was built with a decoder."""
    return not feature or (feature in {*features.modules, *features.codecs} and bool(features.check(feature)))


EXTENSIONS = tuple(ending for ending, feature in DECODERS.items() if pillow_reads(feature))
UNREAD = {
    **{e: f"this Pillow reads no {f}: convert them to JPEG" for e, f in DECODERS.items() if e not in EXTENSIONS},
    **dict.fromkeys((".heic", ".heif", ".hif"), "Pillow cannot read HEIC: convert them to JPEG"),
    **dict.fromkeys(RAW, "raw data of a camera: develop them to JPEG"),
    **dict.fromkeys((".svg", ".pdf", ".psd"), "no pixels that could be read: export them as PNG"),
}  # endings of pictures that cannot be read -> why, and what to do
HEIF = (b"ftypheic", b"ftypheix", b"ftyphevc", b"ftypmif1", b"ftypmsf1")  # bytes 4 to 12 of such files
MANY = 10_000  # rows whose state is digested at once
CHUNK = 32  # images a task: enough that handing out tasks costs nothing, few enough that progress is smooth
GROUND = (124, 116, 104)  # around padded images: ImageNet's mean colour, which normalisation makes 0
SIDEWAYS = range(5, 9)  # EXIF orientations that swap width and height


class UnreadableImage(Exception):
    """The file is there, or not, and no image can be had from it; the text says why."""


@contextmanager
def pillow_errors() -> Iterator[None]:
    """No warning of Pillow's leaks, and an image over its pixel limit is an error.

    Warning filters belong to the whole process, so this surrounds the threads rather than being entered by each.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def decode(content: bytes) -> Image.Image:
    """The image as 8-bit RGB: turned upright by its EXIF orientation, 16 bits scaled to 8, alpha laid on white.

    Call it inside `pillow_errors()`. Raises UnreadableImage.
    """
    return _decode(content)[0]


def resized(
    content: bytes, size: tuple[int, int], box: Box | None, fit: Fit = "squash"
) -> tuple[Image.Image, tuple[int, int]]:
    """The image, or what of its box lies inside it, at that width and height; and the (width, height) it had.

    Another aspect is squashed, padded with ImageNet's mean colour, or cut at both ends. A JPEG at least four times as
    large is decoded at half its size or less, never below twice the longer side.
    """
    least = 2 * max(size)
    image, original = _decode(content, least=None if box else (least, least))
    if box is not None:
        image = image.crop(inside(box, original))  # rather than resize(box=...): it looks at pixels outside the box
        original = image.size
    match fit:
        case "squash":
            image = image.resize(size, Image.Resampling.BICUBIC)
        case "pad":
            image = ImageOps.pad(image, size, Image.Resampling.BICUBIC, color=GROUND)
        case "center":
            image = ImageOps.fit(image, size, Image.Resampling.BICUBIC)
    return image, original


def inside(box: Box, size: tuple[int, int]) -> Box:
    """The box cut at the edges of the image; UnreadableImage where nothing is left of it."""
    left, upper, right, lower = max(box[0], 0), max(box[1], 0), min(box[2], size[0]), min(box[3], size[1])
    if left >= right or upper >= lower:
        raise UnreadableImage(f"has {size[0]} x {size[1]} pixels, and its box begins at {left}, {upper}")
    return left, upper, right, lower


def _decode(content: bytes, least: tuple[int, int] | None = None) -> tuple[Image.Image, tuple[int, int]]:
    if not content:
        raise UnreadableImage("is empty")
    try:
        with Image.open(io.BytesIO(content)) as image:
            width, height = image.size
            if least is not None:
                image.draft(image.mode, least)
            image.load()
            size = (height, width) if _upright(image) in SIDEWAYS else (width, height)
            return _rgb(image), size
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        limit = (Image.MAX_IMAGE_PIXELS or 0) // 1_000_000
        raise UnreadableImage(f"has more than {limit} million pixels, the limit; make it smaller") from None
    except UnidentifiedImageError:
        if content[4:12] in HEIF:
            raise UnreadableImage("is HEIC whatever its name says, and Pillow cannot read that; convert it") from None
        raise UnreadableImage(f"is not an image: it begins with {content[:16]!r}") from None
    except (UnreadableImage, MemoryError):
        raise
    except Exception as error:
        raise UnreadableImage(f"cannot be decoded: {error}") from error


def _upright(image: Image.Image) -> object:
    """Turn the image as its EXIF orientation says, and return that orientation; broken EXIF says nothing about it."""
    orientation: object = 1
    with suppress(OSError, SyntaxError, ValueError, KeyError, TypeError, struct.error):
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
        ImageOps.exif_transpose(image, in_place=True)
    return orientation


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise UnreadableImage("has floating-point pixels; save it with 8 bits a channel")
    if image.mode.startswith("I"):
        wide = np.asarray(image).astype(np.int64)
        image = Image.fromarray(((wide + 128) // 257).clip(0, 255).astype(np.uint8))
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(white, layer).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def stamp(table: Table) -> str:
    """Hex digest over path, box, size and time of change of every row's file, in row order."""
    root, digest = str(table.root), hashlib.sha256()
    for start in range(0, len(table.rows), MANY):
        rows = table.rows[start : start + MANY]
        digest.update("".join([f"{row.path!r} {row.box} {_state(f'{root}/{row.path}')}\n" for row in rows]).encode())
    return digest.hexdigest()


def fingerprint(table: Table) -> str:
    """That of all images, and behind a dash that of those of train and val, on which results depend."""
    sizes = _sizes(table.rows, str(table.root))
    return f"{_fingerprint(table, sizes, SPLITS)}-{_fingerprint(table, sizes, FITTED)}"


def fingerprint_of(table: Table, *splits: str) -> str:
    """The table's of these splits, and behind a dash 8 hex digits over the size of each image: an image that was
    replaced under its name tells, the time at which a data set was copied does not.
    """
    return _fingerprint(table, _sizes(table.split(*splits), str(table.root)), splits)


def _sizes(rows: Iterable[Row], root: str) -> dict[str, str]:
    """Of the images of these rows, by path."""
    return {row.path: _state(f"{root}/{row.path}").split()[0] for row in rows}


def _fingerprint(table: Table, sizes: dict[str, str], splits: Sequence[str]) -> str:
    digest = hashlib.sha256()
    for row in table.split(*splits):
        digest.update(sizes[row.path].encode() + b" ")
    return f"{table.digest(*splits)}-{digest.hexdigest()[:8]}"


def _state(path: str) -> str:
    """Path by path: listing folders first was measured to be slower."""
    try:
        found = os.stat(path)  # noqa: PTH116 - making a Path costs more than the look itself
    except OSError as error:
        return f"errno {error.errno}"
    return f"{found.st_size} {found.st_mtime_ns}"


def map_rows(
    rows: Sequence[Row], work: Callable[[int, Row], Result], progress: Progress | None = None
) -> list[Result]:
    """`work(index, row)` of every row, in order, done on all cores; an exception or an interrupt drops the rest.

    Threads, because Pillow and hashlib let go of the interpreter while they work: measured on two cores, they are
    as fast as processes (0.97 to 1.0 of the rate), and a killed parent leaves none behind.
    """
    starts = range(0, len(rows), CHUNK)

    def chunk(start: int) -> list[Result]:
        return [work(i, rows[i]) for i in range(start, min(start + CHUNK, len(rows)))]

    done: list[Result] = []
    pool = ThreadPoolExecutor(cores(), thread_name_prefix="images")
    try:
        with pillow_errors():
            for results in pool.map(chunk, starts):
                done += results
                if progress:
                    progress(len(done), len(rows))
    finally:
        pool.shutdown(cancel_futures=True)
    return done


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
