"""Every fault of a data set, of its labels and its images, found in one pass."""

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
    """A data set and what is to be said of it: `faults` must be mended before any training."""

    table: Table
    held_out: bool  # val was chosen here
    faults: tuple[Fault, ...]
    remarks: tuple[Fault, ...]  # worth knowing of the labels, and of what is remembered
    copies: tuple[tuple[int, int], ...] = ()  # places in the table of identical images, each behind that of the first
    pixels: PixelSummary | None = None  # of the images, or of their boxes
    read_as: tuple[str, ...] = ()

    @property
    def notes(self) -> list[Fault]:
        """Everything that is worth knowing and stops nothing, each for itself."""
        rows = self.table.rows
        return [*self.remarks, *(_copy(rows[first], rows[other]) for first, other in self.copies)]

    @cached_property
    def kinds(self) -> list[tuple[Fault, int]]:
        """The notes folded, one for each kind, and how many it stands for."""
        pairs = [(self.table.rows[first], self.table.rows[other]) for first, other in self.copies]
        copies = [Fault(str(self.table.root), _copies(pairs))] if len(pairs) > 1 else [_copy(*pair) for pair in pairs]
        return [*alike(self.remarks), *((copy, len(pairs)) for copy in copies)]

    def summary(self, config: DataConfig) -> Summary:
        """What was understood, in figures, with the notes in a sentence for each kind; `config`: how it was read."""
        notes = [note.what for note, _ in self.kinds]
        found = summary(config, self.table, held_out=self.held_out, notes=notes, is_whole=not self.faults)
        return found.model_copy(update={"pixels": self.pixels, "read_as": self.read_as})


@dataclass(frozen=True)
class _Bad:
    """What is wrong with one image."""

    fault: Fault
    missing: bool = False


@dataclass(frozen=True)
class _Looked:
    """What all images showed: the faults, what to note, identical ones, and their pixels."""

    faults: list[Fault]
    notes: list[Fault]
    copies: list[tuple[int, int]]
    pixels: PixelSummary | None


def check(
    config: DataConfig, progress: Progress | None = None, *, cache: Path | None = None, again: bool = False
) -> Findings:
    """Every fault of the label files and of each image, which is read and decoded whole; on all cores.

    What was found of an image is remembered in `cache`/checked, and holds as long as size and time of its file are
    the same; images with faults, and `again` all of them, are looked at every time. `progress` is called with images
    done and images in all. Raises DataError only where there is no data set.
    """
    scanned = layouts.scan(config)
    table, _, notes, held_out, read_as = scanned
    faults = [*scanned.faults, *layouts.unsteady(config, scanned)]
    looked = _look(table, progress, cache, again=again)
    unseen_classes = [] if faults else _unseen_classes(table)  # some labels may not have been read
    remarks = (*notes, *unseen_classes, *looked.notes)
    every = (*faults, *looked.faults)
    return Findings(table, held_out, every, remarks, tuple(looked.copies), looked.pixels, tuple(read_as))


def ensure(config: DataConfig, cache: Path, progress: Progress | None = None) -> Findings:
    """A data set without faults, as `check` finds it; its boxes have their margin. Raises DataError with every fault.

    Another margin around the boxes means no other check, for boxes are judged as listed.
    """
    found = check(config, progress, cache=cache)
    if found.faults:
        raise DataError(found.faults)
    return replace(found, table=layouts.with_margin(found.table, config))


def _look(table: Table, progress: Progress | None, cache: Path | None, *, again: bool) -> _Looked:
    """Every image of the table, read and decoded unless it is remembered."""
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
    finally:  # what was seen before an interrupt need not be seen again
        if place and len(unknown):
            notes += _remember(place, seen, known)
    bad |= {at: _Bad(fault) for at, fault in _boxes(table.rows, seen) if at not in bad}
    seen["width"][list(bad)] = 0
    return _Looked(_faults(table, bad), notes, _duplicates(table.rows, seen), _pixels(table.rows, seen))


def _look_at(table: Table, seen: np.ndarray, places: np.ndarray, progress: Progress | None) -> list[_Bad | None]:
    """What is wrong with the images at these places of the table; `seen` is filled in for each good one."""

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
            record["height"], record["width"] = size[1], size[0]  # the width last: it says that the rest is there
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
    """Keep what was seen; a note where that is not possible, for the check itself needs it not."""
    try:
        image_records.write(place, seen, known)
    except OSError as error:
        what = f"what was found of the images cannot be remembered: {error.strerror}"
        yield Fault(str(place.parent), what, "the next check looks at all of them again")


def _boxes(rows: Sequence[Row], seen: np.ndarray) -> Iterator[tuple[int, Fault]]:
    """The places of rows whose box ends outside the image."""
    for at, row in enumerate(rows):
        if row.box and seen["width"][at]:
            width, height = int(seen["width"][at]), int(seen["height"][at])
            if row.box[2] > width or row.box[3] > height:
                what = f"has {width} x {height} pixels, and its box ends at {row.box[2]}, {row.box[3]}"
                yield at, _fault(row, what)


def _faults(table: Table, bad: dict[int, _Bad]) -> list[Fault]:
    """The faults of the images, in the order of the table; one where not a single image is there."""
    if bad and len(bad) == len(table.rows) and all(one.missing for one in bad.values()):
        where = f"none of the {len(bad)} images is there; the first is {table.rows[0].path!r}"
        return [Fault(str(table.root), where, bad[0].fault.help or "are the images unpacked?")]
    return list(folded((one.missing or one.fault, one.fault) for _, one in sorted(bad.items())))


def _pixels(rows: Sequence[Row], seen: np.ndarray) -> PixelSummary | None:
    """The sizes of the good images, or of the boxes that they are cut to."""
    sizes = np.stack([seen["width"], seen["height"]], axis=1)
    for at, row in enumerate(rows):
        if row.box:
            sizes[at] = row.box[2] - row.box[0], row.box[3] - row.box[1]
    return pixels(sizes[seen["width"] > 0])


def _other_path(root: Path, path: str) -> str | None:
    """The image that was meant where a path names a folder too much in front, or is followed by something else."""
    for other in (path.partition("/")[2], path.rpartition(" ")[0]):
        if other and other == other.strip("/") and os.path.isfile(root / other):  # noqa: PTH113  it never raises
            return other
    return None


def _fault(row: Row, what: str, help: str = "") -> Fault:
    return Fault(row.where, f"{row.path!r} {what}", help)


def _duplicates(rows: Sequence[Row], seen: np.ndarray) -> list[tuple[int, int]]:
    """Images that are the same byte for byte, the first and another; honest data sets have some."""
    first: dict[bytes, int] = {}
    good = np.flatnonzero(seen["width"])
    pairs = (
        (first.setdefault(digest, at), at)
        for at, digest in zip(good.tolist(), seen["digest"][good].tolist(), strict=True)
    )
    return sorted((one, other) for one, other in pairs if rows[one].path != rows[other].path)


def _copies(duplicates: Sequence[tuple[Row, Row]]) -> str:
    """In one sentence, how many pairs there are, and how many of them make a figure look better than it is."""
    across = Counter[frozenset[str]]()
    for splits, count in Counter([(a.split, b.split) for a, b in duplicates]).items():
        across[frozenset(splits)] += count
    disagree = sum(a.labels is not None and b.labels is not None and a.labels != b.labels for a, b in duplicates)
    more = [
        f", {count:,} across {' and '.join(sorted(two, key=SPLITS.index))}"
        for two, count in across.items()
        if len(two) > 1
    ]
    more += [f", {disagree:,} with other labels"] if disagree else []
    return f"{len(duplicates):,} pairs of identical images{''.join(more)}"


def _copy(first: Row, row: Row) -> Fault:
    across = f", across {first.split} and {row.split}" if first.split != row.split else ""
    known = first.labels is not None and row.labels is not None
    labels = ", with other labels" if known and first.labels != row.labels else ""
    return _fault(row, f"is byte for byte {first.path!r}{across}{labels}", f"listed at {first.where}")


def alike(notes: Sequence[Fault]) -> Iterator[tuple[Fault, int]]:
    """One note for each kind, the first of those with the same help, and how many it stands for."""
    kinds: dict[str, list[Fault]] = {}
    for note in notes:
        kinds.setdefault(note.help or note.what, []).append(note)
    for first, *others in kinds.values():
        what = f"{first.what}, and {len(others):,} more of this kind" if others else first.what
        yield Fault(first.where, what, first.help), 1 + len(others)


def _unseen_classes(table: Table) -> list[Fault]:
    help = "give it training images, or take it out of the classes"
    return [Fault(str(table.root), f"no training image shows {what}", help) for what in unseen(table)]


def unseen(table: Table) -> list[str]:
    """Every class without a training image, in words: 'lattice' of texture."""
    seen = counted(table.split("train"), table.categories)
    return [
        f"{name!r} of {category.name}"
        for c, category in enumerate(table.categories)
        for k, name in enumerate(category.classes)
        if (c, k) not in seen
    ]
