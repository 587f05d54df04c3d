"""Files that end with a digest of their content, and arrays stored this way; nothing here is ever unpickled."""

import hashlib
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from trainers.support.errors import EnvironmentFault
from trainers.support.files import atomic_write

MARK = b"sha256:"
TAIL = len(MARK) + 32


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
