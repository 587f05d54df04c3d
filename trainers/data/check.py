"""Every fault of a data set, of its labels and its images, found in one pass."""

import hashlib
import json
import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache as memo
from pathlib import Path

from trainers.config import DataConfig
from trainers.data import layouts
from trainers.data.images import Progress, UnreadableImage, decode, map_rows, stamp
from trainers.data.summary import Summary, summary
from trainers.data.table import Row, Table, counted
from trainers.support.errors import DataError, Fault, folded
from trainers.support.files import regular, write_text


@dataclass(frozen=True)
class Findings:
    """A data set and what is to be said of it.

    `faults` must be mended before any training; `notes` are worth knowing and stop nothing. `gist` says the notes in
    few sentences, one for each kind.
    """

    table: Table
    held_out: bool  # val was chosen here
    faults: tuple[Fault, ...]
    notes: tuple[Fault, ...]
    gist: tuple[str, ...]

    def summary(self, config: DataConfig) -> Summary:
        """What was understood, in figures; `config` is how the data were read."""
        return summary(config, self.table, held_out=self.held_out, notes=self.gist)


@dataclass(frozen=True)
class _Look:
    """What one image showed: its fault if any, and the digest of its bytes unless it is missing."""

    fault: Fault | None = None
    missing: bool = False
    digest: bytes | None = None


@dataclass(frozen=True)
class _Looked:
    """What all images showed: the faults, and the places in the table of copies, each behind that of the first."""

    faults: list[Fault]
    copies: list[tuple[int, int]]


def check(config: DataConfig, progress: Progress | None = None) -> Findings:
    """Every fault of the label files and of each image, which is read and decoded whole; on all cores.

    `progress` is called with images done and images in all. Raises DataError only where there is no data set.
    """
    scan = layouts.scan(config)
    return _findings(scan, _look(scan.table, progress))


def ensure(config: DataConfig, cache: Path, progress: Progress | None = None) -> Findings:
    """A data set without faults, checked once for all its labels and images as they now are.

    That it was is noted in `cache`/checked. A change of a label file, or of the size or time of an image, means
    another check; another margin around the boxes does not, for boxes are judged as listed. Raises DataError with
    every fault.
    """
    scan = layouts.scan(config)
    seen = _seen(scan.table, cache)
    looked = None if scan.faults else _remembered(seen)
    if looked is None:
        looked = _look(scan.table, progress)
        if not scan.faults and not looked.faults:
            write_text(seen, json.dumps({"root": str(scan.table.root), "copies": looked.copies}))
    findings = _findings(scan, looked)
    if findings.faults:
        raise DataError(findings.faults)
    return replace(findings, table=layouts.with_margin(scan.table, config))


def _remembered(seen: Path) -> _Looked | None:
    """What was found when these images were looked at; None where they were not, or where nobody can tell."""
    try:
        copies = json.loads(seen.read_text())["copies"]
        return _Looked([], [(int(first), int(other)) for first, other in copies])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):  # of an earlier version, or damaged: look again
        return None


def _seen(table: Table, cache: Path) -> Path:
    key = hashlib.sha256(f"{table.fingerprint} {stamp(table)}".encode()).hexdigest()[:16]
    return cache / "checked" / f"{key}.json"


def _findings(scan: layouts.Scan, looked: _Looked) -> Findings:
    table, faults, notes, held_out = scan
    unseen_classes = [] if faults else _unseen_classes(table)  # some labels may not have been read
    copies = [(table.rows[first], table.rows[other]) for first, other in looked.copies]
    every = (*notes, *unseen_classes, *(_duplicate(first, row) for first, row in copies))
    gist = (*(note.what for note in (*notes, *unseen_classes)), *_copies(copies))
    return Findings(table, held_out, (*faults, *looked.faults), every, gist)


def _look(table: Table, progress: Progress | None) -> _Looked:
    """Every image of the table, read and decoded."""

    @memo
    def spellings(folder: Path) -> dict[str, str]:
        names = [p.name for p in folder.iterdir()] if folder.is_dir() else []
        return {Path(name).stem.lower(): name for name in names} | {name.lower(): name for name in names}

    def look(_: int, row: Row) -> _Look:
        path = table.root / row.path
        try:
            content = regular(path).read_bytes()
        except FileNotFoundError:
            known, stem = spellings(path.parent), path.stem.lower()
            other = known.get(path.name.lower()) or _other_path(table.root, row.path) or known.get(stem)
            return _Look(_fault(row, "is missing", f"did you mean {other!r}?" if other else ""), missing=True)
        except OSError as error:
            return _Look(_fault(row, f"cannot be read: {error.strerror}"))
        return _Look(_of_image(row, content), digest=hashlib.sha256(content).digest())

    looks = map_rows(table.rows, look, progress)
    if looks and all(look.missing for look in looks):
        where = f"none of the {len(looks)} images is there; the first is {table.rows[0].path!r}"
        first = looks[0].fault.help if looks[0].fault else ""
        found = [Fault(str(table.root), where, first or "are the images unpacked?")]
    else:
        found = list(folded((look.missing or look.fault, look.fault) for look in looks if look.fault))
    return _Looked(found, _duplicates(table.rows, looks))


def _other_path(root: Path, path: str) -> str | None:
    """The image that was meant where a path names a folder too much in front, or is followed by something else."""
    for other in (path.partition("/")[2], path.rpartition(" ")[0]):
        if other and other == other.strip("/") and os.path.isfile(root / other):  # noqa: PTH113  it never raises
            return other
    return None


def _of_image(row: Row, content: bytes) -> Fault | None:
    try:
        width, height = decode(content).size
    except UnreadableImage as error:
        return _fault(row, str(error))
    if row.box and (row.box[2] > width or row.box[3] > height):
        return _fault(row, f"has {width} x {height} pixels, and its box ends at {row.box[2]}, {row.box[3]}")
    return None


def _fault(row: Row, what: str, help: str = "") -> Fault:
    return Fault(row.where, f"{row.path!r} {what}", help)


def _duplicates(rows: Sequence[Row], looks: Sequence[_Look]) -> list[tuple[int, int]]:
    """Images that are the same byte for byte, the first and another; honest data sets have some."""
    groups: dict[bytes, list[int]] = defaultdict(list)
    for index, look in enumerate(looks):
        if look.digest and not look.fault:
            groups[look.digest].append(index)
    pairs = ((first, other) for first, *others in groups.values() for other in others)
    return [(first, other) for first, other in pairs if rows[first].path != rows[other].path]


def _copies(duplicates: Sequence[tuple[Row, Row]]) -> list[str]:
    """In one sentence, how many there are, and how many of them make a figure look better than it is."""
    across = Counter(f"{a.split} and {b.split}" for a, b in duplicates if a.split != b.split)
    disagree = sum(a.labels is not None and b.labels is not None and a.labels != b.labels for a, b in duplicates)
    more = [f"{count} across {splits}" for splits, count in across.items()]
    more += [f"{disagree} with other labels"] if disagree else []
    what = f"{len(duplicates)} images are copies of others" if len(duplicates) > 1 else "1 image is a copy of another"
    return [f"{what} ({', '.join(more)})" if more else what] if duplicates else []


def _duplicate(first: Row, row: Row) -> Fault:
    across = f", across {first.split} and {row.split}" if first.split != row.split else ""
    known = first.labels is not None and row.labels is not None
    labels = ", with other labels" if known and first.labels != row.labels else ""
    return _fault(row, f"is byte for byte {first.path!r}{across}{labels}", f"listed at {first.where}")


def _unseen_classes(table: Table) -> list[Fault]:
    return [Fault(str(table.root), f"no training image shows {what}") for what in unseen(table)]


def unseen(table: Table) -> list[str]:
    """Every class without a training image, in words: 'lattice' of texture."""
    seen = counted(table.split("train"), table.categories)
    return [
        f"{name!r} of {category.name}"
        for c, category in enumerate(table.categories)
        for k, name in enumerate(category.classes)
        if (c, k) not in seen
    ]
