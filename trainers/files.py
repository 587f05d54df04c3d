"""Writing files whole or not at all, and reading none that never ends."""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from trainers.crash import point

LARGEST = 1 << 30  # bytes of what is read in one piece


@contextmanager
def whole(path: Path) -> Iterator[BinaryIO]:
    """A binary file that appears at `path` complete, synced to disk, or does not appear at all.

    An exception inside the block, a full disk included, leaves what was at `path` before, and no rest.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        point(f"written {path.name}")
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    point(f"renamed {path.name}")
    sync_folder(path.parent)


def regular(path: Path) -> Path:
    """The same path, if a file of bearable size is there; a pipe or a device would never end. Raises OSError."""
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "not a file but a folder, a pipe or a device", str(path))
    if found.st_size > LARGEST:
        raise OSError(errno.EFBIG, f"a file of {found.st_size / 1e9:.1f} GB", str(path))
    return path


def write_text(path: Path, text: str) -> None:
    """Put UTF-8 `text` at `path`, whole or not at all."""
    with whole(path) as file:
        file.write(text.encode())


def sync_folder(folder: Path) -> None:
    """Make renames inside `folder` survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
