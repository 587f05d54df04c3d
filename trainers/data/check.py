"""Find every fault in a data set, in its labels and its images, in one pass."""

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache as memo
from functools import cached_property
from pathlib import Path

import numpy as np

from trainers.data import image_records, layouts
from trainers.data.images import Progress, UnreadableImage, decode, map_rows
from trainers.data.summary import PixelSummary, Summary, pixels, summary
from trainers.data.table import SPLITS, Row, Table, counted
from trainers.data_config import DataConfig
from trainers.support.errors import DataError, Fault, folded
from trainers.support.files import regular


@dataclass(frozen=True)
class Findings:
    """A data set and the result of checking it; `faults` must be fixed before any training."""

    table: Table
    held_out: bool  # val was held out from train, because the data set has none
    faults: tuple[Fault, ...]
    remarks: tuple[Fault, ...]  # notes on the labels, and on results that could not be saved
    copies: tuple[tuple[int, int], ...] = ()  # positions of identical images in the table: first, copy
    pixels: PixelSummary | None = None  # sizes of the images, or of their boxes
    read_as: tuple[str, ...] = ()

    @property
    def notes(self) -> list[Fault]:
        """All notes, one by one. They are worth knowing but stop nothing."""
        rows = self.table.rows
        return [*self.remarks, *(_copy(rows[first], rows[other]) for first, other in self.copies)]

    @cached_property
    def kinds(self) -> list[tuple[Fault, int]]:
        """The notes folded into one per kind, with the number of notes that each stands for."""
        pairs = [(self.table.rows[first], self.table.rows[other]) for first, other in self.copies]
        copies = [Fault(str(self.table.root), _copies(pairs))] if len(pairs) > 1 else [_copy(*pair) for pair in pairs]
        return [*alike(self.remarks), *((copy, len(pairs)) for copy in copies)]

    def summary(self, config: DataConfig) -> Summary:
        """Summarise the data set in figures, with one sentence per kind of note; `config` is how it was read."""
        notes = [note.what for note, _ in self.kinds]
        found = summary(config, self.table, held_out=self.held_out, notes=notes, is_whole=not self.faults)
        return found.model_copy(update={"pixels": self.pixels, "read_as": self.read_as})


@dataclass(frozen=True)
class _Bad:
    """The fault of one image, and whether its file is missing."""

    fault: Fault
    missing: bool = False


@dataclass(frozen=True)
class _Looked:
    """The result of reading all images: faults, notes, identical images, and a summary of their sizes."""

    faults: list[Fault]
    notes: list[Fault]
    copies: list[tuple[int, int]]
    pixels: PixelSummary | None


def check(
    config: DataConfig, progress: Progress | None = None, *, cache: Path | None = None, again: bool = False
) -> Findings:
    """Find every fault in the label files and in each image, which is read and decoded in full, on all cores.

    The result for an image is remembered in `cache`/checked and stays valid while the size and modification time of
    its file are unchanged. Images with faults are read every time; with `again`, all images are. `progress` is called
    with the number of images done and the total. Raises DataError only if there is no data set.
    """
    scanned = layouts.scan(config)
    table, _, notes, held_out, read_as = scanned
    faults = [*scanned.faults, *layouts.unsteady(config, scanned)]
    looked = _look(table, progress, cache, again=again)
    unseen_classes = [] if faults else _unseen_classes(table)  # with faults, some labels may not have been read
    remarks = (*notes, *unseen_classes, *looked.notes)
    every = (*faults, *looked.faults)
    return Findings(table, held_out, every, remarks, tuple(looked.copies), looked.pixels, tuple(read_as))


def ensure(config: DataConfig, cache: Path, progress: Progress | None = None) -> Findings:
    """Return a data set without faults, as `check` finds it, with the margin added to its boxes.

    Raises DataError with every fault. A different margin needs no new check, because boxes are judged as listed.
    """
    found = check(config, progress, cache=cache)
    if found.faults:
        raise DataError(found.faults)
    return replace(found, table=layouts.with_margin(found.table, config))


def _look(table: Table, progress: Progress | None, cache: Path | None, *, again: bool) -> _Looked:
    """Read and decode every image of the table whose result is not remembered."""
    place = image_records.place(table.root, cache) if cache else None
    known = image_records.read(place) if place else image_records.NONE
    seen = image_records.current(table.rows, table.root)
    if not again:
        image_records.recall(seen, known)
    unknown, notes = np.flatnonzero(seen["width"] == 0), list[Fault]()
    bad: dict[int, _Bad] = {}
    try:
        for at, one in zip(unknown, _look_at(table, seen, unknown, progress), strict=True):
            if one:
                bad[int(at)] = one
    finally:  # after an interruption, the images read so far need not be read again
        if place and len(unknown):
            notes += _remember(place, seen, known)
    bad |= {at: _Bad(fault) for at, fault in _boxes(table.rows, seen) if at not in bad}
    seen["width"][list(bad)] = 0
    return _Looked(_faults(table, bad), notes, _duplicates(table.rows, seen), _pixels(table.rows, seen))


def _look_at(table: Table, seen: np.ndarray, places: np.ndarray, progress: Progress | None) -> list[_Bad | None]:
    """Return the fault, or None, of each image at these positions of the table; fill in `seen` for each good one."""

    @memo
    def spellings(folder: Path) -> dict[str, str]:
        names = [p.name for p in folder.iterdir()] if folder.is_dir() else []
        return {Path(name).stem.lower(): name for name in names} | {name.lower(): name for name in names}

    def look(at: int, row: Row) -> _Bad | None:
        path, record = table.root / row.path, seen[places[at]]
        try:
            content = regular(path).read_bytes()
            size = decode(content).size
            record["digest"] = hashlib.sha256(content).digest()[:16]
            record["height"], record["width"] = size[1], size[0]  # the width last: it marks the rest as present
        except FileNotFoundError:
            known, stem = spellings(path.parent), path.stem.lower()
            other = known.get(path.name.lower()) or _other_path(table.root, row.path) or known.get(stem)
            return _Bad(_fault(row, "is missing", f"did you mean {other!r}?" if other else ""), missing=True)
        except UnreadableImage as error:
            return _Bad(_fault(row, str(error)))
        except OSError as error:
            return _Bad(_fault(row, f"cannot be read: {error.strerror}"))
        return None

    return map_rows([table.rows[at] for at in places], look, progress)


def _remember(place: Path, seen: np.ndarray, known: np.ndarray) -> Iterator[Fault]:
    """Save what was seen, or yield a note if that fails; the check itself does not need it."""
    try:
        image_records.write(place, seen, known)
    except OSError as error:
        what = f"the results for the images cannot be saved: {error.strerror}"
        yield Fault(str(place.parent), what, "the next check reads all images again")


def _boxes(rows: Sequence[Row], seen: np.ndarray) -> Iterator[tuple[int, Fault]]:
    """Yield the position and the fault of each row whose box extends beyond its image."""
    for at, row in enumerate(rows):
        if row.box and seen["width"][at]:
            width, height = int(seen["width"][at]), int(seen["height"][at])
            if row.box[2] > width or row.box[3] > height:
                what = f"has {width} x {height} pixels, but its box ends at {row.box[2]}, {row.box[3]}"
                yield at, _fault(row, what)


def _faults(table: Table, bad: dict[int, _Bad]) -> list[Fault]:
    """Return the faults of the images in table order, or a single fault if every image is missing."""
    if bad and len(bad) == len(table.rows) and all(one.missing for one in bad.values()):
        where = f"none of the {len(bad)} images exists; the first is {table.rows[0].path!r}"
        return [Fault(str(table.root), where, bad[0].fault.help or "are the images unpacked?")]
    return list(folded((one.missing or one.fault, one.fault) for _, one in sorted(bad.items())))


def _pixels(rows: Sequence[Row], seen: np.ndarray) -> PixelSummary | None:
    """Summarise the sizes of the good images, or of the boxes they are cropped to."""
    sizes = np.stack([seen["width"], seen["height"]], axis=1)
    for at, row in enumerate(rows):
        if row.box:
            sizes[at] = row.box[2] - row.box[0], row.box[3] - row.box[1]
    return pixels(sizes[seen["width"] > 0])


def _other_path(root: Path, path: str) -> str | None:
    """Return the image that was meant by a path with an extra folder in front, or with text after a blank."""
    for other in (path.partition("/")[2], path.rpartition(" ")[0]):
        if other and other == other.strip("/") and os.path.isfile(root / other):  # noqa: PTH113  isfile never raises
            return other
    return None


def _fault(row: Row, what: str, help: str = "") -> Fault:
    return Fault(row.where, f"{row.path!r} {what}", help)


def _duplicates(rows: Sequence[Row], seen: np.ndarray) -> list[tuple[int, int]]:
    """Return pairs of byte-identical images: first, copy. Legitimate data sets have some."""
    first: dict[bytes, int] = {}
    good = np.flatnonzero(seen["width"])
    pairs = (
        (first.setdefault(digest, at), at)
        for at, digest in zip(good.tolist(), seen["digest"][good].tolist(), strict=True)
    )
    return sorted((one, other) for one, other in pairs if rows[one].path != rows[other].path)


def _copies(duplicates: Sequence[tuple[Row, Row]]) -> str:
    """Describe how many pairs there are, and how many of them make a score look better than it is."""
    across = Counter[frozenset[str]]()
    for splits, count in Counter([(a.split, b.split) for a, b in duplicates]).items():
        across[frozenset(splits)] += count
    disagree = sum(a.labels is not None and b.labels is not None and a.labels != b.labels for a, b in duplicates)
    more = [
        f", {count:,} across {' and '.join(sorted(two, key=SPLITS.index))}"
        for two, count in across.items()
        if len(two) > 1
    ]
    more += [f", {disagree:,} with different labels"] if disagree else []
    return f"{len(duplicates):,} pairs of identical images{''.join(more)}"


def _copy(first: Row, row: Row) -> Fault:
    across = f", across {first.split} and {row.split}" if first.split != row.split else ""
    known = first.labels is not None and row.labels is not None
    labels = ", with different labels" if known and first.labels != row.labels else ""
    return _fault(row, f"is byte for byte the same as {first.path!r}{across}{labels}", f"listed at {first.where}")


def alike(notes: Sequence[Fault]) -> Iterator[tuple[Fault, int]]:
    """Yield one note per kind, the first of those with the same help, and how many notes it stands for."""
    kinds: dict[str, list[Fault]] = {}
    for note in notes:
        kinds.setdefault(note.help or note.what, []).append(note)
    for first, *others in kinds.values():
        what = f"{first.what}, and {len(others):,} more of this kind" if others else first.what
        yield Fault(first.where, what, first.help), 1 + len(others)


def _unseen_classes(table: Table) -> list[Fault]:
    help = "add training images of it, or remove it from the classes"
    return [Fault(str(table.root), f"no training image shows {what}", help) for what in unseen(table)]


def unseen(table: Table) -> list[str]:
    """Return every class without a training image, in words: 'lattice' of texture."""
    seen = counted(table.split("train"), table.categories)
    return [
        f"{name!r} of {category.name}"
        for c, category in enumerate(table.categories)
        for k, name in enumerate(category.classes)
        if (c, k) not in seen
    ]
