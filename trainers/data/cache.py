"""Decode the images of a data set once, into memory maps that every trial shares."""

import hashlib
import json
import os
import shutil
import statistics
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray
from PIL import Image

from trainers.data import checksums, decoded_files
from trainers.data.decoded_files import SQUASHED, ImageFormat, Images
from trainers.data.decoding import decode_all, jpeg_cost
from trainers.data.images import Progress, pillow_errors, stamp
from trainers.data.table import Table
from trainers.data_config import DataConfig, Framing
from trainers.support.errors import DataError, EnvironmentFault
from trainers.support.files import full, regular, sync_folder, write_text

VERSION = 1  # of the files below; another version is another cache
MARGIN = 1.14  # cached images have at least this multiple of the network's input size
SAMPLE = 2000  # images whose headers give the usual size
SPARE = 64 * 2**20  # bytes that a build leaves free
OTHERWISE = "or set SWEEP_HOME to a folder on a larger disk, or use a smaller data.size, or data.cache: jpeg"


@dataclass(frozen=True)
class Cache:
    """One data set's images in the order of the table's rows, read-only, straight from the page cache."""

    size: int  # pixels of the longer side
    images: Images  # [N, H, W, 3]: square if squashed, else of the aspect ratio they are padded or cropped to
    half: Images  # [N, H/2, W/2, 3], for inputs that need no more
    sizes: NDArray[np.int32]  # [N, 2], width and height of the part shown of the original, or of its box


def side(image_size: int, table: Table, window: float = 1.0, framing: Framing = SQUASHED) -> int:
    """Return S, the longer side of the cached images for networks with inputs up to `image_size`: a multiple of 32.

    S is image_size / window, rounded up, where `window` is the smallest share of the side that training crops to, so
    that no random crop is enlarged; and at least 1.14 x image_size, which leaves a margin for rotations. S does not
    exceed what the originals hold: their median short side, rounded down, or, if they are padded or cropped, the
    median longer side of the part shown. That limit never takes S below image_size, since the network would then see
    less than the files hold, unless even the median long side is shorter.
    """
    wanted = wanted_side(image_size, window)
    sizes = [framing.shown(*size) for size in _sample(table)]
    if not sizes:
        return wanted
    long = statistics.median(max(size) for size in sizes)
    short = statistics.median(min(size) for size in sizes) if framing.fit == "squash" else long
    return max(32, min(wanted, max(int(short) // 32 * 32, min(_up(image_size), _up(long)))))


def median_size(table: Table) -> tuple[int, int] | None:
    """Return width and height of the original, or box, of median aspect ratio; None if no image can be read."""
    sizes = sorted(_sample(table), key=lambda size: size[1] / size[0])
    return sizes[len(sizes) // 2] if sizes else None


def wanted_side(image_size: int, window: float) -> int:
    """Return the side that training needs, whatever the originals hold."""
    return _up(round(max(MARGIN, 1 / window) * image_size, 6))


def _up(pixels: float) -> int:
    return -int(-pixels // 32) * 32


def _sample(table: Table) -> list[tuple[int, int]]:
    """Return width and height of evenly spaced images, from their headers, or of their boxes."""
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
                continue  # the check reports it
    return sizes


def open_cache(
    table: Table,
    config: DataConfig,
    folder: Path,
    framing: Framing = SQUASHED,
    *,
    progress: Progress | None = None,
) -> Cache:
    """Return the decoded images of `table` at side `config.size`, decoding them into `folder` if needed.

    Any number of processes may call this at once: one builds, calling `progress` with the images done and the total,
    while the others wait. A killed build leaves nothing that could be mistaken for a complete cache, and the next
    build resumes it. Opening an existing cache checks each image file once, for its size and time. Raises DataError
    with every unreadable image, and EnvironmentFault if the disk is too small.
    """
    if config.size is None:
        raise ValueError("config.size is not set: use cache.side(...)")
    (how, place), count = _wanted(table, config, folder, framing), len(table.rows)
    if (found := _opened(place, how, count)) is not None:
        _note_use(place)
        return found
    folder.mkdir(parents=True, exist_ok=True)
    with alone(folder):
        if (found := _opened(place, how, count)) is None:
            _build(table, how, place, progress)
            found = _opened(place, how, count)
    if found is None:
        raise EnvironmentFault("the cache disappeared while it was being opened", where=str(place))
    return found


def mend(
    table: Table,
    config: DataConfig,
    folder: Path,
    framing: Framing = SQUASHED,
    *,
    most: int | None = None,
    progress: Progress | None = None,
) -> str:
    """Discard the decoded images of `table` if any byte is not as it was written, or if that cannot be checked.

    Returns a description of the damage, or an empty string; after damage, `open_cache` decodes the images again. All
    files are read, with `progress` in MB, unless they exceed `most` bytes, by default the machine's memory. The first
    epoch then finds in memory what was read here; a larger cache would have to be read twice.
    """
    how, place = _wanted(table, config, folder, framing)
    if _opened(place, how, len(table.rows)) is None:
        return ""
    size = sum((place / name).stat().st_size for name in how.files)
    if size > (_memory() if most is None else most) or not checksums.wrong(place, how.files, progress):
        return ""
    with alone(folder):
        if place.exists() and (what := checksums.wrong(place, how.files)):
            discard(place)
            return f"{place}: {what}"
    return ""


def kind(table: Table, config: DataConfig, folder: Path, framing: Framing = SQUASHED) -> Literal["raw", "jpeg"]:
    """Return the kind that `config.cache` means for images of side `config.size`: raw pixels if there is room."""
    return _wanted(table, config, folder, framing)[0].kind


def _wanted(table: Table, config: DataConfig, folder: Path, framing: Framing) -> tuple[ImageFormat, Path]:
    """Return how to store the images, and where. By default, that is raw pixels if they exist already or fit.

    The name depends on the content alone, not on labels or splits, so that other questions about the images share it.
    """
    size = config.size or 0
    name = hashlib.sha256(f"{VERSION} {size} {stamp(table)}".encode()).hexdigest()[:16]
    raw, jpeg = ImageFormat.of(size, "raw", framing), ImageFormat.of(size, "jpeg", framing)
    place = folder / f"{name}-{raw.name}"
    automatic = config.cache == "auto" and (place.is_dir() or _fits(len(table.rows) * raw.bytes, place))
    return (raw, place) if config.cache == "raw" or automatic else (jpeg, folder / f"{name}-{jpeg.name}")


def _fits(need: int, place: Path) -> bool:
    """True if `need` bytes fit on the disk, and in memory, without which each epoch would wait for the disk."""
    return need <= _memory() and need + SPARE <= _free(_building(place))


def _memory() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _free(building: Path) -> int:
    """Return the bytes that a build may use, including those it has already written."""
    there = next(path for path in (building.parent, *building.parent.parents) if path.exists())
    written = sum(path.stat().st_blocks * 512 for path in building.glob("*"))
    return shutil.disk_usage(there).free + written


def _building(place: Path) -> Path:
    return place.with_name(f".{place.name}.building")


def _opened(place: Path, how: ImageFormat, count: int) -> Cache | None:
    """Return the cache at `place`, or None if it is missing or incomplete."""
    levels, originals = how.opened(place, count), decoded_files.table(place / decoded_files.SIZES, (count, 2))
    return None if levels is None or originals is None else Cache(max(how.height, how.width), *levels, originals)


def alone(folder: Path) -> FileLock:
    """Return the lock for building or removing a cache in `folder`; it is released when its holder dies."""
    return FileLock(folder / "lock", fallback_to_soft=False)


def _note_use(place: Path) -> None:
    """Set the folder's time to that of its last use, unless the folder belongs to someone else."""
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
    """Return every cache in `folder` that has a description."""
    found = []
    for meta in sorted(folder.glob("[!.]*/meta.json")):
        about = json.loads(meta.read_text())
        if not meta.parent.is_symlink() and isinstance(about, dict) and {"root", "size"} <= about.keys():
            found.append(Place(meta.parent, str(about["root"]), int(about["size"])))
    return found


def discard(place: Path) -> None:
    """Remove a cache, first giving it the name of an unfinished one, so that half of it is never taken for whole.

    The record of which images are present goes before everything else, so that no build can resume from the rest.
    """
    (place / decoded_files.SIZES).unlink(missing_ok=True)
    rest = place if place.name.startswith(".") else _building(place)
    if rest != place:
        place.rename(rest)
    shutil.rmtree(rest)


def _build(table: Table, how: ImageFormat, place: Path, progress: Progress | None) -> None:
    """Decode into a temporary folder, which gets its final name only when all of it is on disk.

    What a killed build of the same images left there is kept; remains of earlier states of the data set are removed.
    """
    temporary = _building(place)
    size = max(how.height, how.width)
    about = {"version": VERSION, "size": size, "images": len(table.rows), "root": str(table.root.resolve())}
    for rest in (*place.parent.glob(".*.building"), place):
        if rest != temporary and (rest == place or _root(rest) in ("", about["root"])):
            shutil.rmtree(rest, ignore_errors=True)
    temporary.mkdir(exist_ok=True)
    for rest in temporary.glob(".*.tmp"):  # left by an interrupted write
        rest.unlink()
    each = how.bytes if how.kind == "raw" else jpeg_cost(table, how).bytes
    _enough_space(round(len(table.rows) * each) + SPARE, temporary)
    try:
        write_text(temporary / "meta.json", json.dumps(about, indent=1) + "\n")
        decode_all(table, how, temporary, progress)
        checksums.write(temporary, how.files)
        sync_folder(temporary)
        temporary.rename(place)
    except (DataError, OSError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if isinstance(error, OSError):
            raise EnvironmentFault(
                f"the decoded images cannot be written: {error.strerror}",
                where=str(place.parent),
                help=f"free some space and run the same command again; {OTHERWISE}" if full(error) else "",
            ) from error
        raise
    sync_folder(place.parent)


def _root(folder: Path) -> str:
    """Return the data set that a cache was decoded from; empty if that is not recorded."""
    try:
        return str(json.loads((folder / "meta.json").read_text())["root"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _enough_space(need: int, folder: Path) -> None:
    """Raise EnvironmentFault if the disk has no room for `need` bytes, including those already in `folder`."""
    free = _free(folder)
    if free < need:
        with suppress(OSError):
            folder.rmdir()  # if the build has written nothing yet
        raise EnvironmentFault(
            f"the decoded images need {need / 1e9:.2f} GB, but only {free / 1e9:.2f} GB are free",
            where=str(folder.parent),
            help=f"free some space; {OTHERWISE}",
        )
