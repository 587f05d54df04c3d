"""The images of a data set decoded once, into memory maps that every trial shares."""

import hashlib
import io
import json
import os
import shutil
import statistics
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray
from PIL import Image

from trainers.config import DataConfig
from trainers.data import checksums
from trainers.data.images import Progress, UnreadableImage, map_rows, pillow_errors, resize_square, stamp
from trainers.data.table import Row, Table
from trainers.support.errors import DataError, EnvironmentFault, Fault
from trainers.support.files import full, regular, sync_folder

VERSION = 1  # of the files below; another one is another cache
FILES = ("images.npy", "half.npy", "sizes.npy")
MARGIN = 1.14  # times the network's input that the cached images have at least
SAMPLE = 2000  # images whose headers tell the usual size
SPARE = 64 * 2**20  # bytes that a build leaves free
OTHERWISE = "or set SWEEP_HOME to a folder on a larger disk, or take a smaller data.size"


@dataclass(frozen=True)
class Cache:
    """One data set's images in the order of the table's rows, read-only, straight from the disk's page cache."""

    size: int
    images: NDArray[np.uint8]  # [N, S, S, 3], squashed to a square
    half: NDArray[np.uint8]  # [N, S/2, S/2, 3], where no more is looked at
    sizes: NDArray[np.int32]  # [N, 2], width and height of the original, or of its box


def side(image_size: int, table: Table, window: float = 1.0) -> int:
    """S, the side of the cached images for networks that take at most `image_size`: a multiple of 32.

    It is the next one from image_size / window, where training shows no window of a smaller share of the side, so
    that no random crop is enlarged; at least 1.14 x image_size, which leaves a margin to rotations. It is not above
    what the originals hold: their median short side, rounded down. That limit never takes S below image_size, for
    then the network would see less than the files have, unless even the median long side is shorter.
    """
    wanted = wanted_side(image_size, window)
    sizes = _sample(table)
    if not sizes:
        return wanted
    short = statistics.median(min(size) for size in sizes)
    long = statistics.median(max(size) for size in sizes)
    return max(32, min(wanted, max(int(short) // 32 * 32, min(_up(image_size), _up(long)))))


def wanted_side(image_size: int, window: float) -> int:
    """The same whatever the originals hold."""
    return _up(round(max(MARGIN, 1 / window) * image_size, 6))


def _up(pixels: float) -> int:
    return -int(-pixels // 32) * 32


def _sample(table: Table) -> list[tuple[int, int]]:
    """Width and height of evenly spaced images, from their headers, or of their boxes."""
    rows = table.rows[:: max(1, len(table.rows) // SAMPLE)]
    sizes: list[tuple[int, int]] = []
    with pillow_errors():
        for row in rows:
            if row.box:
                sizes.append((row.box[2] - row.box[0], row.box[3] - row.box[1]))
                continue
            try:
                with Image.open(regular(table.root / row.path)) as image:
                    sizes.append(image.size)
            except (OSError, SyntaxError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning):
                continue  # the check names it
    return sizes


def open_cache(table: Table, config: DataConfig, folder: Path, *, progress: Progress | None = None) -> Cache:
    """The decoded images of `table` at side `config.size`; decodes them into `folder` where that was not done yet.

    Any number of processes may ask at once: one builds, calling `progress` with images done and in all, the others
    wait. A build that is killed leaves nothing that would be taken for whole. Opening a cache that is there takes
    one look at each image file, for its size and time. Raises DataError with every unreadable image, and
    EnvironmentFault where the disk is too small.
    """
    if config.size is None:
        raise ValueError("config.size is not set: take cache.side(...)")
    place = folder / _name(table, config.size)
    if (found := _opened(place, len(table.rows), config.size)) is not None:
        _note_use(place)
        return found
    folder.mkdir(parents=True, exist_ok=True)
    with alone(folder):
        if (found := _opened(place, len(table.rows), config.size)) is None:
            _build(table, config.size, place, progress)
            found = _opened(place, len(table.rows), config.size)
    if found is None:
        raise EnvironmentFault("the cache vanished while it was opened", where=str(place))
    return found


def mend(
    table: Table, config: DataConfig, folder: Path, *, most: int | None = None, progress: Progress | None = None
) -> str:
    """Discard the decoded images of `table` where a byte of them is not as it was written, or nobody can tell.

    Returns what is wrong, in words, or nothing; `open_cache` then decodes them anew. All of them are read, with
    `progress` in MB, unless they are more than `most` bytes: the machine's memory, when left out. What is read here
    the first epoch need not fetch from the disk; of more than the memory holds, it would have to.
    """
    place = folder / _name(table, config.size or 0)
    found = _opened(place, len(table.rows), config.size or 0)
    if found is None:
        return ""
    most = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if most is None else most
    if found.images.nbytes + found.half.nbytes > most or not checksums.wrong(place, FILES, progress):
        return ""
    with alone(folder):
        if place.exists() and (what := checksums.wrong(place, FILES)):
            discard(place)
            return f"{place}: {what}"
    return ""


def _name(table: Table, size: int) -> str:
    """Of the content alone: neither labels nor splits, so that other questions about the images share it."""
    return hashlib.sha256(f"{VERSION} {size} {stamp(table)}".encode()).hexdigest()[:16] + f"-{size}"


def _shapes(count: int, size: int) -> dict[str, tuple[int, ...]]:
    return {"images": (count, size, size, 3), "half": (count, size // 2, size // 2, 3)}


def _opened(place: Path, count: int, size: int) -> Cache | None:
    """The cache at `place`, or None where it is not there whole."""
    try:
        maps = [np.load(place / name, mmap_mode="r") for name in FILES]
    except (OSError, ValueError):
        return None
    wanted = [*_shapes(count, size).values(), (count, 2)]
    return Cache(size, *maps) if [m.shape for m in maps] == wanted else None


def alone(folder: Path) -> FileLock:
    """Wait until no other process builds or removes a cache in `folder`; one that dies lets the next one in."""
    return FileLock(folder / "lock", fallback_to_soft=False)


def _note_use(place: Path) -> None:
    """Let the folder's time say when it was last wanted; one that is not ours keeps its time."""
    with suppress(OSError):
        os.utime(place)


# ------------------------------------------------------------------------------------------ cleaning
@dataclass(frozen=True)
class Place:
    """A cache on disk: its folder, the data set it was decoded from, and the side of its images."""

    folder: Path
    root: str
    size: int


def places(folder: Path) -> list[Place]:
    """Every cache in `folder` that says what it is."""
    found = []
    for meta in sorted(folder.glob("[!.]*/meta.json")):
        about = json.loads(meta.read_text())
        if not meta.parent.is_symlink() and isinstance(about, dict) and {"root", "size"} <= about.keys():
            found.append(Place(meta.parent, str(about["root"]), int(about["size"])))
    return found


def discard(place: Path) -> None:
    """Remove a cache, under the name of an unfinished one first, so that no half of it is taken for whole."""
    rest = place if place.name.startswith(".") else place.with_name(f".{place.name}.building")
    if rest != place:
        place.rename(rest)
    shutil.rmtree(rest)


def _build(table: Table, size: int, place: Path, progress: Progress | None) -> None:
    """Decode everything into a folder of another name, which takes its own only when all of it is on disk."""
    for rest in (*place.parent.glob(".*.building"), place):
        shutil.rmtree(rest, ignore_errors=True)
    _enough_space(len(table.rows), size, place.parent)
    temporary = place.with_name(f".{place.name}.building")
    temporary.mkdir()
    try:
        sizes = _decode_all(table, size, temporary, progress)
        _write_sizes(temporary / "sizes.npy", sizes)
        about = {"version": VERSION, "size": size, "images": len(sizes), "root": str(table.root.resolve())}
        (temporary / "meta.json").write_text(json.dumps(about, indent=1) + "\n")
        checksums.write(temporary, FILES)
        sync_folder(temporary)
        temporary.rename(place)
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if isinstance(error, OSError):
            raise EnvironmentFault(
                f"the decoded images cannot be written: {error.strerror}",
                where=str(place.parent),
                help=f"free some space and run the same command again; {OTHERWISE}" if full(error) else "",
            ) from error
        raise
    sync_folder(place.parent)


def _enough_space(count: int, size: int, folder: Path) -> None:
    need = count * size * size * 3 * 5 // 4 + SPARE
    free = shutil.disk_usage(folder).free
    if free < need:
        raise EnvironmentFault(
            f"the decoded images need {need / 1e9:.2f} GB, and {free / 1e9:.2f} GB are free",
            where=str(folder),
            help=f"free some; {OTHERWISE}",
        )


def _decode_all(table: Table, size: int, folder: Path, progress: Progress | None) -> NDArray[np.int32]:
    """Fill images.npy and half.npy in `folder`; returns width and height of each original, [N, 2]."""
    shapes = _shapes(len(table.rows), size)
    faults: dict[int, Fault] = {}
    with (folder / "images.npy").open("wb") as images, (folder / "half.npy").open("wb") as half:
        starts = [_header(file, shape) for file, shape in zip((images, half), shapes.values(), strict=True)]

        def work(index: int, row: Row) -> tuple[int, int]:
            try:
                image, original = resize_square(regular(table.root / row.path).read_bytes(), size, row.box)
            except (UnreadableImage, OSError) as error:
                faults[index] = Fault(row.where, f"{row.path!r} {getattr(error, 'strerror', error)}")
                return 0, 0
            small = image.resize((size // 2, size // 2), Image.Resampling.BICUBIC)
            for file, start, level in zip((images, half), starts, (image, small), strict=True):
                _put(file.fileno(), level.tobytes(), start, index)
            return original

        sizes = np.array(map_rows(table.rows, work, progress), dtype=np.int32).reshape(-1, 2)
        if faults:
            raise DataError([faults[index] for index in sorted(faults)])
        os.fsync(images.fileno())
        os.fsync(half.fileno())
    return sizes


def _header(file: BinaryIO, shape: tuple[int, ...]) -> int:
    """Begin a .npy file of bytes of this shape; returns where its first byte goes."""
    about = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, about)
    file.flush()
    return file.tell()


def _put(file: int, pixels: bytes, start: int, index: int) -> None:
    """Write image `index`. Not through a memory map: on a full disk that would kill the process, this raises."""
    rest, at = memoryview(pixels), start + index * len(pixels)
    while rest:
        written = os.pwrite(file, rest, at)
        rest, at = rest[written:], at + written


def _write_sizes(path: Path, sizes: NDArray[np.int32]) -> None:
    buffer = io.BytesIO()
    np.save(buffer, sizes)  # straight to a file, a full disk would be an error without a number
    with path.open("wb") as file:
        file.write(buffer.getbuffer())
        file.flush()
        os.fsync(file.fileno())
