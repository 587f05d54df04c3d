"""Files with a digest of their content: at their end, or in the notes of weights. Nothing is unpickled."""

import hashlib
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from safetensors import SafetensorError, safe_open

from trainers.support.errors import EnvironmentFault
from trainers.support.files import atomic_write

MARK = b"sha256:"
TAIL = len(MARK) + 32
BLANK = "0" * 64  # placeholder for the digest of a weights file


class Hashing:
    """A file that computes the digest of what is written to it."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.digest = file, hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        return self.file.write(data)

    def flush(self) -> None:
        self.file.flush()


@contextmanager
def write_with_checksum(path: Path) -> Iterator[Hashing]:
    """Write a file atomically at `path`, with its digest as its last 39 bytes."""
    with atomic_write(path) as file:
        hashing = Hashing(file)
        yield hashing
        file.write(MARK + hashing.digest.digest())


def checksum_ok(path: Path) -> bool:
    """True if every byte of a file with a checksum is as it was written."""
    size = path.stat().st_size - TAIL
    if size <= 0:
        return False
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while size and (chunk := file.read(min(size, 1 << 20))):
            digest.update(chunk)
            size -= len(chunk)
        return file.read() == MARK + digest.digest()


def save_array(path: Path, array: np.ndarray) -> None:
    """Write a numpy array as .npy with a checksum; other programs read the array and stop before the checksum."""
    with write_with_checksum(path) as file:
        np.save(file, array, allow_pickle=False)


def load_array(path: Path) -> np.ndarray:
    """Return the array of a .npy file; a file from another program has no checksum and is read as it is.

    Raises EnvironmentFault if a byte has changed since it was written, or if code would have to be run.
    """
    content = path.read_bytes()
    if content[-TAIL:].startswith(MARK) and not checksum_ok(path):
        raise _damaged(path)
    file = io.BytesIO(content)
    try:
        array: Any = np.load(file, allow_pickle=False)
    except Exception as error:  # a file from elsewhere can fail in any way
        raise _damaged(path) from error
    if not isinstance(array, np.ndarray) or len(content) - file.tell() not in (0, TAIL):
        raise _damaged(path)
    if (rest := content[file.tell() :]) and not rest.startswith(MARK):
        raise _damaged(path)
    return array


def _damaged(path: Path) -> EnvironmentFault:
    return EnvironmentFault(
        "this file is damaged", where=str(path), help="move it away; it is recreated when it is needed"
    )


# ------------------------------------------------------------------------------------------- weights
def weights_ok(path: Path) -> bool:
    """True if `path` is a safetensors file, and every byte is as it was written."""
    try:
        return as_written(path)
    except (OSError, SafetensorError, ValueError):
        return False


def as_written(path: Path) -> bool:
    """True if a weights file has the digest recorded in its notes, or records none, as files of other programs.

    Raises OSError or SafetensorError if it cannot be read, and ValueError for notes that are not JSON.
    """
    told = notes_of(path).get("sha256")
    if not isinstance(told, str) or len(told) != len(BLANK):
        return True
    with path.open("rb") as file:
        start = file.read(8)
        header = file.read(int.from_bytes(start, "little"))
        digest = hashlib.sha256(start + header.replace(told.encode(), BLANK.encode(), 1))
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest() == told


def notes_of(path: Path) -> dict[str, Any]:
    """Return the notes that were stored with the weights, with the digest; empty if there are none."""
    with safe_open(path, framework="numpy") as file:
        notes: Any = json.loads((file.metadata() or {}).get("sweep", "{}"))
    return notes if isinstance(notes, dict) else {}
