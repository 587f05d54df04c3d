"""The results of reading images, remembered by path, size and modification time."""

import hashlib
import io
import os
from collections.abc import Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path

import numpy as np

from trainers.data.table import Row
from trainers.support.files import atomic_write

RECORD = np.dtype(
    [("path", "<u8", 2), ("bytes", "<i8"), ("changed", "<i8"), ("width", "<i4"), ("height", "<i4"), ("digest", "V16")]
)
"""One image: a digest of its path, the size and time of its file and, if it is good, its pixels and a content digest.

An image that was not read, or is not good, has a width of 0.
"""
NONE = np.empty(0, dtype=RECORD)
DIGEST = hashlib.sha256().digest_size


def current(rows: Sequence[Row], root: Path) -> np.ndarray:
    """Return the current state of these rows' files, marked as not read, [N] of RECORD."""
    found = np.zeros(len(rows), dtype=RECORD)
    paths = b"".join([hashlib.blake2b(row.path.encode(), digest_size=16).digest() for row in rows])
    found["path"] = np.frombuffer(paths, dtype="<u8").reshape(-1, 2)
    states = chain.from_iterable(_state(f"{root}/{row.path}") for row in rows)
    found["bytes"], found["changed"] = np.fromiter(states, np.int64).reshape(-1, 2).T
    return found


def _state(path: str) -> tuple[int, int]:
    try:
        found = os.stat(path)  # noqa: PTH116 - creating a Path costs more than the call itself
    except OSError:
        return -1, 0
    return found.st_size, found.st_mtime_ns


def recall(records: np.ndarray, known: np.ndarray) -> None:
    """Fill in what is `known` about files that have not changed."""
    if not len(known):
        return
    at = np.searchsorted(known["path"][:, 0], records["path"][:, 0]).clip(max=len(known) - 1)
    same = (known["path"][at] == records["path"]).all(1)
    for name in ("bytes", "changed"):
        same &= known[name][at] == records[name]
    records[same] = known[at[same]]


def place(root: Path, cache: Path) -> Path:
    """Return the file in `cache` for the images below `root`."""
    return cache / "checked" / f"{hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:16]}.npy"


def read(path: Path) -> np.ndarray:
    """Return the saved records, sorted by path; none if the file is unreadable, damaged or of an earlier version."""
    with suppress(OSError):
        content = path.read_bytes()
        if hashlib.sha256(content[DIGEST:]).digest() == content[:DIGEST]:
            found: np.ndarray = np.load(io.BytesIO(content[DIGEST:]))
            if found.dtype == RECORD:
                return found
    return NONE


def write(path: Path, records: np.ndarray, known: np.ndarray) -> None:
    """Save the good images of `records`, and the `known` ones of other rows, which another table may list."""
    elsewhere = known[~np.isin(known["path"][:, 0], records["path"][:, 0])]
    kept = np.concatenate([records[records["width"] > 0], elsewhere])
    buffer = io.BytesIO()
    np.save(buffer, kept[np.argsort(kept["path"][:, 0], kind="stable")])
    with atomic_write(path) as file:
        file.write(hashlib.sha256(buffer.getbuffer()).digest())
        file.write(buffer.getbuffer())
