"""Files that end with a digest of what stands before it, and arrays kept so; nothing here is ever unpickled."""

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
    """A file that knows the digest of what was written to it."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.digest = file, hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        return self.file.write(data)

    def flush(self) -> None:
        self.file.flush()


@contextmanager
def write_with_checksum(path: Path) -> Iterator[Hashing]:
    """A file that appears at `path` whole or not at all, its digest as its last 39 bytes."""
    with atomic_write(path) as file:
        hashing = Hashing(file)
        yield hashing
        file.write(MARK + hashing.digest.digest())


def checksum_ok(path: Path) -> bool:
    """Whether every byte of a file with a checksum is as it was written."""
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
    """Write a numpy array as .npy with its checksum; other programs read the array and stop before the digest."""
    with write_with_checksum(path) as file:
        np.save(file, array, allow_pickle=False)


def load_array(path: Path) -> np.ndarray:
    """The array of a .npy file; one that another program wrote has no digest, and is taken as it is.

    Raises EnvironmentFault where a byte is not as it was written, or where code would have to be run.
    """
    content = path.read_bytes()
    if content[-TAIL:].startswith(MARK) and not checksum_ok(path):
        raise _damaged(path)
    file = io.BytesIO(content)
    try:
        array: Any = np.load(file, allow_pickle=False)
    except Exception as error:  # a file of whoever's making breaks in every way there is
        raise _damaged(path) from error
    if not isinstance(array, np.ndarray) or len(content) - file.tell() not in (0, TAIL):
        raise _damaged(path)
    if (rest := content[file.tell() :]) and not rest.startswith(MARK):
        raise _damaged(path)
    return array


def _damaged(path: Path) -> EnvironmentFault:
    return EnvironmentFault(
        "this file is damaged", where=str(path), help="move it away; it is made again when it is needed"
    )
