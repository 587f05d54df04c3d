"""Every fault of a data set, of its labels and its images, found in one pass."""

import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cache as memo
from pathlib import Path

from trainers.config import DataConfig
from trainers.data import layouts
from trainers.data.images import Progress, UnreadableImage, decode, over, stamp
from trainers.data.rows import Row, Table
from trainers.errors import DataError, Fault, folded
from trainers.files import regular, write_text


@dataclass(frozen=True)
class Findings:
    """`faults` must be mended before any training; `notes` are worth knowing and stop nothing."""

    faults: tuple[Fault, ...]
    notes: tuple[Fault, ...]


@dataclass(frozen=True)
class _Look:
    """What one image showed: its fault if any, and the digest of its bytes unless it is missing."""

    fault: Fault | None = None
    missing: bool = False
    digest: bytes | None = None


def check(config: DataConfig, progress: Progress | None = None) -> Findings:
    """Every fault of the label files and of each image, which is read and decoded whole; on all cores.

    `progress` is called with images done and images in all. Raises DataError only where there is no data set.
    """
    return _findings(layouts.scan(config), progress)


def ensure(config: DataConfig, cache: Path, progress: Progress | None = None) -> Table:
    """The table of a data set without faults, checked once for all its labels and images as they now are.

    That it was is noted in `cache`/checked. A change of a label file, or of the size or time of an image, means
    another check; another margin around the boxes does not, for boxes are judged as listed. Raises DataError with
    every fault.
    """
    found = layouts.scan(config)
    table = found.table
    seen = _seen(table, cache)
    if not found.faults and seen.exists():
        return layouts.with_margin(table, config)
    findings = _findings(found, progress)
    if findings.faults:
        raise DataError(findings.faults)
    notes = [asdict(note) for note in findings.notes]
    write_text(seen, json.dumps({"root": str(table.root), "images": len(table.rows), "notes": notes}, indent=1))
    return layouts.with_margin(table, config)


def _seen(table: Table, cache: Path) -> Path:
    key = hashlib.sha256(f"{table.fingerprint} {stamp(table)}".encode()).hexdigest()[:16]
    return cache / "checked" / f"{key}.json"


def _findings(scan: layouts.Scan, progress: Progress | None) -> Findings:
    table, faults, notes = scan

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

    looks = over(table.rows, look, progress)
    if looks and all(look.missing for look in looks):
        where = f"none of the {len(looks)} images is there; the first is {table.rows[0].path!r}"
        first = looks[0].fault.help if looks[0].fault else ""
        found = [Fault(str(table.root), where, first or "are the images unpacked?")]
    else:
        found = list(folded((look.missing or look.fault, look.fault) for look in looks if look.fault))
    digests = [(r, look.digest) for r, look in zip(table.rows, looks, strict=True) if look.digest and not look.fault]
    unseen_classes = [] if faults else _unseen_classes(table)  # some labels may not have been read
    return Findings((*faults, *found), (*notes, *unseen_classes, *_twins(digests)))


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


def _twins(digests: Iterable[tuple[Row, bytes]]) -> list[Fault]:
    """Images that are the same byte for byte: an honest data set has some, so they stop nothing."""
    groups: dict[bytes, list[Row]] = defaultdict(list)
    for row, digest in digests:
        groups[digest].append(row)
    return [_twin(first, row) for first, *others in groups.values() for row in others if row.path != first.path]


def _twin(first: Row, row: Row) -> Fault:
    across = f", across {first.split} and {row.split}" if first.split != row.split else ""
    known = first.labels is not None and row.labels is not None
    labels = ", with other labels" if known and first.labels != row.labels else ""
    return _fault(row, f"is byte for byte {first.path!r}{across}{labels}", f"listed at {first.where}")


def _unseen_classes(table: Table) -> list[Fault]:
    return [Fault(str(table.root), f"no training image shows {what}") for what in unseen(table)]


def unseen(table: Table) -> list[str]:
    """Every class without a training image, in words: 'lattice' of texture."""
    train = [row.labels for row in table.split("train") if row.labels]
    seen = {answer for labels in train for answer in enumerate(labels)}
    return [
        f"{name!r} of {category.name}"
        for c, category in enumerate(table.categories)
        for k, name in enumerate(category.classes)
        if (c, k) not in seen
    ]
