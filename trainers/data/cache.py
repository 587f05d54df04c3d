"""The images of a data set decoded once, into memory maps that every trial shares."""

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

VERSION = 1  # of the files below; another one is another cache
MARGIN = 1.14  # times the network's input that the cached images have at least
SAMPLE = 2000  # images whose headers tell the usual size
SPARE = 64 * 2**20  # bytes that a build leaves free
OTHERWISE = "or set SWEEP_HOME to a folder on a larger disk, or take a smaller data.size, or data.cache: jpeg"


@dataclass(frozen=True)
class Cache:
    """One data set's images in the order of the table's rows, read-only, straight from the disk's page cache."""

    size: int  # of the longer side
    images: Images  # [N, H, W, 3]: squares of squashed images, or of the aspect to which they are padded or cut
    half: Images  # [N, H/2, W/2, 3], where no more is looked at
    sizes: NDArray[np.int32]  # [N, 2], width and height of what is shown of the original, or of its box


def side(image_size: int, table: Table, window: float = 1.0, framing: Framing = SQUASHED) -> int:
    """S, the longer side of the cached images for networks whose is at most `image_size`: a multiple of 32.

    It is the next one from image_size / window, where training shows no window of a smaller share of the side, so
    that no random crop is enlarged; at least 1.14 x image_size, which leaves a margin to rotations. It is not above
    what the originals hold: their median short side, rounded down; of padded and cut ones the longer side of what is
    shown. That limit never takes S below image_size, for then the network would see less than the files have, unless
    even the median long side is shorter.
    """
    wanted = wanted_side(image_size, window)
    sizes = [framing.shown(*size) for size in _sample(table)]
    if not sizes:
        return wanted
    long = statistics.median(max(size) for size in sizes)
    short = statistics.median(min(size) for size in sizes) if framing.fit == "squash" else long
    return max(32, min(wanted, max(int(short) // 32 * 32, min(_up(image_size), _up(long)))))


def median_size(table: Table) -> tuple[int, int] | None:
    """Width and height of the original, or box, of middling aspect; None where no image can be read."""
    sizes = sorted(_sample(table), key=lambda size: size[1] / size[0])
    return sizes[len(sizes) // 2] if sizes else None


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


def open_cache(
    table: Table,
    config: DataConfig,
    folder: Path,
    framing: Framing = SQUASHED,
    *,
    progress: Progress | None = None,
) -> Cache:
    """The decoded images of `table` at side `config.size`; decodes them into `folder` where that was not done yet.

    Any number of processes may ask at once: one builds, calling `progress` with images done and in all, the others
    wait. A build that is killed leaves nothing that would be taken for whole, and the next one goes on with it.
    Opening a cache that is there takes one look at each image file, for its size and time. Raises DataError with
    every unreadable image, and EnvironmentFault where the disk is too small.
    """
    if config.size is None:
        raise ValueError("config.size is not set: take cache.side(...)")
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
        raise EnvironmentFault("the cache vanished while it was opened", where=str(place))
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
    """Discard the decoded images of `table` where a byte of them is not as it was written, or nobody can tell.

    Returns what is wrong, in words, or nothing; `open_cache` then decodes them anew. All of them are read, with
    `progress` in MB, unless they are more than `most` bytes: the machine's memory, when left out. What is read here
    the first epoch need not fetch from the disk; of more than the memory holds, it would have to.
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
    """What `config.cache` comes to for images of side `config.size`: raw pixels where there is room for them."""
    return _wanted(table, config, folder, framing)[0].kind


def _wanted(table: Table, config: DataConfig, folder: Path, framing: Framing) -> tuple[ImageFormat, Path]:
    """How the images are to be kept, and where. Raw pixels that are there are taken, and else those that have room.

    The name is of the content alone: neither labels nor splits, so that other questions about the images share it.
    """
    size = config.size or 0
    name = hashlib.sha256(f"{VERSION} {size} {stamp(table)}".encode()).hexdigest()[:16]
    raw, jpeg = ImageFormat.of(size, "raw", framing), ImageFormat.of(size, "jpeg", framing)
    place = folder / f"{name}-{raw.name}"
    automatic = config.cache == "auto" and (place.is_dir() or _fits(len(table.rows) * raw.bytes, place))
    return (raw, place) if config.cache == "raw" or automatic else (jpeg, folder / f"{name}-{jpeg.name}")


def _fits(need: int, place: Path) -> bool:
    """Whether so many bytes have room on the disk, and in the memory, without which each epoch would wait for it."""
    return need <= _memory() and need + SPARE <= _free(_building(place))


def _memory() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _free(building: Path) -> int:
    """Bytes that a build may use, those included that it has written before."""
    there = next(path for path in (building.parent, *building.parent.parents) if path.exists())
    written = sum(path.stat().st_blocks * 512 for path in building.glob("*"))
    return shutil.disk_usage(there).free + written


def _building(place: Path) -> Path:
    return place.with_name(f".{place.name}.building")


def _opened(place: Path, how: ImageFormat, count: int) -> Cache | None:
    """The cache at `place`, or None where it is not there whole."""
    levels, originals = how.opened(place, count), decoded_files.table(place / decoded_files.SIZES, (count, 2))
    return None if levels is None or originals is None else Cache(max(how.height, how.width), *levels, originals)


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
    """Remove a cache, under the name of an unfinished one first, so that no half of it is taken for whole.

    And no file of it for one that a build may go on with: what says which images are there goes before all.
    """
    (place / decoded_files.SIZES).unlink(missing_ok=True)
    rest = place if place.name.startswith(".") else _building(place)
    if rest != place:
        place.rename(rest)
    shutil.rmtree(rest)


def _build(table: Table, how: ImageFormat, place: Path, progress: Progress | None) -> None:
    """Decode into a folder of another name, which takes its own only when all of it is on disk.

    What a killed build of the same images left there is kept; rests of former states of the data set are removed.
    """
    temporary = _building(place)
    size = max(how.height, how.width)
    about = {"version": VERSION, "size": size, "images": len(table.rows), "root": str(table.root.resolve())}
    for rest in (*place.parent.glob(".*.building"), place):
        if rest != temporary and (rest == place or _root(rest) in ("", about["root"])):
            shutil.rmtree(rest, ignore_errors=True)
    temporary.mkdir(exist_ok=True)
    for rest in temporary.glob(".*.tmp"):  # of a write that was cut short
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
    """The data set that a cache is of; nothing where it does not say so."""
    try:
        return str(json.loads((folder / "meta.json").read_text())["root"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _enough_space(need: int, folder: Path) -> None:
    """EnvironmentFault where the disk has no room for `need` bytes, those in `folder` included."""
    free = _free(folder)
    if free < need:
        with suppress(OSError):
            folder.rmdir()  # of a build that wrote nothing yet
        raise EnvironmentFault(
            f"the decoded images need {need / 1e9:.2f} GB, and {free / 1e9:.2f} GB are free",
            where=str(folder.parent),
            help=f"free some; {OTHERWISE}",
        )
